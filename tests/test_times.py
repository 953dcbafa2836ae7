"""Laws of training times, how a batch's times are drawn, grids of sampling times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_process
from scipy import stats

from score_jax.errors import UserError
from score_jax.processes import EDM, PROCESSES, VP, Flow
from score_jax.times import DRAWS, GRIDS, LAWS, make_law, mirrored

close = np.testing.assert_allclose
U = (np.arange(20_000) + 0.5) / 20_000


def times_of(process, law, **options):
    draw = make_law(process, law, **options)
    return [np.asarray(a) for a in jax.jit(jax.vmap(draw))(U)]


@pytest.mark.parametrize("law", sorted(LAWS))
def test_a_law_gives_times_that_every_process_has(law, process, x64):
    if law == "ladder" and process.levels is None:
        pytest.skip("refused; see below")
    t, weight = times_of(process, law)
    assert np.all((t >= 0) & (t <= 1)) and np.all(weight > 0)


@pytest.mark.parametrize("law", ["uniform", "lognormal", "logit_normal", "importance"])
def test_a_law_has_a_time_for_every_u_that_float32_can_draw(law, process):
    """Also for the ends 0 and 1 - 2^-24, where a normal quantile is or seems infinite."""
    draw = make_law(process, law)
    u = np.array([0.0, 2.0**-23, 0.5, 1 - 2.0**-23, 1 - 2.0**-24], np.float32)
    t, weight = jax.jit(jax.vmap(draw))(u)
    assert np.all((np.asarray(t) >= 0) & (np.asarray(t) <= 1))
    assert np.all(np.isfinite(weight) & (np.asarray(weight) > 0))


def test_the_mirror_image_of_0_is_below_1():
    """u = 0 is drawn once in 2^23; 1 - 0 would not be in [0, 1)."""
    pair = jax.vmap(lambda position: mirrored(0.0, position))(jnp.arange(2))
    assert pair[0] == 0.0 and 0.999 < pair[1] < 1.0


def test_the_lognormal_law_is_karras_et_al_s(x64):
    """log σ ~ N(-1.2, 1.2²), in the process that they train, and in any other σ/α."""
    for process in (EDM(), VP()):
        t, _ = times_of(process, "lognormal")
        log_ratio = -0.5 * np.asarray(jax.vmap(process.logsnr)(t))
        assert stats.kstest(log_ratio, stats.norm(-1.2, 1.2).cdf).statistic < 1e-3
    t, _ = times_of(EDM(), "lognormal", mean=-0.4, std=1.0)
    assert abs(np.mean(np.log(jax.vmap(EDM().sigma)(t))) + 0.4) < 1e-3


def test_the_logit_normal_law_is_logit_normal(x64):
    t, _ = times_of(Flow(), "logit_normal")
    assert stats.kstest(np.log(t / (1 - t)), stats.norm().cdf).statistic < 1e-3


def test_the_importance_law_draws_the_log_snr_evenly(process, x64):
    t, _ = times_of(process, "importance")
    logsnr = np.asarray(jax.vmap(process.logsnr)(t))
    close(np.diff(logsnr), np.diff(logsnr).mean(), rtol=1e-5)


def test_importance_weights_restore_the_uniform_expectation(process, x64):
    """E_law[w f(t)] = E_uniform[f(t)], for f that live where the law has mass."""
    t, weight = times_of(process, "importance")
    uniform = 1e-5 + (t.max() - 1e-5) * U
    for f in (lambda t: np.sin(3 * t), lambda t: t**2):
        close((weight * f(t)).mean(), f(uniform).mean(), rtol=2e-3)


def test_a_mean_of_a_law_without_one_is_refused():
    with pytest.raises(UserError, match="loss.law_mean = 1.0 .* loss.law is 'uniform'"):
        make_law(VP(), "uniform", mean=1.0)
    with pytest.raises(UserError, match="loss.law_std must be positive, got 0.0"):
        make_law(VP(), "lognormal", std=0.0)


def batches(name, steps, n=64):
    """[steps, n]: the u of so many batches of n examples."""
    draw = lambda step, position: DRAWS[name](jax.random.key(step), position, n)
    grid = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))
    return np.asarray(jax.jit(grid)(jnp.arange(steps), jnp.arange(n)))


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_a_batchs_draws_are_uniform(name):
    """Each u of a batch, over many steps, and all in [0, 1)."""
    draw = lambda key: DRAWS[name](key, 5, 64)
    u = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 4_000)))
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert np.all((u >= 0) & (u < 1))


def test_stratified_draws_fall_one_in_each_part():
    for u in batches("stratified", 3):
        offset = np.sort(u) * 64
        assert np.array_equal(np.floor(offset - offset[0] + 1e-3), np.arange(64))


def test_antithetic_draws_come_in_mirrored_pairs():
    (u,) = batches("antithetic", 1)
    close(u[::2] + u[1::2], 1.0, rtol=1e-6)
    assert len(np.unique(u)) == 64


def test_stratified_draws_have_the_same_mean_and_less_variance():
    """Of an integral over u: exact to 1/B² or so, where independent draws err by 1/√B."""
    error = {}
    for name in DRAWS:
        means = np.mean(batches(name, 40) ** 2, axis=1)
        error[name] = np.sqrt(np.mean((means - 1 / 3) ** 2))
    assert error["stratified"] < error["antithetic"] < error["independent"]
    assert error["stratified"] < 0.2 * error["independent"]


@pytest.mark.parametrize("grid", sorted(GRIDS))
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_a_grid_falls_from_start_to_end(grid, n, process):
    """On every process that has it, or it says why not."""
    end = 0.0 if grid == "ladder" else 0.01
    if grid == "ladder" and process.levels is None:
        with pytest.raises(UserError, match="needs a process with a ladder"):
            GRIDS[grid](process, n, 1.0, end)
        return
    start = 0.999 if isinstance(process, Flow) else 1.0
    times = GRIDS[grid](process, n, start, end)
    assert times.dtype == np.float64 and len(times) == n + 1
    assert times[0] == start and times[-1] == end and np.all(np.diff(times) < 0)


def test_karras_on_edm_is_uniform_and_logsnr_is_geometric_in_sigma(x64):
    close(GRIDS["karras"](EDM(), 9, 1.0, 0.0), np.linspace(1, 0, 10), atol=1e-12)
    process = PROCESSES["ve"](sigma_min=0.01, sigma_max=50.0)
    sigma = jax.vmap(process.sigma)(GRIDS["logsnr"](process, 9, 1.0, 0.0))
    close(sigma, np.geomspace(50.0, 0.01, 10), rtol=1e-10)


@pytest.mark.parametrize("ends", [(1.0, 0.0), (0.9, 0.01)])
def test_the_angle_grid_has_equal_angles_from_pure_noise_to_clean_data(ends):
    t = GRIDS["angle"](Flow(), 7, *ends)
    angles = np.arctan2((2 * t) ** (2 / 3), (1 - t) ** (2 / 3))
    close(np.diff(angles), np.full(7, (angles[-1] - angles[0]) / 7), rtol=1e-10)


def test_the_quadratic_grid_is_quadratic():
    close(GRIDS["quadratic"](VP(), 5, 1.0, 0.0), (np.arange(5, -1, -1) / 5) ** 2, atol=1e-15)


def test_a_ladder_grid_starts_at_the_level_it_is_told():
    times = GRIDS["ladder"](make_process("ddpm"), 5, 0.4, 0.0)
    assert times[0] == 0.4 and times[-2:].tolist() == [0.001, 0.0]
    close(times * 1000, np.round(times * 1000), atol=1e-9)


def test_a_grid_in_the_log_snr_without_one_is_refused_with_the_end_that_lacks_it():
    with pytest.raises(UserError, match="no data at sampler.start = 1.0"):
        GRIDS["logsnr"](Flow(), 5, 1.0, 0.1)
    with pytest.raises(UserError, match="no noise at sampler.end = 0.0"):
        GRIDS["karras"](VP(), 5, 1.0, 0.0)
