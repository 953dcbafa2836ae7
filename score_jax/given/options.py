"""The options of config.guidance that all its names have."""

from dataclasses import dataclass

from score_jax.errors import UserError, shown, unknown
from score_jax.sections import require

GUIDES = ("class", "weaker", "classifier")


@dataclass(frozen=True)
class Guidance:
    """The options of config.guidance that all its names have: what samples are to be like.

    The first are of guidance, a map of predictions (`score_jax.guidance`):
    weight: w of x0 + w (x0 - x0'), or of score + w ∇ log p(c | x): 0 is no guidance, and what
    others call the scale is 1 + w. by: whose answer x0' is: "class", the network's own where it is
    told no class; "weaker", another network's, of the run in the folder `run` (or of this run's
    checkpoint `step`); or "classifier", that of --mode=classifier. interval: the noise levels
    σ/α, (low, high), at which there is guidance; None for all. rescale: how far x0's deviation is
    brought back to what it was, 0 to 1.

    The others are of what is known of a sample, for the names under which something is
    (`score_jax.inverse`, `score_jax.editing`):
    image: a PNG or JPEG file of the data's size. operator: what of it is known: "mask" (where the
    image `mask`, of the same size, is white; it need not be said), "gray" (its luminance),
    "downsample" (the means of `factor` x `factor` pixels), "blur" (by a Gaussian of `width`
    pixels), "random" (`measurements` random projections), or a Python file of yours with
    operator(x), linear, of x as the network sees it. observed: a .npy file of the operator's
    values, where there is no image. noise: the standard deviation of what is measured, in the
    network's units; it is added to an image's. seed: of this noise, and of random projections.

    Raises UserError for an unknown `by`, unless weight >= 0, 0 <= rescale <= 1, noise >= 0,
    0 <= seed < 2^32 and 0 <= low < high, and for options that belong to another weight or `by`.
    """

    by: str = "class"
    weight: float = 0.0
    interval: tuple[float, ...] | None = None
    rescale: float = 0.0
    run: str | None = None
    step: int | None = None
    image: str | None = None
    operator: str | None = None
    mask: str | None = None
    factor: int | None = None
    width: float | None = None
    measurements: int | None = None
    observed: str | None = None
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.by not in GUIDES:
            raise unknown("config.guidance.by", self.by, GUIDES)
        require(self, "weight", lambda value: value >= 0, "at least 0")
        require(self, "rescale", lambda value: 0 <= value <= 1, "in [0, 1]")
        require(self, "noise", lambda value: value >= 0, "at least 0")
        require(self, "seed", lambda value: 0 <= value < 2**32, "in [0, 2^32)")
        interval = self.interval
        if interval is not None and not (len(interval) == 2 and 0 <= interval[0] < interval[1]):
            raise UserError(
                "config.guidance.interval must be (low, high) with 0 <= low < high, noise levels "
                f"sigma/alpha, got {shown(interval)}"
            )
        if self.weight == 0:
            none = dict(by="class", interval=None, rescale=0.0, run=None, step=None)
            for name, idle in none.items():
                if getattr(self, name) != idle:
                    raise UserError(
                        f"config.guidance.{name} = {getattr(self, name)!r} is of guidance, and "
                        "config.guidance.weight = 0 is none; give a weight, such as 1.0"
                    )
        elif self.by == "weaker" and self.run is None and self.step is None:
            raise UserError(
                "config.guidance.by = 'weaker' needs the weaker network: config.guidance.run, the "
                "folder of its run, or config.guidance.step, an earlier checkpoint of this run"
            )
        elif self.by != "weaker" and (self.run is not None or self.step is not None):
            raise UserError(
                "config.guidance.run and step are the weaker network's, of config.guidance.by = "
                f"'weaker', got by = {self.by!r}"
            )
        elif self.by == "classifier" and self.rescale:
            raise UserError(
                "config.guidance.rescale is for guidance by a network's own answers, and "
                "config.guidance.by = 'classifier' has none to bring the deviation back to; use 0.0"
            )
