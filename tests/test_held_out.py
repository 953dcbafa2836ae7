"""The loss on test data, level by level: known for data from a Gaussian."""

import json

import jax
import numpy as np
import pytest
from conftest import make_process, tiny_config

from score_jax import held_out
from score_jax.build import build
from score_jax.experiment import Experiment
from score_jax.models.base import init_params
from score_jax.predictions import from_score
from score_jax.processes import PROCESSES
from score_jax.training.loop import train
from score_jax.workdir import open_workdir

TEST = dict(test=dict(seed=1, size=150))


def config(**changes):
    return tiny_config(**changes) | TEST


@pytest.fixture(scope="module")
def experiment():
    return build(config())


@pytest.fixture(scope="module")
def params(experiment):
    return init_params(experiment.module, jax.random.key(1), experiment.data.shape)


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_levels_are_noise_levels_from_clean_to_noisy(name):
    process = make_process(name)
    times = held_out.levels(process)
    assert np.all(np.diff(times) > 0) and 0 < times[0] and times[-1] <= 1
    assert len(times) <= held_out.LEVELS
    logsnr = np.array([float(process.logsnr(t)) for t in times])
    assert np.all(np.isfinite(logsnr)) and np.all(np.diff(logsnr) < 0)
    if process.levels is not None:
        np.testing.assert_allclose(times * process.levels, np.round(times * process.levels))
        assert times[0] == 1 / process.levels and times[-1] == 1.0


def test_the_error_at_each_level_is_the_known_one(experiment, params, monkeypatch):
    """For data from N(m, s²) the best ε errs by α² s²/(α² s² + σ²); the worst, 0, by 1."""
    process, m, s = experiment.process, 0.7, 0.5
    var = lambda t: process.alpha(t) ** 2 * s**2 + process.sigma(t) ** 2
    exact = from_score(process, lambda x, t: (process.alpha(t) * m - x) / var(t))
    monkeypatch.setattr(Experiment, "predict", lambda self, net: exact)
    rng = np.random.default_rng(0)
    x = (m + s * rng.standard_normal((20_000, 2))).astype(np.float32)
    wide = experiment._replace(test=experiment.test._replace(examples=x, labels=None))
    found = held_out.make_measure(wide, 5_000)(params, range(len(x)))
    line = held_out.summary(wide, found)
    signal = np.exp(line["logsnr"]) * s**2
    gap = np.array(line["eps_error"]) - signal / (1 + signal)
    assert np.all(np.abs(gap) < 4 * np.array(line["eps_error_standard_error"]) + 1e-6)
    assert np.all(np.array(line["eps_error_standard_error"]) < 0.01)

    # The loss: the mean over the law, uniform over the ladder, of the same.
    levels = np.arange(1, 13) / 12
    each = np.exp([float(process.logsnr(t)) for t in levels]) * s**2
    assert abs(line["loss"] - (each / (1 + each)).mean()) < 3 * line["standard_error"] < 0.02


def test_the_numbers_do_not_depend_on_the_batches(experiment, params):
    whole = held_out.make_measure(experiment, 150)(params, range(150))
    parts = held_out.make_measure(experiment, 32)(params, range(150))
    for a, b in zip(whole, parts):
        assert a.shape == b.shape and len(a) == 150
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert whole.eps_error.shape == (150, 12)


def test_the_test_data_are_measured_and_not_the_training_data(experiment, params):
    measured = held_out.make_measure(experiment)(params, range(20)).loss
    of_training = held_out.make_measure(experiment._replace(test=None))(params, range(20)).loss
    assert not np.allclose(measured, of_training)
    assert (
        held_out.summary(experiment, held_out.Measured(measured, measured[:, None]))["data"]
        == experiment.test.name
    )


def test_a_run_that_was_stopped_has_the_same_lines(tmp_path):
    def run(folder, steps):
        one = build(config(training=dict(steps=steps, sample_every=4, checkpoint_every=2)))
        with open_workdir(folder, one.config, "train", one.data):
            train(one, folder)
        return [json.loads(line) for line in (folder / "held_out.jsonl").read_text().splitlines()]

    straight = run(tmp_path / "straight", 12)
    run(tmp_path / "stopped", 6)
    beyond = json.dumps({"step": 8, "loss": 0}) + "\n"  # of a process that was killed
    with open(tmp_path / "stopped" / "held_out.jsonl", "a") as file:
        file.write(beyond)
    assert run(tmp_path / "stopped", 12) == straight
    assert [line["step"] for line in straight] == [4, 8, 12]
    assert straight[0]["examples"] == 150 and straight[0]["loss"] != straight[1]["loss"]
