"""What a network says about x_t, and how to read it.

Whatever the network was trained to predict, a Prediction carries every view of it:

    predict = make_predict(net, process, Parameterization(view="eps"))
    predict(x_t, t).score

The views of one and the same pair (x_0, ε), with x_t = α x_0 + σ ε:

    x0        E[x_0 | x_t]
    eps       E[ε | x_t]
    score     ∇ log p_t(x_t) = -eps/σ
    v         α eps - σ x0              (Salimans & Ho 2022, appendix D)
    velocity  dx_t/dt = α' x0 + σ' eps  (Lipman et al. 2023, with our direction of time)

Conversion goes through (x0, eps) and happens in this file only; the view that the
network itself predicts is passed through untouched.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from score_jax.errors import UserError, unknown
from score_jax.processes import GaussianProcess
from score_jax.types import Array, Scalar, ScoreFn


class Prediction(NamedTuple):
    """Five views of one prediction, each with the shape of x."""

    x0: Array
    eps: Array
    score: Array
    v: Array
    velocity: Array


PredictFn = Callable[[Array, Scalar], Prediction]  # (x_t, t) -> Prediction
Net = Callable[[Array, Scalar], Array]  # (x_t, c) -> y: one example, see models.as_net

VIEWS = Prediction._fields


class _Curves(NamedTuple):
    alpha: Array
    sigma: Array
    d_alpha: Array
    d_sigma: Array


def _curves(process: GaussianProcess, t: Scalar) -> _Curves:
    t = jnp.asarray(t, jnp.result_type(float))
    one = jnp.ones_like(t)
    alpha, d_alpha = jax.jvp(process.alpha, (t,), (one,))
    sigma, d_sigma = jax.jvp(process.sigma, (t,), (one,))
    return _Curves(alpha, sigma, d_alpha, d_sigma)


def _solve(view: str, y: Array, x: Array, c: _Curves) -> tuple[Array, Array]:
    """(x0, eps) from one view y of them and x = α x0 + σ eps."""
    if view == "x0":
        return y, (x - c.alpha * y) / c.sigma
    if view == "eps":
        return (x - c.sigma * y) / c.alpha, y
    if view == "score":
        return (x + c.sigma**2 * y) / c.alpha, -c.sigma * y
    if view == "v":
        norm = c.alpha**2 + c.sigma**2
        return (c.alpha * x - c.sigma * y) / norm, (c.sigma * x + c.alpha * y) / norm
    if view == "velocity":
        det = c.alpha * c.d_sigma - c.sigma * c.d_alpha
        return (c.d_sigma * x - c.sigma * y) / det, (c.alpha * y - c.d_alpha * x) / det
    raise unknown("view", view, VIEWS)


def _views(x0: Array, eps: Array, c: _Curves) -> Prediction:
    return Prediction(
        x0=x0,
        eps=eps,
        score=-eps / c.sigma,
        v=c.alpha * eps - c.sigma * x0,
        velocity=c.d_alpha * x0 + c.d_sigma * eps,
    )


def read(view: str, y: Array, process: GaussianProcess, x: Array, t: Scalar) -> Prediction:
    """All views of y, which is one `view` of what is known about x = x_t at time t.

    Undefined (infinite or NaN) where the mathematics is: x0 from eps at α = 0, eps from
    x0 or the score at σ = 0. Raises UserError for an unknown view.
    """
    c = _curves(process, t)
    return _views(*_solve(view, y, x, c), c)._replace(**{view: y})


def target(process: GaussianProcess, x_0: Array, eps: Array, t: Scalar) -> Prediction:
    """What a perfect network would be asked for: all views of the true pair (x_0, ε)."""
    return _views(x_0, eps, _curves(process, t))


def from_score(process: GaussianProcess, score: ScoreFn) -> PredictFn:
    """A PredictFn from a score that is known, for example an exact one."""
    return lambda x, t: read("score", score(x, t), process, x, t)


def clipped(predict: PredictFn, process: GaussianProcess, low: float, high: float) -> PredictFn:
    """predict with x0 clipped to [low, high] and every other view made consistent with it.

    What Ho et al. 2020 do in their sampler's code with [-1, 1].
    """

    def clipped_predict(x, t):
        return read("x0", jnp.clip(predict(x, t).x0, low, high), process, x, t)

    return clipped_predict


def _level(process, t):
    return jnp.maximum(t * process.levels - 1.0, 0.0)


CONDITIONS = {
    "time": lambda process, t: 999.0 * t,
    "level": _level,
    "log_sigma": lambda process, t: jnp.log(process.sigma(t)),
}


class Parameterization(NamedTuple):
    """How a network is asked and what its answer means.

    view: what the network's output is: x0, eps, score, v or velocity.
    condition: the number that tells it the noise level. "time" is 999 t (score_sde);
        "level" the index 0 .. N-1 of a ladder, fractional between levels (NCSN, DDPM);
        "log_sigma" is log σ(t) (NCSN++).
    """

    view: str = "eps"
    condition: str = "time"


def check_parameterization(process: GaussianProcess, parameterization: Parameterization) -> None:
    """Raises UserError if the network cannot be asked this way about this process."""
    if parameterization.view not in VIEWS:
        raise unknown("parameterization.view", parameterization.view, VIEWS)
    if parameterization.condition not in CONDITIONS:
        raise unknown("parameterization.condition", parameterization.condition, CONDITIONS)
    if parameterization.condition == "level" and process.levels is None:
        raise UserError(
            "parameterization.condition = 'level' needs a process with a ladder (ncsn, ddpm), "
            f"got {type(process).__name__}; use 'time' or 'log_sigma'"
        )


def make_predict(
    net: Net, process: GaussianProcess, parameterization: Parameterization
) -> PredictFn:
    """The PredictFn of a network: asks it once, reads the answer five ways."""
    condition = CONDITIONS[parameterization.condition]

    def predict(x, t):
        y = net(x, condition(process, t))
        return read(parameterization.view, y, process, x, t)

    return predict
