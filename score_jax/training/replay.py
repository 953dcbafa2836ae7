"""--replay_step: one update of the past made again, and what it was made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.parallel import join, over_examples, update_step
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.loop import Batches
from score_jax.training.state import (
    create,
    learning_rate,
    make_example_loss,
    make_gradient,
    make_update,
    step_key,
)

SHOWN = 8  # examples of a batch, or arrays of the parameters, in a report


def replay(
    experiment: Experiment, workdir: Path, step: int, progress: Callable[[int], Any]
) -> dict[str, Any]:
    """Update number `step`, counted from 1 as in metrics.jsonl, from the checkpoint before it.

    The run is left as it is. With several hosts the examples are those of this one. progress
    is told the number of updates made. Returns what `report` shows: loss, grad_norm,
    learning_rate; the norms of the parameters and of the gradient, array by array; the loss of
    each example of the batch, its index in the data and u, its place in the law of times. Raises
    UserError for a step that cannot be, and where checkpoints are there and none is whole.
    """
    options = experiment.training
    if not 1 <= step <= options.steps:
        raise UserError(
            f"--replay_step must be from 1, the first update, to training.steps = {options.steps}, "
            f"the last, got {step}"
        )
    state = create(experiment)
    with Checkpoints(workdir, options, read_only=True) as checkpoints:
        if any(saved < step for saved in checkpoints.steps()):
            state, _ = checkpoints.restore(like=state, at_most=step - 1)
    first = int(state.step)
    print(f"replaying from step {first}", flush=True)

    update, batches = update_step(make_update(experiment)), Batches(experiment)
    at, per_call = first, options.steps_per_call
    while at < step - 1:
        calls = per_call if at + per_call < step else step - 1 - at
        state, _ = update(state, batches(at, calls))
        at += calls
        progress(at)

    batch = batches(at, 1)
    losses, u = _example_losses(experiment, state, *(x[:, 0] for x in batch))
    order = np.argsort(-np.where(np.isfinite(losses), losses, np.inf), kind="stable")
    indices = batches.order.batch(at, options.batch_size)[batches.positions]
    (loss, norms), held = _gradient(experiment, state, batch), _norms(state.params)
    progress(step)
    return {
        "step": step,
        "from_checkpoint": first,
        "loss": loss,
        "grad_norm": float(np.sqrt(sum(norm**2 for norm in norms.values()))),
        "learning_rate": float(learning_rate(options, np.float32(at))),
        "parameters": held,
        "gradient": norms,
        "examples": [
            {"index": int(indices[i]), "u": float(u[i]), "loss": float(losses[i])} for i in order
        ],
    }


def report(result: dict[str, Any]) -> str:
    """The result for the terminal: the worst examples, the largest gradients."""
    examples, gradient = result["examples"], result["gradient"]
    bad = sum(not np.isfinite(example["loss"]) for example in examples)
    broken = [name for name, norm in result["parameters"].items() if not np.isfinite(norm)]
    largest = sorted(gradient, key=lambda name: -_rank(gradient[name]))[:SHOWN]
    return "\n".join(
        [
            f"step {result['step']}: loss {result['loss']:.6g}, norm of its gradient "
            f"{result['grad_norm']:.6g}, learning rate {result['learning_rate']:.3g}",
            f"  {len(broken)} of {len(gradient)} arrays of the parameters are not finite before it"
            + (f": {', '.join(broken[:SHOWN])}" if broken else ""),
            f"  {bad} of {len(examples)} examples have a loss that is not finite; the worst:",
            *(
                f"    example {e['index']}: loss {e['loss']:.6g} at u = {e['u']:.4f}"
                for e in examples[:SHOWN]
            ),
            "  the largest gradients:",
            *(f"    {name}: {gradient[name]:.6g}" for name in largest),
        ]
    )


def _example_losses(experiment, state, examples, labels, places):
    example_loss = make_example_loss(experiment)
    one = lambda shared, *example: example_loss(*shared, *example)
    shared = state.params, step_key(experiment.training, int(state.step))
    return map(join, over_examples(one)(shared, places, examples, labels))


def _gradient(experiment, state, batch):
    """(loss, {array: norm of its gradient}) of the batch; the state is used up."""
    gradient = make_gradient(experiment)

    def measure(state, batch):
        loss, grads = gradient(state, batch)
        return state, (loss, jax.tree.map(jnp.linalg.norm, grads))

    copy = jax.tree.map(jnp.copy, state)
    _, (loss, norms) = update_step(measure)(copy, batch)
    return float(loss[0]), _named(jax.tree.map(lambda norm: norm[0], norms))


def _norms(tree):
    return _named(jax.tree.map(lambda leaf: optax.tree.norm(leaf), tree))


def _named(tree) -> dict[str, float]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): float(v) for path, v in leaves}


def _rank(norm: float) -> float:
    return norm if np.isfinite(norm) else np.inf
