"""Every method of `score_jax.inverse` against conditional laws that are known exactly.

    python -m benchmarks.conditional                  # the tables and benchmarks/results/
    python -m benchmarks.conditional --quick          # fewer samples and steps, under 3 minutes
    python -m benchmarks.conditional --json FILE      # records; FILE.md beside it

y = A x_0 + noise n of Gaussian mixtures, the network perfect, the sampler ancestral on VP. Of N
samples the mean, the covariance and the modes' weights are held to those of p(x_0 | y):

    mean        |L⁻¹ (m - μ)|/√D                   in the posterior's standard deviations
    covariance  |L⁻¹ S L⁻ᵀ - I|_F/√D               relative
    modes       ½ Σ_k |mean of p(k | x, y) - w_k|  total variation; no boundary between modes

with μ and LLᵀ the posterior's, m and S the samples'. `se` is the standard error along the error
that was found; `beyond` says what is further off than sampling is in 27 of 10,000 cases, the
probability of three standard errors (χ², all components together).

Yardsticks: `exact`, as many draws from the posterior; `sampler given y`, the best that can be had
of this sampler with its number of steps: its own samples, each kept with probability N(y; A x_0,
noise²)/max.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

from benchmarks.command import Record, arguments, machine, progress, table, write_records
from score_jax.densities import GaussianMixture
from score_jax.densities.linear import Components, posterior_given
from score_jax.inverse.dps import dps
from score_jax.inverse.gaussian import mmps, pigdm
from score_jax.inverse.observation import Observation, observe
from score_jax.inverse.replacement import repaint, replacement
from score_jax.inverse.twisted import twisted
from score_jax.predictions import PredictFn, exact
from score_jax.processes import VP
from score_jax.samplers.ancestral import ancestral
from score_jax.samplers.base import Sampler, sample_counted
from score_jax.types import Key

RESULTS = Path("benchmarks/results/conditional.json")
PROCESS = VP()
END_RATIO = 0.01  # σ/α where the steps end and the denoising is done
KINDS = ("mean", "covariance", "modes")
BEYOND = 0.9973  # three standard errors
MORE = 40  # samples for each that is kept; one in 30 is


class Case(NamedTuple):
    """x_0 ~ density, y = matrix x_0 + noise n."""

    name: str
    density: GaussianMixture
    matrix: np.ndarray
    y: np.ndarray
    noise: float

    def posterior(self) -> Components:
        return posterior_given(self.density, self.matrix, self.y, self.noise)

    def observation(self) -> Observation:
        shape = self.density.mean().shape
        return observe(self.y, lambda x: jnp.asarray(self.matrix) @ x, self.noise, shape)

    def replaceable(self) -> bool:
        """A Aᵀ = λ I, which `replacement` asks for."""
        square = self.matrix @ self.matrix.T
        return np.allclose(square, square[0, 0] * np.eye(len(square)))


Draw = Callable[[Key, Case, int], tuple[np.ndarray, int | None]]  # n of them -> (x, evaluations)


class Method(NamedTuple):
    """A row of the tables."""

    name: str
    steps: int | None
    draw: Draw
    replaces: bool = False


def cases() -> list[Case]:
    """One normal, mixed; three modes of which a coordinate is seen; three modes, mixed."""
    normal = GaussianMixture(
        np.ones(1), np.array([[0.5, -1.0, 0.3, 0.8]]), np.array([[0.9, 0.5, 1.2, 0.3]])
    )
    plane = GaussianMixture(
        np.array([0.55, 0.3, 0.15]),
        np.array([[-1.0, 0.5], [1.2, 1.0], [0.4, -1.5]]),
        np.array([[0.25, 0.5], [0.4, 0.2], [0.15, 0.3]]),
    )
    modes = GaussianMixture(
        np.array([0.5, 0.3, 0.2]),
        np.array([[-1.0, 0.5, 0.3, -0.2], [1.2, 1.0, -0.6, 0.4], [0.4, -1.5, 0.8, 1.0]]),
        np.array([[0.4, 0.7, 0.3, 0.5], [0.6, 0.3, 0.5, 0.2], [0.5, 0.5, 0.25, 0.6]]),
    )
    rotated = np.array([[1.0, 0.6, -0.4, 0.2], [-0.6, 1.0, -0.2, -0.4]])
    generic = np.array([[1.0, 0.6, -0.4, 0.2], [0.3, -0.8, 0.5, 1.0]])
    return [
        Case("a: one normal, 2 of 4 mixed", normal, rotated, np.array([0.9, -0.4]), 0.4),
        Case("b: three modes, 1 of 2 seen", plane, np.eye(2)[:1], np.array([-0.05]), 0.3),
        Case("c: three modes, 2 of 4 mixed", modes, generic, np.array([0.4, 0.6]), 0.5),
    ]


def make_sampler(steps: int) -> Sampler:
    end = float(PROCESS.time_of_logsnr(-2 * np.log(END_RATIO)))
    return ancestral(PROCESS, steps=steps, grid="logsnr", end=end)


def sampling(make: Callable[[Case, PredictFn], tuple[Sampler, PredictFn]]) -> Draw:
    """Draws by the sampler and the prediction that are made for a case."""

    def draw(key, case, n):
        sampler, predict = make(case, exact(PROCESS, case.density))
        shape = case.density.mean().shape
        one = lambda key: sample_counted(key, PROCESS, sampler, predict, shape)
        x, evaluations = jax.jit(jax.vmap(one))(split(key, n))
        return np.asarray(x), int(evaluations[0])

    return draw


def split(key: Key, n: int) -> Key:
    """n keys, each of its place alone and not of n."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))


