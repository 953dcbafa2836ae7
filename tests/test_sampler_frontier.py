"""python -m benchmarks.orders --frontier: the truth is one, the counts honest, the order seen."""

import importlib

import jax
import numpy as np
import pytest
from conftest import by_hand

from benchmarks import peers, sampler_frontier
from benchmarks.oracle import flow, starts
from benchmarks.orders import Case, make
from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.predictions import exact

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")

N = 32


@pytest.fixture(scope="module")
def problem():
    """The setting of `round`, 32 first points and where the flow carries them."""
    with jax.enable_x64(True):
        at = sampler_frontier.setting(sampler_frontier.densities()["round"])
        x = starts(at, N)
        right, apart = sampler_frontier.truth(at, x)
        return at, x, right, apart


def test_two_methods_agree_on_the_truth(problem):
    assert 0 < problem[3] < 1e-8


def test_one_mode_flows_along_a_closed_form():
    """x - m shrinks as √(s² + σ²), from σ = 80 to 0.002."""
    mean, std = np.array([0.7, -0.4]), 0.3
    at = sampler_frontier.setting(GaussianMixture(np.ones(1), mean[None], np.array([std])))
    x = np.asarray(starts(at, N))
    shrunk = np.hypot(std, 0.002) / np.hypot(std, 80.0)
    np.testing.assert_allclose(flow(at, x), mean + shrunk * (x - mean), atol=1e-9)


@pytest.mark.parametrize("name", ["ddim", "heun", "dpm_solver_3", "unipc", "adams"])
def test_evaluations_are_all_calls_and_within_the_number(name, problem):
    """The network is asked as often as the record says, if a Python function counts as well."""
    at, x, right, _ = problem
    case, calls = Case(name, name), []

    def predict(x, t):
        calls.append(t)
        return exact(at.process, sampler_frontier.densities()["round"])(x, t)

    each = {"heun": 2, "dpm_solver_3": 3}.get(name, 1)
    sampler = make(at, case, 8 // each, grid="angle")
    by_hand(jax.random.key(0), at.process, sampler, predict, (2,))
    records = sampler_frontier.ours(at, case, x, right, (2, 8))
    assert {r["evaluations"] for r in records if r["budget"] == 8} == {len(calls)}
    assert all(r["budget"] - each < r["evaluations"] <= r["budget"] for r in records)
    assert {r["grid"] for r in records} == set(sampler_frontier.GRIDS)


def test_the_default_is_of_higher_order_than_ddim_at_few_evaluations_already(problem):
    """DDIM gains a factor of 2 by twice the steps; of fourth order is 16, and half of it is here.

    So the default is ahead by 5 at 10 evaluations and by 4 times that at 20.
    """
    at, x, right, _ = problem
    name, grid = sampler_frontier.DEFAULT
    ddim, default = (
        {r["budget"]: r["error"] for r in records if r["grid"] == grid}
        for records in (
            sampler_frontier.ours(at, Case(sampler, sampler), x, right, (10, 20, 40))
            for sampler in ("ddim", name)
        )
    )
    for few, more in ((10, 20), (20, 40)):
        assert 1.7 < ddim[few] / ddim[more] < 2.3
        assert default[few] / default[more] > 6.5, (few, default)
    assert default[20] / default[40] > 10.0, default
    assert 5.0 * default[10] < ddim[10] and 20.0 * default[20] < ddim[20]


def test_the_summary_takes_the_least_error_of_each_side():
    records = [
        dict(density="round", of=of, sampler=sampler, grid=grid, budget=8, error=error)
        for of, sampler, grid, error in (
            ("score_jax", "adams", "angle", 0.02),
            ("score_jax", "adams", "karras", 0.01),
            ("score_jax", "ddim", "angle", 0.03),
            ("diffusers", "UniPCMultistepScheduler", "karras", 0.05),
            ("diffusers", "DEISMultistepScheduler", "karras", 0.04),
        )
    ]
    (row,) = sampler_frontier.summary(records, "round")
    assert row["adams, angle"] == 0.02
    assert (row["best of ours"], row["which"]) == (0.01, "adams, karras")
    assert row["best of diffusers"] == 0.04
    assert row["which of theirs"] == "DEISMultistep, karras"
    assert row["theirs over the default"] == pytest.approx(2.0)


def test_without_torch_the_peer_is_refused_with_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match="--peer diffusers needs .* pip install torch diffusers"):
        peers.installed()


@pytest.mark.parametrize(
    ("theirs", "options", "ours"),
    [
        ("EulerDiscrete", {}, Case("ddim", "ddim")),
        ("HeunDiscrete", {}, Case("heun", "heun")),
        ("DEISMultistep", dict(solver_order=3, lower_order_final=False), Case("deis", "deis")),
        ("EDMDPMSolverMultistep", dict(solver_order=2), Case("2m", "dpm_solver_pp_2m")),
        ("UniPCMultistep", dict(solver_order=3, lower_order_final=False), Case("unipc", "unipc")),
    ],
)
def test_where_a_scheduler_is_a_sampler_of_ours_it_ends_where_ours_does(theirs, options, ours):
    """So theirs are asked at the right noise levels, and end at σ = 0.002 as ours do."""
    pytest.importorskip("diffusers")
    at = sampler_frontier.setting(sampler_frontier.densities()["round"])
    x = starts(at, N)
    peer = peers.Peer(f"{theirs}Scheduler", "exponential", options)
    denoise = sampler_frontier.denoiser(at)
    y, calls = peers.run(peer, 10, np.array(x), denoise, 80.0, 0.002)
    run = sampler_frontier.Runner(at, lambda steps: make(at, ours, steps), 10)
    mine, evaluations = run(5 if theirs.startswith("Heun") else 10, x)
    assert calls == evaluations[0] == 10
    np.testing.assert_allclose(y, mine, atol=2e-5)
