"""What happened in training: curves over steps, and the error over noise levels."""

from score_jax.report.chart import Line, chart
from score_jax.report.history import resumed
from score_jax.report.markup import Markup, figure, tag
from score_jax.report.measures import to_fill
from score_jax.report.read import Run, evenly
from score_jax.report.values import count, number, numbers

WIDE = 8.0  # values that span such a factor are shown in decades
MOST_LINES = 6  # of the error over noise levels, over training

NORM = "The gradient's global norm before any clipping, a mean over the same steps."
SPEED = (
    "Updates a second between two log lines, with all that was done in that time: compilation at a "
    "start, checkpoints, sample grids."
)


def training(run: Run) -> Markup | None:
    """Loss (training and held out), gradient norm, learning rate and speed against the step."""
    charts = [
        _loss(run),
        _one(run, "grad_norm", "gradient norm", NORM, log=True),
        _one(run, "learning_rate", "learning rate", "Adam's step size."),
        _one(run, "steps_per_second", "steps per second", SPEED),
    ]
    charts = [one for one in charts if one]
    if not charts:
        return to_fill(run, "train", "No training was logged")
    return tag("div", charts, class_="charts")


def _series(lines, *names):
    """(step, number, ...) of the lines that have all of these."""
    rows = ((line["step"], *(number(line.get(name)) for name in names)) for line in lines)
    return [row for row in rows if None not in row]


def _loss(run):
    lines = [Line("training", _series(run.metrics, "loss"))]
    with_errors = _series(run.held_out, "loss", "standard_error")
    lines.append(Line("held out", with_errors or _series(run.held_out, "loss"), color=1))
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    bad = sum(number(line.get("non_finite")) or 0 for line in run.metrics)
    parts = []
    if lines[0].name == "training":
        parts.append("The training loss, a mean over the steps since the line before.")
    if lines[-1].name == "held out":
        last = run.held_out[-1]
        band = " The band is one standard error." if with_errors else ""
        parts.append(
            f"The same loss, of the averaged parameters and without dropout, on "
            f"{count(last.get('examples'))} examples of {last.get('data', 'data')} that are held "
            f"out.{band}"
        )
    parts.append(
        f"{count(bad)} step{'s' * (bad != 1)} had a loss or gradient that is not finite, and "
        f"{'is' if bad == 1 else 'are'} not in the means."
        if bad
        else "No logged step had a loss or gradient that is not finite."
    )
    stops = resumed(run)
    if stops:
        parts.append("Dashed, here and in the next: where training was taken up again.")
    drawn = chart(lines, "step", "loss", log=_is_wide(lines), marks=stops)
    return figure(drawn, " ".join(parts))


def _one(run, name, label, caption, *, log=False):
    points = _series(run.metrics, name)
    if not points:
        return None
    lines = [Line(label, points)]
    drawn = chart(lines, "step", label, log=log and _is_wide(lines), marks=resumed(run))
    return figure(drawn, caption)


def _is_wide(lines):
    values = [point[1] for line in lines for point in line.points]
    return min(values) > 0 and max(values) > WIDE * min(values)


def noise_levels(run: Run) -> Markup | None:
    """The error of the predicted noise against log SNR, over training; None where none is known."""
    measured = [(line, points) for line in run.held_out if (points := _levels(line))]
    if not measured:
        return None
    chosen = [measured[i] for i in evenly(len(measured), MOST_LINES)]
    last, points = chosen.pop()
    strength = lambda i: 0.25 + 0.45 * i / len(chosen)
    lines = [
        # Of the earlier ones no bands: they would hide each other.
        Line(f"step {line['step']:,}", [point[:2] for point in earlier], 0, strength(i))
        for i, (line, earlier) in enumerate(chosen)
    ]
    lines.append(Line(f"step {last['step']:,}", points, 1))
    band = " with a band of one standard error" if len(points[0]) == 3 else ""
    return figure(
        chart(lines, "log SNR (noise left, clean right)", "error of ε a dimension", log=True),
        f"The mean squared error of the predicted noise a dimension, |ε − ε_θ|²/D, on "
        f"{count(last.get('examples'))} examples of {last.get('data', 'the held-out data')}. It is "
        "near 1, what the answer 0 would get, where the noise is so small that it cannot be told "
        "from the data's own detail, and falls to 0 where all is noise; at an equal log SNR lower "
        f"is better. What stands out is the last measurement, at step {last['step']:,}{band}"
        + (
            f"; the earlier, the fainter ({len(lines)} of {len(measured)} measurements are shown)."
            if chosen
            else ", the only one."
        ),
    )


def _levels(line):
    """(log SNR, error[, standard error]) of a measurement, where the lists fit."""
    lists = [numbers(line.get(key)) for key in ("logsnr", "eps_error", "eps_error_standard_error")]
    if len(lists[0]) != len(lists[1]):
        return []
    if len(lists[2]) != len(lists[0]) or None in lists[2]:
        lists.pop()
    return [point for point in zip(*lists) if None not in point]
