"""The training loop: batches in, metrics, checkpoints and pictures out."""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from score_jax import held_out, pictures, plotting
from score_jax.data.order import Order, evenly
from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.hosts import leads
from score_jax.models.base import Params
from score_jax.parallel import check_divides, most, positions, split, update_step
from score_jax.sampling import make_draw
from score_jax.signals import Interrupted, StopSignals
from score_jax.training import averages
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.log import Log
from score_jax.training.progress import Progress
from score_jax.training.state import TrainState, create, learning_rate, make_update

PATIENCE = 100  # bad steps in a row that are skipped where training.non_finite is "skip"
HELD_OUT = 1_000  # test examples, at most, whose loss is measured on the way
IN_FLIGHT = 3  # calls started before the first of them is done, on an accelerator


class NonFinite(UserError):
    """The loss or its gradient is infinite or not a number."""


class Watch(NamedTuple):
    """How a run is watched: `measure` test examples' line of held_out.jsonl; `draws` samples."""

    measure: Callable[[Params, Iterable[int]], dict[str, Any]]
    draws: bool = False


def watch(experiment: Experiment) -> Watch:
    """By the loss on test data and by samples, where nothing else is said."""
    measure = held_out.make_measure(experiment)
    return Watch(
        lambda params, indices: held_out.summary(experiment, measure(params, indices)), True
    )


def train(experiment: Experiment, workdir: Path, by: Watch | None = None) -> TrainState:
    """Trains from the newest checkpoint of workdir, or from the start, to the last step.

    The state at a step is the same, bit for bit, however often the run was stopped on the
    way; with other devices or hosts the examples and draws are the same, the state to rounding.
    Raises Interrupted after saving on SIGINT or SIGTERM, CannotWrite (a checkpoint, an average or
    the log), and NonFinite, without saving, at the first step whose loss or gradient is not finite,
    or the hundredth in a row where training.non_finite is "skip". Raises UserError, before anything
    is done, for a batch that the devices cannot share and for checkpoints of which none is whole.
    """
    options = experiment.training
    check_divides(options.batch_size, options.microbatches)
    state = create(experiment)
    with Checkpoints(workdir, options) as checkpoints:
        pending = []
        checkpoints.check_none_is_lost()
        if checkpoints.newest() is not None:
            state, pending = checkpoints.restore(like=state)
            print(f"going on from the checkpoint of step {int(state.step)}", flush=True)
        elif (workdir / "metrics.jsonl").is_file():
            print("no checkpoint was saved; starting from the beginning", flush=True)
        if leads():
            averages.cut(workdir, int(state.step))
        with Log(workdir, int(state.step), silent=not leads()) as log:
            run = _Run(experiment, workdir, checkpoints, log, pending, by or watch(experiment))
            return run.until_done(state)


class Batches:
    """The part of every batch that this host takes, and its places in the whole."""

    def __init__(self, experiment: Experiment):
        self.examples, self.size = experiment.data.examples, experiment.training.batch_size
        self.labels_of = experiment.labels_of
        self.order = Order(len(self.examples), experiment.training.seed)
        self.positions = positions(self.size)

    def __call__(self, step: int, calls: int):
        """(examples, labels, positions) of `calls` updates after `step`.

        Each [devices, calls, share, ...].
        """
        whole = (self.order.batch(step + k, self.size) for k in range(calls))
        indices = np.stack([batch[self.positions] for batch in whole])
        places = np.broadcast_to(self.positions, indices.shape)
        parts = self.examples[indices], self.labels_of(indices), places
        return tuple(split(part, axis=1) for part in parts)


