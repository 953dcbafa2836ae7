"""Several processes, one a host or one an accelerator, that make one run together.

    start(coordinator="node1:1234", processes=2, process=0)    # or from the environment
    step = from_leader(step)                                   # one opinion for all

The leader, process 0, writes what a run leaves; every process does its part of the work.
With one process all of this does nothing. What goes over the devices stands in parallel.py.
"""

import json
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from score_jax.errors import UserError


class ToldElsewhere(UserError):
    """A mistake that another host met, and says; this one ends with it."""

    said = True


def start(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the processes of a run; to be called before anything asks JAX for its devices.

    coordinator: "host:port" of process 0; processes: how many there are; process: which one
    this is. Without them what the environment says is taken (`announced`), and processes=1
    has it ignored. Once is enough. Raises UserError for a part of the three, and where the
    processes do not meet.
    """
    given = {"--coordinator": coordinator, "--num_processes": processes, "--process_id": process}
    lacking = [name for name, value in given.items() if value is None]
    if processes == 1 or jax.distributed.is_initialized():
        return
    if 0 < len(lacking) < 3:
        raise UserError(
            "--coordinator=HOST:PORT, --num_processes and --process_id belong together; "
            f"{' and '.join(lacking)} {'are' if len(lacking) > 1 else 'is'} missing"
        )
    if coordinator is not None and processes is not None and process is not None:
        _check(coordinator, processes, process)
        _join(coordinator_address=coordinator, num_processes=processes, process_id=process)
        return
    found = announced(os.environ)
    if found == "tpu":
        try:
            _join()
        except UserError as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            # jax found no cluster: a single TPU machine
    elif found == "mpi":
        if find_spec("mpi4py") is None:
            raise UserError(
                "this process was started by MPI with others; to join them: pip install mpi4py, or "
                "give --coordinator, --num_processes and --process_id; to run alone: "
                "--num_processes=1"
            )
        _join(cluster_detection_method="mpi4py")
    elif found is not None:
        _join()


def announced(environ: Mapping[str, str]) -> str | None:
    """Who, by the environment, started several processes for one run; None if nobody did.

    SLURM ("slurm", by srun; a batch script's own step is one process), Open MPI 4 ("ompi"), other
    MPI ("mpi": Open MPI 5, MPICH, Intel's), Kubernetes with an indexed job, as on GKE
    ("kubernetes"), and Cloud TPU ("tpu": wherever libtpu is installed and not set aside by
    JAX_PLATFORMS).
    """
    many = lambda name: environ.get(name, "1").isdigit() and int(environ.get(name, "1")) > 1
    if "SLURM_PROCID" in environ and many("SLURM_STEP_NUM_TASKS"):
        return "slurm"
    if many("OMPI_COMM_WORLD_SIZE") and "OMPI_MCA_orte_hnp_uri" in environ:
        return "ompi"
    if many("OMPI_COMM_WORLD_SIZE") or many("PMI_SIZE"):
        return "mpi"
    platforms = environ.get("JAX_PLATFORMS", "")
    if find_spec("libtpu") is not None and ("tpu" in platforms or not platforms):
        return "tpu"
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        return "kubernetes"
    return None


def leads() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def from_leader(value: Any = None) -> Any:
    """The leader's value, which JSON can hold, on every host; all wait for it."""
    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    text = np.frombuffer(json.dumps(value).encode() if leads() else b"", np.uint8)
    buffer = np.zeros(int(broadcast_one_to_all(np.int32(len(text)))), np.uint8)
    buffer[: len(text)] = text
    return json.loads(np.asarray(broadcast_one_to_all(buffer)).tobytes())


def on_leader(fn: Callable[[], Any]) -> Any:
    """fn() done by the leader: its result, which JSON can hold, or its UserError, for all."""
    if jax.process_count() == 1:
        return fn()
    result, error = None, None
    if leads():
        try:
            result = fn()
        except UserError as mistake:
            error = mistake
    result, said = from_leader([result, None if error is None else str(error)])
    if said is not None:
        raise error or ToldElsewhere(said)
    return result


def leader_first(fn: Callable[[], Any]) -> Any:
    """fn() done by every host, after the leader has: what it prepares is prepared once."""
    if jax.process_count() == 1:
        return fn()
    try:
        result = fn() if leads() else None
    finally:
        from_leader()
    return result if leads() else fn()


def _check(coordinator: str, processes: int, process: int) -> None:
    name, _, port = coordinator.rpartition(":")
    if not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator must be HOST:PORT, got '{coordinator}'")
    if processes < 1:
        raise UserError(f"--num_processes must be at least 1, got {processes}")
    if not 0 <= process < processes:
        raise UserError(f"--process_id must lie in [0, {processes}), got {process}")


def _join(**how: Any) -> None:
    # Its handler of SIGTERM would take the place of ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**how)
    except Exception as error:  # every kind of cluster fails in its own way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"could not join the other processes of the run ({reason}); name them with "
            "--coordinator, --num_processes and --process_id, or run alone with --num_processes=1"
        ) from error
