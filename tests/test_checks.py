"""Choices of different sections that do not fit are refused when built, and say what would."""

import numpy as np
import pytest
from conftest import tiny_config

from score_jax.build import build
from score_jax.errors import UserError
from score_jax.processes import VP
from score_jax.samplers import SAMPLERS
from score_jax.samplers.adaptive import adaptive

INDEXED = dict(
    data=dict(name="digits", centered=False),
    model=dict(name="refinenet", features=8, levels=12),
)
FLOW = dict(
    process=dict(name="flow"),
    parameterization=dict(view="eps", condition="time"),
    loss=dict(law="uniform"),
)


def refusal(**changes):
    with pytest.raises(UserError) as error:
        build(tiny_config(**changes))
    return str(error.value)


@pytest.mark.parametrize(
    "sampler",
    [
        dict(name="ddim", grid="uniform", steps=30),
        dict(name="dpm_solver_3", steps=4),
        dict(name="heun", grid="karras", steps=4, end=0.01),
        dict(name="adaptive"),
        dict(name="unipc", steps=4),
    ],
)
def test_a_network_with_parameters_for_each_level_is_not_asked_between_them(sampler):
    """It would answer for the nearest level, and the samples would be silently wrong."""
    message = refusal(**INDEXED, sampler=sampler)
    assert "'refinenet'" in message and f"'{sampler['name']}'" in message
    assert "grid = 'ladder'" in message


@pytest.mark.parametrize(
    "sampler",
    [
        dict(name="annealed_langevin", levels=12, steps_per_level=2),
        dict(name="annealed_langevin", levels=5, steps_per_level=2),
        dict(name="ancestral", grid="ladder", steps=12),
        dict(name="ddim", grid="ladder", steps=5),
        dict(name="heun", grid="ladder", steps=5),
        dict(name="predictor_corrector", grid="ladder", steps=12),
        dict(name="langevin", steps=3, end=0.25),
    ],
)
def test_it_may_be_asked_at_its_levels_by_any_sampler(sampler):
    build(tiny_config(**INDEXED, sampler=sampler))


def test_nor_is_it_trained_between_them():
    assert "loss.at = 0.37 is none of the 12 levels" in refusal(
        **INDEXED, loss=dict(at=0.37), sampler=dict(name="ddim", grid="ladder", steps=5)
    )


@pytest.mark.parametrize("name", ["langevin", "mala"])
def test_a_sampler_that_never_asks_at_the_start_takes_any_view(name):
    """On flow eps does not tell x0 at t = 1; these ask at `end` only."""
    build(tiny_config(**FLOW, sampler=dict(name=name, steps=3, end=0.1)))
    assert "sampler.start = 1.0" in refusal(**FLOW, sampler=dict(name="ddim", steps=3))


def test_on_clean_data_only_the_score_can_be_matched():
    loss = dict(name="implicit", at=0.0)
    assert "config.loss.at = 0.0 is a time without noise" in refusal(loss=loss)
    log_sigma = dict(view="score", condition="log_sigma")
    message = refusal(loss=loss, parameterization=log_sigma)
    assert "'time' or 'level' or 'reversed_level', got 'log_sigma'" in message
    build(tiny_config(loss=loss, parameterization=dict(view="score", condition="level")))


def test_a_networks_sigma_data_is_that_of_its_loss():
    edm = dict(view="F", condition="edm", sigma_data=2.0)
    assert "must agree" in refusal(parameterization=edm, loss=dict(view="F"))
    build(tiny_config(parameterization=edm, loss=dict(view="F", sigma_data=2.0)))


def test_explicit_score_matching_needs_the_datas_own_density():
    message = refusal(loss=dict(name="explicit", density="two_modes"))
    assert "'two_modes' is not the density of the data, three_modes" in message
    build(tiny_config(loss=dict(name="explicit", density="three_modes")))


def test_an_adaptive_sampler_that_could_not_run_is_refused_when_built():
    for options, words in (
        (dict(atol=0.0), "atol = 0.0"),
        (dict(rtol=-1.0), "rtol = -1.0"),
        (dict(max_evaluations=3), "got 3"),
    ):
        with pytest.raises(UserError, match=words):
            adaptive(VP(), **options)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"langevin", "mala", "adaptive"}))
def test_one_step_to_clean_data_is_the_denoising_step_alone(name):
    """No rows in the schedule, for every sampler that has steps."""
    if name == "annealed_langevin":
        assert SAMPLERS[name](VP(), levels=1, steps_per_level=1, grid="uniform").steps == 1
        return
    sampler = SAMPLERS[name](VP(), steps=1, grid="uniform", end=0.0)
    assert sampler.steps == 0 and np.array_equal(sampler.asked(), [1.0])
