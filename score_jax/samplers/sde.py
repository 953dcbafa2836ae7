"""The reverse SDE, and Langevin corrections on the way (Song et al. 2021, arXiv 2011.13456).

    dx = [f(t) x - g(t)² ∇ log p_t(x)] dt + g(t) dw,        from t = 1 down to 0

(their equation 6, f the forward drift per unit of x), one step t -> s of length h = t - s:

    euler_maruyama      x_s = (1 - h f) x_t + h g² score + √h g z
    reverse_diffusion   x_s = (2 - α_t/α_s) x_t + b² score + b z,   b² of q(x_t | x_s)

Both are of first order in the law. `reverse_diffusion` needs the process at the two times only,
so its step does not depend on how time is counted between them; that of `euler_maruyama` does,
and is only as good as f and g² are constant over it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError, unknown
from score_jax.limits import check_at_most
from score_jax.processes import GaussianProcess, diffusion2, drift, transition
from score_jax.samplers.ancestral import ancestral, ddim
from score_jax.samplers.base import Sampler, Times, make_times, of_kernel
from score_jax.samplers.langevin import langevin_noise, langevin_step
from score_jax.times import on_host


def euler_maruyama(
    process: GaussianProcess,
    *,
    steps: int = 1000,
    grid: str = "uniform",
    start: float = 1.0,
    end: float = 0.0,
    denoise: bool = True,
) -> Sampler:
    """x_s = x_t - h [f x_t - g² score] + √h g z, h = t - s, with f and g² at t.

    The Euler-Maruyama method on the reverse SDE (Song et al. 2021, equation 6), h the grid's
    own step. The coefficients are their limits from below, where the step goes: those of a
    ladder jump at its levels. No ODE solver, it depends on how time is counted.

    steps, grid, start, end, denoise: see `samplers.base.make_times`. Where α(1) = 0 (flow)
    f is infinite at t = 1, and the first time is `processes.start_time`.
    """
    times = make_times(process, grid, steps, end, denoise, start, divides=True)
    h = times.t - times.s
    just_below = times.t - 1e-6 * h
    f, g2 = on_host(lambda t: (drift(process, 1.0, t), diffusion2(process, t)), just_below)
    return _linear(times, 1.0 - h * f, h * g2)


def reverse_diffusion(
    process: GaussianProcess,
    *,
    steps: int = 1000,
    grid: str = "uniform",
    start: float = 1.0,
    end: float = 0.0,
    denoise: bool = True,
) -> Sampler:
    """x_s = (2 - a) x_t + b² score + b z, with q(x_t | x_s) = N(a x_s, b² I).

    Song et al. 2021, appendix E, equation 46, for any process; on DDPM's ladder 2 - a is
    2 - √(1 - β_i), on NCSN's b² is σ_i² - σ_{i-1}². In one step a level of 25, each σ 1.28
    times the next, it makes a normal's variance 30% too large, `euler_maruyama` 2% to 5%.

    steps, grid, start, end, denoise: see `samplers.base.make_times`.
    """
    times = make_times(process, grid, steps, end, denoise, start)
    a, b = on_host(lambda t, s: transition(process, s, t), times.t, times.s)
    return _linear(times, 2.0 - a, b**2)


def _linear(times: Times, a: np.ndarray, b2: np.ndarray) -> Sampler:
    """x_s = a x_t + b² score + b z."""

    def kernel(predict, x, t, s, a, b2, b):
        return a * x + b2 * predict(x, t).score, b

    return of_kernel(times, kernel, a, b2, np.sqrt(b2))


CORRECTORS = ("langevin", "ald")
FIRST = ("corrector", "predictor")
DAMPINGS = ("step", "whole")
MOST_CORRECTIONS = 30  # each is written out in the program


def corrected(
    sampler: Sampler,
    process: GaussianProcess,
    *,
    corrector: str,
    corrections: int,
    snr: float,
    first: str = "corrector",
    damping: str = "step",
) -> Sampler:
    """The sampler, with `corrections` Langevin steps beside each of its own.

        x ← x + δ score + √(2 δ) z,

        langevin    δ = 2 a² (snr |z|/|score|)²,    the norms of this one example
        ald         δ = 2 a² (snr σ_t)².

    Song et al. 2021, algorithms 4 and 5; ald is the second corrector of their code, the step of
    annealed Langevin dynamics. Their norms are means over a batch; here they are the example's
    own, so that a draw knows no batch mates.

    first: "corrector", as in the released code: at t, before the step from t to s, so that
        nothing is corrected after the last; or "predictor", as in algorithms 2 and 3: at s.
    damping: a is α_t/α_s of one "step", as in the released code: a² = 1 - β_i on DDPM's ladder;
        or the "whole" α_t of the paper, the product of them all. 1 where α is constant.

    For images the two are the same within a tenth: |z| ~ √D, |score| ~ √D/σ_t. In few dimensions
    |score| is often almost 0 and langevin's step then huge, so it is biased there, the more the
    fewer they are; use ald. Each correction of ald leaves a variance v too large by δ²/v, which
    the predictor shrinks again.

    snr: the released code has 0.16 for VE; the best of the paper's table 5 are 0.01 to 0.05 for
        VP.
    corrections: network evaluations more in each step; 0 leaves the sampler as it is.
    Raises UserError for an unknown corrector, first or damping, and unless 0 <= corrections <=
    MOST_CORRECTIONS and snr > 0. The sampler's state must be x itself.
    """
    if corrector not in CORRECTORS:
        raise unknown("sampler.corrector", corrector, CORRECTORS)
    for option, value, known in (("first", first, FIRST), ("damping", damping, DAMPINGS)):
        if value not in known:
            raise unknown(f"sampler.{option}", value, known)
    if corrections < 0:
        raise UserError(f"sampler.corrections must be at least 0, got {corrections}")
    check_at_most("sampler.corrections", corrections, MOST_CORRECTIONS)
    if not snr > 0:
        raise UserError(f"sampler.snr must be positive, got {snr}")
    if corrections == 0:
        return sampler
    t, s, *rows = sampler.schedule
    at = t if first == "corrector" else s
    after = s if first == "corrector" else np.append(s[1:], 0.0)  # the last: to clean data
    a, _ = on_host(lambda t, s: transition(process, s, t), at, after)
    if damping == "whole":
        a = on_host(process.alpha, at)
    scale = on_host(process.sigma, at) if corrector == "ald" else 1.0
    steps = 2.0 * (a * snr * scale) ** 2

    def correct(key, predict, x, t, delta):
        score = predict(x, t).score
        if corrector == "langevin":
            z = langevin_noise(key, x)
            delta = delta * jnp.sum(z**2) / jnp.sum(score**2)
        return langevin_step(key, score, x, 2.0 * delta)

    def step(key, predict, x, t, s, delta, *row):
        key, *correction_keys = jax.random.split(key, corrections + 1)
        if first == "predictor":
            x = sampler.step(key, predict, x, t, s, *row)
        for correction_key in correction_keys:
            x = correct(correction_key, predict, x, t if first == "corrector" else s, delta)
        return x if first == "predictor" else sampler.step(key, predict, x, t, s, *row)

    return sampler._replace(schedule=(t, s, steps, *rows), step=step, kernel=None)


PREDICTORS: dict[str, Callable[..., Sampler]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
}


def predictor_corrector(
    process: GaussianProcess,
    *,
    predictor: str = "reverse_diffusion",
    corrector: str = "langevin",
    corrections: int = 1,
    snr: float = 0.16,
    first: str = "corrector",
    damping: str = "step",
    steps: int = 1000,
    grid: str = "uniform",
    start: float = 1.0,
    end: float = 0.0,
    denoise: bool = True,
) -> Sampler:
    """A predictor's steps, with Langevin corrections between them: see `corrected`.

    Song et al. 2021, algorithm 1. predictor: ancestral (the small variance), ddim (eta = 0),
    euler_maruyama or reverse_diffusion. corrector, corrections, snr, first, damping: see
    `corrected`; in few dimensions take corrector = "ald".
    steps, grid, start, end, denoise: see `samplers.base.make_times`.
    Network evaluations: 1 + corrections a step, and one more with denoise.
    Raises UserError for an unknown predictor, and as `corrected`.
    """
    if predictor not in PREDICTORS:
        raise unknown("sampler.predictor", predictor, PREDICTORS)
    sampler = PREDICTORS[predictor](
        process, steps=steps, grid=grid, start=start, end=end, denoise=denoise
    )
    return corrected(
        sampler,
        process,
        corrector=corrector,
        corrections=corrections,
        snr=snr,
        first=first,
        damping=damping,
    )
