"""p(x_0 | x_1): how the last step of a ladder's model makes data. The L_0 of a variational bound.

decoder = discretized_gaussian(-1.0, 1.0, 256)
decoder.log_prob(x_0, mean, log_variance)     # nats
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Float

from score_jax.errors import UserError
from score_jax.types import Array, Example, Scalar


class Decoder(NamedTuple):
    """log_prob: (x_0, mean, log_variance) -> log p(x_0), in nats, summed over the dimensions.

    fixed: which variance the step to t = 0 has in a model whose variances are small or large:
    "small" (clipped, see `variances.small_log_variance`) or "large".
    """

    log_prob: Callable[[Example, Example | float, Scalar | Example], Float[Array, ""]]
    fixed: str


def discretized_gaussian(low: float = -1.0, high: float = 1.0, gray_levels: int = 256) -> Decoder:
    """log ∫ N(x; mean, v) dx over the bin of each x_0: the probability of a gray level, in nats.

    Gray levels stand evenly from low to high, the borders of their bins half-way between them,
    1/255 from each of 256 in [-1, 1]; the two outermost reach to -∞ and ∞.
    Ho et al. 2020 (arXiv 2006.11239), equation 13. They give the step the small variance of the
    step above it, in their code for either variance, and so does a bound with this decoder.
    Raises UserError unless low < high and gray_levels >= 2.
    """
    if not low < high:
        raise UserError(f"expected low < high, got low = {low} and high = {high}")
    if gray_levels < 2:
        raise UserError(f"gray_levels must be at least 2, got {gray_levels}")
    half = 0.5 * (high - low) / (gray_levels - 1)

    def log_prob(
        x_0: Example, mean: Example | float, log_variance: Scalar | Example
    ) -> Float[Array, ""]:
        scale = jnp.exp(-0.5 * log_variance)
        lower, upper = scale * (x_0 - half - mean), scale * (x_0 + half - mean)
        first, last = x_0 < low + half, x_0 > high - half
        inside = log_normal_mass(lower, upper)
        return jnp.sum(jnp.where(first, log_ndtr(upper), jnp.where(last, log_ndtr(-lower), inside)))

    return Decoder(log_prob, "small")


def log_normal_mass(lower: Example, upper: Example) -> Float[Array, "*shape"]:
    """log (Φ(upper) - Φ(lower)) of each number, for lower < upper, precise in both tails."""
    mirrored = lower + upper > 0.0
    lower, upper = jnp.where(mirrored, -upper, lower), jnp.where(mirrored, -lower, upper)
    log_upper = log_ndtr(upper)
    gap = jnp.maximum(log_upper - log_ndtr(lower), jnp.finfo(log_upper.dtype).tiny)
    return log_upper + jnp.log(-jnp.expm1(-gap))


def _log_density(
    x_0: Example, mean: Example | float, log_variance: Scalar | Example
) -> Float[Array, ""]:
    error2 = (x_0 - mean) ** 2 * jnp.exp(-log_variance)
    return -0.5 * jnp.sum(error2 + log_variance + math.log(2.0 * math.pi))


# log N(x_0; mean, v I), for continuous data: a density, so L_0 can be negative. Where the
# variances are small or large, the step has the large one, q's of x_1 given x_0.
gaussian = Decoder(_log_density, "large")
