"""Exact densities against calculus: gradients, integrals, Bessel functions, moments of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, mixture
from scipy.special import i0e

from score_jax.densities import (
    DENSITIES,
    GaussianMixture,
    Rotated,
    moons,
    parzen,
    rings,
    subspace,
    two_modes,
)
from score_jax.densities.toys import CURVE_STD
from score_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose

ALPHA, SIGMA = 0.7, 0.4


def correlated():
    """A mixture none of whose principal axes is a coordinate axis."""
    c, s = np.cos(0.6), np.sin(0.6)
    return Rotated(mixture(), np.array([[c, -s], [s, c]]))


def flat():
    """A component with no width in one direction, another with none at all."""
    means = np.array([[-0.3, 0.5], [0.4, -0.2]])
    return GaussianMixture(np.array([0.7, 0.3]), means, np.array([[0.6, 0.0], [0.0, 0.0]]))


EXAMPLES = DENSITIES | {"rotated": correlated, "flat": flat}


@pytest.fixture(params=sorted(EXAMPLES))
def density(request, x64):
    return EXAMPLES[request.param]()


def noised(p):
    return p.noised(ALPHA, SIGMA)


def points(p, n=5):
    """Points [n, D] where the noised density lives."""
    mean, covariance = jax.jit(lambda: (noised(p).mean(), noised(p).covariance()))()
    z = np.random.default_rng(0).normal(size=(n, len(mean)))
    return np.asarray(mean) + z * np.sqrt(np.diag(covariance))


def at(x, *fns):
    """The values of each function at all points x [N, D], compiled together."""
    return jax.jit(lambda x: tuple(jax.vmap(fn)(x) for fn in fns))(x)


def grid(low, high, n=401):
    """Points [n², 2] of a square and the area that each stands for."""
    axis = np.linspace(low, high, n)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


def test_the_score_is_the_gradient_of_log_prob(density):
    score = lambda x: noised(density).score(x)
    gradient = lambda x: jax.grad(noised(density).log_prob)(x)
    close(*at(points(density), score, gradient), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["two_modes", "three_modes", "rings", "moons", "rotated"])
def test_the_density_integrates_to_one(name, x64):
    x, area = grid(-11.0, 11.0)
    (log_prob,) = at(x, EXAMPLES[name]().log_prob)
    close(np.exp(log_prob).sum() * area, 1.0, rtol=1e-6)


def test_the_posterior_mean_is_tweedies(density):
    """E[x_0 | x] = (x + σ² ∇ log p_t(x))/α (Robbins 1956): another way through the formulas."""
    tweedie = lambda x: (x + SIGMA**2 * noised(density).score(x)) / ALPHA
    got = lambda x: density.posterior_mean(x, ALPHA, SIGMA)
    close(*at(points(density), got, tweedie), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["three_modes", "moons", "rotated"])
def test_the_posterior_mean_is_bayes_rule_integrated(name, x64):
    """∫ x_0 p(x_0) N(x; α x_0, σ²) dx_0 / ∫ p(x_0) N(x; α x_0, σ²) dx_0 on a fine grid."""
    p = EXAMPLES[name]()
    x_0, _ = grid(-5.0, 5.0)
    prior = at(x_0, p.log_prob)[0]

    def integrated(x):
        return jax.nn.softmax(prior - jnp.sum((x - ALPHA * x_0) ** 2, -1) / (2 * SIGMA**2)) @ x_0

    close(*at(points(p), lambda x: p.posterior_mean(x, ALPHA, SIGMA), integrated), rtol=1e-6)


def test_without_signal_the_posterior_mean_is_the_mean(density):
    got = lambda x: density.posterior_mean(x, 0.0, 2.0)
    close(*at(points(density), got, lambda x: density.mean()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, 1e-12, 1e-6, 1e-4, 1e-2])
def test_with_little_noise_the_posterior_mean_is_right_in_float32(sigma):
    """(σ² μ + α s² x)/(α² s² + σ²) to 1e-6. Away from 0, μ + gain (x - α μ) loses four digits."""
    mean, std, x = 1000.0, 0.5, np.array([0.31, -0.44])
    p = parzen(np.array([[mean, mean]]), std)
    exact = (sigma**2 * mean + ALPHA * std**2 * x) / (ALPHA**2 * std**2 + sigma**2)
    close(p.posterior_mean(x.astype(np.float32), ALPHA, sigma), exact, rtol=1e-6)


def test_without_noise_the_posterior_mean_is_the_point():
    p, x = mixture(), jnp.array([0.31, -0.44])
    close(p.posterior_mean(x, ALPHA, 0.0), np.float64(x) / ALPHA, rtol=1e-6)


@pytest.mark.parametrize("sigma", [1.0, 1e-3, 1e-8])
def test_where_the_density_has_no_width_the_posterior_mean_is_on_it(sigma, x64):
    """However small the noise, a component without width in y has its mean there."""
    p = GaussianMixture(np.ones(1), np.array([[-0.3, 0.5]]), np.array([[0.6, 0.0]]))
    got = p.posterior_mean(np.array([0.9, 0.5 + sigma]), ALPHA, sigma)
    gain = ALPHA * 0.36 / (ALPHA**2 * 0.36 + sigma**2)
    close(got, [-0.3 + gain * (0.9 + ALPHA * 0.3), 0.5], rtol=1e-12)


def test_the_empirical_distributions_posterior_mean_is_its_points_weighted(x64):
    """Σ_n x_n softmax(-|x - α x_n|²/2σ²): the denoiser that memorizes the data."""
    data = np.random.default_rng(0).normal([1.0, -2.0, 0.5], [0.3, 1.0, 2.0], (7, 3))
    x = np.array([0.6, -1.0, 0.2])
    weight = jax.nn.softmax(-np.sum((x - ALPHA * data) ** 2, -1) / (2 * SIGMA**2))
    close(parzen(data, 0.0).posterior_mean(x, ALPHA, SIGMA), weight @ data, rtol=1e-12)


def test_noising_twice_is_noising_once(density):
    """a (α x + σ ε) + b ε' = a α x + √(a² σ² + b²) ε''."""
    a, b = 0.8, 0.3
    twice = lambda x: noised(density).noised(a, b).log_prob(x)
    once = lambda x: density.noised(a * ALPHA, np.hypot(a * SIGMA, b)).log_prob(x)
    close(*at(points(density), twice, once), rtol=1e-10)


