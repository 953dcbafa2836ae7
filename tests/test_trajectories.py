"""Samples under way, and averages that training keeps: seen from outside."""

import jax
import numpy as np
import pytest
from conftest import tiny_config, tiny_images
from PIL import Image

from score_jax import pictures, plotting
from score_jax.build import build
from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.models.base import init_params
from score_jax.predictions import exact
from score_jax.sampling import make_draw
from score_jax.trajectories import trajectory

NOTHING = {"none": np.zeros(())}


def wide():
    return GaussianMixture(np.ones(1), np.array([[0.3, -0.4]]), np.array([[0.5, 1.5]]))


def exactly(monkeypatch, **changes):
    experiment = build(tiny_config(**changes))
    predict = exact(experiment.process, wide())
    monkeypatch.setattr(Experiment, "predict", lambda self, net: predict)
    return experiment


@pytest.mark.parametrize(
    "sampler",
    [
        dict(name="ancestral", steps=12, grid="ladder"),
        dict(name="dpm_solver_pp_3m", steps=12, grid="ladder"),
        dict(name="heun", steps=12, grid="ladder"),
        dict(name="annealed_langevin", levels=12, steps_per_level=20, step_size=5e-4),
    ],
    ids=lambda sampler: sampler["name"],
)
def test_a_sample_is_seen_at_the_time_that_is_told_and_ends_where_it_is_drawn(sampler, monkeypatch):
    """x0 is the exact E[x_0 | x_t] of what is seen, and the last one nearly the sample."""
    experiment = exactly(monkeypatch, sampler=sampler)
    path = trajectory(experiment, NOTHING, samples=3, columns=6)
    assert path.x.shape == path.x0.shape == (3, 6, 2)
    assert np.all(np.diff(path.times) <= 0) and path.times[0] == 1.0
    for i, t in enumerate(path.times):
        alpha, sigma = experiment.process.alpha(t), experiment.process.sigma(t)
        mean = jax.vmap(wide().posterior_mean, (0, None, None))(path.x[:, i], alpha, sigma)
        np.testing.assert_allclose(path.x0[:, i], mean, rtol=1e-4, atol=1e-4)
    drawn = make_draw(experiment, 5)(NOTHING, range(5)).samples
    assert np.abs(path.x0[:, -1] - drawn[:3]).max() < 0.2
    assert np.abs(path.x[:, 0] - drawn[:3]).max() > 1.0


def test_a_calibrated_sampler_is_calibrated_for_it(monkeypatch):
    sampler = dict(name="ancestral", steps=12, grid="ladder", variance="analytic")
    path = trajectory(exactly(monkeypatch, sampler=sampler), NOTHING, samples=2, columns=3)
    assert np.all(np.isfinite(path.x0))


def test_images_are_seen_in_their_shape():
    experiment = build(tiny_images())
    params = init_params(experiment.module, jax.random.key(0), experiment.data.shape)
    path = trajectory(experiment, params, samples=2, columns=20)
    steps = experiment.sampler.steps
    assert path.x.shape == (2, steps, 8, 8, 1) and steps < 20, "no more columns than steps"


def test_a_sampler_that_chooses_its_steps_has_none_to_look_at(monkeypatch):
    with pytest.raises(UserError, match="'adaptive' with config.guidance"):
        trajectory(exactly(monkeypatch, sampler=dict(name="adaptive")), NOTHING)


def test_the_picture_of_it_has_eight_rows_at_most_and_is_announced_when_it_is_drawn(
    tmp_path, capsys
):
    experiment = build(tiny_images())
    params = init_params(experiment.module, jax.random.key(0), experiment.data.shape)
    pictures.under_way(experiment, params, {"step": 1}, tmp_path)
    path = tmp_path / "samples" / "trajectory.png"
    assert f"drawing how samples come about: {path}" in capsys.readouterr().out
    with Image.open(path) as image:
        rows, rest = divmod(image.height - plotting.MARGIN, 64 + plotting.MARGIN)
    assert rows == 8 and rest == 0
    pictures.under_way(experiment, params, {"step": 1}, tmp_path)
    assert capsys.readouterr().out == "", "it is there already"


def test_the_share_that_is_done_rises_from_0_to_1(monkeypatch):
    sampler, told = dict(name="ancestral", steps=12, grid="ladder"), []
    experiment = exactly(monkeypatch, sampler=sampler)
    trajectory(experiment, NOTHING, samples=2, columns=4, progress=told.append)
    assert told == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_sampler_without_steps_announces_no_picture(tmp_path, capsys, monkeypatch):
    adaptive = build(tiny_images(sampler=dict(name="adaptive")))
    pictures.under_way(adaptive, {}, {}, tmp_path)
    said = capsys.readouterr().out
    assert "no picture of samples under way" in said and "drawing" not in said
