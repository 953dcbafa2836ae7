"""Our ODE solvers against the schedulers of diffusers, where it is installed.

Theirs keep their tables in float32, which is a difference of 1e-6 to 1e-5; with tables in float64
DDIM is ours to the last digits. Every other difference is one of the tests below, by its cause.
"""

import functools

import numpy as np
import pytest
from their_schedulers import (
    ROUNDED,
    STARTS,
    N,
    apart,
    in_float64,
    ladder,
    ours,
    sampler_at,
    theirs,
    times_of,
)

from score_jax.interop.diffusers_schedulers import scheduler_sections
from score_jax.processes import Tabulated
from score_jax.samplers import SAMPLERS
from score_jax.times import karras_grid

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")


def described(scheduler, **model):
    """The sampler that a folder with this scheduler's config describes."""
    config = {"_class_name": type(scheduler).__name__, **scheduler.config}
    section = scheduler_sections(config, dict(centered=True) | model)["sampler"]
    return {name: value for name, value in section.items() if name != "clip"}


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_as_a_folder_describes_it(spacing):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing=spacing)
    section = described(scheduler)
    x = ours(SAMPLERS[section.pop("name")](ladder(), **section))
    assert apart(x, theirs(scheduler, 50)) < ROUNDED
    assert apart(x, theirs(in_float64(scheduler), 50)) < 1e-12


@pytest.mark.parametrize(("order", "solver"), [(2, "DPMSolverMultistep"), (2, "UniPCMultistep")])
def test_solvers_as_a_folder_describes_them(order, solver):
    make = getattr(diffusers, f"{solver}Scheduler")
    scheduler = make(timestep_spacing="trailing", solver_order=order)
    section = described(scheduler)
    x = ours(SAMPLERS[section.pop("name")](ladder(), **section))
    assert apart(x, theirs(scheduler, 25)) < ROUNDED


def test_ddim_with_clipped_x0():
    """Without use_clipped_model_output their step adds the noise of before x0 was clipped.

    Here a clipped x0 has its own noise, with which they make up x. Before the last step.
    """
    make = lambda: in_float64(diffusers.DDIMScheduler(timestep_spacing="trailing"))
    x = ours(sampler_at(times_of(make(), 20), "ddim"), clip=True, steps=19)
    assert 0.1 < apart(x, theirs(make(), 20, stop=19)) < 0.5
    assert apart(x, theirs(make(), 20, stop=19, use_clipped_model_output=True)) < 1e-12


def test_ddim_at_linspace_steps_elsewhere():
    """Their step goes from t to t - N // n, wherever the next timestep is: here 52 or 53 below.

    So x has another noise level than the network is told. A row of ours for each such step agrees.
    """
    scheduler = in_float64(diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="linspace"))
    x, times = theirs(scheduler, 20), times_of(scheduler, 20)
    right = sampler_at(times, "ddim")
    assert 0.1 < apart(ours(right), x) < 1.0
    rows = [sampler_at(np.array([t, t - 50 / N]), "ddim") for t in times[:-2]]
    columns = zip(*(row.schedule for row in rows))
    wrong = right._replace(schedule=tuple(np.concatenate(column) for column in columns))
    assert apart(ours(wrong), x) < 1e-12


@pytest.mark.parametrize(
    ("order", "spacing"), [(2, "leading"), (2, "linspace"), (3, "linspace"), (3, "trailing")]
)
def test_dpm_solver_pp(order, spacing):
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=order, timestep_spacing=spacing)
    name, options = {2: ("2m", {}), 3: ("3m", dict(common=True))}[order]
    sampler = sampler_at(times_of(scheduler, 20), f"dpm_solver_pp_{name}", **options)
    assert apart(ours(sampler), theirs(scheduler, 20)) < ROUNDED


def test_dpm_solver_pp_in_few_steps():
    """With fewer than 15 steps the one before the last is of second order there."""
    make = functools.partial(diffusers.DPMSolverMultistepScheduler, solver_order=3)
    x = ours(sampler_at(times_of(make(), 10), "dpm_solver_pp_3m", common=True))
    assert 0.02 < apart(x, theirs(make(), 10)) < 0.1
    assert apart(x, theirs(make(lower_order_final=False), 10)) < 1e-4


def test_dpm_solver_pp_at_karras_levels():
    """Theirs tells the network the nearest timestep, and x is at the noise level between two."""
    make = functools.partial(diffusers.DPMSolverMultistepScheduler, use_karras_sigmas=True)
    times = np.append(karras_grid(ladder(), 19, 1.0, 1 / N), 0.0)
    x = ours(sampler_at(times, "dpm_solver_pp_2m"))
    assert 1e-3 < apart(x, theirs(make(), 20)) < 0.02
    assert apart(x, theirs(make(), 20, levels=times * N - 1)) < 1e-4


@pytest.mark.parametrize("order", [1, 2])
def test_unipc(order):
    scheduler = diffusers.UniPCMultistepScheduler(solver_order=order, timestep_spacing="trailing")
    sampler = sampler_at(times_of(scheduler, 20), "unipc", order=order)
    assert apart(ours(sampler), theirs(scheduler, 20)) < ROUNDED


def test_unipc_of_third_order():
    """The step before the last one is of second order there (lower_order_final)."""
    make = functools.partial(diffusers.UniPCMultistepScheduler, solver_order=3)
    sampler = sampler_at(times_of(make(), 20), "unipc", order=3)
    assert 0.02 < apart(ours(sampler), theirs(make(), 20)) < 0.5
    assert apart(ours(sampler, steps=18)[0], theirs(make(), 20, stop=18)) < ROUNDED


def test_unipc_bh1():
    """B(h) = h is infinite in their last step, to σ = 0, and x not a number."""
    make = functools.partial(diffusers.UniPCMultistepScheduler, solver_type="bh1")
    sampler = sampler_at(times_of(make(), 20), "unipc", order=2, variant="bh1")
    assert np.all(np.isfinite(ours(sampler))) and np.all(np.isnan(theirs(make(), 20)))
    assert apart(ours(sampler, steps=19)[0], theirs(make(), 20, stop=19)) < ROUNDED


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_euler(spacing):
    """With linspace the times lie between levels: σ is linear there, ours geometric (2e-5)."""
    scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing=spacing)
    sampler = sampler_at(times_of(scheduler, 20), "euler")
    near = 1e-4 if spacing == "linspace" else ROUNDED
    assert apart(ours(sampler), theirs(scheduler, 20)) < near


def test_heun():
    """Theirs is the trapezoidal rule in x/α along σ/α, which is ours on the ladder with α = 1.

    On DDPM's own ours goes along α and σ: another rule of the same, second order.
    """
    exploding = Tabulated.from_sigmas(ladder().ratios)
    make = functools.partial(
        diffusers.HeunDiscreteScheduler, beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing"
    )
    differences = []
    for steps in (20, 40):
        x, times = theirs(make(), steps), times_of(make(), steps)
        starts = STARTS / float(ladder().alpha(1.0))
        same = ours(sampler_at(times, "heun", exploding), starts, exploding)
        assert apart(same, x) < ROUNDED
        differences.append(apart(ours(sampler_at(times, "heun")), x))
    assert 0.01 < differences[0] < 0.1 and 3.0 < differences[0] / differences[1] < 5.0
