"""The training loop: batches in, metrics, checkpoints and pictures out."""

import signal
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from score_jax import plotting
from score_jax.build import Experiment
from score_jax.data.order import Order
from score_jax.errors import UserError
from score_jax.parallel import check_divides, owned, split, update_step
from score_jax.sampling import make_draw
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.log import Log
from score_jax.training.state import TrainState, create, learning_rate, make_update

GRID = 64  # samples in a picture
IN_FLIGHT = 3  # calls started before the first of them is done, on an accelerator


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop by `signal` (SIGINT, SIGTERM) and has saved its state."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class NonFinite(UserError):
    """The loss or its gradient is infinite or not a number."""


def train(experiment: Experiment, workdir: Path) -> TrainState:
    """Trains from the newest checkpoint of workdir, or from the start, to the last step.

    The state at a step is the same, bit for bit, however often the run was stopped on the
    way. Raises Interrupted after saving on SIGINT or SIGTERM, and NonFinite, without
    saving, at the first step whose loss or gradient is not finite.
    """
    options = experiment.training
    check_divides(options.batch_size)
    state = create(experiment)
    with Checkpoints(workdir, options) as checkpoints:
        pending = []
        if checkpoints.newest() is not None:
            state, pending = checkpoints.restore(like=state)
            state = owned(state)
            print(f"going on from the checkpoint of step {int(state.step)}", flush=True)
        with Log(workdir, int(state.step)) as log:
            return _Run(experiment, workdir, checkpoints, log, pending).until_done(state)


class _Run:
    """One stretch of training, between a start and a stop."""

    def __init__(self, experiment, workdir, checkpoints, log, pending):
        self.experiment, self.options = experiment, experiment.training
        self.workdir, self.checkpoints, self.log = workdir, checkpoints, log
        self.pending = pending  # [(loss, grad_norm)] of the steps since the last log line
        self.unread = []  # metrics still on the device
        # On CPU nothing runs beside a call, and each one in flight holds its own memory.
        self.in_flight = 1 if jax.default_backend() == "cpu" else IN_FLIGHT
        self.update = update_step(make_update(experiment))
        self.draw = make_draw(experiment, min(GRID, experiment.evaluation.samples))
        self.order = Order(len(experiment.data.examples), self.options.seed)

    def until_done(self, state: TrainState) -> TrainState:
        options, per_call = self.options, self.options.steps_per_call
        step = int(state.step)
        saved = self.checkpoints.newest()
        self.last_line = step, time.time()
        with _StopSignals() as stop, _bar(step, options.steps) as bar:
            self.stop = stop
            while step < options.steps and stop.signal is None:
                state, metrics = self.update(state, self.batches(step))
                self.unread.append(metrics)
                jax.block_until_ready(self.unread[-self.in_flight :][0])
                step += per_call
                bar.update(per_call)
                if step % options.log_every == 0:
                    self.write_line(step, bar)
                if step % options.checkpoint_every == 0:
                    self.save(step, state)
                    saved = step
                if step % options.sample_every == 0 and step < options.steps:
                    self.write_picture(step, state, bar)
            if step != saved:
                self.save(step, state)
            self.checkpoints.wait()
        if stop.signal is not None:
            message = f"stopped at step {step}, all saved; the same command goes on"
            raise Interrupted(message, stop.signal)
        return state

    def batches(self, step):
        """The next steps_per_call batches and positions, [devices, K, batch/devices, ...]."""
        size, per_call = self.options.batch_size, self.options.steps_per_call
        indices = np.stack([self.order.batch(step + k, size) for k in range(per_call)])
        positions = np.broadcast_to(np.arange(size, dtype=np.int32), indices.shape)
        return split(self.experiment.data.examples[indices], axis=1), split(positions, axis=1)

    def read(self, step):
        """Brings metrics to the host; raises NonFinite at the first that is not finite."""
        fetched = [np.stack(metrics, axis=-1) for metrics in jax.device_get(self.unread)]
        self.unread = []
        self.pending += [tuple(map(float, pair)) for pairs in fetched for pair in pairs]
        for i, (loss, grad_norm) in enumerate(self.pending):
            if not (np.isfinite(loss) and np.isfinite(grad_norm)):
                bad = step - len(self.pending) + i + 1
                newest = self.checkpoints.newest()
                raise NonFinite(
                    f"step {bad}: loss {loss}, norm of its gradient {grad_norm}; stopped. "
                    + ("There is no checkpoint yet" if newest is None else
                       f"The checkpoint of step {newest} is whole")
                    + ". Try a smaller training.learning_rate, or training.clip = 1.0."
                )  # fmt: skip

    def write_line(self, step, bar):
        self.read(step)
        loss, grad_norm = np.mean(self.pending, axis=0)
        self.pending = []
        rate = learning_rate(self.options, np.float32(step - 1))
        (before, then), now = self.last_line, time.time()
        speed = (step - before) / (now - then)
        self.last_line = step, now
        self.log.scalars(
            step,
            {
                "loss": loss,
                "grad_norm": grad_norm,
                "learning_rate": float(rate),
                "steps_per_second": speed,
            },
        )
        bar.set_postfix_str(f"{speed * self.options.batch_size:.0f} images/s, loss {loss:.4g}")

    def save(self, step, state):
        self.read(step)
        self.checkpoints.save(state, self.pending)

    def write_picture(self, step, state, bar):
        bar.set_description("drawing")
        indices = range(min(GRID, self.experiment.evaluation.samples))
        drawn = self.draw(state.ema, indices, lambda fraction: self.stop.signal is None)
        if drawn is None:
            return  # asked to stop: saving is more urgent than a picture
        if drawn.bad:
            bar.write(f"step {step}: {drawn.bad} of {len(drawn.samples)} samples are not finite")
        picture = plotting.picture(drawn.samples, self.experiment.data.examples)
        folder = self.workdir / "samples"
        folder.mkdir(exist_ok=True)
        plotting.save(picture, folder / f"step_{step:07d}.png")
        self.log.picture(step, picture)
        bar.set_description("training")


def _bar(step: int, steps: int) -> tqdm:
    return tqdm(
        desc="training",
        initial=step,
        total=steps,
        unit=" steps",
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
    )


class _StopSignals:
    """SIGINT and SIGTERM are noted instead of ending the process; the second one ends it."""

    def __init__(self):
        self.signal = None
        self.previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self.hear)
        return self

    def hear(self, number, frame):
        print("\nstopping after this step and saving; once more to stop at once", flush=True)
        self.signal = number
        self.__exit__()

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)
