"""Several processes that make one run: the same run as one process makes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_config, write_config

from score_jax import hosts
from score_jax.build import build
from score_jax.errors import UserError
from score_jax.main import main
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("quick_compile")

# One process of several, through several modes.
WORKER = """
import sys
from score_jax.main import main

modes, *words = sys.argv[1:]
for mode in modes.split(","):
    status = main(["launch.py", f"--mode={mode}", *words])
    if status:
        break
sys.exit(status)
"""


def config(**training):
    """Thirteen batches of likelihood and three of samples: neither is shared out equally."""
    likelihood = dict(examples=100, batch_size=8, trace="exact")
    return tiny_config(training=training) | dict(likelihood=likelihood)


def start_workers(count, modes, cache, *words, devices=4, last=()):
    """`count` processes on this machine, which have so many devices together.

    last: words that the last of them gets besides.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as quick_compile here
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(cache),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices // count}",
    }
    which = [f"--coordinator=127.0.0.1:{port}"] if count > 1 else []
    which += [f"--num_processes={count}"]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-c", WORKER, modes, *words, *which, f"--process_id={process}"),
                *(last if process == count - 1 else ()),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(count)
    ]


def outputs(workers):
    """[(stdout, stderr)] of each; the library of the collectives speaks in there as well."""
    return [worker.communicate(timeout=300) for worker in workers]


def numbers(workdir, file):
    """What a run has measured: no times, stops, versions, digests of rounded parameters."""
    lines = (workdir / file).read_text().splitlines() if file.endswith("l") else None
    values = (
        [json.loads(line) for line in lines]
        if lines
        else [json.loads((workdir / file).read_text())]
    )
    of_the_start = ("steps_per_second", "resumed")
    return [
        {k: v for k, v in value.items() if k not in of_the_start and isinstance(v, (int, float))}
        for value in values
    ]


def parameters(workdir):
    experiment = build(config())
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        return jax.tree.leaves(jax.device_get(checkpoints.restore(like=create(experiment))[0]))


@pytest.fixture(scope="module")
def one(tmp_path_factory, quick_compile):
    """A run by this process alone, trained, sampled and measured."""
    folder = tmp_path_factory.mktemp("one")
    file = write_config(folder / "config.py", config())
    for mode in ("train", "evaluate", "likelihood"):
        assert (
            main(["launch.py", f"--config={file}", f"--workdir={folder / 'run'}", f"--mode={mode}"])
            == 0
        )
    return file, folder / "run"


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_make_the_run_of_one(count, one, tmp_path):
    """Losses, parameters, samples, metrics, likelihoods: to float32 rounding. The leader alone
    speaks, all write their part of a checkpoint, and nothing half-done is left."""
    file, reference = one
    workdir = tmp_path / "run"
    words = [f"--config={file}", f"--workdir={workdir}"]
    workers = start_workers(count, "train,evaluate,likelihood", tmp_path, *words)
    said = outputs(workers)
    assert [worker.returncode for worker in workers] == [0] * count, said
    assert f"in {count} processes" in said[0][0]
    assert not any(str(workdir) in out for out, _ in said[1:])
    assert_same(workdir, reference)

    written = (workdir / "checkpoints" / "12" / "params").glob("ocdbt.process_*")
    assert {path.name for path in written} == {f"ocdbt.process_{i}" for i in range(count)}
    assert not (workdir / "pieces").exists()
    starts = [json.loads(line) for line in (workdir / "starts.jsonl").read_text().splitlines()]
    assert [start["processes"] for start in starts] == [count] * 3


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_several_devices_make_the_run_of_one(devices, one, tmp_path):
    file, reference = one
    workdir = tmp_path / "run"
    words = [f"--config={file}", f"--workdir={workdir}"]
    (worker,) = start_workers(1, "train,evaluate,likelihood", tmp_path, *words, devices=devices)
    ((out, error),) = outputs([worker])
    assert worker.returncode == 0 and f"{devices} cpu devices" in out, error
    assert_same(workdir, reference)


