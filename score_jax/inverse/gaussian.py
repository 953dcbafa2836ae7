"""Posterior scores from a Gaussian approximation of p(y | x_t): ΠGDM and MMPS.

    ∇ log p_t(x_t | y) = ∇ log p_t(x_t) + ∇ log p(y | x_t)

The first term is the network's. The second, ∫ p(y | x_0) p(x_0 | x_t) dx_0, is not known; with
p(x_0 | x_t) replaced by N(x0, V), x0 = E[x_0 | x_t] the network's, it is a normal's:

    y | x_t ~ N(A x0, noise² I + A V Aᵀ)
    slope = Jᵀ Aᵀ (noise² I + A V Aᵀ)⁻¹ (y - A x0),    J = ∂x0/∂x_t,

V held constant in the gradient. The methods differ in V. Each makes a PredictFn of a PredictFn,
for every sampler; wrap it around the network before its x0 is clipped, not after, since a clipped
x0 has no gradient. Undefined at α = 0: start where α > 0, on `Flow` at `processes.start_time`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from score_jax.errors import UserError
from score_jax.inverse.observation import ITERATIONS, Observation, solve
from score_jax.predictions import PredictFn, Prediction, shifted
from score_jax.processes import GaussianProcess
from score_jax.types import Array, Example, Scalar

Twist = Callable[[Example, Scalar], tuple[Prediction, Prediction, Float[Array, ""]]]


def pigdm(
    predict: PredictFn,
    process: GaussianProcess,
    observation: Observation,
    *,
    iterations: int = ITERATIONS,
) -> PredictFn:
    """V = r² I, r² = σ²/(α² + σ²): pseudoinverse-guided diffusion, ΠGDM.

    Song, Vahdat, Mardani & Kautz 2023 (ICLR, "Pseudoinverse-guided diffusion models for inverse
    problems"), whose r² = σ²/(1 + σ²) for α = 1 is this one. With noise = 0 the slope is
    Jᵀ A⁺ (y - A x0)/r². Their algorithm 1 leaves 1/r² out and adds the rest to x with weights of
    its own; here the slope is what the approximation says.

    Exact for data from N(m, I), since r² is their variance given x_t. Biased for others. For
    correlated normal data (four dimensions, deviations 0.15 to 1.3, two observations) samples
    miss the posterior's mean by up to 0.21 of its deviation, and deviations are 0.96 to 1.16 of
    the right ones; for separate modes see `mmps`.
    In `benchmarks.conditional` the mean of a normal is off by 0.23 posterior deviations, its
    covariance by 8 %; on three modes of which one coordinate is seen 0.40 of their weights are
    wrong, where y tells more 0.08.

    iterations: at most, of `observation.solve` on noise²/r² I + A Aᵀ; no network is in them.
    Cost: one call of predict and one of its gradient. Raises UserError unless iterations >= 1.
    """
    twisted = _twist(predict, process, observation, iterations)
    return lambda x, t: twisted(x, t)[1]


def twist(predict: PredictFn, process: GaussianProcess, observation: Observation) -> Twist:
    """(x, t) -> (prediction, guided prediction, log p̃(y | x)), of one call of predict.

    guided: what `pigdm` says. log p̃ = -½ (y - A x0)ᵀ (noise² I + r² A Aᵀ)⁻¹ (y - A x0), a scalar
    in nats up to a constant of t: guided.score - prediction.score is its gradient.
    """
    return _twist(predict, process, observation, ITERATIONS)


def _twist(predict, process, observation, iterations):
    _check_iterations(iterations)

    def twisted(x, t):
        prediction, residual, pull = linearized(predict, observation, x, t)
        r2 = jax.nn.sigmoid(-process.logsnr(t))
        noise2 = observation.noise**2 / r2  # in units of r², which may be tiny
        product = lambda v: noise2 * v + observation.forward(observation.adjoint(v))
        u = solve(product, residual, iterations=iterations)
        slope = pull(observation.adjoint(u)) / r2
        return prediction, shifted(prediction, process, t, slope), -0.5 * jnp.vdot(residual, u) / r2

    return twisted


def mmps(
    predict: PredictFn,
    process: GaussianProcess,
    observation: Observation,
    *,
    iterations: int = 20,
    tolerance: float = 1e-6,
) -> PredictFn:
    """V = (σ²/α) J: moment matching posterior sampling, with Tweedie's covariance.

    Cov[x_0 | x_t] = σ²/α ∂E[x_0 | x_t]/∂x_t. Rozet, Andry, Lanusse & Louppe 2024 (arXiv
    2405.13712), with few iterations of conjugate gradients. Exact for normal data when converged;
    with one iteration on the data of `pigdm` the mean is off by up to 0.46 posterior deviations
    and a deviation 1.85 times the right one.

    Biased for all else, since p(x_0 | x_t) is no normal, and much where modes are separate: of
    three in the plane, 99% of the posterior in one, it leaves the mean at -0.25 where -0.73 is
    right, as does `pigdm`. In `benchmarks.conditional` it is within 0.02 posterior deviations on a
    normal (1 iteration for 2 numbers leaves 0.03), and on three modes 0.39 of their weights are
    wrong, 0.10 where y tells more. `twisted` has no such bias, given particles enough.

    The system noise² I + σ²/α A J Aᵀ is never a matrix: J v is taken as Jᵀ v by reverse mode. The
    J of a trained network is neither exactly symmetric nor positive; `observation.solve` stays
    bounded then, and few iterations are a regularization.

    iterations: at most; each costs one more gradient of the network, and early ones count most.
    tolerance: of the residual, relative; with as many iterations as y has numbers it is reached
    on a small problem, and the result exact to rounding as it goes to 0.
    Cost: one call of predict and 1 + iterations of its gradient; evaluations counts the call.
    Raises UserError unless iterations >= 1 and tolerance >= 0.
    """
    _check_iterations(iterations)
    if not tolerance >= 0.0:
        raise UserError(f"mmps.tolerance must be at least 0, got {tolerance}")

    def guided(x: Example, t: Scalar) -> Prediction:
        prediction, residual, pull = linearized(predict, observation, x, t)
        scale = process.sigma(t) ** 2 / process.alpha(t)  # V = scale J
        noise2 = observation.noise**2 / scale
        product = lambda v: noise2 * v + observation.forward(pull(observation.adjoint(v)))
        u = solve(product, residual, iterations=iterations, tolerance=tolerance)
        return shifted(prediction, process, t, pull(observation.adjoint(u)) / scale)

    return guided


def linearized(
    predict: PredictFn, observation: Observation, x: Example, t: Scalar
) -> tuple[Prediction, Float[Array, "*seen"], Callable[[Example], Float[Array, "*shape"]]]:
    """(prediction, y - A x0, v -> Jᵀ v with J = ∂x0/∂x), predict called once. v has x's shape."""

    def asked(x: Example) -> tuple[Float[Array, "*shape"], Prediction]:
        prediction = predict(x, t)
        return prediction.x0, prediction

    x0, pull, prediction = jax.vjp(asked, x, has_aux=True)
    return prediction, observation.residual(x0), lambda v: pull(v)[0]


def _check_iterations(iterations):
    if not iterations >= 1:
        raise UserError(f"iterations must be at least 1, got {iterations}")
