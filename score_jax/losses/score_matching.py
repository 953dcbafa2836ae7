"""Score matching without a denoising target (Hyvärinen 2005; Song et al. 2019; Pang et al. 2020).

    loss = sliced(process, at=0.0)                           # on clean data
    loss = implicit(process, law="ladder", weight="sigma2")  # over all noise levels
    loss(key, predict, x_0)

All fit the model's score s to ∇ log p_t over x = α x_0 + σ ε, and all have the gradient of
the Fisher divergence: by integration by parts (Hyvärinen 2005, theorem 1)

    E ½ |s - ∇ log p_t|² = E [tr J_s + ½ |s|²] + a constant,    J_s = ∂s/∂x.

`explicit` knows ∇ log p_t, `implicit` takes the trace exactly, `sliced` by random directions
(E v vᵀ = I, so that E vᵀ J v = tr J), `finite_difference` without derivatives of the network.
At a time without noise they are the losses on clean data. All are sums over the D dimensions of
one example, in units of w/x².
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from score_jax.densities import DENSITIES, Density
from score_jax.errors import UserError, unknown
from score_jax.limits import check_at_most
from score_jax.losses.base import LossFn, split_draw, training_times, weight_fn
from score_jax.predictions import PredictFn
from score_jax.processes import GaussianProcess, add_noise
from score_jax.types import Array, Example, Key, Scalar

Score = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]  # at one time: x -> score
MOST_PROJECTIONS = 10_000  # of each example, all at a time
DIRECTIONS = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}


def explicit(
    process: GaussianProcess,
    density: str,
    *,
    law: str = "uniform",
    at: float | None = None,
    weight: str = "one",
) -> LossFn:
    """½ w(t) |s(x, t) - ∇ log p_t(x)|², p_t the law of α x_0 + σ ε for x_0 ~ density.

    Hyvärinen 2005 (JMLR 6), equation 2. Half the Fisher divergence, so 0 at the exact score.
    density: a name in densities.DENSITIES; for any other density see `explicit_of`.
    law, at, weight: as in `denoising`, the errors being those of the score.
    Raises UserError for an unknown name, `at` outside [0, 1] or without noise where the density
    is singular, a law that the process cannot have, and a weight that belongs to another view.
    """
    if density not in DENSITIES:
        raise unknown("loss.density", density, DENSITIES)
    return explicit_of(process, DENSITIES[density](), law=law, at=at, weight=weight)


def explicit_of(
    process: GaussianProcess,
    density: Density,
    *,
    law: str = "uniform",
    at: float | None = None,
    weight: str = "one",
) -> LossFn:
    """`explicit` of a density: ½ w(t) |s(x, t) - ∇ log p_t(x)|², p_t = density.noised(α, σ).

    With `parzen(data, 0.0)` it is that of the data themselves, whose p_t is their kernel density
    estimate of bandwidth σ (Vincent 2011). Options and errors as in `explicit`.
    """
    exact_score = lambda x, t: density.noised(process.alpha(t), process.sigma(t)).score(x)

    def objective(key, score, x, t):
        return 0.5 * jnp.sum((score(x) - exact_score(x, t)) ** 2)

    loss = _at_noised_data(process, objective, law, at, weight)
    if at is not None and not np.all(np.isfinite(jax.jit(exact_score)(density.mean(), at))):
        raise UserError(f"loss.at = {at}: loss.density is singular and has no score without noise")
    return loss


def implicit(
    process: GaussianProcess,
    *,
    law: str = "uniform",
    at: float | None = None,
    weight: str = "one",
) -> LossFn:
    """w(t) (tr J_s + ½ |s|²) at x = α x_0 + σ ε, the trace exact: one derivative for each of
    the D dimensions.

    Hyvärinen 2005 (JMLR 6), equation 4. Options and errors as in `explicit`.
    """

    def objective(key, score, x, t):
        basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
        s, along = _directional(score, x, basis)
        return jnp.sum(basis * along) + 0.5 * jnp.sum(s**2)

    return _at_noised_data(process, objective, law, at, weight)


def sliced(
    process: GaussianProcess,
    *,
    projections: int = 1,
    directions: str = "rademacher",
    variance_reduced: bool = True,
    law: str = "uniform",
    at: float | None = None,
    weight: str = "one",
) -> LossFn:
    """w(t) (vᵀ J_s v + ½ |s|²), or ½ (vᵀ s)² for ½ |s|² without variance reduction.

    Song, Garg, Shi & Ermon 2019 (arXiv 1905.07088), equation 8 and its variance-reduced form
    (SSM-VR), whose second term has its expectation over v taken exactly. The derivative is
    taken along v: one product with the Jacobian each.
    projections: how many v are averaged over.
    directions: "rademacher" (±1 in each coordinate) or "gaussian"; E v vᵀ = I for both, and
        the trace of a diagonal J is exact with the first.
    law, at, weight: as in `explicit`. Raises UserError for projections below 1, unknown
    directions, and as `explicit`.
    """
    draw = _directions(projections, directions)

    def objective(key, score, x, t):
        v = draw(key, x)
        s, along = _directional(score, x, v)
        if variance_reduced:
            norm = jnp.sum(s**2)
        else:
            norm = jnp.mean(jnp.sum((v * s).reshape(projections, -1), axis=1) ** 2)
        return jnp.sum(v * along) / projections + 0.5 * norm

    return _at_noised_data(process, objective, law, at, weight)


def finite_difference(
    process: GaussianProcess,
    *,
    step: float = 0.01,
    projections: int = 1,
    directions: str = "rademacher",
    law: str = "uniform",
    at: float | None = None,
    weight: str = "one",
) -> LossFn:
    """w(t) (vᵀ (s₊ - s₋)/2h + ½ |(s₊ + s₋)/2|²) with s± = s(x ± h v): no derivative in x.

    By Taylor's theorem (s₊ - s₋)/2h = J v + O(h²) and (s₊ + s₋)/2 = s + O(h²), so this is
    variance-reduced `sliced` + O(h²), and equal to it for a score linear in x. It is FD-SSM of
    Pang et al. 2020 (arXiv 2007.03317) for score networks, whose code has
    |s₊ + s₋|²/8 + D vᵀ(s₊ - s₋)/2ε² with v on the sphere of radius ε = 0.1: h = ε/√D here.

    step: h in units of σ(t), over which a noised score varies, or of x where there is no noise.
        In float32 a smaller one drowns in rounding (∝ 1/h) and a larger one in truncation
        (∝ h²); at 0.01 the loss is right to a thousandth for σ from 0.01 to 1.
    Other options and errors as in `sliced`; step must be positive.
    """
    if not step > 0:
        raise UserError(f"loss.step must be positive, got {step}")
    draw = _directions(projections, directions)

    def objective(key, score, x, t):
        sigma = process.sigma(t)
        h = step * jnp.where(sigma > 0, sigma, 1.0)
        v = draw(key, x)
        after, before = jax.vmap(lambda v: (score(x + h * v), score(x - h * v)))(v)
        along, mean = (after - before) / (2.0 * h), (after + before) / 2.0
        return (jnp.sum(v * along) + 0.5 * jnp.sum(mean**2)) / projections

    return _at_noised_data(process, objective, law, at, weight)


def fisher_divergence(
    key: Key,
    score: Score,
    density: Density,
    n: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(estimate, standard error) of E_{x ~ density} |score(x) - ∇ log density(x)|².

    The mean over n draws; units of 1/x². Raises UserError for n below 2.
    """
    if n < 2:
        raise UserError(f"n must be at least 2, got {n}")

    def square(key):
        x = density.sample(key)
        return jnp.sum((score(x) - density.score(x)) ** 2)

    squares = jax.jit(jax.vmap(square))(jax.random.split(key, n))
    return squares.mean(), squares.std(ddof=1) / n**0.5


