"""Clipping and Adam, a leaf at a time, against optax of the whole tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_jax.sections import Training
from score_jax.training.optimizer import descent, first_moments, global_norm

SHAPES = {"kernel": (3, 3, 4, 5), "dense": {"kernel": (4, 5), "bias": (5,)}, "temperature": ()}


def drawn(seed, size=1.0):
    """A gradient of some network, whose leaves differ in size."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(size * rng.normal(size=shape) * rng.uniform(0.1, 2), "float32")
    return jax.tree.map(draw, SHAPES, is_leaf=lambda leaf: isinstance(leaf, tuple))


def test_clipping_shortens_a_long_gradient_and_leaves_a_short_one():
    """Adam's first moment after one update is (1 - β₁) times the clipped gradient."""
    options = Training(steps=1, batch_size=1, clip=1.0)
    for given, kept in (([3.0, 4.0], [0.6, 0.8]), ([0.3, 0.4], [0.3, 0.4])):
        g = jnp.array(given)
        _, moments = descent(options, g, global_norm(g), first_moments(g))
        np.testing.assert_allclose(moments[1].mu, 0.1 * np.array(kept), rtol=1e-5)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_many_updates_are_those_of_optax_and_so_is_their_state(clip):
    options = Training(steps=1, batch_size=1, clip=clip, beta1=0.8, beta2=0.99, adam_eps=1e-3)
    clipped = optax.identity() if clip is None else optax.clip_by_global_norm(clip)
    theirs = optax.chain(clipped, optax.scale_by_adam(0.8, 0.99, 1e-3))
    ours_state, their_state = first_moments(drawn(0)), theirs.init(drawn(0))
    assert jax.tree.structure(ours_state) == jax.tree.structure(their_state)
    for step in range(4):
        grads = drawn(step, size=10.0 ** (step - 3))  # of norms from below 1 to above
        ours, ours_state = descent(options, grads, global_norm(grads), ours_state)
        expected, their_state = theirs.update(grads, their_state)
        for a, b in zip(*map(jax.tree.leaves, ((ours, ours_state), (expected, their_state)))):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())
    assert jax.tree.structure(ours_state) == jax.tree.structure(their_state)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_not_clipped_into_one_that_is(bad):
    grads = drawn(0)
    grads["kernel"] = grads["kernel"].at[0, 0, 0, 0].set(bad)
    options = Training(steps=1, batch_size=1, clip=1.0)
    direction, _ = descent(options, grads, global_norm(grads), first_moments(grads))
    assert not np.isfinite(global_norm(grads))
    assert not np.isfinite(direction["kernel"][0, 0, 0, 0])


def test_the_norm_is_that_of_all_numbers_in_one_vector():
    grads = drawn(3)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)]).astype(np.float64)
    np.testing.assert_allclose(global_norm(grads), np.linalg.norm(flat), rtol=1e-6)
    np.testing.assert_allclose(global_norm(grads["kernel"]), np.linalg.norm(grads["kernel"]), 1e-6)


def test_a_leaf_is_traced_once_for_each_shape():
    """Twenty leaves of one shape are one function in the lowered program, called twenty times."""
    tree = {str(i): jnp.ones((4, 4)) for i in range(20)}
    options = Training(steps=1, batch_size=1)
    step = lambda grads, moments: descent(options, grads, jnp.float32(1), moments)
    text = jax.jit(step).lower(tree, first_moments(tree)).as_text()
    assert text.count("func.func private @of_leaf") == 1
    assert text.count("call @of_leaf") == 20