def exactly(key: Key, case: Case, n: int) -> tuple[np.ndarray, None]:
    return np.asarray(jax.vmap(case.posterior().sample)(split(key, n))), None


def given_y(draw: Draw) -> Draw:
    """Up to n of 40 n samples, kept by the likelihood (rejection sampling): their law given y."""

    def drawn(key, case, n):
        x, _ = draw(key, case, MORE * n)
        log_likelihood = -0.5 * (((case.y - x @ case.matrix.T) / case.noise) ** 2).sum(1)
        kept = np.random.default_rng(0).uniform(size=len(x)) < np.exp(log_likelihood)
        return x[kept][:n], None

    return drawn


def by_dps(steps: int) -> Method:
    make = lambda case, predict: (dps(make_sampler(steps), PROCESS, case.observation()), predict)
    return Method("dps", steps, sampling(make))


def methods(
    steps: int, *, other_steps: int, repeats: int, particles: tuple[int, ...]
) -> list[Method]:
    """The rows of a table; dps at other_steps too."""
    sampler = make_sampler(steps)
    unconditional = sampling(lambda case, predict: (sampler, predict))

    def steered(change, **options):
        change_it = lambda case: change(sampler, PROCESS, case.observation(), **options)
        return sampling(lambda case, predict: (change_it(case), predict))

    def guided(guide, **options):
        guide_it = lambda case, predict: guide(predict, PROCESS, case.observation(), **options)
        return sampling(lambda case, predict: (sampler, guide_it(case, predict)))

    return [
        Method("exact", None, exactly),
        Method("sampler given y", steps, given_y(unconditional)),
        Method("unconditional", steps, unconditional),
        Method("replacement", steps, steered(replacement), replaces=True),
        Method(f"repaint, {repeats}x", steps, steered(repaint, repeats=repeats), replaces=True),
        by_dps(other_steps),
        by_dps(steps),
        Method("pigdm", steps, guided(pigdm)),
        Method("mmps, 1 iteration", steps, guided(mmps, iterations=1)),
        Method("mmps, converged", steps, guided(mmps)),
        *(Method(f"twisted, K = {k}", steps, steered(twisted, particles=k)) for k in particles),
    ]


def errors(x: np.ndarray, posterior: Components) -> Record:
    """The errors of samples [N, D], their standard errors, and which are beyond."""
    root = np.linalg.cholesky(posterior.covariance())
    z = np.linalg.solve(root, (x - posterior.mean()).T).T
    d = z.shape[1]
    centered = z - z.mean(0)
    products = np.einsum("ni,nj->nij", centered, centered) - np.eye(d)
    shares = responsibilities(x, posterior) - posterior.weights
    unit = lambda mean: mean / np.linalg.norm(mean)
    flat = products.reshape(len(z), -1)
    parts = {  # the values whose mean is the error, the error's direction, independent ones
        "mean": (z / d**0.5, unit(z.mean(0)), z),
        "covariance": (flat / d**0.5, unit(flat.mean(0)), products[:, *np.triu_indices(d)]),
        "modes": (0.5 * shares, np.sign(shares.mean(0)), shares[:, 1:]),
    }
    record: dict[str, float] = {}
    beyond = []
    for kind, (values, direction, independent) in parts.items():
        if independent.shape[1] == 0:  # a single mode
            continue
        along = values @ direction
        record |= {kind: float(along.mean()), f"{kind}_se": float(along.std() / len(x) ** 0.5)}
        beyond += [kind] if not_zero(independent) else []
    return dict(record, beyond=", ".join(beyond) or "nothing")


