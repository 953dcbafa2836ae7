"""Densities, scores and paths in the plane, and ladders of noise, on axes of matplotlib.

figure, axes = plt.subplots()
density(axes, p.log_prob)
score_field(axes, p.score)
paths(axes, x)                       # x [T, N, 2]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.processes import GaussianProcess
from score_jax.types import Array, Scalar

Extent = tuple[float, float, float, float]  # left, right, bottom, top
SQUARE = (-4.0, 4.0, -4.0, 4.0)


def _lattice(extent, columns):
    left, right, bottom, top = extent
    rows = max(2, round(columns * (top - bottom) / (right - left)))
    return np.linspace(left, right, columns), np.linspace(bottom, top, rows)


def _over(function, across, up):
    """function of one point [2], at all points: [rows, columns, ...]."""
    x = jnp.asarray(np.stack(np.meshgrid(across, up), axis=-1), jnp.float32)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(function)))(x))


def density(
    axes, log_prob: Callable[[Array], Scalar], extent: Extent = SQUARE, *, points: int = 160
) -> None:
    """exp log_prob in shades of blue, palest where there is none.

    log_prob: of one point [2]; it may lack its constant, since the darkest place is the largest.
    extent: left, right, bottom, top. points: the picture's columns.
    """
    across, up = _lattice(extent, points)
    values = _over(log_prob, across, up)
    shades = np.exp(values - np.nanmax(values))
    axes.imshow(
        shades,
        extent=extent,
        origin="lower",
        cmap="Blues",
        vmin=0.0,
        vmax=1.2,
        interpolation="bilinear",
    )


def score_field(
    axes, score: Callable[[Array], Array], extent: Extent = SQUARE, *, arrows: int = 20
) -> None:
    """Arrows s(x) / (1 + |s(x)|/m), m the median length: long ones are bent back, none point wrong.

    score: of one point [2]. arrows: in a row.
    """
    across, up = _lattice(extent, arrows + 2)
    across, up = across[1:-1], up[1:-1]
    s = _over(score, across, up)
    length = np.linalg.norm(s, axis=-1, keepdims=True)
    s = s / (1.0 + length / np.median(length))
    longest = np.linalg.norm(s, axis=-1).max()
    scale = longest / (0.9 * (across[1] - across[0]))
    axes.quiver(
        across, up, s[..., 0], s[..., 1],
        angles="xy", scale_units="xy", scale=scale, pivot="mid", width=0.003, color="0.2",
    )  # fmt: skip
    _frame(axes, extent)


def paths(axes, x: np.ndarray, *, color: str = "C1") -> None:
    """N ways of T points, [T, N, 2], as lines that end in a dot."""
    x = np.asarray(x)
    axes.plot(x[..., 0], x[..., 1], color=color, linewidth=0.6, alpha=0.5)
    points(axes, x[-1], color=color, size=8.0)


def points(axes, x: np.ndarray, *, color: str = "C1", size: float = 3.0) -> None:
    """Points [N, 2] as dots."""
    x = np.asarray(x)
    axes.scatter(x[:, 0], x[:, 1], s=size, alpha=0.6, linewidths=0, color=color, zorder=2)
    axes.set_aspect("equal")


def ladder(axes, process: GaussianProcess, *, label: str | None = None) -> None:
    """The noise-to-signal ratio σ(t)/α(t) against t, logarithmic: dots for the levels of a ladder.

    A geometric ladder is a straight line.
    """
    levels = getattr(process, "levels", None)
    t = np.linspace(0.0, 1.0, 201)[1:-1] if levels is None else (np.arange(levels) + 1) / levels
    alpha, sigma = (np.asarray(jax.vmap(curve)(t)) for curve in (process.alpha, process.sigma))
    dots = "." if levels is not None and levels <= 100 else None
    axes.semilogy(t, sigma / alpha, marker=dots, label=label)
    axes.set_xlabel("t")
    axes.set_ylabel("σ/α")


def _frame(axes, extent):
    axes.set_xlim(*extent[:2])
    axes.set_ylim(*extent[2:])
    axes.set_aspect("equal")
