"""Guidance: a prediction pushed further towards what is wanted of x_t, or away from what is not.

    guided = extrapolated(told, untold, process, weight=1.0)        # classifier-free guidance
    guided = extrapolated(good, weaker, process, weight=1.0)        # autoguidance
    guided = by_classifier(predict, process, log_prob, weight=1.0)  # a classifier's gradient

All are maps from PredictFn to PredictFn, so that no sampler knows of them. At weight w their
scores are those of

    p(x_t | c)^(1+w) / p(x_t)^w,    p(x_t) p(c | x_t)^w,

which are not the noised densities of any tilted data, but for w = 0 and -1 of the first and w = 0
and 1 of the second: only there does a sampler draw from a law that is known. The larger w, the
surer the class and the less the samples differ from each other.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from score_jax.errors import UserError, shown
from score_jax.predictions import VIEWS, PredictFn, Prediction, read, shifted
from score_jax.processes import GaussianProcess
from score_jax.types import Array, Example, Scalar

Interval = tuple[float, float] | None
# (x_t, t) -> log p(c | x_t), a scalar, in nats
LogProb = Callable[[Float[Array, "*shape"], Scalar], Float[Array, ""]]


def extrapolated(
    predict: PredictFn,
    other: PredictFn,
    process: GaussianProcess,
    *,
    weight: float,
    interval: Interval = None,
    rescale: float = 0.0,
) -> PredictFn:
    """view + w (view - view of other), w = weight, of every view: away from what `other` says.

    Every view is linear in (x0, eps), and the weights 1 + w and -w sum to 1, so that the views
    stay those of one pair with x_t = α x0 + σ eps, finite wherever both predictions are.

    other: the same network told no class: classifier-free guidance (Ho & Salimans 2022, arXiv
        2207.12598, equation 6, whose w is our weight); or a weaker network told the same:
        autoguidance (Karras et al. 2024, arXiv 2406.02507, equation 3).
    weight: 0 is predict itself, `other` not being asked, and -1 is `other`. Many papers (Karras
        et al. among them) and programs write other + s (predict - other), with a scale of
        s = 1 + weight: their 7.5 is our 6.5.
    interval: (low, high), guidance only where low < σ/α <= high; elsewhere `other` is not asked,
        and Prediction.evaluations says so. Kynkäänniemi et al. 2024 (arXiv 2404.07724), whose σ is
        our σ/α. It is a branch of the program where all examples of a batch stand at the same t,
        as in all samplers but the adaptive one: there both are asked and one is thrown away.
    rescale: φ in [0, 1]. The guided x0 times 1 - φ + φ std(x0 of predict)/std(guided x0), all other
        views following from it; std over this example's numbers, about their mean. Lin et al. 2024
        (arXiv 2305.08891, equations 15 and 16, φ = 0.7), who do it to whatever the network puts
        out (theirs v). We do it to x0, so that it does not depend on the network's view.

    variance is that of predict, log_density is None. Raises UserError unless the weight is a finite
    number >= -1, 0 <= low < high and 0 <= rescale <= 1.
    """
    if not -1.0 <= weight < math.inf:
        raise UserError(
            "guidance.weight must be a finite number of at least -1, which is the other network "
            f"alone, got {weight}; 0 is no guidance"
        )
    if not 0.0 <= rescale <= 1.0:
        raise UserError(f"guidance.rescale must lie in [0, 1], got {rescale}; 0 does nothing")

    def guide(prediction: Prediction, x: Example, t: Scalar) -> Prediction:
        weaker = other(x, t)
        pairs = ((view, getattr(prediction, view), getattr(weaker, view)) for view in VIEWS)
        guided = prediction._replace(
            **{view: ours + weight * (ours - theirs) for view, ours, theirs in pairs},
            log_density=None,
            evaluations=prediction.evaluations + weaker.evaluations,
        )
        if rescale == 0.0:
            return guided
        spread, wanted = jnp.std(guided.x0), jnp.std(prediction.x0)
        factor = jnp.where(spread > 0.0, wanted / spread, 1.0)  # one number has no spread
        x0 = (1.0 - rescale + rescale * factor) * guided.x0
        views = read("x0", x0, process, x, t)
        return guided._replace(**{view: getattr(views, view) for view in VIEWS})

    return _guided(predict, guide, process, weight, interval)


def by_classifier(
    predict: PredictFn,
    process: GaussianProcess,
    log_prob: LogProb,
    *,
    weight: float,
    interval: Interval = None,
) -> PredictFn:
    """score + weight ∇_x log p(c | x_t), and all other views with it.

    Bayes' rule: at weight 1, with a classifier that knows how noisy its input is, it is the score
    of p(x_t | c). Sohl-Dickstein et al. 2015 (arXiv 1503.03585); Song et al. 2021 (arXiv
    2011.13456), section 5; Dhariwal & Nichol 2021 (arXiv 2105.05233), section 4, whose scale s is
    our weight.

    log_prob: (x_t, t) -> log p(c | x_t) of the class that is wanted, a scalar, in nats; trained by
        `losses.cross_entropy`. One evaluation more.
    weight: 0 is predict itself, the classifier not being asked; below 0 away from the class.
    interval: as in `extrapolated`.

    Undefined (NaN) where α = 0 (flow at t = 1), since x0 changes by σ²/α of the gradient: start a
    little later (0.999), or end the interval at a finite σ/α.
    variance is that of predict, log_density is None. Raises UserError unless the weight is finite
    and 0 <= low < high.
    """
    if not math.isfinite(weight):
        raise UserError(f"guidance.weight must be finite, got {weight}; 0 is no guidance")
    slope_of = jax.grad(log_prob)

    def guide(prediction: Prediction, x: Example, t: Scalar) -> Prediction:
        guided = shifted(prediction, process, t, weight * slope_of(x, t))
        return guided._replace(evaluations=prediction.evaluations + 1)

    return _guided(predict, guide, process, weight, interval)


def _guided(
    predict: PredictFn,
    guide: Callable[[Prediction, Example, Scalar], Prediction],
    process: GaussianProcess,
    weight: float,
    interval: Interval,
) -> PredictFn:
    """guide of what predict says, within the interval; predict where the weight is 0."""
    if interval is not None and not (len(interval) == 2 and 0.0 <= interval[0] < interval[1]):
        raise UserError(
            "guidance.interval must be None or (low, high), noise-to-signal ratios σ/α with "
            f"0 <= low < high, got {shown(interval)}"
        )
    if weight == 0.0:
        return predict
    if interval is None:
        return lambda x, t: guide(predict(x, t), x, t)
    low, high = interval

    def counted(prediction):  # of one type in both branches
        return prediction._replace(evaluations=jnp.asarray(prediction.evaluations, jnp.int32))

    def guided(x: Example, t: Scalar) -> Prediction:
        prediction = predict(x, t)
        ratio = process.sigma(t) / process.alpha(t)
        return jax.lax.cond(
            (low < ratio) & (ratio <= high),
            lambda: counted(guide(prediction, x, t)),
            lambda: counted(prediction._replace(log_density=None)),
        )

    return guided
