"""What every test shares: a compilation cache, float64 on request, exact densities."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.densities import GaussianMixture
from score_jax.processes import PROCESSES
from score_jax.samplers import base

# The files that take minutes come first, so that no worker is left with one of them at the end.
LONG = ("test_training", "test_hosts", "test_large_models", "test_likelihood_command")
LONG += ("test_interop", "test_configs", "test_notebooks")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    folder = os.environ.get("SCORE_JAX_TEST_CACHE") or tmp_path_factory.mktemp("xla")
    jax.config.update("jax_compilation_cache_dir", str(folder))


@pytest.fixture(scope="module", autouse=True)
def programs_forgotten():
    """Every compiled program holds pieces of memory, of which a process may map 65,530 (Linux)."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def quick_compile():
    """For modules of many small programs, whose time is XLA's compiler: a third less of it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64():
    """The mathematics is tested in float64."""
    with jax.enable_x64(True):
        yield


# One example of every process: a new entry without one fails test_every_process_has_an_example.
PROCESS_EXAMPLES = {
    "ve": dict(sigma_min=0.05, sigma_max=20.0),
    "vp": dict(beta_min=0.1, beta_max=20.0),
    "subvp": dict(beta_min=0.1, beta_max=20.0),
    "cosine": dict(),
    "edm": dict(sigma_min=0.01, sigma_max=40.0),
    "flow": dict(),
    "ncsn": dict(sigma_min=0.05, sigma_max=20.0, levels=25),
    "ncsnv2": dict(sigma_min=0.05, sigma_max=20.0, dimensions=64),
    "ddpm": dict(beta_min=1e-4, beta_max=0.02, levels=1000),
    "ddpm_quadratic": dict(beta_min=1e-4, beta_max=0.02, levels=1000),
}


def make_process(name):
    return PROCESSES[name](**PROCESS_EXAMPLES[name])


@pytest.fixture(params=sorted(PROCESSES))
def process(request):
    return make_process(request.param)


def mixture():
    """Off-center, unequal, anisotropic: on N(0, I) wrong code passes."""
    return GaussianMixture(
        np.array([0.55, 0.3, 0.15]),
        np.array([[-1.0, 0.5], [1.2, 1.0], [0.4, -1.5]]),
        np.array([[0.25, 0.5], [0.4, 0.2], [0.15, 0.3]]),
    )


def exact_score(process, density):
    """The score of the noised density, known exactly."""
    return lambda x, t: density.noised(process.alpha(t), process.sigma(t)).score(x)


def draws(sample_one, n, seed=0):
    return jax.jit(jax.vmap(sample_one))(jax.random.split(jax.random.key(seed), n))


def by_hand(key, process, sampler, predict, shape):
    """`samplers.base.sample`, its loop in Python: no program to be compiled for every sampler."""
    state = base.start(key, process, sampler, shape).state
    for i, row in enumerate(zip(*sampler.schedule)):
        row = (jnp.asarray(c, jnp.result_type(float)) for c in row)
        state = sampler.step(jax.random.fold_in(key, i), predict, state, *row)
    return sampler.finish(predict, state)


def times(n=7, low=0.05, high=0.95):
    return jnp.linspace(low, high, n)


def tiny_config(**changes):
    """A whole experiment that trains in milliseconds: {section: {option: value}} merged in."""
    config = dict(
        data=dict(name="toy", density="three_modes", size=300),
        process=dict(name="ncsn", sigma_min=0.05, sigma_max=5.0, levels=12),
        model=dict(name="mlp", width=16, depth=1),
        parameterization=dict(view="eps", condition="level"),
        loss=dict(name="denoising", law="ladder"),
        sampler=dict(name="ancestral", steps=12, grid="ladder"),
        training=dict(
            steps=12,
            batch_size=32,
            learning_rate=1e-3,
            log_every=4,
            checkpoint_every=5,
            sample_every=10,
        ),
        evaluation=dict(samples=20, batch_size=8, features="none", allow_fewer=True),
    )
    for section, options in changes.items():
        replace = "name" in options and options["name"] != config[section].get("name")
        config[section] = options if replace else config[section] | options
    return config


def tiny_images(*, training=(), **changes):
    """The same on real digits, with a U-Net that has dropout and images that are mirrored."""
    return tiny_config(
        data=dict(name="digits", flip=True),
        model=dict(name="unet", features=8, multipliers=(1,), blocks=1, attention=(), dropout=0.2),
        training=dict(batch_size=16) | dict(training),
        **changes,
    )


def write_config(path, config):
    """A config file that returns this config."""
    path.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({config!r})\n"
    )
    return path
