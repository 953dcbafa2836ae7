"""The toy experiments of Song & Ermon 2019 (NCSN), figures 1 to 3: why noise, why many levels.

    python -m benchmarks.ncsn_toy [--quick] [--json FILE]

1. On a manifold there is no score: the sliced loss runs away; with noise N(0, 0.01² I) it
   settles near its minimum. (Theirs is CIFAR-10; here a Gaussian on a plane in R^16, whose
   minimum is known.)
2. Where there are no data there is no score either: the error by distance to the modes.
3. Langevin dynamics with exact scores gets the weights of separated modes wrong; annealed it
   gets them right. Theirs is the toy whose σ replaces the modes' standard deviation.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.command import Record, arguments, machine, progress, table, write_records
from score_jax.densities import GaussianMixture, subspace, two_modes
from score_jax.losses.base import LossFn
from score_jax.losses.score_matching import sliced
from score_jax.predictions import from_score
from score_jax.processes import PROCESSES
from score_jax.samplers.langevin import langevin_step
from score_jax.types import Array, Key

BATCH, LEARNING_RATE = 128, 1e-3  # Song & Ermon 2019, appendix B.1, as all that follows
STEPS = 10_000
CHAINS, STEP_SIZE = 1280, 0.1
LEVELS = np.geomspace(20.0, 1.0, 10)
NOISE_STD = 0.01

PROCESS = PROCESSES["ncsn"](sigma_min=NOISE_STD, sigma_max=1.0, levels=2)
CLEAN, NOISY = 0.0, 0.5  # the times of σ = 0 and σ = NOISE_STD


def network(width: int, depth: int, activation: Callable, dimensions: int) -> nn.Module:
    """`depth` hidden layers; no condition, there is one noise level."""
    hidden = [layer for _ in range(depth) for layer in (nn.Dense(width), activation)]
    return nn.Sequential([*hidden, nn.Dense(dimensions)])


def score_of(module: nn.Module, params: Any, x: Array) -> Array:
    """The network's answer."""
    answer: Any = module.apply(params, x)  # Flax's stub has it return state besides
    return answer


def train(
    key: Key, module: nn.Module, loss: LossFn, sample: Callable[[Key], Array], steps: int
) -> tuple[Any, Array]:
    """(parameters, the loss of every step), Adam on fresh samples; one call of a compiled loop."""
    adam = optax.adam(LEARNING_RATE)

    def batch_loss(params, key):
        data_key, loss_key = jax.random.split(key)
        x_0 = jax.vmap(sample)(jax.random.split(data_key, BATCH))
        predict = from_score(PROCESS, lambda x, t: score_of(module, params, x))
        keys = jax.random.split(loss_key, BATCH)
        return jax.vmap(lambda key, x: loss(key, predict, x))(keys, x_0).mean()

    def step(carry, key):
        params, state = carry
        value, gradient = jax.value_and_grad(batch_loss)(params, key)
        updates, state = adam.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def run(key):
        first, rest = jax.random.split(key)
        params = module.init(first, sample(first))
        carry, values = jax.lax.scan(
            step, (params, adam.init(params)), jax.random.split(rest, steps)
        )
        return carry[0], values

    return run(key)


