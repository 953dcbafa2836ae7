"""Checkpoints by orbax, written while training goes on, whole or not there.

    with Checkpoints(workdir, training) as checkpoints:
        checkpoints.save(state, pending)
        state, pending = checkpoints.restore(like=state)

A step is written to a hidden folder, its files are hashed into checksums.json, and then the
folder takes its name, workdir/checkpoints/<step>: what has this name was once whole, and the
checksums tell whether it still is. Every host writes its part; the leader does the rest.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import threading
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from score_jax.errors import CannotWrite, UserError
from score_jax.files import to_disk, whole
from score_jax.hosts import from_leader, leads
from score_jax.parallel import everywhere, everywhere_sharding, most, replicated
from score_jax.sections import Training
from score_jax.training.state import TrainState

logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports every save at length

CHECKSUMS = "checksums.json"  # of every other file of a checkpoint: {name: [bytes, sha256]}
SAVED = "saved.json"  # the newest step ever saved, so that a checkpoint that is gone is missed
WRITING, DELETING = ".writing.", ".deleting."
ITEMS = ("params", "ema", "opt_state", "averages")  # of a state; its step is the folder's name


class CannotSave(CannotWrite):
    """A checkpoint could not be written; those before it are untouched."""


class Checkpoints:
    """The checkpoints of one workdir. read_only: for a look, beside whoever writes them.

    options: of them `keep` and `keep_every`, which say what is deleted after each save.
    """

    def __init__(self, workdir: Path, options: Training, *, read_only: bool = False):
        self.folder = workdir.absolute() / "checkpoints"
        self.options, self.read_only = options, read_only
        self.writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self.finishing: threading.Thread | None = None
        self.failure: tuple[int, BaseException] | None = None

    def __enter__(self):
        if not self.read_only and leads():
            for unfinished in (WRITING, DELETING):  # by a process that was killed
                for leftover in self.folder.glob(f"{unfinished}*"):
                    _remove(leftover)
        return self

    def __exit__(self, *error):
        if self.finishing is not None:
            self.finishing.join()
        with contextlib.suppress(Exception):  # said already
            self.writer.close()

    def steps(self) -> list[int]:
        """The steps that were saved and are kept, the newest first; the same on all hosts."""
        return from_leader(sorted(map(int, self._names()), reverse=True))

    def newest(self) -> int | None:
        """The step of the newest that is there; None if there is none."""
        return next(iter(self.steps()), None)

    def save(self, state: TrainState, pending: list) -> None:
        """Starts to write the state, and `pending` metrics that are not logged yet.

        A state of parameters from elsewhere may lack its average (None: it is the parameters
        themselves) and the optimizer's state (None: it begins afresh). Returns as soon as the
        state may change. Raises CannotSave if it, or what was saved before it, cannot be written.
        """
        self.wait()
        step = int(state.step)
        partial = self.folder / f"{WRITING}{step}"
        parts = {name: getattr(state, name) for name in ITEMS}
        items = {
            name: ocp.args.StandardSave(everywhere(part))
            for name, part in parts.items()
            if jax.tree.leaves(part)
        }
        items["pending"] = ocp.args.JsonSave(np.asarray(pending, float).tolist())
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(parts))
        try:
            self._make_room(size)
            self.writer.save(partial, args=ocp.args.Composite(**items))
        except Exception as error:
            raise self._cannot_save(step, error) from error
        self.finishing = threading.Thread(target=self._finish, args=(step, partial))
        self.finishing.start()

    def _make_room(self, size: int) -> None:
        """Raises OSError unless `size` bytes more, and a little, can be written.

        Orbax, when it fails half-way, does so in many threads, which all say so.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        room = self.folder / ".room"
        if leads() and hasattr(os, "posix_fallocate"):
            try:
                with open(room, "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size + size // 8 + 2**16)
            finally:
                room.unlink(missing_ok=True)

    def wait(self) -> None:
        """Returns when everything saved is on disk; raises CannotSave if it cannot be."""
        if self.finishing is not None:
            self.finishing.join()
        self.check()

    def check(self) -> None:
        """Raises CannotSave if a write has failed meanwhile; waits for nothing."""
        if self.failure is not None:
            raise self._cannot_save(*self.failure) from self.failure[1]

    def restore(self, like: TrainState, at_most: int | None = None) -> tuple[TrainState, list]:
        """The newest whole checkpoint, on all devices; `like` gives the shapes and types.

        at_most: of this step or an earlier one. A damaged one is named and passed over and,
        unless read-only, set aside once an older one is found whole, so that its step can be
        saved again. Raises UserError, and touches nothing, where none is whole.
        """
        damaged = {}
        # Listed anew for each: a run that goes on beside us may have saved others, and deleted
        # the one that we look at.
        while True:
            left = [s for s in self.steps() if s not in damaged]
            step = next((s for s in left if at_most is None or s <= at_most), None)
            if step is None:
                break
            why = from_leader(self._damage(step) if leads() else None)
            if why is None:
                restored, why = self._tried(step, like)
            if why is not None:
                if from_leader((self.folder / str(step)).is_dir()):
                    damaged[step] = why
                continue
            for bad, why in damaged.items():
                print(f"checkpoint damaged, passed over: step {bad}: {why}", flush=True)
                if leads() and not self.read_only:
                    self._set_aside(bad)
            return restored
        if not damaged:
            raise UserError(f"no checkpoint in {self.folder}")
        whys = "\n".join(f"  step {step}: {why}" for step, why in damaged.items())
        raise UserError(
            f"no whole checkpoint in {self.folder}:\n{whys}\n"
            "Bring back a copy, or delete this folder to start anew"
        )

    def check_none_is_lost(self) -> None:
        """Raises UserError if none is left of what was saved; says so if the newest is gone."""
        saved = from_leader(self._saved())  # before the list, to which more may be added
        newest = self.newest()
        if saved is not None and newest is None:
            raise UserError(
                f"{self.folder} has held a checkpoint{f' of step {saved}' if saved >= 0 else ''}, "
                "and holds none: bring it back, or delete this folder to start anew"
            )
        if saved is not None and newest < saved and leads():
            print(f"the checkpoint of step {saved} is gone; that of step {newest} is the newest")

    def _names(self):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield from (name for name in os.listdir(self.folder) if name.isdigit())

    def _saved(self) -> int | None:
        """The newest step that was ever saved; None if none was, -1 if it cannot be known."""
        try:
            return int(json.loads((self.folder / SAVED).read_text())["newest"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return -1

    def _finish(self, step: int, partial: Path) -> None:
        """Gives a written checkpoint its checksums and its name. In a thread of its own."""
        try:
            self.writer.wait_until_finished()
            if leads():
                files = sorted(file for file in partial.rglob("*") if file.is_file())
                sums = {str(file.relative_to(partial)): _checksum(file) for file in files}
                with whole(partial / CHECKSUMS) as path:
                    path.write_text(json.dumps(sums, indent=0))
                for path in (*partial.rglob("*"), partial):
                    to_disk(path)
                os.rename(partial, self.folder / str(step))
                to_disk(self.folder)
                with whole(self.folder / SAVED) as path:
                    path.write_text(json.dumps({"newest": step}))
                self._prune()
        except BaseException as error:
            self.failure = step, error

    def _prune(self) -> None:
        """Deletes what is neither among the newest nor at a multiple of keep_every."""
        for step in sorted(map(int, self._names()))[: -self.options.keep]:
            if self.options.keep_every is None or step % self.options.keep_every:
                doomed = self.folder / f"{DELETING}{step}"  # a half-deleted one has no name
                os.rename(self.folder / str(step), doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def _damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files; None if they are as they were written."""
        folder = self.folder / str(step)
        try:
            sums = json.loads((folder / CHECKSUMS).read_text())
            for name, expected in sums.items():
                if not (folder / name).is_file():
                    return f"{name} is missing"
                if _checksum(folder / name) != expected:
                    return f"{name} has changed since it was written"
        except FileNotFoundError:
            return f"{CHECKSUMS} is missing"
        except (OSError, ValueError, AttributeError) as error:
            return f"{CHECKSUMS} is unreadable ({error})"
        return None

    def _set_aside(self, step: int) -> None:
        """Renames the step's folder to one that is no checkpoint, and free."""
        names = (self.folder / f"{step}.damaged{n}" for n in itertools.count())
        os.replace(self.folder / str(step), next(name for name in names if not name.exists()))

    def _tried(self, step: int, like: TrainState):
        """(what is restored, None), or (None, why not), the same on all hosts."""
        restored, why = None, None
        try:
            restored = self._restore(step, like)
        except (ValueError, KeyError, OSError) as error:
            why = f"unreadable: {next(iter(str(error).splitlines()), '')[:200]}"
        if int(most(why is not None)):
            return None, why or "unreadable for another host"
        return restored, None

    def _restore(self, step: int, like: TrainState) -> tuple[TrainState, list]:
        abstract = lambda leaf: jax.ShapeDtypeStruct(
            np.shape(leaf), leaf.dtype, sharding=everywhere_sharding()
        )
        target = jax.tree.map(abstract, like._asdict())
        there = [name for name in ITEMS if (self.folder / str(step) / name).is_dir()]
        items = {name: ocp.args.StandardRestore(target[name]) for name in there}
        items["pending"] = ocp.args.JsonRestore()
        restored = self.writer.restore(self.folder / str(step), args=ocp.args.Composite(**items))
        parts = {name: restored[name] for name in there}
        parts = {"ema": parts["params"], "opt_state": like.opt_state} | parts
        # Of parameters from elsewhere: as if they had been these in all the steps before.
        begun = (parts["params"],) * len(like.averages)
        parts["averages"] = tuple(parts.get("averages", begun))
        state = TrainState(np.int32(step), **parts)
        return replicated(state), restored.pending

    def _cannot_save(self, step: int, error: BaseException) -> CannotSave:
        for leftover in self.folder.glob(f"{WRITING}*") if leads() else ():
            _remove(leftover)
        # Each of orbax's tasks that failed as well would say so at length when it is collected.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        newest = max(map(int, self._names()), default=None)
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        return CannotSave(
            f"could not save the checkpoint of step {step} in {self.folder} ({reason[:300]}). "
            + ("There is none before it" if newest is None else
               f"That of step {newest} is whole")
            + "; make room or give permission, and the same command goes on from there"
        )  # fmt: skip


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _checksum(file: Path) -> list:
    """[bytes, sha256] of a file."""
    with open(file, "rb") as stream:
        return [
            os.fstat(stream.fileno()).st_size,
            hashlib.file_digest(stream, "sha256").hexdigest(),
        ]
