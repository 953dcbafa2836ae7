"""Training losses: LossFn = (key, predict, x_0) -> scalar, for one example x_0.

LOSSES maps a name to a factory (process, **options) -> LossFn.
"""

from score_jax.losses.denoising import denoising

LOSSES = {"denoising": denoising}
