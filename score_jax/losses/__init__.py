"""Training losses: LossFn = (key, predict, x_0, u=None) -> scalar, for one example x_0.

LOSSES maps a name to a factory (process, **options) -> LossFn.
"""

from collections.abc import Callable

from score_jax.losses.base import LossFn
from score_jax.losses.denoising import denoising
from score_jax.losses.score_matching import explicit, finite_difference, implicit, sliced
from score_jax.losses.variational import hybrid, variational

LOSSES: dict[str, Callable[..., LossFn]] = {
    "denoising": denoising,
    "explicit": explicit,
    "implicit": implicit,
    "sliced": sliced,
    "finite_difference": finite_difference,
    "variational": variational,
    "hybrid": hybrid,
}
