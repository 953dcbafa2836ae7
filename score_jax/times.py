"""Times to train at (laws, draws) and times to sample through (grids).

A law maps u ~ U[0, 1) to a training time t in [0, 1]; a draw gives the example at `position` of a
batch its u, from the batch's key; a grid orders n + 1 decreasing sampling times from a start to an
end, on the host in float64. The number of sampling steps is the sampler's: it need not be the
number of levels that the network was trained at.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from score_jax.errors import UserError, unknown
from score_jax.processes import GaussianProcess, start_time
from score_jax.types import Array, Given, Integer, Key, Scalar

BELOW_1 = 1.0 - 2.0**-24  # the largest float32 below 1
Grid = Float[np.ndarray, "{n}+1"]
FIRST = 1e-5  # Song et al. 2021, appendix C: training stays so far away from t = 0


def uniform_law(process: GaussianProcess, u: Scalar) -> Scalar:
    """t = 1e-5 + (1 - 1e-5) u: Song et al. 2021, appendix C, who stay 1e-5 away from t = 0."""
    return FIRST + (1.0 - FIRST) * u


def ladder_law(process: GaussianProcess, u: Scalar) -> Float[Array, ""]:
    """t = (⌊u N⌋ + 1)/N, uniform over the N levels of a ladder. Ho et al. 2020, algorithm 1.

    Raises UserError for a process without a ladder.
    """
    levels = _ladder(process, "law")
    return (jnp.minimum(jnp.floor(u * levels), levels - 1) + 1) / levels


def lognormal_law(process: GaussianProcess, u: Scalar, mean: float, std: float) -> Float[Array, ""]:
    """log σ/α = mean + std Φ⁻¹(u), what lies beyond the process's range put at its end.

    Karras et al. 2022 (arXiv 2206.00364), table 1, for α = 1.
    """
    log_ratio = mean + std * jax.scipy.special.ndtri(u)
    return jnp.clip(process.time_of_logsnr(-2.0 * log_ratio), 0.0, 1.0)


def logit_normal_law(
    process: GaussianProcess, u: Scalar, mean: float, std: float
) -> Float[Array, ""]:
    """log t/(1 - t) = mean + std Φ⁻¹(u). Esser et al. 2024 (arXiv 2403.03206), equation 19."""
    return jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(u))


def importance_law(process: GaussianProcess, u: Scalar) -> Float[Array, ""]:
    """p(t) ∝ g²/σ² = -d logsnr/dt, that is, logsnr uniform between t = 1e-5 and `start_time`.

    The law under which the likelihood-weighted loss of an eps network has no weight left:
    Song et al. 2021 (arXiv 2101.09258), section 5.1, for any process.
    """
    clean, noisy = process.logsnr(FIRST), process.logsnr(start_time(process))
    return jnp.clip(process.time_of_logsnr(clean + u * (noisy - clean)), 0.0, 1.0)


LAWS: dict[str, Callable[..., Scalar]] = {
    "uniform": uniform_law,
    "ladder": ladder_law,
    "lognormal": lognormal_law,
    "logit_normal": logit_normal_law,
    "importance": importance_law,
}
NORMAL_LAWS = {
    "lognormal": (-1.2, 1.2),
    "logit_normal": (0.0, 1.0),
}  # published (mean, std)


def make_law(
    process: GaussianProcess, law: str, mean: float | None = None, std: float | None = None
) -> Callable[[Scalar], tuple[Scalar, Scalar]]:
    """u -> (t, w): a time of the law, and what a loss there must be multiplied with.

    w is 1 but for "importance", where it is the ratio of the uniform density to the law's: the
    loss keeps its expectation over uniform t and loses variance. mean, std: of the normal laws,
    theirs by default (lognormal -1.2 and 1.2, logit_normal 0 and 1).
    Raises UserError for an unknown law, a ladder law without a ladder, mean or std where they
    have no meaning, and std <= 0.
    """
    if law not in LAWS:
        raise unknown("loss.law", law, LAWS)
    if law in NORMAL_LAWS:
        default_mean, default_std = NORMAL_LAWS[law]
        mean, std = default_mean if mean is None else mean, default_std if std is None else std
        if not std > 0:
            raise UserError(f"loss.law_std must be positive, got {std}")
        draw = lambda u: LAWS[law](process, _inside(u), mean, std)
    elif (mean, std) != (None, None):
        raise UserError(
            f"loss.law_mean = {mean} and loss.law_std = {std} belong to the laws "
            f"{', '.join(NORMAL_LAWS)}; loss.law is '{law}'"
        )
    else:
        draw = lambda u: LAWS[law](process, u)
    draw(0.5)  # refuses a law that the process cannot have, before training

    if law != "importance":
        return lambda u: (draw(u), 1.0)
    last = start_time(process)
    total = process.logsnr(FIRST) - process.logsnr(last)

    def weighted(u):
        t = draw(u)
        return t, total / (-jax.grad(process.logsnr)(t) * (last - FIRST))

    return weighted


def _inside(u):
    """u kept off 0 and 1, where a normal quantile is infinite, by half of what u is counted in."""
    return jnp.clip(u, 2.0**-24, BELOW_1)


def independent(key: Key, position: Integer, batch_size: int) -> Float[Array, ""]:
    """Every example its own u ~ U[0, 1)."""
    return jax.random.uniform(jax.random.fold_in(key, position))


def antithetic(key: Key, position: Integer, batch_size: int) -> Float[Array, ""]:
    """Pairs u and 1 - u of neighbours, u ~ U[0, 1)."""
    return mirrored(jax.random.uniform(jax.random.fold_in(key, position // 2)), position)


def mirrored(u: Scalar, position: Integer) -> Float[Array, ""]:
    """u at even positions, 1 - u at odd ones, within [0, 1)."""
    return jnp.where(position % 2 == 0, u, jnp.minimum(1.0 - u, BELOW_1))


def stratified(key: Key, position: Integer, batch_size: int) -> Float[Array, ""]:
    """u_0 + i/B mod 1, one u_0 for the batch. Kingma et al. 2021 (VDM), appendix I.1."""
    return (jax.random.uniform(key) + position / batch_size) % 1.0


DRAWS = {"independent": independent, "antithetic": antithetic, "stratified": stratified}


def uniform_grid(process: GaussianProcess, n: int, start: float, end: float) -> Grid:
    """n equal steps of t: start + (end - start) i/n."""
    return np.linspace(start, end, n + 1)


def quadratic_grid(process: GaussianProcess, n: int, start: float, end: float) -> Grid:
    """√t in equal steps: finer towards the data. Song et al. 2020 (DDIM), appendix D.2."""
    inner = np.linspace(start**0.5, end**0.5, n + 1)[1:-1] ** 2
    return np.concatenate([[start], inner, [end]])


def ladder_grid(process: GaussianProcess, n: int, start: float, end: float) -> Grid:
    """n of the ladder's levels, evenly spread from the noisiest before `start`, then `end`.

    With n = N all levels, as in NCSN and DDPM; with fewer the strided subset of Song et
    al. 2020 (DDIM, arXiv 2010.02502, section 4.2); with more the levels are interpolated.
    Raises UserError for a process without a ladder, and a start before the first level.
    """
    levels = _ladder(process, "grid")
    first = np.floor(start * levels + 1e-9)
    if first < 1:
        raise UserError(
            f"sampler.grid = 'ladder' has no level up to sampler.start = {start}; the first of "
            f"the {levels} levels is at {1 / levels:.6g}"
        )
    position = np.linspace(first, 1.0, n)
    if n <= first:
        position = np.round(position)
    return np.append(position / levels, end)


def karras_grid(process: GaussianProcess, n: int, start: float, end: float) -> Grid:
    """(σ/α)^(1/7) in equal steps. Karras et al. 2022, equation 5, with ρ = 7.

    Raises UserError where α or σ is 0 at an end.
    """
    low, high = np.exp(-_logsnr_at(process, "karras", start, end) / 14)[::-1]
    return _through(process, -14 * np.log(np.linspace(high, low, n + 1)), start, end)


def logsnr_grid(process: GaussianProcess, n: int, start: float, end: float) -> Grid:
    """logsnr in equal steps. Lu et al. 2022 (DPM-Solver, arXiv 2206.00927), section 3.3.

    Raises UserError where α or σ is 0 at an end.
    """
    noisy, clean = _logsnr_at(process, "logsnr", start, end)
    return _through(process, np.linspace(noisy, clean, n + 1), start, end)


def angle_grid(process: GaussianProcess, n: int, start: float, end: float) -> Grid:
    """atan((2 σ/α)^(2/3)) in equal steps: finest about σ/α = 1/2, coarse towards both ends.

    1/2 is about how far data spread that lie in [-1, 1] (σ_data of Karras et al. 2022, table 1):
    there most is decided. With power 1 it would be the angle φ of `probability_flow` at that scale;
    2/3 leaves more steps for small σ, where fine structure is drawn. The exponent is measured:
    `benchmarks.sampler_frontier`. The ends may be clean data and pure noise.
    """
    noisy, clean = np.arctan(
        (2 * np.exp(-0.5 * on_host(process.logsnr, np.array([start, end])))) ** (2 / 3)
    )
    tangent = np.tan(np.linspace(noisy, clean, n + 1)[1:-1])
    logsnrs = np.concatenate([[0.0], 2 * np.log(2) - 3 * np.log(tangent), [0.0]])
    return _through(process, logsnrs, start, end)


def _logsnr_at(process, grid, start, end):
    ends = on_host(process.logsnr, np.array([start, end]))
    for name, t, value, why in (("start", start, ends[0], "data"), ("end", end, ends[1], "noise")):
        if not np.isfinite(value):
            raise UserError(
                f"sampler.grid = '{grid}' needs a finite log SNR at both ends, but there is no "
                f"{why} at sampler.{name} = {t}; use a time a little inside, or grid = 'uniform'"
            )
    return ends


def _through(process, logsnrs, start, end):
    """The times with these logsnrs, the ends exactly as they were given."""
    times = on_host(process.time_of_logsnr, logsnrs)
    return np.concatenate([[start], times[1:-1], [end]])


def on_host(fn: Callable[..., Any], *times: Real[Given, " n"]) -> Any:
    """fn of scalar times, at arrays of them, in float64 on the host: how coefficients are made."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        out = jax.jit(jax.vmap(fn))(*(jnp.asarray(t, jnp.float64) for t in times))
        return jax.tree.map(np.asarray, out)


GRIDS = {
    "uniform": uniform_grid,
    "quadratic": quadratic_grid,
    "ladder": ladder_grid,
    "karras": karras_grid,
    "logsnr": logsnr_grid,
    "angle": angle_grid,
}


def _ladder(process: GaussianProcess, option: str) -> int:
    """The number of the process's levels; raises UserError where it has none."""
    if process.levels is None:
        raise UserError(
            f"{option} = 'ladder' needs a process with a ladder (ncsn, ddpm), "
            f"got {type(process).__name__}; use 'uniform'"
        )
    return process.levels
