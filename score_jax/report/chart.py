"""Line charts as inline SVG: text stays text, colors come from the page's style, and there are no
ids, so that any number of charts can share a page."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from score_jax.report.markup import Markup, tag

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 28, 42  # margins
MOST = 400  # points of a line, about one a pixel
MARKED = 30  # a line of so few points shows each


class Line(NamedTuple):
    """points: (x, y), or (x, y, half the height of a band about y). color: 0, 1, ... of the page's.

    strength in (0, 1]: how much it stands out.
    """

    name: str
    points: Sequence[tuple[float, ...]]
    color: int = 0
    strength: float = 1.0


def chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    marks: Sequence[float] = (),
) -> Markup:
    """Lines over a common x. log: y is drawn in decades, where all of it is positive. marks: places
    on x that a dashed line goes through, those within the lines'.

    Raises ValueError where there is no point at all.
    """
    every = [point for line in lines for point in line.points]
    if not every:
        raise ValueError("expected lines with at least one point, got none; leave the chart out")
    log = log and min(point[1] for point in every) > 0
    x_of = _Axis([point[0] for point in every], LEFT, WIDTH - RIGHT)
    y_of = _Axis([point[1] for point in every], HEIGHT - BOTTOM, TOP, log=log, padded=True)
    named = y_label + (" (logarithmic)" if log else "")
    drawn = tag(
        "svg",
        _frame(x_of, y_of),
        _text(LEFT - 50, 14, named, "start"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"),
        [_stroke(x_of(x), HEIGHT - BOTTOM, x_of(x), TOP, "mark") for x in marks if x_of.has(x)],
        [_drawn(line, x_of, y_of) for line in lines if line.points],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{named} against {x_label}: " + ", ".join(line.name for line in lines),
    )
    keys = [
        tag("span", tag("i", class_=f"key c{line.color}", style=f"opacity:{line.strength:.2g}"),
            line.name)
        for line in lines
    ]  # fmt: skip
    legend = tag("div", keys, class_="legend") if len(lines) > 1 else None
    return tag("div", drawn, legend, class_="chart")


def thinned(points: Sequence[tuple[float, ...]], most: int = MOST) -> list[tuple[float, ...]]:
    """At most about `most` of the points, in order: of each stretch the lowest and the highest, and
    both ends, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for begin in range(0, len(points), size):
        stretch = range(begin, min(begin + size, len(points)))
        kept |= {min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


class _Axis:
    """Where a value lies between two edges, in pixels."""

    def __init__(self, values, low_edge, high_edge, *, log=False, padded=False):
        self.log, self.edges = log, (low_edge, high_edge)
        low, high = self.scale(min(values)), self.scale(max(values))
        if low == high:
            low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
        elif padded:
            gap = 0.05 * (high - low)
            # A linear axis that would begin near 0 begins there.
            from_zero = not log and 0 <= low < high / 2
            low, high = (0.0 if from_zero else low - gap), high + gap
        self.low, self.high = low, high

    def scale(self, value):
        return math.log10(value) if self.log else value

    def __call__(self, value) -> float:
        smallest = self.log and value <= 0
        share = 0 if smallest else (self.scale(value) - self.low) / (self.high - self.low)
        low_edge, high_edge = self.edges
        return low_edge + min(1.0, max(0.0, share)) * (high_edge - low_edge)

    def has(self, value) -> bool:
        return self.low <= self.scale(value) <= self.high

    def ticks(self) -> list[float]:
        if not self.log:
            return _round_numbers(self.low, self.high)
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        inside = lambda ticks: [t for t in ticks if self.low <= math.log10(t) <= self.high]
        whole = inside([10.0**k for k in decades])
        if len(whole) >= 3:
            return whole[:: math.ceil(len(whole) / 6)]
        finer = inside([m * 10.0**k for k in decades for m in (1, 2, 5)])
        if len(finer) >= 2:
            return finer
        return [t for t in _round_numbers(10**self.low, 10**self.high) if t > 0]


def _round_numbers(low, high):
    """Three to seven multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _name(value):
    """A tick's name: 20,000, 0.002, 5e-5, 2M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.6g}M"
    if value and abs(value) < 1e-3:
        mantissa, exponent = (
            f"{value:.3g}".split("e") if abs(value) < 1e-4 else (f"{value:.3g}", "")
        )
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return f"{float(f'{value:.6g}'):,.10g}"


def _frame(x_of, y_of):
    bottom, top, right = HEIGHT - BOTTOM, TOP, WIDTH - RIGHT
    for y in y_of.ticks():
        at = y_of(y)
        yield _stroke(LEFT, at, right, at, "rule")
        yield _text(LEFT - 6, at + 4, _name(y), "end")
    for x in x_of.ticks():
        at = x_of(x)
        yield _stroke(at, bottom, at, bottom + 4, "axis")
        yield _text(at, bottom + 18, _name(x), "middle")
    yield _stroke(LEFT, bottom, right, bottom, "axis")
    yield _stroke(LEFT, bottom, LEFT, top, "axis")


def _stroke(x1, y1, x2, y2, kind):
    return tag("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", class_=kind)


def _text(x, y, text, anchor):
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _drawn(line, x_of, y_of):
    points = thinned(sorted(line.points))
    at = [(x_of(point[0]), y_of(point[1])) for point in points]
    path = lambda places: "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    band = None
    if all(len(point) == 3 for point in points) and len(points) > 1:
        above = [(x_of(x), y_of(y + e)) for x, y, e in points]
        below = [(x_of(x), y_of(y - e)) for x, y, e in reversed(points)]
        band = tag("path", d=f"M{path(above + below)}Z", class_="band")
    marks = at if len(at) <= MARKED else ()
    return tag(
        "g",
        band,
        tag("path", d=f"M{path(at)}", class_="line") if len(at) > 1 else None,
        [tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2) for x, y in marks],
        class_=f"c{line.color}",
        opacity=f"{line.strength:.2g}",
    )
