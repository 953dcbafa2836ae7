"""The modes of the launcher: each a function of an experiment and its workdir.

Those that need a checkpoint raise UserError where there is none; the long ones Interrupted, with
what is done kept, where they are asked to stop.
"""

import contextlib
from pathlib import Path

import jax

from score_jax import pictures
from score_jax.accuracy import make_accuracy
from score_jax.accuracy import report as accuracy_report
from score_jax.bars import bar
from score_jax.classifying import classifier_of, named
from score_jax.errors import UserError
from score_jax.evaluation import bound as bounds
from score_jax.evaluation import evaluate as evaluation
from score_jax.evaluation import likelihood as likelihoods
from score_jax.evaluation.examples import examples
from score_jax.evaluation.features import make_extractor
from score_jax.evaluation.reference import make_reference
from score_jax.evaluation.refusals import check as check_evaluation
from score_jax.experiment import Experiment
from score_jax.guides import CLASSIFIER, check_is_there, with_guide
from score_jax.hints import hints
from score_jax.hosts import leads
from score_jax.models.base import count
from score_jax.report.page import write_report
from score_jax.samples import draw, how, newest, write_png
from score_jax.training import loop
from score_jax.training import replay as replays
from score_jax.workdir import check_run, locked, open_workdir, write_json


def describe(experiment: Experiment, workdir: Path) -> str:
    """What is about to run, in a line."""
    devices, hosts = jax.devices(), jax.process_count()
    parameters = count(experiment.module, experiment.input_shape)
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
    _report(experiment, workdir)
    with contextlib.ExitStack() as stack:
        try:
            check_is_there(experiment, workdir)
            stack.enter_context(locked(workdir, "results"))
        except UserError as error:
            print(f"trained to the last step, and not sampled: {error}", flush=True)
            return
        sample(experiment, workdir)


def sample(experiment: Experiment, workdir: Path) -> None:
    """Draws evaluation.samples from the newest checkpoint: samples.npz, a grid, the report."""
    params, made = newest(experiment, workdir)
    experiment, guide, made = with_guide(experiment, workdir, made)
    samples, made = draw(experiment, workdir, params, guide, made, anew=True)
    if leads():
        picture = pictures.grid(experiment, samples, workdir)
        write_png(experiment, samples, workdir)
        print(
            f"{len(samples):,} samples, {made['network_evaluations_per_sample']:,.6g} network "
            f"evaluations each: {workdir / 'samples.npz'}\na picture: {picture}",
            flush=True,
        )
    pictures.under_way(experiment, params, made, workdir, guide)
    _report(experiment, workdir)


def evaluate(experiment: Experiment, workdir: Path) -> None:
    """Measures samples of the newest checkpoint, drawn now unless they are there already."""
    check_evaluation(experiment)
    extractor = evaluation.prepare(experiment, workdir)
    params, made = newest(experiment, workdir)
    experiment, guide, made = with_guide(experiment, workdir, made)
    samples, made = draw(experiment, workdir, params, guide, made, anew=False)
    with bar("measuring", 100, "%") as shown:

        def progress(what, fraction):
            shown.set_description(f"measuring {what}")
            shown.update(int(100 * fraction) - shown.n)

        result = evaluation.evaluate(
            experiment, extractor, params, samples, made, workdir, progress
        )
    if leads():
        write_png(experiment, samples, workdir)
        pictures.grid(experiment, samples, workdir)
        if result["memorization"] is not None:
            pictures.neighbors(experiment, samples, result["memorization"], workdir)
    print(f"{evaluation.report(result)}\nwritten to {workdir / 'evaluation.json'}", flush=True)
    pictures.under_way(experiment, params, made, workdir, guide)
    _report(experiment, workdir)


def likelihood(experiment: Experiment, workdir: Path) -> None:
    """Measures the test data's log-likelihood, or its bound, under the newest checkpoint."""
    module = {"ode": likelihoods, "bound": bounds}[experiment.likelihood.by]
    module.check(experiment)
    params, made = newest(experiment, workdir)
    total = examples(experiment)
    whose = "the data it is trained on (no config.test is given)"
    print(
        f"measuring {total:,} examples of "
        + (whose if experiment.test is None else f"the test data, {experiment.test.name}"),
        flush=True,
    )
    with bar("likelihood", total, " examples") as shown:
        tell = lambda fraction: shown.update(int(fraction * total) - shown.n)
        result = module.evaluate(experiment, params, made, workdir, tell)
    path = workdir / {"ode": "likelihood.json", "bound": "bound.json"}[experiment.likelihood.by]
    print(f"{module.report(result)}\nwritten to {path}", flush=True)
    _report(experiment, workdir)


def report(experiment: Experiment, workdir: Path) -> None:
    """Writes report.html of what the workdir holds now; trajectories of the newest checkpoint."""
    try:
        params, made = newest(experiment, workdir)
        experiment, guide, made = with_guide(experiment, workdir, made)
        pictures.under_way(experiment, params, how(experiment, made), workdir, guide)
    except UserError as error:
        print(f"no samples under way: {error}", flush=True)
    if leads():
        pictures.real(experiment, workdir)
        print(f"a report: {write_report(workdir, hints(experiment, workdir))}", flush=True)


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
    with bar("features", n, " examples") as shown:
        tell = lambda fraction: shown.update(int(fraction * n) - shown.n)
        found = make_reference(experiment, extractor, path, tell)
    print(
        f"{path}: {found.moments.count:,} examples of {experiment.data.name}, "
        f"{len(found.moments.mean):,} features of {extractor.name}",
        flush=True,
    )


def classifier(experiment: Experiment, workdir: Path) -> None:
    """Trains the classifier of config.classifier in workdir/classifier, and measures it.

    The run itself is not touched, and may be trained meanwhile.
    """
    trained = classifier_of(experiment)
    check_run(workdir, experiment.config, experiment.data)
    folder = workdir / CLASSIFIER
    with named(), open_workdir(folder, trained.config, "train", trained.data):
        state = loop.train(trained, folder, loop.Watch(make_accuracy(trained)))
        if leads():
            total = len(trained.on_test().data.examples)
            found = make_accuracy(trained)(state.ema, range(total))
            write_json(folder / "accuracy.json", found | {"step": int(state.step)})
            print(f"{accuracy_report(found)}\nwritten to {folder / 'accuracy.json'}", flush=True)


def replay(experiment: Experiment, workdir: Path, step: int) -> None:
    """Makes one update of the past again and shows what happened: replay_step_<step>.json."""
    with bar("replaying", step, " steps") as shown:
        result = replays.replay(experiment, workdir, step, lambda at: shown.update(at - shown.n))
    path = workdir / f"replay_step_{step}.json"
    if leads():
        write_json(path, result)
    print(f"{replays.report(result)}\nwritten to {path}", flush=True)


def _report(experiment, workdir):
    """The report, after what it is about; a run whose config is lost goes on without."""
    if not leads():
        return
    try:
        print(f"a report: {write_report(workdir, hints(experiment, workdir))}", flush=True)
    except UserError as error:
        print(f"no report: {error}", flush=True)
