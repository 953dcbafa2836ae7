"""Training: one update against first principles; many updates against interruptions and devices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_config, tiny_images, write_config

from score_jax.build import build
from score_jax.data.order import Order
from score_jax.keys import stream
from score_jax.parallel import split, update_step
from score_jax.sections import Training
from score_jax.times import independent
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.log import Log
from score_jax.training.loop import Interrupted, NonFinite, train
from score_jax.training.state import create, learning_rate, make_update
from score_jax.workdir import open_workdir

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("quick_compile")


def run(config, workdir):
    """Trains in this process, as launch.py does."""
    experiment = build(config)
    with open_workdir(workdir, experiment.config, "train", experiment.data):
        return jax.device_get(train(experiment, workdir))


def same(a, b):
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def metrics(workdir):
    """metrics.jsonl without the timings, and without where it was taken up again."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    of_the_start = ("steps_per_second", "resumed")
    return [{k: v for k, v in line.items() if k not in of_the_start} for line in lines]


def test_the_first_line_after_a_stop_says_where_training_was_taken_up_again(tmp_path):
    for begin, steps in ((0, (4, 8, 12)), (8, (12, 16))):  # of the checkpoint of step 8
        with Log(tmp_path, begin) as log:
            for step in steps:
                log.scalars(step, {"loss": 1.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line.get("resumed")) for line in lines] == [
        (4, None), (8, None), (12, 8), (16, None)
    ]  # fmt: skip


def stepped(experiment, steps, per_call=1):
    """The states after each call, made one by one."""
    update = update_step(make_update(experiment))
    order = Order(len(experiment.data.examples), experiment.training.seed)
    size, state, states = experiment.training.batch_size, create(experiment), []
    for step in range(0, steps, per_call):
        indices = np.stack([order.batch(step + k, size) for k in range(per_call)])
        positions = np.broadcast_to(np.arange(size, dtype=np.int32), indices.shape)
        parts = experiment.data.examples[indices], experiment.labels_of(indices), positions
        batch = tuple(split(part, 1) for part in parts)
        state, _ = update(state, batch)
        states.append(jax.device_get(state))
    return states


def test_the_gradient_is_the_mean_of_the_examples_gradients():
    """The first update against a Python loop over the batch: Adam's first step is lr g/|g|, and
    its second moment keeps (1 - β₂) g²."""
    experiment = build(tiny_config(training=dict(batch_size=8)))
    state, start = stepped(experiment, 1)[0], create(experiment)
    key = jax.random.fold_in(stream(0, "steps"), 0)
    examples = experiment.data.examples[Order(300, 0).batch(0, 8)]

    def loss(params, position):
        _, loss_key, dropout_key = jax.random.split(jax.random.fold_in(key, position), 3)
        net = experiment.net(params, dropout_key=dropout_key)
        u = independent(jax.random.fold_in(key, 8), position, 8)
        return experiment.loss(loss_key, experiment.predict(net), examples[position], u)

    grads = [jax.grad(loss)(start.params, i) for i in range(8)]
    mean = jax.tree.map(lambda *g: sum(g) / 8, *grads)
    second = state.opt_state[1].nu
    for g, nu, old, new in zip(*map(jax.tree.leaves, (mean, second, start.params, state.params))):
        np.testing.assert_allclose(nu, 0.001 * g**2, rtol=1e-3, atol=1e-12)
        large = np.abs(g) > 1e-4
        np.testing.assert_allclose((new - old)[large], -1e-3 * np.sign(g)[large], rtol=1e-3)


def test_the_average_follows_its_recursion_with_warm_up():
    experiment = build(tiny_config(training=dict(ema=0.5)))
    ema = create(experiment).params
    for n, state in enumerate(stepped(experiment, 12)):
        decay = min(0.5, (1 + n) / (10 + n))
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, state.params)  # noqa: B023
        for got, expected in zip(jax.tree.leaves(state.ema), jax.tree.leaves(ema)):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_warms_up_linearly_and_stays():
    options = Training(steps=1, batch_size=1, learning_rate=0.4, warmup=4)
    rates = [float(learning_rate(options, step)) for step in range(6)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rtol=1e-6)


def test_several_updates_in_one_call_are_the_same_updates():
    options = dict(log_every=4, checkpoint_every=4, sample_every=4)
    one, four = (build(tiny_config(training=options | dict(steps_per_call=k))) for k in (1, 4))
    for a, b in zip(stepped(one, 12)[3::4], stepped(four, 12, per_call=4)):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


DEVICES_SCRIPT = """
import sys
import numpy as np, jax
from conftest import tiny_images
from score_jax.build import build
from score_jax.sections import Training
from test_training import stepped
assert jax.local_device_count() == 8
np.savez(sys.argv[1], *jax.tree.leaves(stepped(build(tiny_images()), 3)[-1]))
"""