def manifold(seed: int, steps: int = STEPS) -> list[Record]:
    """Figure 1: the sliced loss on a plane in R^16, clean and with noise.

    The minimum with noise is E [tr J + ½ |s|²] at the exact score, -½ E |s|² = -½ tr Σ⁻¹.
    """
    p = subspace(rank=2, dimensions=16)
    noised = p.noised(1.0, NOISE_STD).density
    assert isinstance(noised, GaussianMixture)
    stds = np.asarray(noised.stds, np.float64)
    minimum = {"clean": None, "noisy": float(-0.5 * np.sum(1.0 / stds**2))}
    records = []
    for data, at in (("clean", CLEAN), ("noisy", NOISY)):
        loss = sliced(PROCESS, at=at, directions="gaussian")
        _, values = train(jax.random.key(seed), network(128, 3, nn.elu, 16), loss, p.sample, steps)
        last = np.asarray(values, np.float64)[-steps // 10 :]
        figures = dict(loss=float(last.mean()), sd=float(last.std()), minimum=minimum[data])
        records.append(dict(figure=1, seed=seed, steps=steps, data=data, **figures))
    return records


def low_density(seed: int, steps: int = STEPS) -> list[Record]:
    """Figure 2: mean |s - ∇ log p| of a trained network by distance to the nearest mode."""
    p, module = two_modes(), network(128, 2, nn.softplus, 2)
    loss = sliced(PROCESS, at=CLEAN, directions="gaussian")
    params, _ = train(jax.random.key(seed), module, loss, p.sample, steps)
    axis = np.linspace(-8.0, 8.0, 81, dtype=np.float32)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    gap = jax.jit(lambda x: score_of(module, params, x) - jax.vmap(p.score)(x))(x)
    error = np.linalg.norm(gap, axis=-1)
    distance = np.linalg.norm(x[:, None] - np.asarray(p.means), axis=-1).min(1)
    return [
        dict(
            figure=2,
            seed=seed,
            steps=steps,
            distance=f"{low:.0f} to {high:.0f}",
            error=float(error[(low <= distance) & (distance < high)].mean()),
        )
        for low, high in ((0.0, 2.0), (2.0, 4.0), (4.0, 16.0))
    ]


def mixing(seeds: int = 10) -> list[Record]:
    """Figure 3: the share of 1280 chains that end nearer (5, 5); 4/5 of the mass is there."""
    p = two_modes()

    def walk(key, x, score, step_size, steps):
        step = lambda i, x: langevin_step(
            jax.random.fold_in(key, i), jax.vmap(score)(x), x, step_size
        )
        return jax.lax.fori_loop(0, steps, step, x)

    def level(carry, sigma):
        x, key = carry
        key, own = jax.random.split(key)
        score = GaussianMixture(p.weights, p.means, jnp.full(2, sigma)).score
        return (walk(own, x, score, STEP_SIZE * (sigma / LEVELS[-1]) ** 2, 100), key), None

    def shares(key):
        first, plain_key, annealed_key = jax.random.split(key, 3)
        x = jax.random.uniform(first, (CHAINS, 2), minval=-8.0, maxval=8.0)
        plain = walk(plain_key, x, p.score, STEP_SIZE, 1000)
        (annealed, _), _ = jax.lax.scan(level, (x, annealed_key), jnp.asarray(LEVELS))
        return [jnp.mean(x.sum(1) > 0) for x in (plain, annealed)]

    both = jax.jit(jax.vmap(shares))(jax.random.split(jax.random.key(0), seeds))
    return [
        dict(figure=3, seed=seed, sampler=sampler, share=float(share), truth=0.8)
        for sampler, column in zip(("Langevin", "annealed Langevin"), both)
        for seed, share in enumerate(column)
    ]


def summary(records: list[Record]) -> list[Record]:
    """Figure 3's seeds in one row for each sampler."""
    rows = []
    for sampler in dict.fromkeys(r["sampler"] for r in records):
        shares = np.array([r["share"] for r in records if r["sampler"] == sampler])
        numbers = dict(mean=shares.mean(), sd=shares.std(), low=shares.min(), high=shares.max())
        floats = {name: float(number) for name, number in numbers.items()}
        rows.append(dict(sampler=sampler, seeds=len(shares), truth=0.8, **floats))
    return rows


def report(records: list[Record]) -> str:
    """The tables, in Markdown."""
    of = lambda figure: [record for record in records if record["figure"] == figure]
    return "\n\n".join(
        [
            f"Measured by `python -m benchmarks.ncsn_toy` on {machine()}.",
            "Figure 1: sliced loss on a plane in R^16, over the last tenth of the steps:",
            table(of(1), ["data", "seed", "steps", "loss", "sd", "minimum"]),
            "Figure 2: mean error of the score by distance to the nearest mode:",
            table(of(2), ["distance", "seed", "steps", "error"]),
            "Figure 3: share of the chains that end in the mode at (5, 5):",
            table(summary(of(3)), ["sampler", "seeds", "mean", "sd", "low", "high", "truth"]),
        ]
    )


def main() -> None:
    """The program."""
    options = arguments(__doc__.splitlines()[0])
    steps, seeds = (4_000, 1) if options.quick else (STEPS, 3)
    records = mixing()
    for seed in progress(range(seeds), "seeds"):
        records += manifold(seed, steps) + low_density(seed, steps)
    print(report(records))
    write_records(records, options.json)


if __name__ == "__main__":
    main()
