"""Denoising score matching over all noise levels (Vincent 2011; Song & Ermon 2019; Ho et al. 2020).

    loss = denoising(process, law="ladder", view="score", weight="sigma2", reduction="half_sum")
    loss(key, predict, x_0)

One loss, three choices: which time is drawn (law), in which view the error is measured,
and with which weight. NCSN's loss and DDPM's are the same error, seen twice:

    σ² |s_θ(x_t) + ε/σ|² = |σ s_θ(x_t) + ε|² = |ε - ε_θ(x_t)|².
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_jax.errors import unknown
from score_jax.predictions import VIEWS, PredictFn, target
from score_jax.processes import GaussianProcess, add_noise
from score_jax.times import LAWS
from score_jax.types import Array, Key

LossFn = Callable[[Key, PredictFn, Array], Array]

WEIGHTS = {
    "one": lambda process, t: 1.0,
    "sigma2": lambda process, t: process.sigma(t) ** 2,
}

REDUCTIONS = {
    "mean": lambda error: jnp.mean(error**2),
    "half_sum": lambda error: 0.5 * jnp.sum(error**2),
}


def denoising(
    process: GaussianProcess,
    *,
    law: str = "uniform",
    view: str = "eps",
    weight: str = "one",
    reduction: str = "mean",
) -> LossFn:
    """w(t) |view_θ(x_t, t) - view(x_0, ε)|² for a fresh t ~ law and ε ~ N(0, I).

    law: "uniform" in t or "ladder" (uniform over the levels).
    view: x0, eps, score, v or velocity; the network may predict another one.
    weight: "one" or "sigma2".
    reduction: "mean" over dimensions (Ho et al.'s code), or "half_sum", ½ Σ (Song & Ermon).

    Song & Ermon 2019 (arXiv 1907.05600), equations 5 and 6 with λ(σ) = σ²:
        law="ladder", view="score", weight="sigma2", reduction="half_sum".
    Ho et al. 2020 (arXiv 2006.11239), equation 14, L_simple:
        law="ladder", view="eps", weight="one", reduction="mean".
    Raises UserError for an unknown name, or a ladder law without a ladder.
    """
    for what, name, known in (
        ("loss.law", law, LAWS),
        ("loss.view", view, VIEWS),
        ("loss.weight", weight, WEIGHTS),
        ("loss.reduction", reduction, REDUCTIONS),
    ):
        if name not in known:
            raise unknown(what, name, known)
    draw_time, reduce = LAWS[law], REDUCTIONS[reduction]
    draw_time(process, 0.5)  # refuses a law that the process cannot have, before training

    def loss(key, predict, x_0):
        time_key, noise_key = jax.random.split(key)
        t = draw_time(process, jax.random.uniform(time_key))
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        prediction = predict(add_noise(process, x_0, eps, t), t)
        error = getattr(prediction, view) - getattr(target(process, x_0, eps, t), view)
        return WEIGHTS[weight](process, t) * reduce(error)

    return loss