def assert_same(workdir, reference):
    """To float32 rounding."""
    for name in ("metrics.jsonl", "evaluation.json", "likelihood.json"):
        for ours, theirs in zip(numbers(workdir, name), numbers(reference, name), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
    for a, b in zip(parameters(workdir), parameters(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    samples, expected = (np.load(run / "samples.npz")["arr_0"] for run in (workdir, reference))
    np.testing.assert_allclose(samples, expected, rtol=1e-4, atol=1e-4)


def test_a_run_of_two_processes_is_stopped_by_a_signal_to_either_and_goes_on_in_one(tmp_path):
    """And ends, to rounding, where one process ends that was not stopped."""
    long = dict(steps=2_000, log_every=500, checkpoint_every=200, sample_every=2_000)
    file = write_config(tmp_path / "config.py", config(**long))
    workdir = tmp_path / "run"
    words = [f"--config={file}", f"--workdir={workdir}"]
    workers = start_workers(2, "train", tmp_path, *words)
    deadline = time.time() + 120
    while not list(workdir.glob("checkpoints/[1-9]*")) and time.time() < deadline:
        time.sleep(0.01)
    workers[1].send_signal(signal.SIGTERM)
    said = outputs(workers)
    assert [worker.returncode for worker in workers] == [75, 75], said
    assert "all saved; the same command goes on" in said[0][1]

    assert main(["launch.py", *words]) == 0
    assert main(["launch.py", words[0], f"--workdir={tmp_path / 'whole'}"]) == 0
    steps = [line["step"] for line in numbers(workdir, "metrics.jsonl")]
    assert steps == [500, 1_000, 1_500, 2_000]
    both = (numbers(run, "metrics.jsonl") for run in (workdir, tmp_path / "whole"))
    for ours, theirs in zip(*both, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_mistake_is_said_once_and_ends_all(one, tmp_path):
    file, _ = one
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    words = [f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    workers = start_workers(2, "train", tmp_path, *words)
    said = outputs(workers)
    assert [worker.returncode for worker in workers] == [2, 2]
    errors = [line for _, err in said for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "is not a run of ours" in errors[0]


def test_one_process_with_another_config_ends_all_within_seconds(one, tmp_path):
    """A mistake that one of them meets is not waited for by the others."""
    file, _ = one
    words = [f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    last = ["--config.training.steps=13"]
    workers = start_workers(2, "train", tmp_path, *words, last=last)
    began = time.time()
    said = outputs(workers)
    assert [worker.returncode for worker in workers] == [2, 2], said
    assert time.time() - began < 120
    assert "do not have the same config and data" in said[0][1]
    assert "training.steps: 12 there, 13 here" in said[1][1]
    assert not (tmp_path / "run").exists()


def test_a_process_that_fails_alone_takes_the_others_with_it(one, tmp_path):
    """Instead of leaving them to wait: here one does not find its data."""
    file, _ = one
    words = [f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    last = ["--config.data.name=array", "--config.data.path=nowhere.npy"]
    workers = start_workers(2, "train", tmp_path, *words, last=last)
    began = time.time()
    said = outputs(workers)
    assert workers[1].returncode == 2 and "no file nowhere.npy" in said[1][1]
    assert workers[0].returncode != 0 and time.time() - began < 120


# --- who is there ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, "slurm"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, None),
        ({"SLURM_NTASKS": "4"}, None),  # inside salloc, not started by srun
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1;tcp://1.2.3.4:5"}, "ompi"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpi"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"PMI_SIZE": "8"}, "mpi"),
        ({"PMI_SIZE": "many"}, None),
        ({"KUBERNETES_SERVICE_HOST": "1.2.3.4"}, None),
        ({"KUBERNETES_SERVICE_HOST": "1.2.3.4", "JOB_COMPLETION_INDEX": "0"}, "kubernetes"),
    ],
)
def test_the_environment_tells_who_started_us(environ, found):
    assert hosts.announced(environ) == found


@pytest.mark.parametrize(
    ("platforms", "found"), [("", "tpu"), ("tpu,cpu", "tpu"), ("cpu", None), ("cuda", None)]
)
def test_a_tpu_machine_is_known_by_its_library(platforms, found, monkeypatch):
    monkeypatch.setattr(hosts, "find_spec", lambda name: name == "libtpu" or None)
    assert hosts.announced({"JAX_PLATFORMS": platforms}) == found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(processes=4), "--coordinator and --process_id are missing"),
        (dict(coordinator="a:1", processes=4), "--process_id is missing"),
        (dict(coordinator="node1", processes=2, process=0), "must be HOST:PORT, got 'node1'"),
        (dict(coordinator="node1:http", processes=2, process=0), "must be HOST:PORT"),
        (dict(coordinator="node1:99999", processes=2, process=0), "must be HOST:PORT"),
        (dict(coordinator="a:1", processes=0, process=0), "--num_processes must be at least 1"),
        (dict(coordinator="a:1", processes=2, process=2), r"--process_id must lie in \[0, 2\)"),
    ],
)
def test_flags_that_name_no_process_are_refused(given, says):
    with pytest.raises(UserError, match=says):
        hosts.start(**given)


def test_an_environment_of_mpi_without_mpi4py_says_what_helps(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install mpi4py"):
        hosts.start()
    hosts.start(processes=1)


def test_one_process_needs_nobody():
    assert hosts.leads() and hosts.from_leader({"a": [1, None]}) == {"a": [1, None]}
    assert hosts.on_leader(lambda: 3) == 3 and hosts.leader_first(lambda: 4) == 4
