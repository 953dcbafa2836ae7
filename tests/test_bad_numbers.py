"""A loss or a gradient that is not finite: stopped at or skipped, counted, and looked at again."""

import json

import jax
import numpy as np
import pytest
from conftest import tiny_config, write_config
from test_training import metrics, run, same

from score_jax.build import build
from score_jax.data.order import Order
from score_jax.main import main
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.loop import NonFinite
from score_jax.training.state import create

pytestmark = pytest.mark.usefixtures("quick_compile")

POISONED = 17  # the example whose loss overflows float32


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """Good points with one far out, as a broken file or a wrong scale would have it."""
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    x[POISONED] = 1e30
    path = tmp_path_factory.mktemp("points") / "x.npy"
    np.save(path, x)
    return str(path)


def config(points, **training):
    training = dict(steps=24, log_every=6, checkpoint_every=6) | training
    data = dict(name="array", path=points)
    loss = dict(name="denoising", law="ladder", view="x0")
    return tiny_config(data=data, loss=loss, training=training)


def bad_steps(steps, size=32):
    """Counted from 1, which batches hold the poisoned example; by the order alone."""
    order = Order(300, 0)
    return [step + 1 for step in range(steps) if POISONED in order.batch(step, size)]


def test_the_run_stops_at_the_first_bad_step_and_keeps_the_last_good_checkpoint(points, tmp_path):
    first = bad_steps(24)[0]
    with pytest.raises(NonFinite, match=rf"^step {first}: .* --replay_step={first} shows"):
        run(config(points, checkpoint_every=1, log_every=1), tmp_path / "run")
    experiment = build(config(points))
    with Checkpoints(tmp_path / "run", experiment.training) as checkpoints:
        state, _ = checkpoints.restore(like=create(experiment))
    assert int(state.step) == first - 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, first))


def test_bad_steps_are_skipped_and_counted_where_asked(points, tmp_path):
    """As many as there are batches with the poisoned example, each line its own; the rest of
    the run is as if they had not been: Adam's count is of the good steps."""
    state = run(config(points, non_finite="skip"), tmp_path / "run")
    bad, lines = bad_steps(24), metrics(tmp_path / "run")
    assert len(bad) >= 2
    assert [line["non_finite"] for line in lines] == [
        sum(step - 6 < b <= step for b in bad) for step in (6, 12, 18, 24)
    ]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    assert all(np.isfinite(line.get("loss", 0.0)) for line in lines)
    assert int(state.step) == 24 and int(state.opt_state[1].count) == 24 - len(bad)


def test_a_skipped_step_changes_nothing_but_the_step(points, tmp_path):
    first = bad_steps(24)[0]
    every = dict(steps=first, log_every=first, checkpoint_every=1, non_finite="skip")
    after = run(config(points, **every), tmp_path / "run")
    experiment = build(config(points))
    with Checkpoints(tmp_path / "run", experiment.training) as checkpoints:
        before, _ = checkpoints.restore(like=create(experiment), at_most=first - 1)
    assert int(before.step) == first - 1 and int(after.step) == first
    same(jax.device_get(before._replace(step=0)), after._replace(step=0))


def test_skipping_is_exact_over_a_stop(points, tmp_path):
    """The count of a line, too, whose steps were made in two stretches."""
    skip = dict(non_finite="skip")
    whole = run(config(points, **skip), tmp_path / "whole")
    for steps in (bad_steps(24)[0] + 1, 24):
        pieces = run(config(points, steps=steps, **skip), tmp_path / "pieces")
    same(whole, pieces)
    assert metrics(tmp_path / "pieces") == metrics(tmp_path / "whole")


def test_a_run_that_skips_everything_stops(points, tmp_path):
    """Parameters that are large but finite, whose every loss overflows."""
    options = dict(non_finite="skip", learning_rate=1e25, steps=300)
    with pytest.raises(NonFinite, match="as in the 99 steps before; stopped"):
        run(config(points, **options), tmp_path / "run")


def test_a_step_is_replayed_as_it_was_and_names_the_example(points, tmp_path, capsys):
    """The loss and gradient of a good step are those of the log; of a bad step the poisoned
    example comes first. The run's own files stay as they were."""
    file = write_config(tmp_path / "config.py", config(points, log_every=1, non_finite="skip"))
    words = ["launch.py", f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    assert main(words) == 0
    before = {
        f: f.read_bytes() for f in (tmp_path / "run" / "checkpoints").rglob("*") if f.is_file()
    }
    good, bad = 11, bad_steps(24)[-1]
    assert good not in bad_steps(24) and bad > 18

    assert main([*words, f"--replay_step={good}"]) == 0
    result = json.loads((tmp_path / "run" / f"replay_step_{good}.json").read_text())
    line = metrics(tmp_path / "run")[good - 1]
    assert result["loss"] == pytest.approx(line["loss"], rel=1e-6)
    assert result["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-5)
    assert result["learning_rate"] == line["learning_rate"]
    indices = {example["index"] for example in result["examples"]}
    assert indices == set(Order(300, 0).batch(good - 1, 32).tolist())
    mean = np.mean([example["loss"] for example in result["examples"]])
    assert mean == pytest.approx(line["loss"], rel=1e-5)

    capsys.readouterr()
    assert main([*words, f"--replay_step={bad}"]) == 0
    said = capsys.readouterr().out
    assert "replaying from step 18" in said and "1 of 32 examples have a loss that is not" in said
    result = json.loads((tmp_path / "run" / f"replay_step_{bad}.json").read_text())
    assert result["loss"] == "inf" and result["examples"][0]["index"] == POISONED
    assert all(np.isfinite(norm) for norm in result["parameters"].values())
    after = {
        f: f.read_bytes() for f in (tmp_path / "run" / "checkpoints").rglob("*") if f.is_file()
    }
    assert after == before and len(metrics(tmp_path / "run")) == 24


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--replay_step=0"], "--replay_step must be from 1"),
        (["--replay_step=13"], "to training.steps = 12, the last, got 13"),
        (["--replay_step=3", "--mode=sample"], "replays a step of training, not of sample"),
        (["--replay_step=soon"], "replay_step"),
        (["--replay_step=3", "--workdir=elsewhere"], "no run in elsewhere"),
    ],
)
def test_a_step_that_cannot_be_replayed_is_refused(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_config(tmp_path / "config.py", tiny_config())
    run(tiny_config(), tmp_path / "run")
    assert main(["launch.py", f"--config={file}", f"--workdir={tmp_path / 'run'}", *words]) == 2
    assert says in capsys.readouterr().err
