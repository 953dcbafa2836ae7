"""The options of a config's sections that belong to no family.

Each class is one section, or the part of a family's section that all its members share. Made with
a value that cannot be, it raises UserError that names the option.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from score_jax.errors import UserError, shown, unknown
from score_jax.likelihood import TRACES
from score_jax.losses.variational import TRAINED
from score_jax.models.base import DTYPES
from score_jax.power_ema import exponent
from score_jax.times import DRAWS


@dataclass(frozen=True)
class Training:
    """The options of config.training.

    steps: updates of the parameters, each on batch_size examples. seed: of parameters,
    data order and every random draw. learning_rate: Adam's, reached linearly after
    `warmup` steps. clip: the gradient's largest global norm, or None. ema: decay of the
    exponential moving average of the parameters, which starts as (1 + n)/(10 + n) and
    stays at its value once it is reached; samples are drawn with the average.
    steps_per_call: updates in one compiled call. microbatches: equal parts of its share of a
    batch that a device takes one after the other, with memory for one. (Both are for
    accelerators; convolutions within them are slow on a CPU.) non_finite: what is done where a
    loss or its gradient is infinite or not a number: "stop" the run, or "skip" the update and
    count it (a hundred in a row stop the run all the same).
    power_ema: relative lengths, such as (0.05, 0.1), of averages kept besides (`power_ema`), of
    which a snapshot goes to workdir/averages every snapshot_every steps (None: checkpoint_every);
    evaluation.ema then asks for an average of any length. Two lengths and twenty snapshots or
    more are wanted; each length costs the memory of the parameters.
    log_every, sample_every, checkpoint_every: in steps. keep: the newest checkpoints
    kept; keep_every: besides, every checkpoint at a multiple of it is kept for good.
    """

    steps: int
    batch_size: int
    seed: int = 0
    learning_rate: float = 2e-4
    warmup: int = 0
    clip: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    adam_eps: float = 1e-8
    ema: float = 0.999
    power_ema: tuple[float, ...] | None = None
    snapshot_every: int | None = None
    steps_per_call: int = 1
    microbatches: int = 1
    non_finite: str = "stop"
    log_every: int = 100
    sample_every: int = 5_000
    checkpoint_every: int = 5_000
    keep: int = 2
    keep_every: int | None = None

    def __post_init__(self):
        every = ("log_every", "sample_every", "checkpoint_every", "snapshot_every")
        counts = ("steps", "batch_size", "steps_per_call", "microbatches", "keep", "keep_every")
        for name in (*counts, *every):
            require(self, name, lambda value: value is None or value >= 1, "at least 1")
        for name in (*counts, *every, "warmup"):
            require(self, name, is_counted, "less than 2^31")
        for name in ("learning_rate", "clip", "adam_eps"):
            require(self, name, lambda value: value is None or value > 0, "positive")
        for name in ("beta1", "beta2", "ema"):
            require(self, name, lambda value: 0 <= value < 1, "in [0, 1)")
        require(self, "warmup", lambda value: value >= 0, "at least 0")
        require(self, "seed", lambda value: 0 <= value < 2**32, "in [0, 2^32)")
        if self.non_finite not in ("stop", "skip"):
            raise unknown("config.training.non_finite", self.non_finite, ("stop", "skip"))
        per_call = self.steps_per_call
        for name in ("steps", *every):
            expected = f"a multiple of training.steps_per_call = {per_call}"
            require(self, name, lambda value: value is None or value % per_call == 0, expected)
        for sigma_rel in self.power_ema or ():
            exponent(sigma_rel)
        if self.snapshot_every is not None and not self.power_ema:
            raise UserError(
                f"config.training.snapshot_every = {self.snapshot_every} is how often averages "
                "are kept, and training.power_ema names none; give it, such as (0.05, 0.1)"
            )


FEATURES = ("classifier", "inception", "none")


@dataclass(frozen=True)
class Evaluation:
    """The options of config.evaluation.

    samples: how many are drawn after training and judged: 50,000 in most published figures.
    allow_fewer: that fewer than these are meant, which --mode=evaluate wants to be said.
    batch_size: how many at a time. seed: of the draws; sample i depends on (seed, i) alone.
    label: the class of all samples of a network that is told classes, -1 for none; or each class
    in turn. (Of one that is told conditions: the test example whose condition it is, or each one's
    in turn.) ema: the relative length of the parameters' average that is sampled and measured,
    made of training.power_ema's snapshots; None for the average of training.ema.
    features: what samples are compared by: "classifier" (a small network trained on the data's
    labels), "inception" (FID's, from the file `inception` or where the message says), "none" (the
    numbers themselves), or a Python file of yours with features(images) (see
    `evaluation.features`). reference: a .npz of the real data's features, as
    --mode=reference writes it or others publish it; None to make it
    from the data. png: the samples are written as PNG files, too.
    """

    samples: int = 50_000
    allow_fewer: bool = False
    batch_size: int = 500
    seed: int = 0
    label: int | None = None
    ema: float | None = None
    features: str = "classifier"
    inception: str | None = None
    reference: str | None = None
    png: bool = False

    def __post_init__(self):
        for name in ("samples", "batch_size"):
            require(self, name, lambda value: value >= 1, "at least 1")
            require(self, name, is_counted, "less than 2^31")
        require(self, "seed", lambda value: 0 <= value < 2**32, "in [0, 2^32)")
        if self.ema is not None:
            exponent(self.ema)
        if self.features not in FEATURES and not self.features.endswith(".py"):
            raise unknown("evaluation.features", self.features, (*FEATURES, "<a file>.py"))


@dataclass(frozen=True)
class Likelihood:
    """The options of config.likelihood, for --mode=likelihood, of the test data where config.test
    names some, else of the data.

    by: "ode", the probability flow, or "bound", the variational bound (of a ladder).
    examples: so many, evenly spread over them, None for all. batch_size: how many at a time.
    seed: of all draws; example i depends on (seed, i) alone. repeats: how often each example is
    measured, with fresh draws (dequantization and probes, or the bound's noise).
    trace: how the flow's divergence is found: "exact", or by `probes` random probes of the law
    "rademacher" or "gaussian". rtol, atol: the solver's tolerances. end: the time, nearly
    clean, whose density is measured; None for a ladder's first level or, without a ladder,
    1e-3, since most processes have no density at t = 0.
    variance: of the bound's reverse steps: "small", "large" or "learned"; None for what the
    network has learned, where it has, else "small".
    """

    by: str = "ode"
    examples: int | None = None
    batch_size: int = 100
    seed: int = 0
    repeats: int = 1
    trace: str = "rademacher"
    probes: int = 1
    rtol: float = 1e-5
    atol: float = 1e-5
    end: float | None = None
    variance: str | None = None

    def __post_init__(self):
        for name in ("examples", "batch_size", "repeats", "probes"):
            require(self, name, lambda value: value is None or value >= 1, "at least 1")
            require(self, name, is_counted, "less than 2^31")
        require(self, "seed", lambda value: 0 <= value < 2**32, "in [0, 2^32)")
        if self.by not in ("ode", "bound"):
            raise unknown("config.likelihood.by", self.by, ("ode", "bound"))
        if self.trace not in TRACES:
            raise unknown("config.likelihood.trace", self.trace, TRACES)
        if self.variance not in (None, *TRAINED):
            raise unknown("config.likelihood.variance", self.variance, TRAINED)
        require(self, "rtol", lambda value: value >= 0, "at least 0")
        require(self, "atol", lambda value: value > 0, "positive")
        require(self, "end", lambda value: value is None or 0 <= value < 1, "in [0, 1)")


def require(section: Any, name: str, holds: Callable[[Any], bool], expected: str) -> None:
    """Raises UserError, naming the option of the section, unless its value holds."""
    value = getattr(section, name)
    if not holds(value):
        family = type(section).__name__.lower()
        raise UserError(f"config.{family}.{name} must be {expected}, got {shown(value)}")


def is_counted(value: int | None) -> bool:
    """Whether int32, what steps and examples are counted in, holds it."""
    return value is None or value < 2**31


@dataclass(frozen=True)
class Computing:
    """The options of config.model that every network has.

    dtype: what it computes in, "float32" or "bfloat16". Its parameters, their gradient and
    average, and all outside of it are float32 in either case. concat_condition: whether the
    network sees the data's conditions as channels beside x, see `models.base.beside`;
    condition_dropout: how often it sees none in training, so that it also learns to do without.
    """

    dtype: str = "float32"
    concat_condition: bool = False
    condition_dropout: float = 0.0

    def __post_init__(self):
        if not 0.0 <= self.condition_dropout < 1.0:
            raise UserError(
                "config.model.condition_dropout must lie in [0, 1), got "
                f"{shown(self.condition_dropout)}"
            )
        if self.condition_dropout and not self.concat_condition:
            raise UserError(
                f"config.model.condition_dropout = {self.condition_dropout} needs "
                "config.model.concat_condition = True; the dropout of classes is label_dropout"
            )
        if self.dtype not in DTYPES:
            raise unknown("config.model.dtype", self.dtype, DTYPES)


@dataclass(frozen=True)
class Reading:
    """The options of config.sampler that every sampler has.

    clip: x0 is clipped to the data's range at every step (Ho et al. 2020's code).
    """

    clip: bool = False


@dataclass(frozen=True)
class Drawing:
    """The options of config.loss that every loss has.

    draws: how the times of a batch are drawn: "independent" of each other, "antithetic" in
    pairs u, 1 - u, or "stratified", spread evenly over the law.
    """

    draws: str = "independent"

    def __post_init__(self):
        if self.draws not in DRAWS:
            raise unknown("config.loss.draws", self.draws, DRAWS)
