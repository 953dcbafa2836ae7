"""How well a network denoises data that it was not trained on, noise level by noise level.

    measure = make_measure(experiment)              # experiment.test, not the data
    found = measure(params, range(1000))            # Measured: loss [N], eps_error [N, K]
    line = summary(experiment, found)

The loss is the one that is trained, at the config's law of times; eps_error is |ε - ε_θ|²/D at
fixed levels, whatever the loss, so that runs of different losses can be compared.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from score_jax.experiment import Experiment
from score_jax.keys import stream
from score_jax.models.base import Params
from score_jax.parallel import in_batches
from score_jax.processes import GaussianProcess, start_time
from score_jax.times import GRIDS, on_host
from score_jax.types import Given
from score_jax.variances import eps_errors

LEVELS = 20  # noise levels at most at which eps_error is measured
END = 1e-3  # the time nearest to clean data, of a process without a ladder
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, fill [0, 1) evenly however many are taken


class Measured(NamedTuple):
    """Of N examples: loss [N], and eps_error [N, K] at the times of `levels`."""

    loss: Given
    eps_error: Given


def levels(process: GaussianProcess) -> np.ndarray:
    """K increasing times: a ladder's levels, LEVELS of them spread evenly where it has more;
    without a ladder LEVELS times from END to the start, at equal steps of logsnr."""
    if process.levels is None:
        grid = GRIDS["logsnr"](process, LEVELS - 1, start_time(process), END)
        return np.asarray(grid[::-1], np.float64)
    n = process.levels
    chosen = np.unique(np.round(np.linspace(1, n, min(n, LEVELS))))
    return chosen / n


def make_measure(
    experiment: Experiment, batch_size: int | None = None
) -> Callable[[Params, Iterable[int]], Measured]:
    """measure(params, indices) of the test data, or of the data where there are none: Measured.

    Example i's draws depend on evaluation.seed and on i alone, and its time in the loss on i
    alone; so the same numbers come out whatever the batches, and two steps of a run are compared
    at the same noise. batch_size: evaluation.batch_size unless given. Images are not mirrored, and
    networks not in training mode.
    """
    experiment = experiment.on_test()
    process, data = experiment.process, experiment.data
    encoding = experiment.encoding._replace(flip=False)
    times = levels(process)

    def one(params, u, index, label, x):
        key = jax.random.fold_in(stream(experiment.evaluation.seed, "held_out"), index)
        encode_key, loss_key, noise_key = jax.random.split(key, 3)
        x_0 = encoding.encode(encode_key, x)
        predict = experiment.predict(experiment.net(params, label=label))
        loss = experiment.loss(loss_key, predict, x_0, u)
        return Measured(loss, eps_errors(noise_key, process, predict, x_0, times))

    together = in_batches(
        one, min(batch_size or experiment.evaluation.batch_size, len(data.examples))
    )

    def measure(params, indices):
        index, label, x = experiment.examples_at(indices)
        u = (index * GOLDEN % 1.0).astype(np.float32)
        return together(params, u, index, label, x)

    return measure


def summary(experiment: Experiment, found: Measured) -> dict[str, Any]:
    """Means over the examples and their standard errors, as a line of held_out.jsonl."""
    n, process = len(found.loss), experiment.process
    error = lambda x: (np.std(x, axis=0, ddof=1) / n**0.5 if n > 1 else 0.0 * x[0]).tolist()
    found = Measured(*(np.asarray(part, np.float64) for part in found))
    return {
        "data": experiment.on_test().data.name,
        "examples": n,
        "loss": float(found.loss.mean()),
        "standard_error": error(found.loss),
        "logsnr": on_host(process.logsnr, levels(process)).tolist(),
        "eps_error": found.eps_error.mean(0).tolist(),
        "eps_error_standard_error": error(found.eps_error),
    }
