"""The modes of the launcher: each a function of an experiment and its workdir."""

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from score_jax import pictures, plotting
from score_jax.build import Experiment
from score_jax.errors import UserError
from score_jax.evaluation import bound as bounds
from score_jax.evaluation import evaluate as evaluation
from score_jax.evaluation import likelihood as likelihoods
from score_jax.evaluation.examples import examples
from score_jax.evaluation.features import make_extractor
from score_jax.evaluation.reference import make_reference
from score_jax.files import arrays, whole
from score_jax.hosts import from_leader, leads
from score_jax.models.base import Params, count, is_conditional
from score_jax.pieces import drop, in_pieces
from score_jax.report.page import write_report
from score_jax.sampling import make_draw
from score_jax.training import loop
from score_jax.training import replay as replays
from score_jax.training.averages import average
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create
from score_jax.workdir import fingerprint, locked, read_json, write_json


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
    """Trains to the last step, then samples; the report is there before."""
    if experiment.evaluation.ema is not None and not experiment.training.power_ema:
        raise UserError(
            f"config.evaluation.ema = {experiment.evaluation.ema} is made of averages that "
            "training keeps: it needs config.training.power_ema, such as (0.05, 0.1)"
        )
    loop.train(experiment, workdir)
    _report(workdir)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(workdir, "results"))
        except UserError as error:
            print(f"trained to the last step, and not sampled: {error}", flush=True)
            return
        sample(experiment, workdir)


def sample(experiment: Experiment, workdir: Path) -> None:
    """Draws evaluation.samples from the newest checkpoint: samples.npz, a grid, the report."""
    params, made = newest(experiment, workdir)
    samples, made = _draw(experiment, workdir, params, made, anew=True)
    if leads():
        picture = pictures.grid(experiment, samples, workdir)
        _png(experiment, samples, workdir)
        print(
            f"{len(samples):,} samples, {made['network_evaluations_per_sample']:,.6g} network "
            f"evaluations each: {workdir / 'samples.npz'}\na picture: {picture}",
            flush=True,
        )
    pictures.under_way(experiment, params, made, workdir)
    _report(workdir)


def evaluate(experiment: Experiment, workdir: Path) -> None:
    """Measures samples of the newest checkpoint, drawn now unless they are there already."""
    evaluation.check(experiment)
    extractor = evaluation.prepare(experiment, workdir)
    params, made = newest(experiment, workdir)
    samples, made = _draw(experiment, workdir, params, made, anew=False)
    with _bar("measuring", 100, "%") as bar:

        def progress(what, fraction):
            bar.set_description(f"measuring {what}")
            bar.update(int(100 * fraction) - bar.n)

        result = evaluation.evaluate(
            experiment, extractor, params, samples, made, workdir, progress
        )
    if leads():
        _png(experiment, samples, workdir)
        pictures.grid(experiment, samples, workdir)
        if result["memorization"] is not None:
            pictures.neighbors(experiment, samples, result["memorization"], workdir)
    print(f"{evaluation.report(result)}\nwritten to {workdir / 'evaluation.json'}", flush=True)
    pictures.under_way(experiment, params, made, workdir)
    _report(workdir)


def likelihood(experiment: Experiment, workdir: Path) -> None:
    """Measures the test data's log-likelihood, or its bound, under the newest checkpoint."""
    module = {"ode": likelihoods, "bound": bounds}[experiment.likelihood.by]
    module.check(experiment)
    params, made = newest(experiment, workdir)
    total = examples(experiment)
    with _bar("likelihood", total, " examples") as bar:
        tell = lambda fraction: bar.update(int(fraction * total) - bar.n)
        result = module.evaluate(experiment, params, made, workdir, tell)
    path = workdir / {"ode": "likelihood.json", "bound": "bound.json"}[experiment.likelihood.by]
    print(f"{module.report(result)}\nwritten to {path}", flush=True)
    _report(workdir)


def report(experiment: Experiment, workdir: Path) -> None:
    """Writes report.html of what the workdir holds now; trajectories of the newest checkpoint."""
    try:
        params, made = newest(experiment, workdir)
        pictures.under_way(experiment, params, how(experiment, made), workdir)
    except UserError as error:
        print(f"no samples under way: {error}", flush=True)
    if leads():
        print(f"a report: {write_report(workdir)}", flush=True)


