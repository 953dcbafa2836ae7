"""train, sample, evaluate, likelihood, replay: each a function of an experiment and its workdir."""

import contextlib
import hashlib
import sys
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from score_jax import plotting
from score_jax.build import Experiment
from score_jax.errors import UserError
from score_jax.evaluation import evaluate as evaluation
from score_jax.evaluation import likelihood as likelihoods
from score_jax.files import whole
from score_jax.hosts import from_leader, leads, on_leader
from score_jax.models.base import count, is_conditional
from score_jax.pieces import drop, in_pieces
from score_jax.sampling import make_draw
from score_jax.training import loop
from score_jax.training import replay as replays
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create
from score_jax.workdir import locked, read_json, write_json


def describe(experiment: Experiment, workdir: Path) -> str:
    """What is about to run, in a line."""
    devices, hosts = jax.devices(), jax.process_count()
    parameters = count(experiment.module, experiment.data.shape)
    shape = "x".join(map(str, experiment.data.shape))
    return (
        f"{workdir}: {experiment.config['model']['name']} of {parameters:,} parameters, "
        f"{len(experiment.data.examples):,} examples {shape} of {experiment.data.name}, "
        f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)}"
        + (f" in {hosts} processes" if hosts > 1 else "")
    )


def train(experiment: Experiment, workdir: Path) -> None:
    """Trains to the last step, then samples."""
    loop.train(experiment, workdir)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(workdir, "results"))
        except UserError as error:
            print(f"trained to the last step, and not sampled: {error}", flush=True)
            return
        sample(experiment, workdir)


def sample(experiment: Experiment, workdir: Path) -> None:
    """Draws evaluation.samples from the newest checkpoint: samples.npz and a grid."""
    samples, made = _draw(experiment, workdir, anew=True)
    if not leads():
        return
    shown = samples[: loop.GRID] if experiment.data.is_images else samples
    picture = plotting.picture(shown, experiment.data.examples)
    path = workdir / "samples" / "final.png"
    path.parent.mkdir(exist_ok=True)
    plotting.save(picture, path)
    print(
        f"{len(samples):,} samples, {made['network_evaluations_per_sample']:,.6g} network "
        f"evaluations each: {workdir / 'samples.npz'}\na picture: {path}",
        flush=True,
    )


def evaluate(experiment: Experiment, workdir: Path) -> None:
    """Measures samples of the newest checkpoint, drawn now unless they are there already."""
    evaluation.check(experiment)
    samples, made = _draw(experiment, workdir, anew=False)
    result = on_leader(lambda: evaluation.evaluate(experiment, samples, made, workdir))
    print(f"{evaluation.report(result)}\nwritten to {workdir / 'evaluation.json'}", flush=True)


def likelihood(experiment: Experiment, workdir: Path) -> None:
    """Measures the data's log-likelihood under the newest checkpoint: likelihood.json."""
    likelihoods.check(experiment)
    state = _newest(experiment, workdir)
    total = min(experiment.likelihood.examples, len(experiment.data.examples))
    with _bar("likelihood", total, " examples") as bar:
        result = likelihoods.evaluate(
            experiment,
            state.ema,
            _identity(experiment, state),
            workdir,
            lambda fraction: bar.update(int(fraction * total) - bar.n),
        )
    print(f"{likelihoods.report(result)}\nwritten to {workdir / 'likelihood.json'}", flush=True)


def replay(experiment: Experiment, workdir: Path, step: int) -> None:
    """Makes one update of the past again and shows what happened: replay_step_<step>.json."""
    with _bar("replaying", step, " steps") as bar:
        result = replays.replay(experiment, workdir, step, lambda at: bar.update(at - bar.n))
    path = workdir / f"replay_step_{step}.json"
    if leads():
        write_json(path, result)
    print(f"{replays.report(result)}\nwritten to {path}", flush=True)


def _newest(experiment, workdir):
    """The newest checkpoint's state."""
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        checkpoints.check_none_is_lost()
        if checkpoints.newest() is None:
            raise UserError(
                f"no checkpoint in {workdir / 'checkpoints'}: train first (--mode=train), "
                "or give the --workdir of a run that was"
            )
        return checkpoints.restore(like=create(experiment))[0]


def _identity(experiment, state):
    """Which parameters a result is of, and how they were computed with."""
    return {
        "step": int(state.step),
        "parameters": "ema",
        "parameters_sha256": _digest(state.ema),
        "dtype": experiment.dtype,
    }


def _bar(what, total, unit):
    """A progress bar, on a terminal."""
    return tqdm(
        desc=what,
        total=total,
        unit=unit,
        disable=not (sys.stderr.isatty() and leads()),
        dynamic_ncols=True,
    )


def _draw(experiment, workdir, *, anew):
    """(samples, how they were made), drawn and kept; or, unless anew, found to be there so made.

    What was drawn before a stop is not drawn again.
    """
    options = experiment.evaluation
    state = _newest(experiment, workdir)
    made = _identity(experiment, state) | {
        "sampler": experiment.config["sampler"],
        "samples": options.samples,
        "seed": options.seed,
        "label": options.label,
    }
    if not anew and from_leader(_are_there(workdir, made)):
        with np.load(workdir / "samples.npz", allow_pickle=False) as file:
            return file["arr_0"], read_json(workdir / "samples.json")

    size = min(options.batch_size, options.samples)
    identity = {name: value for name, value in made.items() if name != "samples"} | {"size": size}
    draw = make_draw(experiment, size)

    def make(indices, tell):
        drawn = draw(state.ema, indices, tell)
        if drawn is None:
            return None
        bad = len(drawn.finite) - np.sum(drawn.finite)
        if bad:
            raise UserError(
                f"{bad} of {len(indices)} samples hold NaN or infinity, and were not written: an "
                "adaptive sampler may need more sampler.max_evaluations or larger tolerances, any "
                "other more steps or a network that was trained longer"
            )
        return {"samples": drawn.samples, "evaluations": drawn.evaluations}

    with _bar("sampling", options.samples, " samples") as bar:
        found = in_pieces(
            workdir,
            "samples",
            identity,
            options.samples,
            size,
            make,
            lambda fraction: bar.update(int(fraction * options.samples) - bar.n),
        )
    made["network_evaluations_per_sample"] = float(found["evaluations"].mean())
    if leads():
        (workdir / "samples.json").unlink(missing_ok=True)  # never beside another's samples
        with whole(workdir / "samples.npz") as partial:
            np.savez(partial, arr_0=found["samples"], **_labels(experiment))
        write_json(workdir / "samples.json", made)
    drop(workdir, "samples", identity)
    return found["samples"], made


def _labels(experiment):
    """The samples' classes for samples.npz, where the network is told any."""
    if not is_conditional(experiment.module):
        return {}
    return {"arr_1": experiment.labels(np.arange(experiment.evaluation.samples))}


def _are_there(workdir, made) -> bool:
    """Whether samples.npz holds samples so made."""
    found = read_json(workdir / "samples.json") or {}
    return (workdir / "samples.npz").is_file() and made == {key: found.get(key) for key in made}


def _digest(tree) -> str:
    """Tells one set of parameters from another."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()[:16]
