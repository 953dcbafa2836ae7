"""Whole pictures drawn by matplotlib: samples beside data, curves on logarithmic axes."""

import math

import numpy as np

from score_jax.plotting.images import grid

MOST_POINTS = 2000  # of a scatter plot, on each side


def scatter(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The first two coordinates of samples [N, D], right, and of the data, left: a picture.

    At most MOST_POINTS of each, the first.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, x, title in zip(axes, (reference, points), ("data", "samples")):
        axis.scatter(x[:MOST_POINTS, 0], x[:MOST_POINTS, 1], s=3, alpha=0.5, linewidths=0)
        axis.set_title(title)
        axis.set_aspect("equal")
    return drawn(figure)


def picture(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Samples as a picture [H, W, 3] uint8: a grid for images, a scatter plot for points."""
    return grid(samples) if samples.ndim == 4 else scatter(samples, reference)


def drawn(figure) -> np.ndarray:
    """A matplotlib Figure as a picture [H, W, 3] uint8, for `save` and `animate`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def curves(
    panels: dict[str, dict[str, list[tuple[float, float]]]], x_label: str, y_label: str
) -> np.ndarray:
    """Lines on logarithmic axes, {panel: {line: [(x, y), ...]}}, as a picture [H, W, 3]."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    columns = min(4, math.ceil(math.sqrt(len(panels))))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns + 2.4, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, (title, lines) in zip(axes, panels.items()):
        for i, (name, points) in enumerate(lines.items()):
            style = dict(color=f"C{i % 10}", linestyle="-" if i < 10 else "--", marker=".")
            axis.loglog(*zip(*sorted(points)), label=name, **style)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(title)
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.supxlabel(x_label)
    figure.supylabel(y_label)
    named = dict(pair[::-1] for axis in axes for pair in zip(*axis.get_legend_handles_labels()))
    figure.legend(named.values(), named.keys(), loc="outside right upper")

    return drawn(figure)