def test_eight_devices_make_the_step_of_one(tmp_path):
    """To float32 rounding, with dropout, mirrored images and random noise in the loss."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    subprocess.run(
        [sys.executable, "-c", DEVICES_SCRIPT, tmp_path / "eight.npz"], env=environment, check=True
    )
    one = jax.tree.leaves(stepped(build(tiny_images()), 3)[-1])
    with np.load(tmp_path / "eight.npz") as eight:
        for a, b in zip(one, (eight[name] for name in eight.files)):
            np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("make_config", [tiny_config, tiny_images])
def test_a_run_in_three_stretches_ends_where_one_stretch_ends(make_config, tmp_path):
    """Bit for bit, the logged metrics too; the stops fall on no log or checkpoint boundary."""
    whole = run(make_config(), tmp_path / "whole")
    for steps in (3, 7, 12):
        pieces = run(make_config(training=dict(steps=steps)), tmp_path / "pieces")
    same(whole, pieces)
    logged = metrics(tmp_path / "pieces")
    assert logged == metrics(tmp_path / "whole") and [m["step"] for m in logged] == [4, 8, 12]


def launch(config, workdir, cache):
    code = f"""
import jax, sys
jax.config.update("jax_compilation_cache_dir", {str(cache)!r})
from score_jax.main import main
sys.exit(main(["launch.py", "--config={config}", "--workdir={workdir}"]))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # as quick_compile here
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


LONG = dict(training=dict(steps=3_000, log_every=10, checkpoint_every=100, sample_every=3_000))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, quick_compile):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return run(tiny_config(**LONG), folder / "run"), metrics(folder / "run")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_started_again_ends_bit_for_bit_where_it_would_have(
    number, uninterrupted, tmp_path
):
    config = write_config(tmp_path / "config.py", tiny_config(**LONG))
    workdir = tmp_path / "run"
    process = launch(config, workdir, tmp_path)
    deadline = time.time() + 120
    while not list(workdir.glob("checkpoints/[1-9]*00")) and time.time() < deadline:
        time.sleep(0.01)
    time.sleep(0.05 + 0.2 * np.random.default_rng().random())  # any moment will do
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == (-9 if number == signal.SIGKILL else 75), output
    if number == signal.SIGTERM:
        assert "the same command goes on" in output and "Traceback" not in output

    process = launch(config, workdir, tmp_path)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and "going on from the checkpoint of step" in output, output
    experiment = build(tiny_config(**LONG))
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        again, _ = checkpoints.restore(like=create(experiment))
    state, logged = uninterrupted
    same(jax.device_get(again), state)
    assert metrics(workdir) == logged


def test_learning_rate_and_average_come_from_the_config_not_the_checkpoint(tmp_path):
    before = run(tiny_config(), tmp_path / "run")
    changes = dict(training=dict(steps=24, learning_rate=1e-30, ema=0.0))
    after = run(tiny_config(**changes), tmp_path / "run")
    same(after.params, before.params)
    same(after.ema, after.params)
    assert int(after.step) == 24


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    run(tiny_config(), tmp_path / "run")
    changes = dict(training=dict(steps=40, learning_rate=1e30))
    with pytest.raises(NonFinite, match=r"step (13|14|15).* checkpoint of step 12 is whole"):
        run(tiny_config(**changes), tmp_path / "run")
    experiment = build(tiny_config())
    with Checkpoints(tmp_path / "run", experiment.training) as checkpoints:
        state, _ = checkpoints.restore(like=create(experiment))
    assert int(state.step) == 12 and all(np.all(np.isfinite(p)) for p in jax.tree.leaves(state))


def test_a_stop_in_the_last_step_is_heard(tmp_path, monkeypatch):
    """It saves and stops; the samples are for the next start."""
    save = Checkpoints.save

    def save_and_be_stopped(self, state, pending):
        save(self, state, pending)
        if int(state.step) == 12:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Checkpoints, "save", save_and_be_stopped)
    with pytest.raises(Interrupted, match="stopped at step 12, all saved"):
        run(tiny_config(training=dict(checkpoint_every=12)), tmp_path / "run")


def test_a_run_leaves_what_it_promises(tmp_path):
    run(tiny_images(), tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training"]["adam_eps"] == 1e-8, "defaults are resolved"
    start = json.loads((tmp_path / "run" / "starts.jsonl").read_text())
    assert start["versions"]["jax"] == jax.__version__ and start["devices"] == ["cpu"]
    assert (tmp_path / "run" / "samples" / "step_0000010.png").stat().st_size > 0
    events = next((tmp_path / "run" / "tensorboard").iterdir()).read_bytes()
    assert b"loss" in events and b"samples" in events and b"PNG" in events