def reference(experiment: Experiment) -> None:
    """Writes the features of the data to the file config.evaluation.reference."""
    name, options = experiment.evaluation.reference, experiment.evaluation
    if name is None or not name.endswith(".npz"):
        raise UserError(
            "--mode=reference writes a .npz: say where, --config.evaluation.reference=<file>.npz"
        )
    if options.features == "classifier":
        raise UserError(
            "a classifier is trained in every workdir anew, so its features are of no use "
            "elsewhere; --mode=reference is for --config.evaluation.features=inception, none or a "
            "Python file of yours"
        )
    path, n = Path(name), len(experiment.data.examples)
    extractor = make_extractor(experiment, path.parent)
    with _bar("features", n, " examples") as bar:
        tell = lambda fraction: bar.update(int(fraction * n) - bar.n)
        found = make_reference(experiment, extractor, path, tell)
    print(
        f"{path}: {found.moments.count:,} examples of {experiment.data.name}, "
        f"{len(found.moments.mean):,} features of {extractor.name}",
        flush=True,
    )


def replay(experiment: Experiment, workdir: Path, step: int) -> None:
    """Makes one update of the past again and shows what happened: replay_step_<step>.json."""
    with _bar("replaying", step, " steps") as bar:
        result = replays.replay(experiment, workdir, step, lambda at: bar.update(at - bar.n))
    path = workdir / f"replay_step_{step}.json"
    if leads():
        write_json(path, result)
    print(f"{replays.report(result)}\nwritten to {path}", flush=True)


def newest(experiment: Experiment, workdir: Path) -> tuple[Params, dict[str, Any]]:
    """The newest checkpoint's parameters, as they are sampled and measured, and which they are."""
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        checkpoints.check_none_is_lost()
        if checkpoints.newest() is None:
            raise UserError(
                f"no checkpoint in {workdir / 'checkpoints'}: train first (--mode=train), "
                "or give the --workdir of a run that was"
            )
        state = checkpoints.restore(like=create(experiment))[0]
    params, ema, step = state.ema, experiment.training.ema, int(state.step)
    if experiment.evaluation.ema is not None:
        like = jax.device_get(state.params)
        params, ema = average(workdir, step, experiment.evaluation.ema, like=like)
        step = ema["step"]
    made = {
        "step": step,
        "parameters": "ema",
        "ema": ema,
        "parameters_sha256": _digest(params),
        "dtype": experiment.dtype,
    }
    return params, made


def _bar(what, total, unit):
    """A progress bar, on a terminal."""
    return tqdm(
        desc=what,
        total=total,
        unit=unit,
        disable=not (sys.stderr.isatty() and leads()),
        dynamic_ncols=True,
    )


def how(experiment: Experiment, made: dict[str, Any]) -> dict[str, Any]:
    """How samples are made of these parameters."""
    options = experiment.evaluation
    calibrated = experiment.sampler.calibrate is not None
    return made | {
        "sampler": experiment.config["sampler"],
        "samples": options.samples,
        "seed": options.seed,
        "label": options.label,
        "calibrated_on": fingerprint(experiment.data)["sha256"] if calibrated else None,
    }


def _draw(experiment, workdir, params, made, *, anew):
    """(samples, how they were made), drawn and kept; or, unless anew, found to be there so made.

    What was drawn before a stop is not drawn again.
    """
    options, made = experiment.evaluation, how(experiment, made)
    if not anew and from_leader(_are_there(workdir, made)):
        with np.load(workdir / "samples.npz", allow_pickle=False) as file:
            return file["arr_0"], read_json(workdir / "samples.json")

    size = min(options.batch_size, options.samples)
    identity = {name: value for name, value in made.items() if name != "samples"} | {"size": size}
    draw = make_draw(experiment, size)

    def make(indices, tell):
        drawn = draw(params, indices, tell)
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


def _png(experiment, samples, workdir):
    if experiment.evaluation.png and experiment.data.is_images:
        plotting.save_all(samples, workdir / "samples" / "png")


def _report(workdir):
    """The report, after what it is about; a run whose config is lost goes on without."""
    if not leads():
        return
    try:
        print(f"a report: {write_report(workdir)}", flush=True)
    except UserError as error:
        print(f"no report: {error}", flush=True)


def _labels(experiment):
    """The samples' classes for samples.npz, where the network is told any."""
    if not is_conditional(experiment.module):
        return {}
    return {"arr_1": experiment.labels(np.arange(experiment.evaluation.samples))}


def _are_there(workdir, made) -> bool:
    """Whether samples.npz holds samples so made."""
    found = read_json(workdir / "samples.json")
    if not isinstance(found, dict) or made != {key: found.get(key) for key in made}:
        return False
    there = arrays(workdir / "samples.npz") or {}
    return len(there.get("arr_0", ())) == made["samples"]


def _digest(tree) -> str:
    """Tells one set of parameters from another."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()[:16]