def not_zero(values: np.ndarray) -> bool:
    """Whether the mean of values [N, C] is further from 0 than sampling is in 27 of 10,000."""
    mean, covariance = values.mean(0), np.atleast_2d(np.cov(values.T))
    squared = len(values) * mean @ np.linalg.solve(covariance, mean)
    return bool(squared > chi2.ppf(BEYOND, len(mean)))


def responsibilities(x: np.ndarray, posterior: Components) -> np.ndarray:
    """p(k | x, y) [N, K]: of which mode of the posterior each sample is."""
    roots = np.linalg.cholesky(posterior.covariances)
    components = zip(posterior.means, roots)
    z = np.stack([np.linalg.solve(root, (x - mean).T) for mean, root in components])  # [K, D, N]
    log_widths = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
    logs = np.log(posterior.weights) - log_widths - 0.5 * (z**2).sum(1).T
    shares = np.exp(logs - logs.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def measure(case: Case, method: Method, n: int, seed: int = 0) -> Record:
    """One row: n samples of a method on a case."""
    x, evaluations = method.draw(jax.random.key(seed), case, n)
    shared = dict(case=case.name, method=method.name, steps=method.steps, samples=len(x))
    found = errors(np.asarray(x, np.float64), case.posterior())
    return dict(shared, evaluations=evaluations, **found)


def of_batch_size(case: Case, method: Method, n: int = 64) -> float:
    """The largest difference between the first sample of a batch of n and the same drawn alone.

    In float64. Not where y is one number: of it dps sees the sign of the residual alone, and that
    turns a rounding into another sample.
    """
    with jax.enable_x64(True):
        alone, together = (method.draw(jax.random.key(1), case, size)[0] for size in (1, n))
    return float(np.max(np.abs(alone[0] - together[0])))


def report(records: list[Record], difference: float) -> str:
    """The tables, in Markdown."""
    columns = ["method", "steps", "evaluations", "samples"]
    columns += [column for kind in KINDS for column in (kind, f"{kind}_se")]
    parts = [
        f"Measured by `python -m benchmarks.conditional` on {machine()}, float32.",
        "Errors of the mean in the posterior's standard deviations, of the covariance relative, of "
        "the modes' weights in total variation, each with its standard error; `beyond`: which are "
        "larger than sampling explains, at the level of three standard errors. `sampler given y`: "
        "what the sampler itself errs by with these steps, its own samples kept by the likelihood.",
    ]
    for name in dict.fromkeys(r["case"] for r in records):
        rows = [r for r in records if r["case"] == name]
        parts += [f"{name}:", table(rows, [*columns, "beyond"])]
    parts.append(
        "replacement and repaint take no noisy y whose A Aᵀ is no multiple of I, as in c. "
        "dps: a sample of a drawn alone and the same in a batch of 64 differ, in float64, by "
        f"{difference:.1g}."
    )
    return "\n\n".join(parts)


def main() -> None:
    """The program."""
    options = arguments(__doc__.splitlines()[0])
    if options.quick:
        jax.config.update("jax_disable_most_optimizations", True)  # most of it is compilation
        n = 1000
        sizes: dict[str, Any] = dict(steps=100, other_steps=50, repeats=5, particles=(4, 16))
    else:
        n = 4000
        sizes = dict(steps=400, other_steps=100, repeats=10, particles=(1, 4, 16, 64))
    pairs = [
        (case, method)
        for case in cases()
        for method in methods(**sizes)
        if case.replaceable() or not method.replaces
    ]
    records = [measure(case, method, n) for case, method in progress(pairs, "methods")]
    difference = of_batch_size(cases()[0], by_dps(sizes["steps"]))
    page = report(records, difference)
    print(page)
    path = options.json or (None if options.quick else RESULTS)
    write_records(records, path, page)


if __name__ == "__main__":
    main()
