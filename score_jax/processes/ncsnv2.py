"""NCSNv2's ladder, computed from the data (Song & Ermon 2020, arXiv 2006.09011).

    sigma_max = largest_distance(x)                                      # technique 1
    process = ncsnv2(sigma_max=sigma_max, dimensions=x[0].size)          # technique 2
    step_size = best_step_size(process, steps_per_level=5)               # technique 4

Their five ladders are what comes out: 50 and D = 3,072 give CIFAR-10's 232 levels and,
with 5 steps a level, the step size 6.2e-6.
"""

import math

import numpy as np
from jaxtyping import Real

from score_jax.errors import UserError
from score_jax.processes.base import require_increasing
from score_jax.processes.ladders import Tabulated, require_levels
from score_jax.types import Given


def largest_distance(x: Real[Given, "N ..."], block: int = 1_000) -> float:
    """max |x_i - x_j|, the Euclidean distance of the two examples furthest apart: σ_max.

    x: [N, ...] examples in the network's units. Time N² D/2, memory block² numbers; the
    authors take 10,000 examples of a larger data set. Technique 1, section 3.1.
    Raises UserError for fewer than two examples.
    """
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    if len(x) < 2:
        raise UserError(f"x needs at least two examples, got {len(x)}")
    x = x - x.mean(0)
    norms = (x**2).sum(1)
    largest = 0.0
    for i in range(0, len(x), block):
        for j in range(i, len(x), block):
            products = x[i : i + block] @ x[j : j + block].T
            squares = norms[i : i + block, None] + norms[j : j + block] - 2.0 * products
            largest = max(largest, float(squares.max()))
    return math.sqrt(largest)


def overlap(ratio: float, dimensions: int) -> float:
    """C(γ): the probability that a draw of one level is a likely one of the next.

    Φ(√(2D) (γ - 1) + 3γ) - Φ(√(2D) (γ - 1) - 3γ), γ the ratio of neighbouring levels.
    Technique 2, section 3.2.
    """
    shift = math.sqrt(2 * dimensions) * (ratio - 1)
    below = lambda z: 0.5 * math.erfc(-z / math.sqrt(2))
    return below(shift + 3 * ratio) - below(shift - 3 * ratio)


def ncsnv2(
    *, sigma_max: float, dimensions: int, sigma_min: float = 0.01, overlap: float = 0.5668
) -> Tabulated:
    """The geometric ladder from sigma_max to sigma_min whose neighbours overlap this much.

    sigma_max: the data's `largest_distance` (technique 1). dimensions: D of one example.
    overlap: C(γ). The paper asks for about 0.5; the five ladders it uses all have 0.5668,
    which gives their numbers of levels exactly.
    Raises UserError unless 0 < sigma_min < sigma_max, dimensions >= 1, 0 < overlap < 0.997.
    """
    require_increasing("sigma_min", sigma_min, "sigma_max", sigma_max)
    if dimensions < 1:
        raise UserError(f"dimensions must be at least 1, got {dimensions}")
    if not 0.0 < overlap < 0.997:
        raise UserError(f"overlap must lie in (0, 0.997), got {overlap}")
    steps = math.log(sigma_max / sigma_min) / math.log(_ratio(overlap, dimensions))
    levels = max(2, round(1 + steps))
    require_levels(levels)
    return Tabulated.from_sigmas(np.geomspace(sigma_min, sigma_max, levels))


def _ratio(share: float, dimensions: int) -> float:
    """The γ > 1 with C(γ) = share, by bisection: C falls from 0.9973 at γ = 1 to 0."""
    low, high = 1.0, 2.0
    while overlap(high, dimensions) > share:
        high *= 2.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if overlap(middle, dimensions) > share else (low, middle)
    return high


def best_step_size(process: Tabulated, steps_per_level: int) -> float:
    """ε (in units of x², at the smallest level) for which Langevin keeps each level's spread.

    After T steps of x ← x + ε s + √(2ε) z at the next level the variance is r times the
    level's, r = (1 - ε/σ²)^(2T) (γ² - b) + b, b = 2ε/(σ² - σ² (1 - ε/σ²)²); ε is where
    |r - 1| is least. Technique 4, section 3.4, equation 4. This is the paper's ε; our
    `annealed_langevin(step_size=...)` is twice it. process: with α = 1 and at least two levels.
    Raises UserError unless steps_per_level >= 1.
    """
    if steps_per_level < 1:
        raise UserError(f"steps_per_level must be at least 1, got {steps_per_level}")
    sigma, ratio = process.ratios[0], process.ratios[1] / process.ratios[0]

    def error(step):  # of e = ε/σ²
        shrink = (1.0 - step) ** 2
        kept = 2.0 * step / (1.0 - shrink)
        return np.abs(shrink**steps_per_level * (ratio**2 - kept) + kept - 1.0)

    steps = np.geomspace(1e-6, 1.0, 10_001)[:-1]
    for _ in range(3):
        best = int(np.clip(np.argmin(error(steps)), 1, len(steps) - 2))
        steps = np.geomspace(steps[best - 1], steps[best + 1], 1_001)
    return float(steps[np.argmin(error(steps))] * sigma**2)
