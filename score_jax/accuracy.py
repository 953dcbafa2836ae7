"""How often a classifier of noised data is right, noise level by noise level.

measure = make_accuracy(classifier)         # of `classifying.classifier_of`
line = measure(params, range(1000))         # of the test data, where there are any
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.classifying import Classifying
from score_jax.held_out import GOLDEN, levels
from score_jax.keys import stream
from score_jax.models.base import Params
from score_jax.parallel import in_batches
from score_jax.processes import add_noise
from score_jax.times import on_host


def make_accuracy(
    experiment: Classifying,
) -> Callable[[Params, Iterable[int]], dict[str, Any]]:
    """measure(params, indices) -> the line of these test examples, as held_out.jsonl has it.

    loss: the mean cross entropy in nats at the config's law of times. accuracy, cross_entropy: at
    the fixed levels whose logsnr is given: the share of examples whose own class is the most
    probable, and -log p(c | x_t). Example i's draws depend on evaluation.seed and i alone.
    """
    experiment = experiment.on_test()
    process, data, times = experiment.process, experiment.data, levels(experiment.process)
    encoding = experiment.encoding._replace(flip=False)
    classes = experiment.module.classes

    def one(params, u, index, label, x):
        key = jax.random.fold_in(stream(experiment.evaluation.seed, "held_out"), index)
        encode_key, loss_key, noise_key = jax.random.split(key, 3)
        x_0 = encoding.encode(encode_key, x)
        loss = experiment.loss(
            loss_key, experiment.predict(experiment.net(params, label=label)), x_0, u
        )
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)

        def at(t):
            every = experiment.predict(experiment.net(params, label=jnp.arange(classes)))
            log_probs = every(add_noise(process, x_0, eps, t), t)
            return jnp.argmax(log_probs) == label, -log_probs[label]

        right, entropy = jax.lax.map(at, jnp.asarray(times, jnp.float32))
        return loss, right, entropy

    together = in_batches(one, min(experiment.evaluation.batch_size, len(data.examples)))

    def measure(params, indices):
        index, label, x = experiment.examples_at(indices)
        u = (index * GOLDEN % 1.0).astype(np.float32)
        loss, right, entropy = (
            np.asarray(part, np.float64) for part in together(params, u, index, label, x)
        )
        n = len(loss)
        return {
            "data": data.name,
            "examples": n,
            "loss": float(loss.mean()),
            "standard_error": float(loss.std(ddof=1) / n**0.5) if n > 1 else 0.0,
            "logsnr": on_host(process.logsnr, times).tolist(),
            "accuracy": right.mean(0).tolist(),
            "cross_entropy": entropy.mean(0).tolist(),
        }

    return measure


def report(found: dict[str, Any]) -> str:
    """The accuracy at a few noise levels, in a line."""
    some = np.unique(np.linspace(0, len(found["logsnr"]) - 1, 5).round().astype(int))
    at = ", ".join(f"{found['accuracy'][i]:.1%} at log SNR {found['logsnr'][i]:.3g}" for i in some)
    return (
        f"accuracy on {found['examples']:,} examples of {found['data']}: {at}; cross entropy "
        f"{found['loss']:.4g} nats over the law of times"
    )
