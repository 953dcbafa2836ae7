"""training.power_ema and evaluation.ema, from a config to samples."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from conftest import tiny_config, write_config

from score_jax.build import build
from score_jax.errors import UserError
from score_jax.main import main
from score_jax.power_ema import exponent
from score_jax.training.averages import average
from score_jax.training.loop import train
from score_jax.training.state import create
from score_jax.workdir import open_workdir

LENGTHS = (0.1, 0.2)


def config(**training):
    options = dict(power_ema=LENGTHS, snapshot_every=3) | training
    return tiny_config(training=options)


def weighted(weights, *arrays):
    return sum(w * x for w, x in zip(weights, arrays))


def run(one, folder):
    experiment = build(one)
    with open_workdir(folder, experiment.config, "train", experiment.data):
        return experiment, jax.device_get(train(experiment, folder))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, *run(config(checkpoint_every=1, keep=12), folder)


def test_the_averages_are_the_weighted_means_of_all_steps(straight):
    """Σ_k θ_k ((k/T)^g - ((k-1)/T)^g), g = γ + 1, of the parameters after each update."""
    from score_jax.training.checkpoints import Checkpoints

    folder, experiment, state = straight
    with Checkpoints(folder, experiment.training, read_only=True) as checkpoints:
        like = create(experiment)
        steps = [checkpoints.restore(like=like, at_most=k)[0].params for k in range(1, 13)]
    for length, kept in zip(LENGTHS, state.averages):
        edges = (np.arange(13) / 12) ** (exponent(length) + 1)
        expected = jax.tree.map(partial(weighted, np.diff(edges)), *steps)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
                     kept, jax.device_get(expected))  # fmt: skip


def test_a_stopped_run_keeps_the_same_averages_and_snapshots(straight, tmp_path):
    folder, _, state = straight
    run(config(steps=5, checkpoint_every=1, keep=12), tmp_path)
    _, resumed = run(config(checkpoint_every=1, keep=12), tmp_path)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(state)):
        np.testing.assert_array_equal(a, b)
    names = [file.name for file in sorted((folder / "averages").iterdir())]
    assert names == [f"{step:09d}.safetensors" for step in (3, 6, 9, 12)]
    for name in names:
        assert (folder / "averages" / name).read_bytes() == (
            tmp_path / "averages" / name
        ).read_bytes()


def test_parameters_from_elsewhere_are_averaged_as_if_they_had_always_been_these(tmp_path):
    """And not with the random ones of the beginning."""
    from score_jax.training.checkpoints import Checkpoints

    experiment = build(config(steps=1002, learning_rate=1e-8))
    like = create(experiment)
    sevens = jax.tree.map(lambda p: np.full(p.shape, 7.0, np.float32), like.params)
    with Checkpoints(tmp_path, experiment.training) as checkpoints:
        checkpoints.save(like._replace(step=np.int32(1000), params=sevens, ema=None,
                                       opt_state=None, averages=()), [])  # fmt: skip
        checkpoints.wait()
        state, _ = checkpoints.restore(like=like)
    for kept in state.averages:
        assert all(np.all(np.asarray(leaf) == 7.0) for leaf in jax.tree.leaves(kept))


def test_snapshots_of_a_future_that_was_left_are_deleted(tmp_path):
    run(config(), tmp_path)
    newest = tmp_path / "checkpoints" / "12"
    next(newest.rglob("d/*")).unlink()  # damaged: the run goes on from step 10
    (tmp_path / "averages" / "000000011.safetensors").write_bytes(b"of another learning rate")
    run(config(), tmp_path)
    names = sorted(file.stem for file in (tmp_path / "averages").iterdir())
    assert names == ["000000003", "000000006", "000000009", "000000012"]


def test_a_length_that_was_kept_comes_back(straight):
    folder, _, state = straight
    params, made = average(folder, 12, 0.2, like=state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                 params, state.averages[1])  # fmt: skip
    assert made["step"] == 12 and made["left_of_profile"] < 1e-5


def test_samples_are_drawn_with_the_length_that_is_asked_for(tmp_path):
    file = write_config(tmp_path / "config.py", config())
    words = ["launch.py", f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    assert main(words) == 0
    told = lambda: json.loads((tmp_path / "run" / "samples.json").read_text())
    samples = lambda: np.load(tmp_path / "run" / "samples.npz")["arr_0"]
    usual, drawn = told(), samples()
    assert usual["ema"] == 0.999
    assert main([*words, "--mode=sample", "--config.evaluation.ema=0.15"]) == 0
    assert told()["ema"]["sigma_rel"] == 0.15 and told()["ema"]["snapshots"] == 4
    assert told()["parameters_sha256"] != usual["parameters_sha256"]
    assert not np.allclose(samples(), drawn)


def test_lengths_are_chosen_before_the_first_step(tmp_path, capsys):
    file = write_config(tmp_path / "config.py", tiny_config())
    words = ["launch.py", f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    assert main(words) == 0
    assert main([*words, "--config.training.power_ema=(0.1,)"]) == 2
    assert "training.power_ema: None there, [0.1] here" in capsys.readouterr().err
    assert main([*words, "--mode=sample", "--config.evaluation.ema=0.1"]) == 2
    assert "train with training.power_ema = (0.05, 0.1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(power_ema=(0.5,)), "must lie in"),
        (dict(power_ema=None), "how often averages are kept, and training.power_ema names none"),
        (dict(power_ema=("a",)), "config.training.power_ema"),
        (dict(snapshot_every=0), "config.training.snapshot_every must be at least 1"),
    ],
)
def test_lengths_that_cannot_be_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        build(config(**options))


def test_an_average_that_is_asked_for_has_a_length_that_there_is():
    with pytest.raises(UserError, match="must lie in"):
        build(tiny_config(evaluation=dict(ema=0.4)))
