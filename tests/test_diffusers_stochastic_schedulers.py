"""Our samplers with noise against the schedulers of diffusers, fed the same noise."""

import importlib

import jax
import numpy as np
import pytest
from their_schedulers import (
    DENSITY,
    ROUNDED,
    STARTS,
    N,
    apart,
    in_float64,
    keys,
    ladder,
    noise,
    ours,
    sampler_at,
    theirs,
    times_of,
    torch,
)

from score_jax.interop.diffusers_schedulers import scheduler_sections
from score_jax.predictions import exact
from score_jax.processes import PROCESSES
from score_jax.samplers import SAMPLERS
from score_jax.samplers.exponential import curves

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")


@pytest.fixture
def draw(monkeypatch):
    """(module of a scheduler, draws): they draw what we say, one after the other."""

    def patch(name, draws):
        left = iter(draws)
        module = importlib.import_module(f"diffusers.schedulers.{name}")
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(left))

    return patch


@pytest.mark.parametrize("variance", ["small", "large"])
def test_every_step_of_ddpm(variance, draw):
    """The mean's two coefficients and the deviation, of all levels."""
    options = dict(clip_sample=False, prediction_type="sample", variance_type=f"fixed_{variance}")
    scheduler = in_float64(diffusers.DDPMScheduler(**options))
    x, x0, z = torch.eye(3, dtype=torch.float64)[:, :, None]
    draw("scheduling_ddpm", N * [z])
    rows = [scheduler.step(x0, t, x).prev_sample[:, 0].numpy() for t in range(N - 1, 0, -1)]
    sampler = SAMPLERS["ancestral"](ladder(), grid="ladder", steps=N, variance=variance)
    np.testing.assert_allclose(np.stack(sampler.schedule[2:], 1), rows, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("view", "type"), [("x0", "sample"), ("v", "v_prediction")])
def test_ddpm(view, type, draw):
    scheduler = in_float64(diffusers.DDPMScheduler(clip_sample=False, prediction_type=type))
    draw("scheduling_ddpm", noise(50))
    x = ours(sampler_at(times_of(scheduler, 50), "ancestral"))
    assert apart(x, theirs(scheduler, 50, view=view)) < 1e-11


def test_ddim_with_noise():
    scheduler = in_float64(diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing"))
    x = ours(sampler_at(times_of(scheduler, 20), "ddim", eta=1.0))
    assert apart(x, theirs(scheduler, 20, noise=noise(20), eta=1.0)) < 1e-11


def sde_solver(order, name, **options):
    kind = dict(algorithm_type="sde-dpmsolver++", solver_order=order)
    scheduler = diffusers.DPMSolverMultistepScheduler(timestep_spacing="trailing", **kind)
    sampler = sampler_at(times_of(scheduler, 20), name, eta=1.0, **options)
    return sampler, theirs(scheduler, 20, noise=noise(20))


def test_sde_dpm_solver_pp():
    sampler, x = sde_solver(2, "dpm_solver_pp_2m")
    assert apart(ours(sampler), x) < ROUNDED


def test_sde_dpm_solver_pp_of_third_order():
    """The last coefficient of theirs has -1/2 where its own expansion has +1/2.

    So each step is off by α D'', D'' the second difference, of which the ODE's step has a share
    that vanishes with the step; the importer refuses it. With the wrong sign ours agrees.
    """
    sampler, x = sde_solver(3, "dpm_solver_pp_3m", common=True)
    assert apart(ours(sampler), x) > 0.1
    t, s, a, w, c = sampler.schedule
    here, there, wrong = curves(ladder(), t), curves(ladder(), s), w.copy()
    for i in range(2, len(t)):
        p, q, r = (here.lam[[i, i - 1, i - 2]] - here.lam[i]) / (there.lam[i] - here.lam[i])
        second = 1 / np.array([(p - q) * (p - r), (q - p) * (q - r), (r - p) * (r - q)])
        wrong[i] -= there.alpha[i] * second
    assert apart(ours(sampler._replace(schedule=(t, s, a, wrong, c))), x) < ROUNDED


def test_score_sde_ve(draw):
    """As a folder describes it, but for two things.

    Theirs corrects once more before the last step, from the smallest σ to 0; here it does not. And
    the network is told σ at n times from 1 to 1e-5, while x steps through n levels from σ_max to
    σ_min: they differ by (σ_max/σ_min)^1e-5 at the most.
    """
    n, levels = 200, dict(sigma_min=0.01, sigma_max=50.0)
    scheduler = diffusers.ScoreSdeVeScheduler(num_train_timesteps=n, **levels)
    config = {"_class_name": "ScoreSdeVeScheduler", **scheduler.config}
    found = scheduler_sections(config, dict(centered=False, embedding="fourier"))
    assert found["process"] == dict(name="ve", **levels)
    process, options = PROCESSES["ve"](**levels), found["sampler"]
    starts = 50.0 * STARTS[:3]
    ends = ours(SAMPLERS[options.pop("name")](process, **options), starts, process)

    many = jax.jit(jax.vmap(lambda x, sigma: DENSITY.noised(1.0, sigma).score(x), (0, None)))
    score = lambda x, sigma: torch.from_numpy(np.array(many(x.numpy(), float(sigma))))
    scheduler.set_timesteps(n)
    scheduler.set_sigmas(n)
    for key, start, end in zip(keys(), starts, ends):  # one by one: theirs takes means of norms
        split = jax.vmap(lambda i, key=key: jax.random.split(jax.random.fold_in(key, i)))
        pairs = split(np.arange(n))
        z = np.array(jax.vmap(jax.vmap(lambda k: jax.random.normal(k, (1, 2))))(pairs))
        x = torch.from_numpy(start[None])
        for i, (t, sigma) in enumerate(zip(scheduler.timesteps, scheduler.sigmas)):
            draw("scheduling_sde_ve", torch.from_numpy(z[i, ::-1].copy()))
            corrected = scheduler.step_correct(score(x, sigma), x).prev_sample
            x = corrected if i < n - 1 else x
            x, mean = scheduler.step_pred(score(x, sigma), t, x, return_dict=False)
        assert apart(mean.numpy()[0], end) < 1e-3


def test_score_sde_vp(draw):
    """Their step has the length 1/n everywhere, whatever the distance of their n times."""
    theirs = importlib.import_module("diffusers.schedulers.deprecated.scheduling_sde_vp")
    scheduler, n = theirs.ScoreSdeVpScheduler(), 100
    scheduler.set_timesteps(n)
    process = PROCESSES["vp"](beta_min=0.1, beta_max=20.0)
    predict = exact(process, DENSITY)
    for t in scheduler.timesteps[[0, 30, 90]].double():
        draw("deprecated.scheduling_sde_vp", noise(1))
        eps = np.array(jax.vmap(lambda x, t=float(t): predict(x, t).eps)(STARTS))
        x, _ = scheduler.step_pred(torch.from_numpy(eps), torch.from_numpy(STARTS), t)
        times = np.array([t, t - 1 / n])
        sampler = sampler_at(times, "euler_maruyama", process, denoise=False)
        assert apart(ours(sampler, process=process), x.numpy()) < ROUNDED