def test_noising_can_be_traced_in_time(density):
    """What exact scores of a process need: α and σ that jit does not know."""
    x = points(density)
    got = jax.jit(lambda a, s: jax.vmap(density.noised(a, s).score)(x))(ALPHA, SIGMA)
    close(got, at(x, lambda x: noised(density).score(x))[0], rtol=1e-10)


def test_samples_have_the_mean_and_the_covariance_clean_and_noised(density):
    def sample(key):
        data_key, noise_key = jax.random.split(key)
        x_0 = density.sample(data_key)
        return x_0, ALPHA * x_0 + SIGMA * jax.random.normal(noise_key, x_0.shape)

    exact = jax.jit(lambda: [(p.mean(), p.covariance()) for p in (density, noised(density))])()
    for x, (mean, covariance) in zip(draws(sample, 20_000, seed=1), exact):
        check_moments(np.asarray(x, np.float64), mean, covariance)


def check_moments(x, mean, covariance):
    """Within 4.5 standard errors each: up to 272 numbers are compared at once."""
    error = np.sqrt(np.diag(covariance) / len(x)) + 1e-7
    assert np.all(np.abs(x.mean(0) - mean) < 4.5 * error)
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    error = products.std(0) / np.sqrt(len(x)) + 1e-7
    assert np.all(np.abs(products.mean(0) - covariance) < 4.5 * error)


