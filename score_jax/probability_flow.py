"""The probability-flow ODE in the angle between signal and noise.

    dx/dt = f(x, t) - g(t)²/2 ∇ log p_t(x)    (Song et al. 2021, arXiv 2011.13456, equation 13)

carries p_t along without noise. Divided by n = √(α² + σ²) and counted by φ = atan2(σ, α), which
grows with t from 0 (clean) towards π/2 (noise), it is the same smooth equation for every process:

    y = x/n = cos φ x_0 + sin φ ε,    dy/dφ = cos φ ε(x, t) - sin φ x_0(x, t) = v(x, t)/n,

with v = α ε - σ x_0 (Salimans & Ho 2022, arXiv 2202.00512, appendix D). No step of a solver
depends on how a process counts its time.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from score_jax.errors import UserError
from score_jax.predictions import PredictFn
from score_jax.processes import GaussianProcess, start_time
from score_jax.types import Array, Example, Scalar, ScoreFn, Times


def angle(process: GaussianProcess, t: Times) -> Float[Array, "*t"]:
    """φ(t) = atan2(σ, α) in [0, π/2], increasing."""
    return jnp.arctan2(process.sigma(t), process.alpha(t))


def time_of_angle(process: GaussianProcess, phi: Times) -> Float[Array, "*t"]:
    """The t with angle φ, for φ in (0, π/2): logsnr(t) = -2 log tan φ."""
    return process.time_of_logsnr(-2.0 * jnp.log(jnp.tan(phi)))


def norm(process: GaussianProcess, t: Times) -> Float[Array, "*t"]:
    """n(t) = √(α² + σ²): 1 where the process preserves variance."""
    return jnp.hypot(process.alpha(t), process.sigma(t))


def angle_field(process: GaussianProcess, predict: PredictFn) -> ScoreFn:
    """(y, φ) -> dy/dφ = v(n y, t)/n, with the shape of y = x/n; asks the network once."""

    def field(y: Example, phi: Scalar) -> Float[Array, "*shape"]:
        t = time_of_angle(process, phi)
        n = norm(process, t)
        return predict(n * y, t).v / n

    return field


def flow_times(process: GaussianProcess, end: float, start: float) -> tuple[float, float]:
    """(end, start), where the flow is defined: 0 <= end < start <= 1 and σ(end) > 0.

    Where nothing of the data is left at `start`, α(start) = 0, its place is taken by
    `processes.start_time`, at which logsnr = -14. Raises UserError for other times.
    """
    if not 0.0 <= end < start <= 1.0:
        raise UserError(f"expected 0 <= end < start <= 1, got end = {end} and start = {start}")
    with jax.ensure_compile_time_eval():  # numbers, also while a program is traced
        if not float(process.sigma(end)) > 0.0:
            raise UserError(
                f"end = {end} has sigma(end) = 0: without noise there is no score, nor a density "
                "where the data lie on a surface; use a small end > 0, for example 1e-3"
            )
        if not float(process.alpha(start)) > 0.0:
            start = start_time(process)
            if not end < start:
                raise UserError(f"expected end < {start:.6g}, the latest time, got end = {end}")
    return float(end), float(start)
