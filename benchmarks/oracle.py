"""The density that samplers are measured on, and how: no network, no noise in the truth.

Three overlapping modes of unequal weight, each of another shape. Well separated modes would
measure who falls on which side of a watershed, not the order of a solver.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import odes
from score_jax.densities import GaussianMixture
from score_jax.predictions import exact
from score_jax.probability_flow import angle, angle_field, norm
from score_jax.processes import PROCESSES, GaussianProcess, sample_prior, start_time
from score_jax.samplers import base
from score_jax.types import Array

PROCESS_OPTIONS: dict[str, dict[str, Any]] = {
    "ve": {},
    "vp": {},
    "subvp": {},
    "cosine": {},
    "edm": {},
    "flow": {},
    "ncsn": dict(sigma_min=0.01, sigma_max=50.0, levels=232),
    "ncsnv2": dict(sigma_max=50.0, dimensions=3072),
    "ddpm": dict(beta_min=1e-4, beta_max=0.02, levels=1000),
    "ddpm_quadratic": dict(beta_min=1e-4, beta_max=0.02, levels=1000),
}
END_RATIO = 0.02  # σ/α where the samplers stop


def density() -> GaussianMixture:
    """0.5, 0.3 and 0.2 of three anisotropic normals in the plane."""
    return GaussianMixture(
        np.array([0.5, 0.3, 0.2]),
        np.array([[-1.0, 0.5], [1.2, 1.0], [0.4, -1.5]]),
        np.array([[0.5, 0.9], [0.8, 0.4], [0.6, 0.7]]),
    )


class Setting(NamedTuple):
    """A process, where its samplers start and end, and the perfect network."""

    process: GaussianProcess
    predict: Callable
    start: float
    end: float


def setting(name: str) -> Setting:
    """The Setting of a process by its name in PROCESSES."""
    process = PROCESSES[name](**PROCESS_OPTIONS[name])
    end = float(process.time_of_logsnr(-2 * np.log(END_RATIO)))
    return Setting(process, exact(process, density()), start_time(process), end)


def starts(at: Setting, n: int) -> Array:
    """n first points [n, 2] of the prior."""
    return sample_prior(jax.random.key(0), at.process, (n, 2), at.start)


def flow(at: Setting, x: Array) -> np.ndarray:
    """Where the probability-flow ODE carries the points x [n, 2]: to 1e-11, by `odes.solve`."""
    phi_1, phi_0 = (angle(at.process, t) for t in (at.start, at.end))
    n_1, n_0 = (norm(at.process, t) for t in (at.start, at.end))

    def one(x):
        field = angle_field(at.process, at.predict)
        return n_0 * odes.solve(field, x / n_1, phi_1, phi_0, rtol=1e-11, atol=1e-12).y

    return np.asarray(jax.jit(jax.vmap(one))(x))


class Runner:
    """Runs one sampler at any number of steps by one compiled program.

    make: steps -> Sampler. The schedules are padded to `most` rows.
    """

    def __init__(self, at: Setting, make: Callable[[int], base.Sampler], most: int):
        self.make, self.most = make, most
        sampler = make(most)

        def run(schedule, n, keys, x):
            mine = sampler._replace(schedule=schedule)

            def one(key, x):
                run = base.Run(mine.init(x), jnp.zeros((), jnp.int32))
                run = base.advance(key, mine, at.predict, run, 0, n)
                return base.finish(mine, at.predict, run)

            return jax.vmap(one)(keys, x)

        self.run = jax.jit(run)

    def __call__(self, steps: int, x: Array) -> tuple[np.ndarray, np.ndarray]:
        """(samples [n, 2], network evaluations [n]) from the points x [n, 2]."""
        sampler = self.make(steps)
        rows = sampler.steps
        pad = lambda c: np.concatenate([c, np.repeat(c[-1:], self.most - rows, axis=0)])
        keys = jax.random.split(jax.random.key(1), len(x))
        samples, evaluations = self.run(tuple(map(pad, sampler.schedule)), rows, keys, x)
        return np.asarray(samples), np.asarray(evaluations)