@pytest.mark.parametrize("known", [0, 1])
def test_the_conditional_is_the_joint_over_the_marginal(known, x64):
    """p(x_j | x_i) = p(x)/∫ p(x) dx_j, also far out where every weight underflows."""
    p, line = mixture(), np.linspace(-6.0, 6.0, 4001)[:, None]

    @jax.jit
    def both(value):
        joint = jax.vmap(lambda y: p.log_prob(jnp.insert(y, known, value)))(line)
        marginal = jax.nn.logsumexp(joint) + np.log(line[1, 0] - line[0, 0])
        conditional = p.conditional((known,), value[None])
        return jax.vmap(conditional.log_prob)(line), joint - marginal

    for value in (0.3, -1.1, 40.0):
        got, expected = both(jnp.array(value))
        likely = got > -50
        close(got[likely], expected[likely], rtol=1e-8, atol=1e-8)


def test_conditioning_in_two_steps_is_conditioning_at_once(x64):
    """Three coordinates, known in any order: the rest keep theirs."""
    p = GaussianMixture(
        np.array([0.4, 0.6]),
        np.array([[0.3, -1.0, 2.0, 0.1], [1.0, 0.2, -0.4, 0.9]]),
        np.array([[0.5, 1.0, 0.3, 0.8], [0.9, 0.4, 1.2, 0.6]]),
    )
    full = lambda x: p.log_prob(jnp.array([x[0], -0.2, x[1], 0.7]))

    @jax.jit
    def differences(x, y):
        at_once = p.conditional((3, 1), np.array([0.7, -0.2]))
        in_steps = p.conditional((1,), np.array([-0.2])).conditional((2,), np.array([0.7]))
        return [f(x) - f(y) for f in (at_once.log_prob, in_steps.log_prob, full)]

    at_once, in_steps, joint = differences(np.array([0.4, 0.8]), np.array([1.4, 1.8]))
    close(at_once, in_steps, rtol=1e-12)
    close(at_once, joint, rtol=1e-12)


def circle_log_prob(x, radius, std):
    """A circle convolved with N(0, s² I): the angle integrates to a Bessel function."""
    r = np.linalg.norm(x, axis=-1)
    z = r * radius / std**2
    log_i0 = np.log(i0e(z)) + z
    return -np.log(2 * np.pi * std**2) - (r**2 + radius**2) / (2 * std**2) + log_i0


def polar(r, angle):
    return np.stack([r * np.cos(angle), r * np.sin(angle)], -1)


def test_the_rings_are_two_circles_convolved_with_a_gaussian(x64):
    """To 1e-6 relative in density, out to six standard deviations, clean and noised."""
    p, rng = rings(), np.random.default_rng(0)
    radii = np.concatenate([rng.uniform(0.4, 2.6, 400), np.full(100, 1.0), np.full(100, 2.0)])
    x = polar(radii, rng.uniform(0, 2 * np.pi, 600))
    for alpha, sigma in ((1.0, 0.0), (0.6, 0.5)):
        std = np.hypot(alpha * CURVE_STD, sigma)
        parts = [circle_log_prob(x, alpha * radius, std) for radius in (1.0, 2.0)]
        exact = np.logaddexp(parts[0] + np.log(1 / 3), parts[1] + np.log(2 / 3))
        got = at(x, lambda x, a=alpha, s=sigma: p.noised(a, s).log_prob(x))[0]
        close(got, exact, rtol=0, atol=1e-6)


def test_the_moons_are_half_circles_away_from_their_ends(x64):
    """Half of the mass on half of a circle is the density of a whole one, where the ends of
    the moon are seven standard deviations away and those of the other nearly six."""
    p, rng = moons(), np.random.default_rng(0)
    x = polar(rng.uniform(0.9, 1.3, 200), rng.uniform(0.7 * np.pi, 0.77 * np.pi, 200))
    exact = circle_log_prob(x, 1.0, CURVE_STD)
    for moon in (x, np.array([1.0, 0.5]) - x):
        close(at(moon, p.log_prob)[0], exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("make", "radii"), [(rings, (1.0, 2.0)), (moons, (1.0,))])
def test_the_density_is_constant_along_a_curve(make, radii, x64):
    for radius in radii:
        x = polar(radius, np.linspace(0.7 * np.pi, 0.77 * np.pi, 1000))
        assert np.ptp(np.exp(at(x, make().log_prob)[0])) < 1e-6


