"""Quality against cost: one trained model, sampled by many samplers at many numbers of evaluations.

    python -m benchmarks.frontier --workdir=runs/ddpm_cifar [--evaluations 5 10 20 50]
        [--samplers ddim heun ...] [--grids logsnr ladder] [--samples 10000]
        [--config.<section>.<option>=<value> ...]

Each (sampler, grid) takes as many steps as the network evaluations allow, which are counted where
the network is called. Quality is the Fréchet distance, in the features that config.evaluation
names, of the samples to the real data: FID with Inception's. It depends on the number of samples,
so beside it stands that of as many real images, as far as there are any. Every point is kept in
workdir/frontier/ when it is done, and a stopped run goes on. Written there: frontier.json, a table
in frontier.md and frontier.png.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jax

from benchmarks.command import Record, machine, progress, table, write_records
from score_jax import config as configs
from score_jax import plotting
from score_jax.build import Experiment, build
from score_jax.commands import newest
from score_jax.errors import UserError
from score_jax.evaluation.evaluate import reference_of, same_number
from score_jax.evaluation.features import make_extractor
from score_jax.evaluation.measure import NAMES, compare
from score_jax.files import whole
from score_jax.main import before_jax, configured, split_overrides, status_of
from score_jax.metrics.frechet import frechet_distance
from score_jax.predictions import from_score
from score_jax.samplers import base
from score_jax.sampling import make_draw
from score_jax.workdir import locked, read_json, write_json

EVALUATIONS = (5, 10, 20, 50, 100)
SAMPLERS = ("ancestral", "ddim", "heun", "dpm_solver_pp_2m", "dpm_solver_pp_3m", "unipc", "deis")
TRIED = (4, 8)  # steps, from which it is found what a step costs


def evaluations(experiment: Experiment) -> int:
    """How often a sample asks the network, counted with a score that costs nothing."""
    process, sampler = experiment.process, experiment.sampler
    predict = from_score(process, lambda x, t: -x)
    ready = sampler._replace(calibrate=None)
    draw = lambda key: base.sample_counted(key, process, ready, predict, (1,))[1]
    return int(jax.jit(draw)(jax.random.key(0)))


def at_cost(config: dict[str, Any], section: dict[str, Any], budget: int) -> Experiment:
    """The experiment with this sampler, of as many steps as the evaluations allow.

    Raises UserError for a sampler that the config's network cannot be asked by, or too few
    evaluations.
    """
    made = lambda steps: build(config | {"sampler": section | {"steps": steps}})
    few, more = (evaluations(made(steps)) for steps in TRIED)
    each = (more - few) / (TRIED[1] - TRIED[0])
    steps = int((budget - few) // each) + TRIED[0] if each else 0
    while steps >= 1:  # what is multistep may take less for its last steps
        found = made(steps)
        if evaluations(found) <= budget:
            return found
        steps -= 1
    raise UserError(f"{section['name']} needs more than {budget} evaluations")


def sections(config: dict[str, Any], samplers: list[str], grids: list[str]) -> list[dict[str, Any]]:
    """The sampler sections to try: the config's own options where the sampler is the same."""
    mine, found = config["sampler"], []
    for name in samplers:
        for grid in grids:
            options = {"name": name, "grid": grid, "clip": mine["clip"]}
            found.append((mine if mine["name"] == name else {}) | options)
    return found


