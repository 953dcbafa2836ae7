"""Samples of which something is known: y = A x_0 + noise, A linear.

PREDICTIONS maps a name to (predict, process, observation, **options) -> PredictFn, SAMPLINGS to
(sampler, process, observation, **options) -> Sampler.
"""

from collections.abc import Callable

from score_jax.inverse.dps import dps
from score_jax.inverse.gaussian import mmps, pigdm
from score_jax.inverse.replacement import repaint, replacement
from score_jax.inverse.twisted import twisted
from score_jax.predictions import PredictFn
from score_jax.samplers.base import Sampler

PREDICTIONS: dict[str, Callable[..., PredictFn]] = {"pigdm": pigdm, "mmps": mmps}
SAMPLINGS: dict[str, Callable[..., Sampler]] = {
    "replacement": replacement,
    "repaint": repaint,
    "dps": dps,
    "twisted": twisted,
}