@pytest.mark.parametrize(("rank", "dimensions"), [(2, 16), (1, 3), (4, 4)])
def test_the_subspace_holds_all_of_the_data(rank, dimensions, x64):
    p = subspace(rank, dimensions)
    keys = jax.random.split(jax.random.key(0), 50)
    x, mean, covariance = jax.jit(lambda: (jax.vmap(p.sample)(keys), p.mean(), p.covariance()))()
    assert np.linalg.matrix_rank(np.concatenate([x, mean[None]]), tol=1e-8) == rank
    values = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    close(values[:rank], np.linspace(1.0, 0.5, rank) ** 2, rtol=1e-10)
    close(values[rank:], 0.0, atol=1e-12)


def test_the_noised_subspace_is_the_gaussian_of_its_moments(x64):
    """log N(x; m, Σ) and -Σ⁻¹ (x - m), with Σ inverted whole."""
    p, x = subspace(), points(subspace())[0]
    q = lambda: p.noised(ALPHA, 0.01)
    score, log_prob, mean, covariance = jax.jit(
        lambda x: (q().score(x), q().log_prob(x), q().mean(), q().covariance())
    )(x)
    _, logdet = np.linalg.slogdet(2 * np.pi * covariance)
    solved = np.linalg.solve(covariance, x - mean)
    close(log_prob, -0.5 * (logdet + (x - mean) @ solved), rtol=1e-9)
    close(score, -solved, rtol=1e-8, atol=1e-8)


def test_parzens_estimate_is_on_average_the_density_noised_by_its_bandwidth(x64):
    """E 1/N Σ_n N(x; x_n, h²) = ∫ p(y) N(x; y, h²) dy, within 4 standard errors at each x."""
    p, h, x = mixture(), 0.3, np.array([[-1.0, 0.4], [1.0, 1.0], [0.5, -2.0]])
    data = np.asarray(draws(p.sample, 5000, seed=4))
    estimate, expected = at(
        x, lambda x: parzen(data, h).log_prob(x), lambda x: p.noised(1.0, h).log_prob(x)
    )
    squares = np.sum((x[:, None] - data) ** 2, -1)
    error = np.exp(-squares / (2 * h**2)).std(1) / (2 * np.pi * h**2) / np.sqrt(len(data))
    assert np.all(np.abs(np.exp(estimate) - np.exp(expected)) < 4 * error)


BAD = {
    "weights": (lambda: GaussianMixture([0.5, -0.5], [[0.0], [1.0]], [1.0, 1.0]), "-0.5"),
    "weights [K]": (lambda: GaussianMixture([1.0], [[0.0], [1.0]], [1.0, 1.0]), "(2, 1)"),
    "means": (lambda: GaussianMixture([1.0], [[np.nan]], [1.0]), "nan"),
    "stds": (lambda: GaussianMixture([1.0], [[0.0]], [-2.0]), "-2."),
    "stds [K]": (lambda: GaussianMixture([1.0], [[0.0]], [1.0, 2.0]), "(2,)"),
    "points [N, D]": (lambda: parzen(np.zeros(3), 0.1), "(3,)"),
    "bandwidth": (lambda: parzen(np.zeros((3, 1)), -0.1), "-0.1"),
    "rank": (lambda: subspace(5, 4), "rank = 5"),
    "orthonormal": (lambda: Rotated(mixture(), np.array([[1.0, 0.5], [0.0, 1.0]])), "0.5"),
    "basis [D, D]": (lambda: Rotated(mixture(), np.eye(3)), "(3, 3)"),
    "distinct": (lambda: two_modes().conditional((0, 0), np.zeros(2)), "(0, 0)"),
    "coordinates in 0 .. 1": (lambda: two_modes().conditional((2,), np.zeros(1)), "(2,)"),
    "not all": (lambda: two_modes().conditional((0, 1), np.zeros(2)), "(0, 1)"),
    "values [1]": (lambda: two_modes().conditional((0,), np.zeros(2)), "(2,)"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_argument_is_refused_with_its_name_and_value(what):
    make, value = BAD[what]
    with pytest.raises(UserError) as error:
        make()
    assert what in str(error.value) and value in str(error.value)
