"""Cross entropy of a classifier on noised data, for guidance."""

from collections.abc import Callable

import jax
from jaxtyping import Float

from score_jax.losses.base import LossFn, split_draw, training_times
from score_jax.processes import GaussianProcess, add_noise
from score_jax.types import Array, Example, Key, Scalar

# (x_t, t) -> log p(c | x_t), a scalar, in nats
LogProb = Callable[[Float[Array, "*shape"], Scalar], Float[Array, ""]]


def cross_entropy(
    process: GaussianProcess,
    *,
    law: str = "uniform",
    law_mean: float | None = None,
    law_std: float | None = None,
) -> LossFn:
    """-log p_θ(c | x_t) in nats, x_t = α x_0 + σ ε, for a fresh t ~ law and ε ~ N(0, I).

        loss = cross_entropy(process, law="uniform")
        loss(key, log_prob, x_0)        # or (key, log_prob, x_0, u), u as in every LossFn

    It has the form of a LossFn with log_prob, (x_t, t) -> log p_θ(c | x_t) of the example's own
    class, in predict's place. Its mean over data of all classes is least where p_θ is the exact
    p(c | x_t), and is then the classes' conditional entropy, between 0 (all is clear) and that of
    the classes themselves (all is noise). Dhariwal & Nichol 2021 (arXiv 2105.05233), section 4;
    Song et al. 2021 (arXiv 2011.13456), appendix I.1.

    law, law_mean, law_std: as in `denoising`.
    Raises UserError for an unknown law, a ladder law without a ladder, law_mean or law_std
    where they have no meaning, and law_std <= 0.
    """
    time_of = training_times(process, law, mean=law_mean, std=law_std)

    def loss(
        key: Key, log_prob: LogProb, x_0: Example, u: Scalar | None = None
    ) -> Float[Array, ""]:
        u, noise_key = split_draw(key, u)
        t, factor = time_of(u)
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        return -factor * log_prob(add_noise(process, x_0, eps, t), t)

    return loss
