"""python -m benchmarks.speed: works are what they are called, clock and tables right."""

import builtins
import json
import subprocess
import sys
from itertools import count as counting

import numpy as np
import pytest

from benchmarks.speed import __main__ as speed
from benchmarks.speed import child, processes
from benchmarks.speed.clock import Cost, alternate, median, ratio, timed
from benchmarks.speed.ours import experiment_of, flops, parameters
from benchmarks.speed.pairs import LIMIT_FLOPS, Task, measure
from benchmarks.speed.report import environment, report
from benchmarks.speed.works import ROOT, WORKS, config_of, examples
from score_jax.errors import UserError
from score_jax.models.base import count
from score_jax.sections import Training


@pytest.fixture(scope="module", params=sorted(WORKS))
def work(request):
    """A work's name and its experiment."""
    return request.param, experiment_of(request.param)


def test_the_networks_have_as_many_parameters_as_their_tables_say(work):
    name, experiment = work
    found = count(experiment.module, experiment.input_shape)
    assert found == WORKS[name].parameters
    assert WORKS[name].network in ("MLP", f"U-Net {found / 1e6:.1f} M")
    assert name != "cifar" or found == 35_746_307


def test_all_batches_of_a_work_are_of_the_sizes_in_its_titles(work):
    name, experiment = work
    options = experiment.evaluation
    assert experiment.training.batch_size == WORKS[name].batch
    assert options.samples == options.batch_size == WORKS[name].drawn
    assert WORKS[name].title.endswith(f", batch {WORKS[name].batch}")
    assert experiment.data.examples.shape == examples(name).shape


def test_the_peer_is_told_all_of_the_training_that_it_has_to_do(work):
    """It reads the config file, so what is not said there must be our default, which is its."""
    name, experiment = work
    said = config_of(name)["training"]
    assert said.get("ema", 0.999) == experiment.training.ema
    assert said.get("warmup", 0) == experiment.training.warmup
    assert said.get("clip") == experiment.training.clip
    adam = Training(steps=1, batch_size=1)
    for option in ("beta1", "beta2", "adam_eps"):
        assert getattr(experiment.training, option) == getattr(adam, option)
    assert (adam.beta1, adam.beta2, adam.adam_eps) == (0.9, 0.999, 1e-8)  # torch.optim.Adam's


def test_operations_of_an_mlp_are_two_for_each_weight_and_example():
    experiment = experiment_of("toy")
    params = parameters(experiment)
    kernels = sum(layer["kernel"].size for layer in params.values())
    one, many = (flops(experiment, params, n) for n in (1, 64))
    assert 2 * kernels < one < 2.1 * kernels
    np.testing.assert_allclose(many, 64 * one, rtol=0.02)


class Machine:
    """A fake clock, on which work takes what it is said to, more from round to round."""

    def __init__(self):
        self.wall = self.cpu = 0.0
        self.did = []

    def now(self):
        return Cost(self.wall, self.cpu)

    def work(self, name, wall, cpu):
        slower = counting(1)

        def run():
            load = next(slower)
            self.did.append(name)
            self.wall += wall * load
            self.cpu += cpu

        return lambda: timed(run, self.now)


def test_costs_are_medians_of_rounds_in_which_one_follows_the_other():
    machine = Machine()
    both = {"ours": machine.work("ours", 1.0, 3.0), "theirs": machine.work("theirs", 2.0, 2.0)}
    costs = alternate(both, 3, pause=0.0)
    assert machine.did == ["ours", "theirs"] * 3
    assert median(costs["ours"]) == Cost(2.0, 3.0) and median(costs["theirs"]) == Cost(4.0, 2.0)
    assert ratio(costs["ours"], costs["theirs"]) == Cost(0.5, 1.5)  # whatever the load


def test_the_ratio_is_that_of_pairs_and_not_of_medians():
    ours = [Cost(1.0, 1.0), Cost(4.0, 4.0), Cost(6.0, 6.0)]
    theirs = [Cost(2.0, 2.0), Cost(2.0, 2.0), Cost(12.0, 12.0)]
    assert ratio(ours, theirs).cpu == 0.5
    assert median(ours).cpu / median(theirs).cpu == 2.0


