"""What the likelihoods share: which examples are measured, and how often."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from score_jax.data.base import Dataset
from score_jax.experiment import Experiment
from score_jax.models.base import Params
from score_jax.parallel import in_batches
from score_jax.workdir import fingerprint


def examples(experiment: Experiment) -> int:
    """How many examples of the test data are measured."""
    n = len(experiment.on_test().data.examples)
    return min(experiment.likelihood.examples or n, n)


def which(data: Dataset) -> dict[str, str]:
    """What tells the data that were measured from others."""
    return {"data": data.name, "data_sha256": fingerprint(data)["sha256"]}


def over_repeats(experiment: Experiment, one: Callable[..., Any]) -> Callable[..., Any]:
    """measure(params, indices, progress) -> one(params, repeat, index, label, x) of test examples.

    float64 [N, repeats, ...] on the host. progress is told the share of the work done, and may
    answer False to have the rest left: measure then returns None.
    """
    experiment = experiment.on_test()
    options, turns = experiment.likelihood, range(experiment.likelihood.repeats)
    together = in_batches(one, min(options.batch_size, len(experiment.data.examples)))

    def measure(params: Params, indices, progress=lambda fraction: None):
        batch = experiment.examples_at(indices)
        found = []
        for turn in turns:
            tell = lambda fraction, turn=turn: progress((turn + fraction) / len(turns))
            found.append(together(params, np.full_like(batch[0], turn), *batch, progress=tell))
            if found[-1] is None:
                return None
        return jax.tree.map(lambda *r: np.stack(r, axis=1).astype(np.float64), *found)

    return measure
