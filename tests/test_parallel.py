"""What is laid on the devices belongs to them."""

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.parallel import replicated, update_step


def aligned(shape):
    """Ones, where a CPU device would take NumPy's memory for its own."""
    room = np.zeros(4 * np.prod(shape) + 64, np.uint8)
    begin = -room.ctypes.data % 64
    array = room[begin : begin + 4 * np.prod(shape)].view(np.float32).reshape(shape)
    array[:] = 1.0
    return array


def places(array):
    return {shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}


def test_a_state_shares_memory_with_nothing_it_was_made_of_nor_within_itself():
    numpy, ours = aligned((256, 64)), jnp.full((256, 64), 2.0)
    assert jax.device_put(numpy).unsafe_buffer_pointer() == numpy.ctypes.data  # what could happen
    found = replicated((numpy, numpy, ours, ours))
    held = [place for array in found for place in places(array)]
    assert len(set(held)) == len(held) == 4 * jax.local_device_count()
    assert not {numpy.ctypes.data, ours.unsafe_buffer_pointer()} & set(held)


def test_what_is_donated_leaves_its_sources_as_they_were():
    numpy, ours = aligned((256, 64)), jnp.full((256, 64), 2.0)
    state = replicated((numpy, ours))
    jax.block_until_ready(jax.jit(lambda x, y: (x + 5, y + 5), donate_argnums=(0, 1))(*state))
    assert all(array.is_deleted() for array in state)
    assert (numpy == 1.0).all() and (np.asarray(ours) == 2.0).all()


def test_an_update_is_traced_once_though_it_is_compiled_before_its_first_call():
    traced = []

    def update(state, batch):
        traced.append(batch.shape)
        return state + 1.0, state

    step, state = update_step(update), replicated(np.float32(0))
    batches = np.zeros((jax.local_device_count(), 1, 4), np.float32)
    for _ in range(3):
        state, before = step(state, batches)
    assert traced == [(4,)]
    assert (float(state), before.tolist()) == (3.0, [2.0])