def measured(experiment: Experiment, params: Any, samples: int, judge: Any) -> Record:
    """One point: draws, and judges what was drawn."""
    size = min(experiment.evaluation.batch_size, samples)
    drawn = make_draw(experiment, size)(params, range(samples))
    bad = int((~drawn.finite).sum())
    if bad:
        raise UserError(f"{bad} of {samples} samples are not finite")
    return judge(drawn.samples) | {"evaluations": float(drawn.evaluations.mean())}


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    workdir = arguments.workdir
    config = configured(configs.load(str(workdir / "config.json")), overrides).to_dict()
    experiment = build(config)
    if not len(experiment.data.examples):
        raise UserError("this run has no data to compare with; give --config.data.name=...")
    with locked(workdir, "results"):
        params, made = newest(experiment, workdir)
        extractor = make_extractor(experiment, workdir)
        reference = reference_of(experiment, extractor, workdir)
        frechet = NAMES[extractor.kind == "inception"][0]

        def judge(samples):
            seen = extractor.extract(samples)
            real = None if reference.some is None else reference.some.values
            found = compare(seen, real, reference.moments, kind=extractor.kind)
            return {frechet: found.metrics[frechet], "metrics": found.metrics}

        done, folder, told = [], workdir / "frontier", set()
        tries = [
            (section, budget)
            for section in sections(config, arguments.samplers, arguments.grids)
            for budget in arguments.evaluations
        ]
        for section, budget in progress(tries, "frontier"):
            try:
                at = at_cost(config, section, budget)
            except UserError as error:
                said = f"{section['name']}, {section['grid']}: left out, {error}"
                if said not in told:
                    print(said, flush=True)
                told.add(said)
                continue
            about = made | {
                "options": at.config["sampler"],
                "samples": arguments.samples,
                "seed": at.evaluation.seed,
                "features": extractor.identity,
                "reference": reference.settings["sha256"],
            }
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
            kept = read_json(folder / f"{digest}.json")
            if kept is None:
                found = measured(at, params, arguments.samples, judge)
                kept = found | about | {"sampler": f"{section['name']}, {section['grid']}"}
                write_json(folder / f"{digest}.json", kept)
            done.append({k: v for k, v in kept.items() if type(v) in (int, float, str)})
        if not done:
            raise UserError("no sampler could be tried")
        real = real_against_real(experiment, extractor, reference, arguments.samples)
    write(done, folder, frechet, real, extractor.name, arguments.json)


def real_against_real(experiment, extractor, reference, n) -> tuple[int, float] | None:
    """(m, the distance of m real examples to m others), m the samples' number or half the data."""
    m, others = same_number(experiment, extractor, reference, n)
    if not others:
        return None
    first, second = reference.some.values[:m], others["real_against_real"].values
    return m, frechet_distance(second, first)


def write(
    done: list[Record],
    folder: Path,
    frechet: str,
    real: tuple[int, float] | None,
    name: str,
    path: Path | None,
) -> None:
    """frontier.json, .md and .png."""
    write_records(done, folder / "frontier.json")
    write_records(done, path)
    columns = ["sampler", "evaluations", frechet, "samples", "step"]
    beside = ""
    if real is not None:
        beside = f"\n\n{real[0]:,} real against as many other real ones: {real[1]:.4g}"
    text = f"{frechet} in {name}, {machine()}\n\n{table(done, columns)}{beside}\n"
    with whole(folder / "frontier.md") as partial:
        partial.write_text(text)
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in done:
        point = (record["evaluations"], record[frechet])
        lines.setdefault(record["sampler"], []).append(point)
    if real is not None:
        ends = [min(r["evaluations"] for r in done), max(r["evaluations"] for r in done)]
        lines[f"{real[0]:,} real against as many real"] = [(x, real[1]) for x in ends]
    title = f"{done[0]['samples']:,} samples, step {done[0]['step']:,}"
    picture = plotting.curves({title: lines}, "network evaluations a sample", frechet)
    plotting.save(picture, folder / "frontier.png")
    print(f"{text}\nwritten to {folder}", flush=True)


def main(argv: list[str]) -> int:
    overrides, rest = split_overrides(argv)
    parser = argparse.ArgumentParser("python -m benchmarks.frontier", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workdir", type=Path, required=True, help="a run that was trained")
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--grids", nargs="+", default=("uniform", "logsnr"))
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records there, too")
    arguments = parser.parse_args(rest)
    before_jax()
    return status_of(lambda: run(arguments, overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
