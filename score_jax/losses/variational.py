"""The variational bound of a ladder's model, and the losses that train on it.

    result = bound(key, process, predict, x_0, variance="small", decoder=discretized_gaussian())
    result.total, result.bits_per_dim(x_0.size)

The model is p(x_1) = N(0, σ(1)² I) and, down the levels t = 1, (N-1)/N .. 1/N of a ladder,
p(x_s | x_t) = N(a x_t + b x0_θ(x_t), v I), and at last the decoder p(x_0 | x_{1/N}). Then

    -log p(x_0) <= KL(q(x_1 | x_0) || p(x_1))                              prior, L_T
                 + Σ E KL(q(x_s | x_t, x_0) || p(x_s | x_t))               transitions, L_{t-1}
                 + E -log p(x_0 | x_{1/N})                                 reconstruction, L_0

Sohl-Dickstein et al. 2015 (arXiv 1503.03585), section 2.3; Ho et al. 2020 (arXiv 2006.11239),
equation 5, numbered there from 1 to T as our levels are from 0 to N - 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from score_jax.errors import UserError, unknown
from score_jax.losses.base import LossFn, split_draw
from score_jax.losses.decoders import Decoder, discretized_gaussian, gaussian
from score_jax.predictions import PredictFn, Prediction
from score_jax.processes import GaussianProcess, add_noise, posterior
from score_jax.times import ladder_law
from score_jax.types import Array, Example, Given, Key, Scalar
from score_jax.variances import reverse_log_variance, small_log_variance


class Bound(NamedTuple):
    """The terms of the bound for one example, in nats, summed over the example's dimensions.

    prior: L_T, exact. transitions: [N - 1], the i-th of the step from level i + 1 to level i.
    reconstruction: L_0. The last two are unbiased: one draw of x_t at each level.
    """

    prior: Float[Array, ""]
    transitions: Float[Array, " steps"]
    reconstruction: Float[Array, ""]

    @property
    def total(self) -> Float[Array, ""]:
        """The bound of -log p(x_0), in nats."""
        return self.prior + jnp.sum(self.transitions) + self.reconstruction

    def bits_per_dim(self, dimensions: int) -> Float[Array, ""]:
        """total/(D log 2): with a decoder of gray levels a code length, comparable as it is.

        With a decoder of continuous data, total is of a density in units of x: for gray levels
        that were dequantized see `likelihood.bits_per_dim`, of -total.
        """
        return self.total / (dimensions * math.log(2.0))


def bound(
    key: Key,
    process: GaussianProcess,
    predict: PredictFn,
    x_0: Example,
    *,
    variance: str = "small",
    decoder: Decoder,
    errors: Float[Given, " N"] | None = None,
) -> Bound:
    """The variational bound of one example x_0, with one network evaluation at each level.

    variance: of the reverse steps, see `variances`; of the step to t = 0, see `Decoder.fixed`,
    unless learned or analytic. decoder: `discretized_gaussian(low, high, gray_levels)` for gray
    levels, `gaussian` for continuous data. errors: [N], for "analytic", the mean over examples of
    `variances.eps_errors` at the levels (1, 2 .. N)/N.

    At the exact E[x_0 | x_t] the bound falls to -log p(x_0) like 1/N, N the levels, where the
    variance is large or analytic. Where it is small it does not: in the i-th transition, near the
    data, c² is about i/(i + 1) of the best v, which costs ½(1/i - log(1 + 1/i)), over all i
    ½γ = 0.29 nats a dimension (γ is Euler's constant).

    Raises UserError for a process without at least two levels, an unknown variance, learned
    without Prediction.variance, and errors missing or of another shape.
    """
    levels = require_ladder(process)
    if errors is not None and jnp.shape(errors) != (levels,):
        raise UserError(f"expected errors [{levels}], got shape {jnp.shape(errors)}")

    def term(level):
        eps = jax.random.normal(jax.random.fold_in(key, level), x_0.shape, x_0.dtype)
        prediction = ask(process, predict, x_0, eps, level)
        error = None if errors is None else jnp.asarray(errors)[level]
        return level_term(process, prediction, x_0, level, variance, decoder, error)

    terms = jax.lax.map(term, jnp.arange(levels))
    return Bound(prior_term(process, x_0), terms[1:], terms[0])


def prior_term(process: GaussianProcess, x_0: Example) -> Float[Array, ""]:
    """L_T = KL(N(α_1 x_0, σ_1² I) || N(0, σ_1² I)) = |α_1 x_0|²/(2 σ_1²), in nats."""
    return 0.5 * jnp.sum(x_0**2) * jnp.exp(process.logsnr(1.0))


def ask(
    process: GaussianProcess, predict: PredictFn, x_0: Example, eps: Example, level: Scalar
) -> Prediction:
    """What the network says about α x_0 + σ ε at a level i in 0 .. N - 1, t = (i + 1)/N.

    Raises UserError for a process without a ladder, and x_0 and ε of unequal shapes.
    """
    t = (level + 1.0) / require_ladder(process)
    return predict(add_noise(process, x_0, eps, t), t)


def level_term(
    process: GaussianProcess,
    prediction: Prediction,
    x_0: Example,
    level: Scalar,
    variance: str,
    decoder: Decoder,
    error: Scalar | None = None,
) -> Float[Array, ""]:
    """The term of the step down from a level, in nats: L_0 from level 0, else L_{t-1}.

    The KL divergence is that of two Gaussians, in closed form, whose variances may differ.
    Differentiable, and one formula for all levels, so that a level can be chosen at random.
    level, variance, decoder: as in `ask` and `bound`; error: its number at this level.
    Raises UserError as `bound`.
    """
    n, share = require_ladder(process), prediction.variance
    last = decoder.fixed if variance in ("small", "large") else variance
    log_last = reverse_log_variance(process, 0.0, 1.0 / n, last, share, error)
    reconstruction = -decoder.log_prob(x_0, prediction.x0, log_last)

    above = jnp.maximum(level, 1)
    s, t = above / n, (above + 1.0) / n
    _, b, _ = posterior(process, s, t)
    log_q = small_log_variance(process, s, t)
    log_p = reverse_log_variance(process, s, t, variance, share, error)
    transition = gaussian_kl(b * (x_0 - prediction.x0), log_q, log_p)
    return jnp.where(level == 0, reconstruction, transition)


def gaussian_kl(difference: Example, log_q: Scalar, log_p: Scalar | Example) -> Float[Array, ""]:
    """KL(N(m, e^log_q) || N(m - difference, e^log_p)) in nats, summed over the dimensions.

    ½ Σ (v_q/v_p - 1 - log v_q/v_p + difference²/v_p), without cancellation at v_q ≈ v_p.
    """
    gap = log_q - log_p
    return 0.5 * jnp.sum(jnp.expm1(gap) - gap + difference**2 * jnp.exp(-log_p))


def require_ladder(process: GaussianProcess) -> int:
    """The number of levels. Raises UserError unless the process has a ladder of at least two."""
    if process.levels is None or process.levels < 2:
        raise UserError(
            "a variational bound needs a process with a ladder (ncsn, ddpm) of at least two "
            f"levels, got {type(process).__name__} with {process.levels or 'no'} levels"
        )
    return process.levels


DECODERS = {
    "discretized": lambda centered: discretized_gaussian(-1.0 if centered else 0.0, 1.0, 256),
    "gaussian": lambda centered: gaussian,
}
TRAINED = ("small", "large", "learned")  # analytic is found after training


def variational(
    process: GaussianProcess,
    *,
    variance: str = "small",
    decoder: str = "discretized",
    centered: bool = True,
) -> LossFn:
    """The variational bound, in nats a dimension, estimated at one level.

    (L_T + N L_i)/D, i uniform over the N levels: unbiased for `bound`'s total over D.
    variance: small, large or learned. decoder: "discretized", of the 256 gray levels of images
    in [-1, 1] (centered) or in [0, 1]; "gaussian", for continuous data.
    Ho et al. 2020, equation 5; with learned variances L_vlb of Nichol & Dhariwal 2021.
    Raises UserError for an unknown name, a process without a ladder and, when called with learned
    variances, a network without them.
    """
    require_ladder(process)
    if variance not in TRAINED:
        raise unknown("loss.variance", variance, TRAINED)
    last = make_decoder(decoder, centered)

    def loss(
        key: Key, predict: PredictFn, x_0: Example, u: Scalar | None = None
    ) -> Float[Array, ""]:
        level, eps = draw(key, process, x_0, u)
        prediction = ask(process, predict, x_0, eps, level)
        return estimate(process, prediction, x_0, level, variance, last)

    return loss


def hybrid(
    process: GaussianProcess,
    *,
    vlb_weight: float = 0.001,
    decoder: str = "discretized",
    centered: bool = True,
) -> LossFn:
    """L_simple + vlb_weight L_vlb: the mean is trained by the one, the variance by the other.

    L_simple is the mean of (ε - ε_θ)² over the dimensions; L_vlb is `variational` with learned
    variances, but in bits a dimension as in their code, through which no gradient reaches the
    mean; both at the same x_t, of a level uniform over the ladder. decoder, centered: see
    `variational`.
    Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 16 and section 3.1; λ = 0.001 theirs.
    Raises UserError for an unknown name, a process without a ladder, vlb_weight <= 0 and, when
    called, a network without learned variances.
    """
    require_ladder(process)
    if not vlb_weight > 0:
        raise UserError(f"loss.vlb_weight must be positive, got {vlb_weight}")
    last = make_decoder(decoder, centered)

    def loss(
        key: Key, predict: PredictFn, x_0: Example, u: Scalar | None = None
    ) -> Float[Array, ""]:
        level, eps = draw(key, process, x_0, u)
        prediction = ask(process, predict, x_0, eps, level)
        simple = jnp.mean((eps - prediction.eps) ** 2)
        stopped = jax.lax.stop_gradient(prediction)._replace(variance=prediction.variance)
        vlb = estimate(process, stopped, x_0, level, "learned", last)
        return simple + vlb_weight * vlb / math.log(2.0)

    return loss


def draw(
    key: Key, process: GaussianProcess, x_0: Example, u: Scalar | None
) -> tuple[Float[Array, ""], Float[Array, "*shape"]]:
    """(a level, uniform over 0 .. N - 1, and fresh ε ~ N(0, I)), the level that of u in [0, 1).

    Raises UserError for a process without a ladder.
    """
    u, noise_key = split_draw(key, u)
    level = jnp.round(ladder_law(process, u) * require_ladder(process)) - 1.0
    return level, jax.random.normal(noise_key, x_0.shape, x_0.dtype)


def estimate(
    process: GaussianProcess,
    prediction: Prediction,
    x_0: Example,
    level: Scalar,
    variance: str,
    decoder: Decoder,
) -> Float[Array, ""]:
    """(L_T + N L_level)/D, in nats a dimension. Raises UserError as `bound`."""
    term = level_term(process, prediction, x_0, level, variance, decoder)
    return (prior_term(process, x_0) + require_ladder(process) * term) / x_0.size


def make_decoder(name: str, centered: bool) -> Decoder:
    """The decoder of this name. Raises UserError for an unknown one."""
    if name not in DECODERS:
        raise unknown("loss.decoder", name, DECODERS)
    return DECODERS[name](centered)
