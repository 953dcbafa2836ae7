"""Denoising score matching, at one noise level or all of them.

Vincent 2011; Song & Ermon 2019; Ho et al. 2020.

    loss = denoising(process, law="ladder", view="score", weight="sigma2", reduction="half_sum")
    loss(key, predict, x_0)

One loss, three choices: which time is drawn (law), in which view the error is measured,
and with which weight. NCSN's loss and DDPM's are the same error, seen twice:

    σ² |s_θ(x_t) + ε/σ|² = |σ s_θ(x_t) + ε|² = |ε - ε_θ(x_t)|².
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from score_jax.errors import UserError, unknown
from score_jax.losses.base import LossFn, split_draw, training_times, weight_fn
from score_jax.predictions import SIGMA_DATA, PredictFn, express, target
from score_jax.processes import GaussianProcess, add_noise
from score_jax.types import Array, Example, Key, Scalar

REDUCTIONS = {
    "mean": lambda error: jnp.mean(error**2),
    "half_sum": lambda error: 0.5 * jnp.sum(error**2),
}


def denoising(
    process: GaussianProcess,
    *,
    law: str = "uniform",
    law_mean: float | None = None,
    law_std: float | None = None,
    at: float | None = None,
    view: str = "eps",
    weight: str = "one",
    reduction: str = "mean",
    sigma_data: float = SIGMA_DATA,
) -> LossFn:
    """w(t) |view_θ(x_t, t) - view(x_0, ε)|² for a fresh t ~ law and ε ~ N(0, I).

    law: "uniform" in t, "ladder" (uniform over the levels), "lognormal" (of σ/α),
        "logit_normal" (of t), "importance" (∝ g²/σ², the loss divided by it).
        law_mean, law_std: of the normal laws; None for the published ones.
    at: one time instead of a law.
    view: x0, eps, score, v, velocity, scaled_score, F or posterior_mean; the network may
        predict another.
    weight: "one"; "sigma2"; "likelihood", g² on the score (at a ladder's level, where g² jumps,
        that of the interval above); "min_snr", min(SNR, 5) on x0;
        "edm", (σ² + σ_d²)/(σ σ_d)² on x0, σ being σ/α and σ_d sigma_data.
    reduction: "mean" over dimensions (Ho et al.'s code), or "half_sum", ½ Σ (Song & Ermon).

    Published losses, by their choices:
        Song & Ermon 2019 (arXiv 1907.05600), equations 5 and 6 with λ(σ) = σ²:
            law="ladder", view="score", weight="sigma2", reduction="half_sum"
        Ho et al. 2020 (arXiv 2006.11239), equation 14, L_simple: law="ladder", view="eps"
        Song et al. 2021 (arXiv 2101.09258), equation 7 with λ = g², an upper bound of the
            negative log-likelihood up to a constant, in nats:
            law="importance", view="score", weight="likelihood", reduction="half_sum"
        Karras et al. 2022 (arXiv 2206.00364), table 1:
            law="lognormal", view="x0", weight="edm" (or view="F", weight="one": the same)
        Hang et al. 2023 (arXiv 2303.09556), equation 5: view="x0", weight="min_snr"
        Lipman et al. 2023 (arXiv 2210.02747), equation 9: law="uniform", view="velocity"
    A number for one example, x_0 in the network's units; in nats where that is said above.
    Raises UserError for an unknown name, a ladder law or posterior_mean without a ladder, a weight
    that belongs to another view, a time outside [0, 1] or without noise, law_mean or law_std where
    they have no meaning, and law_std or sigma_data <= 0.
    """
    if reduction not in REDUCTIONS:
        raise unknown("loss.reduction", reduction, REDUCTIONS)
    if not sigma_data > 0:
        raise UserError(f"loss.sigma_data must be positive, got {sigma_data}")
    weigh, reduce = weight_fn(process, weight, view, sigma_data), REDUCTIONS[reduction]
    time_of = training_times(process, law, at, law_mean, law_std)
    if at is not None and not float(process.sigma(at)) > 0:
        raise UserError(f"loss.at = {at}: there is no noise at this time to be predicted")
    if view == "posterior_mean" and process.levels is None:
        raise UserError(
            "loss.view = 'posterior_mean' needs a process with a ladder (ncsn, ddpm), "
            f"got {type(process).__name__}; use 'eps'"
        )

    def loss(
        key: Key, predict: PredictFn, x_0: Example, u: Scalar | None = None
    ) -> Float[Array, ""]:
        u, noise_key = split_draw(key, u)
        t, factor = time_of(u)
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        seen = express(view, predict(add_noise(process, x_0, eps, t), t), process, t, sigma_data)
        error = seen - express(view, target(process, x_0, eps, t), process, t, sigma_data)
        return factor * weigh(t) * reduce(error)

    return loss
