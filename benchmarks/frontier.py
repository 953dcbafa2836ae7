"""Quality against cost: one trained model, sampled by many samplers at many numbers of evaluations.

    python -m benchmarks.frontier --workdir=runs/ddpm_cifar [--evaluations 5 10 20 50]
        [--samplers ddim heun ...] [--grids logsnr ladder] [--samples 10000]
        [--config.<section>.<option>=<value> ...]

Each (sampler, grid) takes as many steps as the network evaluations allow, which are counted where
the network is called. Quality is the Fréchet distance, in the features that config.evaluation
names, of all samples to all real data: FID with Inception's. It depends on their numbers, so beside
it stands, at equal numbers, that of m samples to m real examples and of m others to these. Every
point is kept in workdir/frontier/ when it is done, and a stopped run goes on. Written there:
frontier.json, a table in frontier.md and frontier.png.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.command import Record, machine, progress, table, write_records
from score_jax import config as configs
from score_jax import plotting
from score_jax.build import build
from score_jax.errors import UserError
from score_jax.evaluation.evaluate import reference_of, same_number
from score_jax.evaluation.features import Extractor, make_extractor
from score_jax.evaluation.measure import NAMES
from score_jax.evaluation.reference import Reference
from score_jax.experiment import Experiment
from score_jax.files import whole
from score_jax.main import configured, split_overrides, status_of
from score_jax.metrics.frechet import frechet_distance, frechet_distance_of_moments, moments
from score_jax.predictions import from_score
from score_jax.samplers import base
from score_jax.samples import how, newest
from score_jax.sampling import make_draw
from score_jax.surroundings import before_jax
from score_jax.workdir import locked, read_json, write_json

EVALUATIONS = (5, 10, 20, 50, 100)
SAMPLERS = ("ancestral", "ddim", "heun", "dpm_solver_pp_2m", "dpm_solver_pp_3m", "unipc", "deis")
END = 1e-3  # of a grid in the log SNR
TRIED = (4, 8)  # steps, from which it is found what a step costs


def evaluations(experiment: Experiment) -> int:
    """How often a sample asks the network, counted with a score that costs nothing."""
    process, sampler = experiment.process, experiment.sampler
    predict = from_score(process, lambda x, t: -x)
    ready = sampler._replace(calibrate=None)
    draw = lambda key: base.sample_counted(key, process, ready, predict, (1,))[1]
    return int(jax.jit(draw)(jax.random.key(0)))


def at_cost(experiment: Experiment, section: dict[str, Any], budget: int) -> Experiment:
    """The same with this sampler, of as many steps as the evaluations allow.

    Raises UserError for a sampler that the config's network cannot be asked by, or too few
    evaluations.
    """
    config = experiment.config
    made = lambda steps: build(config | {"sampler": section | {"steps": steps}}, experiment)
    few, more = (evaluations(made(steps)) for steps in TRIED)
    each = (more - few) / (TRIED[1] - TRIED[0])
    steps = int((budget - few) // each) + TRIED[0] if each else 0
    while steps >= 1:  # what is multistep may take less for its last steps
        found = made(steps)
        if evaluations(found) <= budget:
            return found
        steps -= 1
    raise UserError(f"{section['name']} needs more than {budget} evaluations")


def sections(
    experiment: Experiment, samplers: Sequence[str], grids: Sequence[str] | None
) -> list[dict[str, Any]]:
    """The sampler sections to try: with the config's own options where the sampler is the same.

    A grid in the log SNR ends at a ladder's first level or, without one, at END: there is no noise
    at t = 0.
    """
    mine, levels = experiment.config["sampler"], experiment.process.levels
    found = []
    for name in samplers:
        for grid in grids or ("ladder" if levels else "uniform", "logsnr"):
            inside = 1.0 / levels if levels else END
            end = inside if grid in ("logsnr", "karras") else 0.0
            options = {"name": name, "grid": grid, "clip": mine["clip"], "end": end}
            found.append((mine if mine["name"] == name else {}) | options)
    return found


def measured(experiment: Experiment, params: Any, samples: int, judge: Any) -> Record:
    """One point: draws, and judges what was drawn."""
    size = min(experiment.evaluation.batch_size, samples)
    drawn = make_draw(experiment, size)(params, range(samples))
    assert drawn is not None  # nobody asks it to stop
    bad = int((~drawn.finite).sum())
    if bad:
        raise UserError(f"{bad} of {samples} samples are not finite")
    return judge(drawn.samples) | {"evaluations": float(drawn.evaluations.mean())}


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    workdir, n = arguments.workdir, arguments.samples
    config = configured(configs.load(str(workdir / "config.json")), overrides)
    experiment = build(config)
    if not len(experiment.data.examples):
        raise UserError("this run has no data to compare with; give --config.data.name=...")
    with locked(workdir, "results"):
        guidance = experiment.guidance
        if experiment.config["guidance"]["name"] != "none" or (
            guidance.weight > 0 and guidance.by != "class"
        ):
            raise UserError(
                "the frontier is of samples that no other network guides and no image is given "
                "for; use --config.guidance.name=none --config.guidance.weight=0.0"
            )
        params, made = newest(experiment, workdir)
        extractor = make_extractor(experiment, workdir)
        judge = Judge(experiment, extractor, reference_of(experiment, extractor, workdir), n)
        done, folder, told = [], workdir / "frontier", set()
        tries = [
            (section, budget)
            for section in sections(experiment, arguments.samplers, arguments.grids)
            for budget in arguments.evaluations
        ]
        for section, budget in progress(tries, "frontier"):
            label = f"{section['name']}, {section['grid']}"
            try:
                at = at_cost(experiment, section, budget)
            except UserError as error:
                if (label, str(error)) not in told:
                    print(f"{label}: left out, {error}", flush=True)
                told.add((label, str(error)))
                continue
            about = how(at, made) | {"samples": n} | judge.identity
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
            kept = read_json(folder / f"{digest}.json")
            if kept is None:
                found = measured(at, params, n, judge)
                kept = about | found | {"sampler": label, "options": at.config["sampler"]}
                write_json(folder / f"{digest}.json", kept)
            done.append({k: v for k, v in kept.items() if type(v) in (int, float, str)})
    if not done:
        raise UserError("no sampler could be tried")
    write(done, folder, judge)
    write_records(done, arguments.json)


class Judge:
    """Distances of samples: of all of them to all real data, and of m to m real ones.

    real: that of m other real ones to the same; None where there are no features of real ones.
    """

    def __init__(self, experiment: Experiment, extractor: Extractor, reference: Reference, n: int):
        self.extractor, self.reference = extractor, reference
        self.metric = NAMES[extractor.kind == "inception"][0]
        self.m, others = same_number(experiment, extractor, reference, n)
        self.real = self.same(others["real_against_real"].values) if others else None
        sha256 = reference.settings["sha256"]
        self.identity = {"features": extractor.identity, "reference": sha256, "m": self.m}

    def __call__(self, samples: np.ndarray) -> dict[str, float]:
        seen = self.extractor.extract(samples).values
        try:
            found = frechet_distance_of_moments(moments(seen), self.reference.moments)
        except ValueError as error:
            raise UserError(f"there is no distance of these: {error}") from error
        same = {} if self.real is None else {f"{self.metric}_of_m": self.same(seen[: self.m])}
        return {self.metric: found} | same

    def same(self, features: np.ndarray) -> float:
        some = self.reference.some
        assert some is not None  # as `m` says
        return frechet_distance(features, some.values[: self.m])


def write(done: list[Record], folder: Path, judge: Judge) -> None:
    """frontier.json, .md and .png."""
    write_records(done, folder / "frontier.json")
    metric, of_m, n = judge.metric, f"{judge.metric}_of_m", done[0]["samples"]
    columns, beside = ["sampler", "evaluations", metric], ""
    panels = {f"{n:,} samples, step {done[0]['step']:,}": by_sampler(done, metric)}
    if judge.real is not None:
        columns.append(of_m)
        title = f"{judge.m:,} of them against as many real"
        ends = [end(r["evaluations"] for r in done) for end in (min, max)]
        real = {f"{judge.m:,} real against as many": [(x, judge.real) for x in ends]}
        panels[title] = by_sampler(done, of_m) | real
        beside = f"\n\n{of_m}: {title}; {judge.m:,} other real ones: {judge.real:.4g}"
    text = (
        f"{metric} of {n:,} samples in {judge.extractor.name}, {machine()}\n\n"
        f"{table(done, columns)}{beside}\n"
    )
    with whole(folder / "frontier.md") as partial:
        partial.write_text(text)
    picture = plotting.curves(panels, "network evaluations a sample", "Fréchet distance")
    plotting.save(picture, folder / "frontier.png")
    print(f"{text}\nwritten to {folder}", flush=True)


def by_sampler(done: list[Record], figure: str) -> dict[str, list[tuple[float, float]]]:
    """{sampler: [(evaluations, figure), ...]}"""
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in done:
        lines.setdefault(record["sampler"], []).append((record["evaluations"], record[figure]))
    return lines


def main(argv: list[str]) -> int:
    overrides, rest = split_overrides(argv)
    parser = argparse.ArgumentParser("python -m benchmarks.frontier", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workdir", type=Path, required=True, help="a run that was trained")
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--grids", nargs="+", help="by default logsnr, and ladder or uniform")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records there, too")
    arguments = parser.parse_args(rest)
    before_jax()
    return status_of(lambda: run(arguments, overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
