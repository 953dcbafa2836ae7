"""The random numbers are JAX's, however they are computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.keys import stream
from score_jax.threefry import unrolled

DRAWS = {
    "normals": lambda key: jax.random.normal(key, (3, 5)),
    "uniforms": lambda key: jax.random.uniform(key, (7,)),
    "one number": jax.random.normal,
    "none": lambda key: jax.random.normal(key, (0, 2)),
    "coins": lambda key: jax.random.bernoulli(key, 0.3, (64,)),
    "a permutation": lambda key: jax.random.permutation(key, 40),
    "integers": lambda key: jax.random.randint(key, (9,), -5, 1000),
    "bytes": lambda key: jax.random.bits(key, (33,), jnp.uint8),
    "words of 16 bits": lambda key: jax.random.bits(key, (33,), jnp.uint16),
    "a key of four": lambda key: jax.random.key_data(jax.random.split(key, (2, 2))),
    "a key of a place": lambda key: jax.random.key_data(jax.random.fold_in(key, 2**31 + 5)),
    "a key of a negative place": lambda key: jax.random.key_data(
        jax.random.fold_in(key, jnp.int32(-3))
    ),
    "cut to a range": lambda key: jax.random.truncated_normal(key, -2, 2, (11,)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("seed", [0, 7, 2**31 + 11, -1])
def test_a_draw_is_that_of_jax_bit_for_bit(draw, seed):
    key = jax.random.key(seed)
    np.testing.assert_array_equal(draw(unrolled(key)), draw(key))


def test_numbers_of_64_bits_are_those_of_jax():
    with jax.enable_x64(True):
        key = jax.random.key(2**40 + 3)
        for draw in (jax.random.normal, jax.random.uniform):
            ours = draw(unrolled(key), (5, 2), jnp.float64)
            np.testing.assert_array_equal(ours, draw(key, (5, 2), jnp.float64))


def test_many_keys_draw_at_once_what_each_draws_alone():
    keys = jax.random.split(jax.random.key(1), 6)
    draw = lambda key: jax.random.normal(jax.random.fold_in(unrolled(key), 4), (2,))
    alone = np.stack([draw(key) for key in keys])
    np.testing.assert_array_equal(jax.jit(jax.vmap(draw))(keys), alone)


def test_a_key_may_be_unrolled_twice_and_one_of_another_kind_stays_as_it_is():
    once = unrolled(jax.random.key(0))
    assert unrolled(once) is once
    other = jax.random.key(0, impl="rbg")
    assert unrolled(other) is other


def test_an_accelerator_keeps_the_hash_that_jax_has_for_it(monkeypatch):
    key = jax.random.key(0)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert unrolled(key) is key


def test_no_loop_is_left_of_a_stream_on_a_cpu():
    draw = lambda key: jax.random.normal(key, (100,))
    program = lambda key: jax.jit(draw).lower(key).compile().as_text()
    assert " while(" in program(jax.random.key(0))
    assert " while(" not in program(stream(0, "samples"))


def test_more_numbers_than_a_word_counts_are_left_to_jax():
    """One word would count 2**32 numbers and then count them again."""
    lowered = lambda n: jax.jit(lambda key: jax.random.bits(key, (n, 2**16))).lower
    text = lambda n: lowered(n)(unrolled(jax.random.key(0))).as_text()
    assert "while" not in text(2**16 - 1)
    assert "while" in text(2**16)
