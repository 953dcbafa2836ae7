"""The posterior of a mixture under a linear observation, against Bayes' rule by other ways."""

import jax
import numpy as np
import pytest
from conftest import draws, mixture
from scipy.stats import multivariate_normal

from score_jax.densities import GaussianMixture
from score_jax.densities.linear import Components, posterior_given
from score_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose


def wide():
    """Three components in four dimensions, none isotropic, none at 0."""
    rng = np.random.default_rng(1)
    return GaussianMixture(
        np.array([0.5, 0.2, 0.3]), rng.normal(size=(3, 4)), rng.uniform(0.3, 1.2, size=(3, 4))
    )


def example(noise, seed=0):
    """(matrix, y): two observations of a point of `wide`, along no axis."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(2, 4))
    return matrix, matrix @ rng.normal(size=4) + noise * rng.normal(size=2)


def test_the_moments_are_those_of_bayes_rule_on_a_grid(x64):
    matrix, y, noise = np.array([[0.8, 0.6]]), np.array([0.2]), 0.3
    axis = np.linspace(-4.0, 4.0, 801)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    prior = np.asarray(jax.jit(jax.vmap(mixture().log_prob))(x))
    p = np.exp(prior - 0.5 * ((y - x @ matrix.T)[:, 0] / noise) ** 2)
    mean = p @ x / p.sum()
    covariance = np.einsum("n,ni,nj->ij", p, x - mean, x - mean) / p.sum()
    posterior = posterior_given(mixture(), matrix, y, noise)
    close(posterior.mean(), mean, atol=1e-9)
    close(posterior.covariance(), covariance, atol=1e-9)


def test_each_component_is_that_of_the_precisions(x64):
    """C⁻¹ + AᵀA/noise² and C⁻¹ μ + Aᵀy/noise²; its weight is that of y's own density."""
    noise = 0.4
    density, (matrix, y) = wide(), example(noise)
    posterior, weights = posterior_given(density, matrix, y, noise), []
    for k in range(3):
        mean, precision = density.means[k], np.diag(density.stds[k] ** -2.0)
        whole = precision + matrix.T @ matrix / noise**2
        expected = np.linalg.solve(whole, precision @ mean + matrix.T @ y / noise**2)
        close(posterior.means[k], expected, rtol=1e-10)
        close(posterior.covariances[k] @ whole, np.eye(4), atol=1e-10)
        spread = matrix @ np.diag(density.stds[k] ** 2) @ matrix.T + noise**2 * np.eye(2)
        weights.append(density.weights[k] * multivariate_normal(matrix @ mean, spread).pdf(y))
    close(posterior.weights, np.array(weights) / np.sum(weights), rtol=1e-10)


def test_a_coordinate_without_noise_is_the_conditional_density(x64):
    y = np.array([0.3])
    posterior = posterior_given(mixture(), np.array([[1.0, 0.0]]), y, 0.0)
    conditional = mixture().conditional((0,), y)
    close(posterior.mean(), [0.3, conditional.mean()[0]], rtol=1e-10)
    close(posterior.covariance(), [[0, 0], [0, conditional.covariance()[0, 0]]], atol=1e-12)


def test_without_noise_it_is_the_limit_of_little_noise_and_keeps_to_y(x64):
    matrix, y = example(0.0)
    exact, nearly = (posterior_given(wide(), matrix, y, noise) for noise in (0.0, 1e-5))
    close(exact.means @ matrix.T, np.tile(y, (3, 1)), rtol=1e-10)
    close(matrix @ exact.covariance() @ matrix.T, np.zeros((2, 2)), atol=1e-12)
    for a, b in zip(exact, nearly):
        close(a, b, atol=1e-8)


def test_nothing_observed_leaves_the_prior(x64):
    posterior = posterior_given(wide(), np.zeros((0, 4)), np.zeros(0), 0.0)
    close(posterior.mean(), wide().mean(), rtol=1e-12)
    close(posterior.covariance(), wide().covariance(), rtol=1e-12)


def test_its_samples_have_its_law():
    """Mean and covariance, each number within four standard errors; singular components too."""
    for noise in (0.0, 0.5):
        posterior = posterior_given(wide(), *example(noise), noise)
        x = np.asarray(draws(posterior.sample, 20_000), np.float64)
        centered = x - posterior.mean()
        products = centered[:, :, None] * centered[:, None, :] - posterior.covariance()
        for values in (centered, products.reshape(len(x), -1)):
            error = values.std(0) / np.sqrt(len(x))
            assert np.all(abs(values.mean(0)) < 4 * error + 1e-6)


def test_a_weight_of_zero_stays_zero():
    density = GaussianMixture(np.array([1.0, 0.0]), np.array([[0.0], [5.0]]), np.array([1.0, 1.0]))
    posterior = posterior_given(density, np.eye(1), np.array([5.0]), 0.1)
    assert list(posterior.weights) == [1.0, 0.0]


def test_mean_and_covariance_of_components_are_those_of_the_mixture(x64):
    density = wide()
    diagonal = np.asarray(density.stds)[:, :, None] ** 2 * np.eye(4)
    components = Components(np.asarray(density.weights), np.asarray(density.means), diagonal)
    close(components.mean(), density.mean(), rtol=1e-12)
    close(components.covariance(), density.covariance(), rtol=1e-12)


@pytest.mark.parametrize(
    ("matrix", "y", "noise", "message"),
    [
        (np.zeros((1, 3)), np.zeros(1), 0.1, r"expected a matrix \[M, 2\]"),
        (np.zeros((2, 2)), np.zeros(1), 0.1, r"expected a matrix \[M, 2\]"),
        (np.eye(2), np.zeros(2), -0.1, "noise must be finite and at least 0, got -0.1"),
        (np.ones((2, 2)), np.zeros(2), 0.0, "use noise > 0"),
        (np.zeros((1, 2)), np.zeros(1), 0.0, "use noise > 0"),
    ],
)
def test_it_refuses_what_has_no_posterior(matrix, y, noise, message):
    with pytest.raises(UserError, match=message):
        posterior_given(mixture(), matrix, y, noise)
