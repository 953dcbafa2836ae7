"""What a network says about x_t, and how to read it.

Whatever the network was trained to predict, a Prediction carries every view of it:

    predict = make_predict(net, process, Parameterization(view="eps"))   # parameterization.py
    predict(x_t, t).score

The views of one and the same pair (x_0, ε), with x_t = α x_0 + σ ε:

    x0              E[x_0 | x_t]
    eps             E[ε | x_t]
    score           ∇ log p_t(x_t) = -eps/σ
    v               α eps - σ x0              (Salimans & Ho 2022, appendix D)
    velocity        dx_t/dt = α' x0 + σ' eps  (Lipman et al. 2023, with our direction of time)

and, as outputs of a network only,

    scaled_score    σ score = -eps: what a network that is divided by σ afterwards says (NCSNv2's
                    technique 3; scale_by_sigma in score_sde)
    F               (σ/σ_d x0 - α σ_d eps) / S, S² = σ² + α² σ_d², of the input x_t/S: what the
                    network inside the preconditioning of Karras et al. 2022, equation 7, predicts
    posterior_mean  E[x_s | x_t], s the level below t of a ladder (Ho et al. 2020, equation 7)
    energy          E = |x_t - net(x_t)|²/(2σ²), whose minus gradient is the score

All but the energy are linear in the pair, so conversion is two equations in two unknowns. It
happens in this file only; the view that the network itself predicts is passed through untouched.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from score_jax.errors import UserError, unknown
from score_jax.processes import GaussianProcess, posterior
from score_jax.types import Array, Example, Scalar, ScoreFn


class Prediction(NamedTuple):
    """Five views of one prediction, each with the shape of x, and what else a network may know.

    log_density: log p_t(x_t) up to a constant, of an energy network; else None.
    variance: of a network with learned variances, where between the small (0) and the large
    (1) reverse variance its own stands, with the shape of x; else None.
    evaluations: how often networks were asked for it.
    """

    x0: Float[Array, "*shape"]
    eps: Float[Array, "*shape"]
    score: Float[Array, "*shape"]
    v: Float[Array, "*shape"]
    velocity: Float[Array, "*shape"]
    log_density: Float[Array, ""] | None = None
    variance: Float[Array, "*shape"] | None = None
    evaluations: Int[Array, ""] | int = 1


# (x_t, t) -> Prediction
PredictFn = Callable[[Example, Scalar], Prediction]
# (x_t, c) -> y: one example, see models.as_net
Net = Callable[[Float[Array, "*shape"], Scalar], Float[Array, "..."]]

VIEWS = ("x0", "eps", "score", "v", "velocity")
LINEAR_VIEWS = (*VIEWS, "scaled_score", "F", "posterior_mean")
NETWORK_VIEWS = (*LINEAR_VIEWS, "energy")
SIGMA_DATA = 0.5


class _Curves(NamedTuple):
    alpha: Float[Array, ""]
    sigma: Float[Array, ""]
    d_alpha: Float[Array, ""]
    d_sigma: Float[Array, ""]


def _curves(process: GaussianProcess, t: Scalar) -> _Curves:
    t = jnp.asarray(t, jnp.result_type(float))
    one = jnp.ones_like(t)
    alpha, d_alpha = jax.jvp(process.alpha, (t,), (one,))
    sigma, d_sigma = jax.jvp(process.sigma, (t,), (one,))
    return _Curves(alpha, sigma, d_alpha, d_sigma)


def _below(process: GaussianProcess, t: Scalar) -> Float[Array, ""]:
    """The level below t of a ladder; 0 below the first."""
    assert process.levels is not None  # else `check_parameterization` and the loss refuse the view
    return jnp.maximum(t - 1.0 / process.levels, 0.0)


def _row(
    view: str, process: GaussianProcess, t: Scalar, c: _Curves, sigma_data: float
) -> tuple[Scalar, Scalar]:
    """(p, q) with view = p x0 + q eps."""
    if view == "x0":
        return 1.0, 0.0
    if view == "eps":
        return 0.0, 1.0
    if view == "scaled_score":
        return 0.0, -1.0
    if view == "v":
        return -c.sigma, c.alpha
    if view == "velocity":
        return c.d_alpha, c.d_sigma
    if view == "F":
        scale = jnp.hypot(c.sigma, c.alpha * sigma_data)
        return c.sigma / (sigma_data * scale), -c.alpha * sigma_data / scale
    if view == "posterior_mean":
        s = _below(process, t)
        a, b, _ = posterior(process, s, t)
        return a * c.alpha + b, a * c.sigma
    raise unknown("view", view, LINEAR_VIEWS)


def _views(x0: Float[Array, "*shape"], eps: Float[Array, "*shape"], c: _Curves) -> Prediction:
    return Prediction(
        x0=x0,
        eps=eps,
        score=-eps / c.sigma,
        v=c.alpha * eps - c.sigma * x0,
        velocity=c.d_alpha * x0 + c.d_sigma * eps,
    )


def read(
    view: str,
    y: Example,
    process: GaussianProcess,
    x: Example,
    t: Scalar,
    sigma_data: float = SIGMA_DATA,
) -> Prediction:
    """All views of y, which is one `view` of what is known about x = x_t at time t.

    sigma_data: σ_d of the view F. Undefined (infinite or NaN) where the mathematics is: x0
    from eps at α = 0, eps from x0 or the score at σ = 0. Raises UserError for an unknown view
    and for y and x of unequal shapes, which would broadcast.
    """
    if jnp.shape(y) != jnp.shape(x):
        raise UserError(
            f"expected a prediction of the shape of x, {jnp.shape(x)}, got {jnp.shape(y)}"
        )
    c, y, x = _curves(process, t), jnp.asarray(y), jnp.asarray(x)
    if view == "score":
        return read("eps", -c.sigma * y, process, x, t)._replace(score=y)
    p, q = _row(view, process, t, c, sigma_data)
    if view == "x0":
        x0, eps = y, (x - c.alpha * y) / c.sigma
    elif view == "eps":
        x0, eps = (x - c.sigma * y) / c.alpha, y
    else:
        det = c.alpha * q - c.sigma * p
        x0, eps = (q * x - c.sigma * y) / det, (c.alpha * y - p * x) / det
    views = _views(x0, eps, c)
    return views._replace(**{view: y}) if view in VIEWS else views


def express(
    view: str,
    prediction: Prediction,
    process: GaussianProcess,
    t: Scalar,
    sigma_data: float = SIGMA_DATA,
) -> Float[Array, "*shape"]:
    """One view of a prediction, p x0 + q eps: also of those that only networks have (scaled_score,
    F, posterior_mean), as above. Raises UserError for an unknown view, and for the energy.
    """
    if view in VIEWS:
        return getattr(prediction, view)
    p, q = _row(view, process, t, _curves(process, t), sigma_data)
    return p * prediction.x0 + q * prediction.eps


def target(process: GaussianProcess, x_0: Example, eps: Example, t: Scalar) -> Prediction:
    """All views of the true pair (x_0, ε), of one shape, as above: the targets of denoising."""
    return _views(jnp.asarray(x_0), jnp.asarray(eps), _curves(process, t))


def from_score(process: GaussianProcess, score: ScoreFn) -> PredictFn:
    """A PredictFn from a score (x, t) -> ∇ log p_t(x) that is known: x0 = (x + σ² score)/α.

    Where α = 0 it has no x0: see `exact`. Raises UserError, when called, for a score of another
    shape than x's.
    """
    return lambda x, t: read("score", score(jnp.asarray(x), t), process, x, t)


def from_energy(
    process: GaussianProcess, energy: Callable[[Float[Array, "*shape"], Scalar], Float[Array, ""]]
) -> PredictFn:
    """A PredictFn from an energy (x, t) -> scalar: p_t ∝ exp(-energy), score = -∇ energy.

    energy: in nats. The normalizing constant drops out of the score (LeCun et al. 2006; Song &
    Kingma 2021, arXiv 2101.03288).
    """

    def predict(x: Example, t: Scalar) -> Prediction:
        value, slope = jax.value_and_grad(energy)(x, t)
        return read("score", -slope, process, x, t)._replace(log_density=-value)

    return predict


def exact(process: GaussianProcess, density: Any) -> PredictFn:
    """The perfect network for data from this density (`densities`), at every t with σ > 0.

    x0 is its posterior mean, eps is -σ ∇ log p_t: neither is got from the other, so both
    keep their precision from clean data to pure noise.
    """

    def predict(x: Example, t: Scalar) -> Prediction:
        c = _curves(process, t)
        score = density.noised(c.alpha, c.sigma).score(x)
        x0 = density.posterior_mean(x, c.alpha, c.sigma)
        return _views(x0, -c.sigma * score, c)._replace(score=score)

    return predict


def shifted(
    prediction: Prediction, process: GaussianProcess, t: Scalar, slope: Example
) -> Prediction:
    """What is known of x_t under p_t(x) e^h(x), in place of p_t(x), with slope = ∇h(x).

    score + slope, and so eps - σ slope and x0 + σ²/α slope, v and velocity accordingly: how
    everything that conditions a prediction does it. Undefined at α = 0, unless through eps.
    log_density is not known then.
    """
    c = _curves(process, t)
    x0 = prediction.x0 + c.sigma**2 / c.alpha * slope
    views = _views(x0, prediction.eps - c.sigma * slope, c)
    return views._replace(
        score=prediction.score + slope,
        variance=prediction.variance,
        evaluations=prediction.evaluations,
    )


def clipped(predict: PredictFn, process: GaussianProcess, low: float, high: float) -> PredictFn:
    """predict with x0 clipped to [low, high] and every other view made consistent with it.

    What Ho et al. 2020 do in their sampler's code with [-1, 1]. low, high: in the network's units.
    log_density and variance stay those of predict. Undefined at σ = 0.
    """

    def clipped_predict(x: Example, t: Scalar) -> Prediction:
        prediction = predict(x, t)
        views = read("x0", jnp.clip(prediction.x0, low, high), process, x, t)
        return prediction._replace(**{view: getattr(views, view) for view in VIEWS})

    return clipped_predict
