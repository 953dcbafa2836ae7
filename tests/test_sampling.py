"""Drawing many samples: each its own, however they are batched; and the commands around it."""

import json

import jax
import numpy as np
import pytest
from conftest import tiny_config, tiny_images, write_config

from score_jax import sampling
from score_jax.build import build
from score_jax.main import main
from score_jax.models.base import init_params
from score_jax.sampling import make_draw


def test_a_sample_does_not_depend_on_how_many_are_drawn_or_batched():
    experiment = build(tiny_config())
    params = init_params(experiment.module, jax.random.key(0), experiment.data.shape)
    twenty, *_ = make_draw(experiment, 7)(params, range(20))
    five, *_ = make_draw(experiment, 64)(params, range(10, 15))
    np.testing.assert_allclose(five, twenty[10:15], rtol=1e-5, atol=1e-5)
    assert len(np.unique(twenty.round(4), axis=0)) == 20


def drawn_in_pieces(monkeypatch, seconds):
    """(samples, the progress that was told) where a call is to take so many seconds."""
    monkeypatch.setattr(sampling, "PIECE", seconds)
    experiment, seen = build(tiny_config()), []
    params = init_params(experiment.module, jax.random.key(0), experiment.data.shape)
    return make_draw(experiment, 8)(params, range(20), seen.append).samples, seen


def test_progress_runs_to_the_end(monkeypatch):
    _, seen = drawn_in_pieces(monkeypatch, 0.0)
    assert seen == sorted(seen) and len({*seen, 0.0}) == 34 and seen[-1] == pytest.approx(1.0)


def test_short_steps_go_together_into_calls_and_nothing_else_changes(monkeypatch):
    one_by_one, _ = drawn_in_pieces(monkeypatch, 0.0)
    together, seen = drawn_in_pieces(monkeypatch, 1e6)
    np.testing.assert_array_equal(together, one_by_one)
    done = sorted({round(33 * share) for share in seen} - {0})
    assert done == [1, 11, 22, 33]  # one step to know how long it takes, then all of a batch


def test_images_come_out_as_bytes():
    experiment = build(tiny_images())
    params = init_params(experiment.module, jax.random.key(0), experiment.data.shape)
    samples, evaluations, finite = make_draw(experiment, 4)(params, range(3))
    assert samples.dtype == np.uint8 and samples.shape == (3, 8, 8, 1)
    assert np.all(evaluations == 12) and np.all(finite)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config file and the workdir of its run."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder / "config.py", tiny_config())
    arguments = ["launch.py", f"--config={config}", f"--workdir={folder / 'run'}"]
    assert main(arguments) == 0
    return arguments, folder / "run"


def test_one_command_trains_and_leaves_samples(trained):
    _, workdir = trained
    with np.load(workdir / "samples.npz") as file:
        assert file.files == ["arr_0"] and file["arr_0"].shape == (20, 2)
    made = json.loads((workdir / "samples.json").read_text())
    assert made["step"] == 12 and made["samples"] == 20 and made["sampler"]["steps"] == 12
    assert (workdir / "samples" / "final.png").is_file()


def test_a_trained_run_is_sampled_with_another_sampler_and_number_of_steps(trained, capsys):
    arguments, workdir = trained
    before = np.load(workdir / "samples.npz")["arr_0"]
    options = ["--mode=sample", "--config.sampler.steps=5", "--config.evaluation.samples=9"]
    assert main([*arguments, *options]) == 0
    after = np.load(workdir / "samples.npz")["arr_0"]
    assert after.shape == (9, 2) and not np.allclose(after, before[:9])
    assert main([*arguments, "--mode=sample"]) == 0
    np.testing.assert_array_equal(np.load(workdir / "samples.npz")["arr_0"], before)
    assert "sampler.steps: 5 there, 12 here" in capsys.readouterr().out


def test_points_are_evaluated_beside_noise_and_the_data_themselves(trained, capsys):
    arguments, workdir = trained
    assert main([*arguments, "--mode=evaluate"]) == 0
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["features"]["name"] == "the numbers themselves" and result["samples"] == 20
    same = result["same_number"]
    distance = {who: same[f"{who}_against_real"]["frechet_distance"] for who in ("real", "noise")}
    assert 0 < distance["real"] < distance["noise"] and same["examples"] == 20
    assert result["memorization"] is None and result["made"]["step"] == 12
    assert "20 real" in capsys.readouterr().out
