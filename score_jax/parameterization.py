"""How a network is asked and what its answer means: from a network to a PredictFn.

predict = make_predict(net, process, Parameterization(view="eps", condition="time"))
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from score_jax.errors import UserError, unknown
from score_jax.predictions import (
    NETWORK_VIEWS,
    SIGMA_DATA,
    Net,
    PredictFn,
    Prediction,
    from_energy,
    read,
)
from score_jax.processes import GaussianProcess
from score_jax.types import Array, Example, Scalar


def _level(process, t):
    return jnp.maximum(t * process.levels - 1.0, 0.0)


CONDITIONS = {
    "time": lambda process, t: 999.0 * t,
    "level": _level,
    "reversed_level": lambda process, t: process.levels - 1.0 - _level(process, t),
    "log_sigma": lambda process, t: jnp.log(process.sigma(t)),
    "edm": lambda process, t: -0.125 * process.logsnr(t),
}


class Parameterization(NamedTuple):
    """How a network is asked and what its answer means.

    view: what the network's output is: x0, eps, score, v, velocity, scaled_score, F,
        posterior_mean or energy.
    condition: the number that tells it the noise level. "time" is 999 t (score_sde);
        "level" the index 0 .. N-1 of a ladder, fractional between levels (NCSN, DDPM);
        "reversed_level" counts from the noisiest (score_sde's VE at given levels);
        "log_sigma" is log σ(t) (NCSN++); "edm" is log(σ/α)/4 (EDM's c_noise).
    sigma_data: σ_d, the data's standard deviation as the view F takes it.
    learned_variance: the network has twice as many outputs; the second half says where
        between the small and the large reverse variance it stands, -1 to 1 (Nichol & Dhariwal
        2021, equation 15).
    """

    view: str = "eps"
    condition: str = "time"
    sigma_data: float = SIGMA_DATA
    learned_variance: bool = False


def check_parameterization(process: GaussianProcess, parameterization: Parameterization) -> None:
    """Raises UserError if the network cannot be asked this way about this process.

    For unknown names, σ_d <= 0, levels that the process has not, and an energy's second half.
    """
    view, condition = parameterization.view, parameterization.condition
    if view not in NETWORK_VIEWS:
        raise unknown("parameterization.view", view, NETWORK_VIEWS)
    if condition not in CONDITIONS:
        raise unknown("parameterization.condition", condition, CONDITIONS)
    if not parameterization.sigma_data > 0:
        raise UserError(
            f"parameterization.sigma_data must be positive, got {parameterization.sigma_data}"
        )
    for option, value, needs, instead in (
        ("condition", condition, "level", "time"),
        ("condition", condition, "reversed_level", "time"),
        ("view", view, "posterior_mean", "eps"),
    ):
        if value == needs and process.levels is None:
            raise UserError(
                f"parameterization.{option} = '{needs}' needs a process with a ladder (ncsn, "
                f"ddpm), got {type(process).__name__}; use '{instead}'"
            )
    if view == "energy" and parameterization.learned_variance:
        raise UserError(
            "parameterization.learned_variance: an energy is one number and has no second half"
        )


def check_start(process: GaussianProcess, view: str, start: float) -> None:
    """Raises UserError where sampling starts at a time, α = 0, at which the view tells no x0."""
    if float(process.alpha(start)) == 0.0 and view in ("eps", "score", "scaled_score", "energy"):
        raise UserError(
            f"sampler.start = {start}: nothing of the data is left there, and x0 cannot be told "
            f"from parameterization.view = '{view}'; start a little later (0.999), or predict "
            "x0, v or velocity"
        )


def make_predict(
    net: Net, process: GaussianProcess, parameterization: Parameterization
) -> PredictFn:
    """The PredictFn of a network: asks it once, reads the answer in every view.

    y = net(x_t, c(t)), with c the condition and x_t/√(σ² + α² σ_d²) in x_t's place for the view F;
    `predictions.read` makes of y what is known of x_t. Learned variances are the second half of y's
    last axis, r, as Prediction.variance = (r + 1)/2.
    To be checked by `check_parameterization` before. Raises UserError, when called, for a y of
    another shape than x's.
    """
    view, _, sigma_data, learned_variance = parameterization
    condition = CONDITIONS[parameterization.condition]

    def ask(x: Example, t: Scalar) -> Array:
        x = jnp.asarray(x)
        if view == "F":
            x = x / jnp.hypot(process.sigma(t), process.alpha(t) * sigma_data)
        return net(x, condition(process, t))

    def energy(x: Example, t: Scalar) -> Float[Array, ""]:
        """Salimans & Ho 2021, "Should EBMs model the energy or the score?"."""
        return 0.5 * jnp.sum((x - ask(x, t)) ** 2) / process.sigma(t) ** 2

    def predict(x: Example, t: Scalar) -> Prediction:
        y, variance = ask(x, t), None
        if learned_variance:
            y, raw = jnp.split(y, 2, axis=-1)
            variance = 0.5 * (raw + 1.0)
        return read(view, y, process, x, t, sigma_data)._replace(variance=variance)

    return from_energy(process, energy) if view == "energy" else predict
