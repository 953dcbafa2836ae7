"""The exact likelihood of a diffusion model, by its probability-flow ODE.

    result = log_likelihood(key, process, predict, x)
    bits_per_dim(result.log_prob, x.size, 2 / 256)

In the variables of `probability_flow`, y = x/n at the angle φ, with D = dim x,

    d log p(y_φ)/dφ = -div v(y_φ)/n,    log p(x_t) = log p(y_φ) - D log n(t),

so that, from the clean end to the noisy start (Song et al. 2021, arXiv 2011.13456, equation 39),

    log p(x_end) = log p_start(x_start) + D log n(start)/n(end) + ∫ div dφ.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from score_jax.errors import UserError, unknown
from score_jax.odes import solve
from score_jax.predictions import PredictFn
from score_jax.probability_flow import angle, angle_field, flow_times, norm
from score_jax.processes import GaussianProcess
from score_jax.types import Array, Example, Given, Key

PROBES = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}
TRACES = ("exact", *PROBES)


class Likelihood(NamedTuple):
    """log_prob: nats, of all dimensions together. standard_error: of log_prob, from the probes, in
    nats. evaluations: of predict."""

    log_prob: Float[Given, "*n"]
    standard_error: Float[Given, "*n"]
    evaluations: Int[Given, "*n"]


def log_likelihood(
    key: Key,
    process: GaussianProcess,
    predict: PredictFn,
    x: Example,
    *,
    end: float = 1e-3,
    start: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    trace: str = "exact",
    probes: int = 1,
    log_prior: Callable[[Float[Array, "*shape"]], Float[Array, ""]] | None = None,
    max_evaluations: int = 10_000,
) -> Likelihood:
    """log p_end(x), in nats, of one example x: the density at time `end`.

    trace: how the divergence is found. "exact": D Jacobian-vector products an evaluation.
    "rademacher" or "gaussian": `probes` products zᵀ(∂f/∂y)z with random z of that law, the
    same along the whole path; unbiased (Hutchinson 1990; Grathwohl et al. 2019, arXiv
    1810.01367, equation 7). Each probe has a sum of its own: log_prob is their mean and
    standard_error that of it, NaN for a single probe, which cannot know, and 0 for "exact".
    log_prior: the log density at `start`; N(0, σ(start)² I) unless given. Where
    α(start) = 0, start is the time at which logsnr = -14 (`probability_flow.flow_times`).
    rtol, atol, max_evaluations: of `odes.solve`; log_prob is NaN where it gives up.

    Raises UserError unless 0 <= end < start <= 1, σ(end) > 0 and probes >= 1, for an unknown
    trace, and as `odes.check_tolerances`.
    """
    if trace not in TRACES:
        raise unknown("trace", trace, TRACES)
    if probes < 1:
        raise UserError(f"probes must be at least 1, got {probes}")
    end, start = flow_times(process, end, start)
    field = angle_field(process, predict)
    if trace == "exact":
        z = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    else:
        z = PROBES[trace](key, (probes, *x.shape), x.dtype)

    def dynamics(state, phi):
        y, _ = state
        dy, push = jax.linearize(lambda y: field(y, phi), y)
        products = (z * jax.vmap(push)(z)).reshape(len(z), -1).sum(1)
        return dy, products.sum() if trace == "exact" else products

    n_end, n_start = norm(process, end), norm(process, start)
    solution = solve(
        dynamics,
        (x / n_end, jnp.zeros(() if trace == "exact" else (probes,), x.dtype)),
        angle(process, end),
        angle(process, start),
        rtol=rtol,
        atol=atol,
        max_evaluations=max_evaluations,
    )
    y, growth = solution.y
    x_start = n_start * y
    prior = _log_normal(x_start, process.sigma(start)) if log_prior is None else log_prior(x_start)
    log_prob = prior + x.size * jnp.log(n_start / n_end) + growth
    if trace == "exact":
        return Likelihood(log_prob, jnp.zeros_like(log_prob), solution.evaluations)
    spread = jnp.std(log_prob, ddof=1) if probes > 1 else jnp.full((), jnp.nan, x.dtype)
    return Likelihood(log_prob.mean(), spread / math.sqrt(probes), solution.evaluations)


def bits_per_dim(
    log_prob: Float[Given, "*n"] | float, dimensions: int, width: float
) -> Float[Given, "*n"] | float:
    """-(log_prob/D + log width)/log 2: the code length of a gray level, in bits a dimension.

    log_prob: nats, the density of x = an encoding of (p + u)/256 with u ~ U[0, 1), for the
    gray levels p in 0 .. 255 of `dimensions` numbers. width: one level's in units of x, the
    encoding's range over 256: 1/256 for [0, 1], which adds 8 bits, and 2/256 for [-1, 1],
    which adds 7. On average over u an upper bound of -log2 P(p)/D, P(p) being the density's
    integral over the level's cell: Theis et al. 2016 (arXiv 1511.01844), section 3.1.
    """
    return -(log_prob / dimensions + math.log(width)) / math.log(2.0)


def _log_normal(x: Example, sigma: Float[Array, ""]) -> Float[Array, ""]:
    """log N(x; 0, σ² I), in nats."""
    log_scale = jnp.log(sigma) + 0.5 * math.log(2.0 * math.pi)
    return -0.5 * jnp.sum((x / sigma) ** 2) - x.size * log_scale
