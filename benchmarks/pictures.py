"""The pictures of the README that show something under way.

    python launch.py --config=configs/ddpm_digits.py
    python -m benchmarks.pictures runs/ddpm_digits

sampling.gif: points carried from noise to three modes by the exact score, which is drawn as arrows.
forward_reverse.png: test digits turned into noise, and noise turned into digits, by a trained run.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import plotting
from score_jax.build import build
from score_jax.config import load
from score_jax.densities import three_modes
from score_jax.predictions import exact
from score_jax.probability_flow import norm
from score_jax.processes import PROCESSES, add_noise
from score_jax.samplers.ancestral import ancestral
from score_jax.samplers.base import start
from score_jax.samples import newest
from score_jax.trajectories import trajectory
from score_jax.types import Array

HERE = Path(__file__).parents[1] / "docs" / "images"
EXTENT = (-2.6, 2.6, -2.6, 2.6)
ROWS, COLUMNS = 3, 8


def points_under_way(n: int, steps: int) -> tuple[np.ndarray, Array]:
    """(times [T], states [T, n, 2]) of n points drawn by the reverse chain with the exact score."""
    process, p = PROCESSES["vp"](beta_min=0.1, beta_max=20.0), three_modes()
    sampler, predict = ancestral(process, steps=steps, grid="logsnr", end=1e-3), exact(process, p)

    def one(key):
        def step(x, row):
            i, *row = row
            return sampler.step(jax.random.fold_in(key, i), predict, x, *row), x

        x = start(key, process, sampler, (2,)).state
        rows = (jnp.arange(sampler.steps), *map(jnp.asarray, sampler.schedule))
        x, seen = jax.lax.scan(step, x, rows)
        return jnp.concatenate([seen, sampler.finish(predict, x)[None]])

    x = jax.jit(jax.vmap(one, out_axes=1))(jax.random.split(jax.random.key(0), n))
    return np.append(sampler.schedule[0], sampler.schedule[1][-1]), x


def sampling() -> list[np.ndarray]:
    """The frames of sampling.gif."""
    from matplotlib.figure import Figure

    process, p = PROCESSES["vp"](beta_min=0.1, beta_max=20.0), three_modes()
    times, x = points_under_way(400, steps=39)
    noised = jax.jit(lambda t, x: p.noised(process.alpha(t), process.sigma(t)).score(x))
    frames = []
    for t, now in zip(times, x):
        figure = Figure(figsize=(4.2, 4.2), dpi=80)
        axes = figure.add_axes((0, 0, 1, 1))
        plotting.score_field(axes, partial(noised, t), EXTENT, arrows=18)
        plotting.points(axes, now, size=9.0)
        axes.set_axis_off()
        frames.append(plotting.drawn(figure))
    return frames


def forward_reverse(workdir: Path) -> np.ndarray:
    """Rows of test digits from clean to noise above rows of samples from noise to clean."""
    experiment = build(load(str(workdir / "config.json")))
    params, _ = newest(experiment, workdir)
    process, encoding = experiment.process, experiment.encoding
    path = trajectory(experiment, params, samples=ROWS, columns=COLUMNS)
    digits = experiment.on_test().data.examples[:ROWS]

    def noised(i, x_0):
        eps = jax.random.normal(jax.random.key(i), x_0.shape)
        return jnp.stack([add_noise(process, x_0, eps, t) for t in path.times[::-1]])

    clean = np.stack([np.asarray(encoding.encode(jax.random.key(0), x)) for x in digits])
    there = np.stack([noised(i, x_0) for i, x_0 in enumerate(clean)])
    size = norm(process, path.times)[:, None, None, None]
    there = np.concatenate([clean[:, None], there / size[::-1]], axis=1)
    back = np.concatenate([path.x / size, path.x0[:, -1:]], axis=1)
    rows = np.concatenate([there, back])  # [2 ROWS, COLUMNS + 1, H, W, C]
    shown = np.stack([encoding.decode(row) for row in rows])
    return plotting.strip(shown.swapaxes(0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path, help="of a run of configs/ddpm_digits.py")
    parser.add_argument("--into", type=Path, default=HERE, metavar="FOLDER")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    plotting.save(forward_reverse(options.workdir), options.into / "forward_reverse.png")
    plotting.animate(sampling(), options.into / "sampling.gif", seconds=5.0)
    print(f"forward_reverse.png and sampling.gif are in {options.into}")


if __name__ == "__main__":
    main()
