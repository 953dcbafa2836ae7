"""From a gradient to a direction: clipping and Adam, by optax, a leaf at a time.

JAX traces what is done to a leaf once for each shape, of which a network has some twenty, and not
once for each of its hundreds of leaves: a second less before the first update of a U-Net.
"""

import jax
import jax.numpy as jnp
import optax

from score_jax.models.base import Params
from score_jax.sections import Training
from score_jax.types import Array

Moments = tuple[optax.EmptyState, optax.ScaleByAdamState]  # of clipping, as optax has it, and Adam


def first_moments(params: Params) -> Moments:
    """Adam's state before the first update: zeros."""
    return optax.EmptyState(), optax.scale_by_adam().init(params)


def global_norm(tree: Params) -> Array:
    """The root of the sum of the squares of all numbers.

    The many vectors of a network are joined before: a sum each would be a program each.
    """
    leaves = jax.tree.leaves(tree)
    arrays = [leaf for leaf in leaves if leaf.ndim >= 2]
    if len(arrays) < len(leaves):
        arrays.append(jnp.concatenate([leaf.ravel() for leaf in leaves if leaf.ndim < 2]))
    return jnp.sqrt(sum(jnp.sum(jnp.square(array)) for array in arrays))


def descent(
    options: Training, grads: Params, norm: Array, moments: Moments
) -> tuple[Params, Moments]:
    """(direction, moments): Adam (Kingma & Ba 2015, algorithm 1) of min(1, clip/norm) grads.

    norm: the `global_norm` of grads. The learning rate, by which the direction is to be multiplied
    and taken from the parameters, is not part of it: it comes from the config at every step.
    """
    adam = optax.scale_by_adam(options.beta1, options.beta2, options.adam_eps)
    scale = 1.0 if options.clip is None else jnp.minimum(1.0, options.clip / norm)
    none, old = moments

    @jax.jit
    def of_leaf(scale, count, grad, mu, nu):
        direction, new = adam.update(scale * grad, optax.ScaleByAdamState(count, mu, nu))
        return direction, new.mu, new.nu

    found = jax.tree.map(lambda *leaf: of_leaf(scale, old.count, *leaf), grads, old.mu, old.nu)
    parts = jax.tree.transpose(jax.tree.structure(grads), jax.tree.structure((0, 0, 0)), found)
    direction, mu, nu = parts
    return direction, (none, optax.ScaleByAdamState(optax.safe_increment(old.count), mu, nu))