Objective = Callable[
    [Key, Score, Example, Scalar],
    Float[Array, ""],
]


def _at_noised_data(
    process: GaussianProcess, objective: Objective, law: str, at: float | None, weight: str
) -> LossFn:
    """The LossFn of an objective (key, score, x, t) -> scalar, at x = α x_0 + σ ε."""
    time_of, weigh = training_times(process, law, at), weight_fn(process, weight, "score")

    def loss(
        key: Key, predict: PredictFn, x_0: Example, u: Scalar | None = None
    ) -> Float[Array, ""]:
        u, rest = split_draw(key, u)
        t, factor = time_of(u)
        noise_key, objective_key = jax.random.split(rest)
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        x = add_noise(process, x_0, eps, t)
        score = lambda x: predict(x, t).score
        return factor * weigh(t) * objective(objective_key, score, x, t)

    return loss


def _directional(score: Score, x: Example, directions: Array) -> tuple[Array, Array]:
    """s(x) and J v for every v of directions [M, ...]."""
    along = lambda v: jax.jvp(score, (x,), (v,))
    return jax.vmap(along, out_axes=(None, 0))(directions)


def _directions(projections: int, directions: str) -> Callable[[Key, Array], Array]:
    """(key, x) -> [projections, *x.shape] directions v with E v vᵀ = I."""
    if projections < 1:
        raise UserError(f"loss.projections must be at least 1, got {projections}")
    check_at_most("loss.projections", projections, MOST_PROJECTIONS)
    if directions not in DIRECTIONS:
        raise unknown("loss.directions", directions, DIRECTIONS)
    return lambda key, x: DIRECTIONS[directions](key, (projections, *x.shape), x.dtype)
