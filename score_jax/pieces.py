"""Long work on many examples, cut into pieces that are kept as they are done.

    found = in_pieces(workdir, "samples", made, 50_000, 500, draw, progress)

A process that is stopped or killed loses the piece it was at, and the next one goes on with the
rest. Where several hosts work together each takes every so-manieth piece.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax.errors import UserError
from score_jax.files import arrays, whole
from score_jax.hosts import ToldElsewhere, from_leader, leads
from score_jax.parallel import most
from score_jax.signals import Interrupted, StopSignals

MISTAKE = 1_000  # larger than any signal's number

Arrays = dict[str, np.ndarray]
Make = Callable[[range, Callable[[float], Any]], Arrays | None]


def in_pieces(
    workdir: Path,
    what: str,
    identity: Any,
    total: int,
    size: int,
    make: Make,
    progress: Callable[[float], Any],
) -> Arrays:
    """Arrays [total, ...] of the examples 0 .. total - 1, `size` of them made at a time.

    make(indices, progress) -> arrays [len(indices), ...]; example i's rows must depend on i and
    on identity (JSON) alone. It may tell progress the share done; where that answers False it may
    return None, and is not asked again. The pieces lie in workdir/pieces until `drop` is called,
    those of another identity only until now. Returns all of it on every host.

    Raises what make raises, Interrupted on SIGINT and SIGTERM, with all whole pieces kept, and
    UserError where another host met a mistake or pieces cannot be read.
    """
    folder = _folder(workdir, what, identity)
    if leads():
        for other in folder.parent.glob(f"{what}-*"):
            if other != folder:
                shutil.rmtree(other)
        folder.mkdir(parents=True, exist_ok=True)
    from_leader()
    ranges = [range(begin, min(begin + size, total)) for begin in range(0, total, size)]
    missing = [i for i, r in enumerate(ranges) if leads() and _read(folder, r) is None]
    missing = from_leader(missing)
    hosts, me = jax.process_count(), jax.process_index()

    def tell(fraction):
        done = len(ranges) - len(missing) + min(len(missing), turn * hosts + fraction * hosts)
        progress(done / len(ranges))
        return None if stop.signal is None else False

    with StopSignals() as stop:
        for turn in range(-(-len(missing) // hosts)):
            mistake = None
            for piece in missing[turn * hosts :][me : me + 1]:
                try:
                    made = make(ranges[piece], tell)
                except UserError as error:
                    mistake = error
                    break
                if made is not None:
                    with whole(_path(folder, ranges[piece])) as partial:
                        np.savez(partial, **made)  # type: ignore[arg-type]  # allow_pickle is no piece
                    tell(1.0)
            number = int(most(stop.signal or 0 if mistake is None else MISTAKE))
            if number == MISTAKE:
                raise mistake or ToldElsewhere("another host met a mistake, and says which")
            if number:
                kept = sum(_path(folder, r).is_file() for r in ranges)
                raise Interrupted(
                    f"stopped; {kept} of {len(ranges)} pieces of {size} are kept in {folder}; the "
                    "same command goes on",
                    number,
                )
    progress(1.0)
    read = [_read(folder, r) for r in ranges]
    found = [piece for piece in read if piece is not None]
    lost = [r.start for r, piece in zip(ranges, read) if piece is None]
    if int(most(len(lost))):  # and no host drops what another still reads
        where = f", here first that from {lost[0]} on" if lost else ""
        raise UserError(
            f"pieces in {folder} cannot be read{where}; is it on a disk that all hosts share? The "
            "same command makes them again"
        )
    return {name: np.concatenate([piece[name] for piece in found]) for name in found[0]}


def drop(workdir: Path, what: str, identity: Any) -> None:
    """Deletes the pieces of what is kept elsewhere now."""
    if leads():
        folder = _folder(workdir, what, identity)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.is_dir() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def _folder(workdir: Path, what: str, identity: Any) -> Path:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return workdir / "pieces" / f"{what}-{digest}"


def _path(folder: Path, indices: range) -> Path:
    return folder / f"{indices.start:09d}-{indices.stop:09d}.npz"


def _read(folder: Path, indices: range) -> Arrays | None:
    """A piece, or None where it is not there or damaged (each array has a checksum in it)."""
    found = arrays(_path(folder, indices))
    fits = found and all(len(a) == len(indices) for a in found.values())
    return found if fits else None
