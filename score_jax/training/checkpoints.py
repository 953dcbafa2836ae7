"""Checkpoints by orbax, written while training goes on.

    with Checkpoints(workdir, training) as checkpoints:
        checkpoints.save(state, pending)
        state, pending = checkpoints.restore(like=state)

A step is whole or not there: orbax writes beside the place and renames.
"""

import itertools
import logging
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from score_jax.errors import UserError
from score_jax.sections import Training
from score_jax.training.state import TrainState

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save at length


class Checkpoints:
    """The checkpoints of one workdir, in workdir/checkpoints/<step>."""

    def __init__(self, workdir: Path, options: Training, *, read_only: bool = False):
        self.folder = workdir.absolute() / "checkpoints"
        self.read_only = read_only
        policies = ocp.checkpoint_managers
        keep = [policies.LatestN(options.keep)]
        if options.keep_every is not None:
            keep.append(policies.EveryNSteps(options.keep_every))
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(keep),
                enable_async_checkpointing=not read_only,
                read_only=read_only,
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.manager.close()

    def newest(self) -> int | None:
        return self.manager.latest_step()

    def save(self, state: TrainState, pending: list) -> None:
        """Starts to write the state, and `pending` metrics that are not logged yet."""
        self.manager.save(
            int(state.step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                ema=ocp.args.StandardSave(state.ema),
                opt_state=ocp.args.StandardSave(state.opt_state),
                pending=ocp.args.JsonSave(np.asarray(pending, float).tolist()),
            ),
        )

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self.manager.wait_until_finished()

    def restore(self, like: TrainState) -> tuple[TrainState, list]:
        """The newest whole checkpoint, on the device; `like` gives the shapes and types.

        A damaged one is named and passed over and, unless read-only, set aside once an older
        one is found whole, so that its step can be saved again. Raises UserError, and touches
        nothing, where none is whole.
        """
        damaged = {}
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, like)
            except (ValueError, KeyError, FileNotFoundError) as error:
                damaged[step] = str(error).splitlines()[0][:200]
                continue
            for bad, why in damaged.items():
                print(f"checkpoint damaged, passed over: step {bad}: {why}", flush=True)
                if not self.read_only:
                    self._set_aside(bad)
            return restored
        whys = "\n".join(f"  step {step}: {why}" for step, why in damaged.items())
        raise UserError(f"no whole checkpoint in {self.folder}:\n{whys}")

    def _set_aside(self, step: int) -> None:
        """Renames the step's folder to one that is no checkpoint, and free."""
        names = (self.folder / f"{step}.damaged{n}" for n in itertools.count())
        os.replace(self.folder / str(step), next(name for name in names if not name.exists()))
        self.manager.reload()

    def _restore(self, step: int, like: TrainState) -> tuple[TrainState, list]:
        target = jax.tree.map(_abstract, like._asdict())
        items = {
            name: ocp.args.StandardRestore(target[name]) for name in ("params", "ema", "opt_state")
        }
        items["pending"] = ocp.args.JsonRestore()
        restored = self.manager.restore(step, args=ocp.args.Composite(**items))
        state = TrainState(
            jax.numpy.asarray(step, jax.numpy.int32),
            restored.params,
            restored.ema,
            restored.opt_state,
        )
        return state, restored.pending


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=device)