def record(peer=True):
    """Of an update that takes ours 1 CPU-second, theirs 2, and a product 0.5 and 0.25."""
    machine = Machine()
    limits = {"ours": machine.work("", 0.0, 0.5), "theirs": machine.work("", 0.0, 0.25)}
    theirs = machine.work("theirs", 4.0, 2.0) if peer else None
    task = Task("step", "U-Net", "updates", 10, machine.work("", 1.0, 1.0), theirs, LIMIT_FLOPS)
    return measure(task, limits, 3)


def test_the_limit_is_the_faster_product_and_its_part_what_is_reached():
    found = record()
    assert found["limit_flops"] == LIMIT_FLOPS / 0.25
    assert (found["ours_of_limit"], found["theirs_of_limit"]) == (0.25, 0.125)
    assert record(peer=False)["ours_of_limit"] == 0.5


def test_the_table_prints_the_time_of_ours_over_theirs():
    text = report([environment(0.5), record()], "python -m benchmarks.speed")
    header, _, row = text.splitlines()[-3:]
    cells = dict(zip(*([c.strip() for c in line.split("|")] for line in (header, row))))
    assert cells["ratio, CPU"] == "0.5" and cells["ratio, wall"] == "0.25"
    assert float(cells["theirs"]) == pytest.approx(10 / 12, rel=0.01)  # updates a second
    alone = report([environment(0.5), record(peer=False)], "python -m benchmarks.speed")
    assert "theirs" not in alone.splitlines()[-3]


def test_records_name_machine_and_versions_and_are_json():
    found = json.loads(json.dumps([environment(0.5), record()]))
    assert {"jax", "jaxlib", "numpy"} <= set(found[0]["versions"])
    assert found[0]["cpu"] and found[0]["cores"] >= 1 and found[0]["load"] == 0.5


def test_memory_is_of_the_last_stage_and_time_of_each():
    stages = [dict(work="w", of="ours", rounds=1, stage=s, cpu=1.0) for s in child.STAGES]
    found = [s | dict(seconds=float(i), peak_bytes=i * 10**6) for i, s in enumerate(stages, 1)]
    (memory,) = processes.memory(found)
    assert (memory["import_bytes"], memory["peak_bytes"]) == (1_000_000, 5_000_000)
    text = report([environment(0.5), *processes.startup(found), memory], "")
    assert "15.0 (5.0)" in text and text.count("| ours |") == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is ru_maxrss")
def test_a_process_has_a_peak_of_its_own():
    """Not at least that of the process which started it, as ru_maxrss is."""
    code = "from benchmarks.speed.child import peak; print(peak())"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 1e8 < child.peak()


@pytest.mark.parametrize("peer", ["torch", "diffusers"])
def test_a_missing_peer_is_one_message_that_says_what_to_do(peer, monkeypatch):
    importing = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("torch", "diffusers"):
            raise ImportError(f"No module named {name!r}", name=name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [m for m in sys.modules if m.split(".")[0] in ("torch", "diffusers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=f"--peer {peer} needs .*not installed; pip install"):
        speed.installed(peer)


@pytest.mark.parametrize("threads", [0, 10_000])
def test_more_cores_than_there_are_is_an_error(threads):
    with pytest.raises(UserError, match="--threads"):
        speed.pinned(threads)


def test_ours_is_measured_without_a_peer(monkeypatch, tmp_path, capsys):
    path = tmp_path / "speed.json"
    words = ["speed", "--quick", "--pairs=1", "--what", "forward", "--work", "toy"]
    monkeypatch.setattr(sys, "argv", [*words, f"--json={path}"])
    speed.run(speed.arguments("", **speed.OPTIONS))
    at, found = json.loads(path.read_text())
    assert at["what"] == "machine" and found["what"] == "forward"
    assert found["ours_cpu"] > 0 and "theirs_cpu" not in found
    assert path.with_suffix(".md").read_text().strip() == capsys.readouterr().out.strip()
