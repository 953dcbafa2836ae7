"""How far training is: a bar on a terminal; elsewhere, as in a log file, a line now and then."""

import time

from tqdm import tqdm

from score_jax.bars import bar
from score_jax.hosts import leads

EVERY = 30.0  # seconds between two lines, at least; the first and the last always come


class Progress:
    """What the leading host shows of the updates from `step` to `steps`.

    Time is counted from the end of the first call on: what comes before is mostly compiling, of
    which the updates that are left know nothing.
    """

    def __init__(self, step: int, steps: int):
        self.step, self.steps = step, steps
        self.began: tuple[int, float] | None = None  # the step after the first call, and when
        self.said: float | None = None  # when the last line came
        self.bar = self.make_bar("compiling")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()

    def make_bar(self, what: str) -> tqdm:
        """A bar that stands at this step."""
        return bar(what, self.steps, " steps", begin=self.step, leave=what != "compiling")

    def reached(self, step: int) -> None:
        """A call of the update is done."""
        before, self.step = self.step, step
        if self.began is None:
            self.began = step, time.time()
            self.bar.close()
            self.bar = self.make_bar("training")
        else:
            self.bar.update(step - before)

    def doing(self, what: str) -> None:
        """What the time is spent on now."""
        self.bar.set_description(what)

    def tell(self, what: str, last: bool) -> None:
        """The numbers of the newest log line; last: there is none after it."""
        self.bar.set_postfix_str(what)
        now = time.time()
        if not self.bar.disable or not leads():
            return
        if last or self.said is None or now - self.said >= EVERY:
            self.said = now
            print(f"step {self.step:,} of {self.steps:,}: {what}{self.left(now)}", flush=True)

    def left(self, now: float) -> str:
        """How long the steps that are left will take, where that can be known."""
        begin, then = self.began or (self.step, now)
        if self.step == begin or self.step == self.steps:
            return ""
        seconds = (self.steps - self.step) * (now - then) / (self.step - begin)
        return f", {tqdm.format_interval(seconds)} left"
