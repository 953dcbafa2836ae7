"""What a loss is, and what all losses over noise levels share: times and weights.

LossFn = (key, predict, x_0, u=None) -> scalar, for one example. u in [0, 1) is the example's
place in the law of times, so that a batch's times can be spread evenly (`times.DRAWS`); None
draws it from the key.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from score_jax.errors import UserError, unknown
from score_jax.predictions import LINEAR_VIEWS, SIGMA_DATA
from score_jax.processes import GaussianProcess, diffusion2
from score_jax.times import make_law
from score_jax.types import Array, Key, Scalar

LossFn = Callable[..., Float[Array, ""]]


def _edm(process, t, sigma_data):
    ratio2 = jnp.exp(-process.logsnr(t))
    return (ratio2 + sigma_data**2) / (ratio2 * sigma_data**2)


# name: (the view whose squared error it weights, None for any; (process, t, sigma_data) -> weight)
WEIGHTS: dict[str, tuple[str | None, Callable[..., Scalar]]] = {
    "one": (None, lambda process, t, sigma_data: 1.0),
    "sigma2": (None, lambda process, t, sigma_data: process.sigma(t) ** 2),
    "likelihood": ("score", lambda process, t, sigma_data: diffusion2(process, t)),
    "min_snr": ("x0", lambda process, t, _: jnp.minimum(jnp.exp(process.logsnr(t)), 5.0)),
    "edm": ("x0", _edm),
}


def training_times(
    process: GaussianProcess,
    law: str = "uniform",
    at: float | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> Callable[[Scalar], tuple[Scalar, Scalar]]:
    """u -> (t, w) of `times.make_law`, or always (at, 1): denoising at one noise level.

    Raises UserError for `at` outside [0, 1], mean or std beside it, and what `make_law` refuses.
    """
    if at is None:
        return make_law(process, law, mean, std)
    if (mean, std) != (None, None):
        raise UserError(
            f"loss.law_mean = {mean} and loss.law_std = {std} belong to a law; loss.at = {at} "
            "takes its place"
        )
    if not 0.0 <= at <= 1.0:
        raise UserError(f"loss.at must lie in [0, 1], got {at}")
    return lambda u: (jnp.asarray(at, jnp.result_type(float)), 1.0)


def split_draw(key: Key, u: Scalar | None) -> tuple[Scalar, Key]:
    """(u, a key for the rest): u as given, or drawn from U[0, 1)."""
    time_key, rest = jax.random.split(key)
    return (jax.random.uniform(time_key) if u is None else u), rest


def weight_fn(
    process: GaussianProcess, weight: str, view: str, sigma_data: float = SIGMA_DATA
) -> Callable[[Scalar], Scalar]:
    """t -> the weight of a squared error in this view: a name of WEIGHTS, see `denoising`.

    Raises UserError for an unknown name, and for a weight that belongs to another view.
    """
    if weight not in WEIGHTS:
        raise unknown("loss.weight", weight, WEIGHTS)
    if view not in LINEAR_VIEWS:
        raise unknown("loss.view", view, LINEAR_VIEWS)
    own, of_time = WEIGHTS[weight]
    if own not in (None, view):
        raise UserError(
            f"loss.weight = '{weight}' weights the error of loss.view = '{own}', got '{view}'"
        )
    return lambda t: of_time(process, t, sigma_data)