class _Run:
    """One stretch of training, between a start and a stop."""

    def __init__(self, experiment, workdir, checkpoints, log, pending, by):
        self.experiment, self.options = experiment, experiment.training
        self.workdir, self.checkpoints, self.log = workdir, checkpoints, log
        self.pending = pending  # [(loss, grad_norm)] of the steps since the last log line
        self.unread = []  # metrics still on the device
        goods = [_good(*pair) for pair in pending]
        self.bad = goods[::-1].index(True) if True in goods else len(goods)  # of late, in a row
        # On CPU nothing runs beside a call, and each one in flight holds its own memory.
        self.in_flight = 1 if jax.default_backend() == "cpu" else IN_FLIGHT
        self.update = update_step(make_update(experiment))
        self.by = by
        draws = by.draws
        self.draw = (
            make_draw(experiment, min(pictures.GRID, experiment.evaluation.samples))
            if draws
            else None
        )
        self.batches = Batches(experiment)

    def until_done(self, state: TrainState) -> TrainState:
        options, per_call = self.options, self.options.steps_per_call
        begin = step = int(state.step)
        saved = self.checkpoints.newest()
        self.last_line = step, time.time()
        snapshot_every = options.snapshot_every or options.checkpoint_every
        heard: list[Any] = []  # the signal that any host was sent, as of each of the last calls
        with StopSignals() as stop, Progress(step, options.steps) as progress:
            self.stop = stop
            while step < options.steps and not (len(heard) == self.in_flight and heard[0]):
                state, metrics = self.update(state, self.batches(step, per_call))
                self.unread.append(metrics)
                heard = [*heard, most(stop.signal or 0)][-self.in_flight :]
                jax.block_until_ready(self.unread[-self.in_flight :][0])
                step += per_call
                progress.reached(step)
                if step == begin + per_call and step % options.log_every:
                    self.last_line = step, time.time()  # the first call compiles
                self.checkpoints.check()
                if step % options.log_every == 0:
                    self.write_line(step, progress)
                # What a checkpoint is without would not be made again.
                if step % options.sample_every == 0 and leads():
                    self.write_held_out(step, state)
                if options.power_ema and step % snapshot_every == 0:
                    self.keep_averages(state)
                if step % options.checkpoint_every == 0:
                    self.save(step, state)
                    saved = step
                # The last one is of what is drawn after training, unless that takes long.
                soon = step == options.steps and self.experiment.evaluation.samples <= pictures.GRID
                if self.by.draws and step % options.sample_every == 0 and not soon and leads():
                    self.write_picture(step, state, progress)
            if step != saved:
                self.save(step, state)
            if options.power_ema and step == options.steps and step % snapshot_every:
                self.keep_averages(state)
            self.checkpoints.wait()
            number = int(most(stop.signal or 0))
        if number:
            message = f"stopped at step {step}, all saved; the same command goes on"
            raise Interrupted(message, number)
        return state

    def read(self, step):
        """Brings metrics to the host; deals with the first step that is not finite."""
        fetched = [np.stack(metrics, axis=-1) for metrics in jax.device_get(self.unread)]
        self.unread = []
        new = [tuple(map(float, pair)) for pairs in fetched for pair in pairs]
        self.pending += new
        for i, (loss, grad_norm) in enumerate(new):
            self.bad = 0 if _good(loss, grad_norm) else self.bad + 1
            if self.bad == (PATIENCE if self.options.non_finite == "skip" else 1):
                self.stop_at(step - len(new) + i + 1, loss, grad_norm)

    def stop_at(self, bad, loss, grad_norm):
        self.checkpoints.wait()
        newest = self.checkpoints.newest()
        before = f", as in the {self.bad - 1} steps before" if self.bad > 1 else ""
        raise NonFinite(
            f"step {bad}: loss {loss}, norm of its gradient {grad_norm}{before}; stopped. "
            + ("There is no checkpoint yet" if newest is None else
               f"The checkpoint of step {newest} is whole")
            + f". --replay_step={bad} shows what happens there; a smaller training.learning_rate, "
            "training.clip = 1.0"
            + (" or training.non_finite = 'skip'" if self.options.non_finite == "stop" else "")
            + " may help."
        )  # fmt: skip

    def write_line(self, step, progress):
        self.read(step)
        good = [pair for pair in self.pending if _good(*pair)]
        bad, self.pending = len(self.pending) - len(good), []
        means = dict(zip(("loss", "grad_norm"), np.mean(good, axis=0))) if good else {}
        rate = learning_rate(self.options, np.float32(step - 1))
        (before, then), now = self.last_line, time.time()
        speed = (step - before) / (now - then)
        self.last_line = step, now
        self.log.scalars(
            step,
            {
                **means,
                "non_finite": bad,
                "learning_rate": float(rate),
                "steps_per_second": speed,
            },
        )
        loss = f", loss {means['loss']:.4g}" if good else ""
        images = speed * self.options.batch_size
        last = step + self.options.log_every > self.options.steps
        progress.tell(f"{images:.{0 if images >= 10 else 1}f} images/s{loss}", last)

    def save(self, step, state):
        self.read(step)
        self.log.to_disk()
        self.checkpoints.save(state, self.pending)

    def keep_averages(self, state):
        if leads():
            averages.keep(self.workdir, int(state.step), self.options.power_ema, state.averages)

    def write_held_out(self, step, state):
        if self.experiment.test is None:
            return
        total = len(self.experiment.test.examples)
        indices = evenly(min(HELD_OUT, total), total)
        self.log.held_out(step, self.by.measure(state.ema, indices))

    def write_picture(self, step, state, progress):
        progress.doing("drawing")
        indices = range(min(pictures.GRID, self.experiment.evaluation.samples))
        assert self.draw is not None  # else there is no time to draw
        drawn = self.draw(state.ema, indices, lambda fraction: self.stop.signal is None)
        if drawn is None:
            return  # asked to stop: saving is more urgent than a picture
        if not drawn.finite.all():
            bad = np.sum(~drawn.finite)
            tqdm.write(f"step {step}: {bad} of {len(drawn.samples)} samples are not finite")
        picture = pictures.picture(self.experiment, drawn.samples)
        folder = self.workdir / "samples"
        folder.mkdir(exist_ok=True)
        plotting.save(picture, folder / f"step_{step:07d}.png")
        self.log.picture(step, picture)
        progress.doing("training")


def _good(loss: float, grad_norm: float) -> bool:
    return math.isfinite(loss) and math.isfinite(grad_norm)
