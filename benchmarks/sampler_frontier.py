"""Error against network evaluations, of every deterministic sampler and of those of diffusers.

    python -m benchmarks.orders --frontier                     # table, plot, benchmarks/results/
    python -m benchmarks.orders --frontier --peer diffusers    # theirs beside ours; needs torch
    python -m benchmarks.orders --frontier --quick             # one density, 10 and 20 evaluations

From the prior at σ = 80 down to 0.002 on EDM's process, with the exact network of a mixture in
the plane, in float64: the root mean square distance, per coordinate, of 256 trajectories from
where the probability-flow ODE carries the same points. Compared is x at σ = 0.002, without the
denoising step, for all alike. An evaluation is a call of the network, counted where it is made; a
sampler takes the most steps that do not go beyond the number.

Two densities: `round`, three modes of standard deviations 0.25, 0.35 and 0.3, and `thin`, modes at
the same places that are 0.02 thick in one direction, so that small noise matters as well.
"""

import argparse
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from benchmarks.command import Record, machine, progress, table, write_records
from benchmarks.oracle import Runner, Setting, flow, starts
from benchmarks.orders import DETERMINISTIC, Case, make, rms
from score_jax import plotting
from score_jax.densities import GaussianMixture
from score_jax.predictions import exact
from score_jax.processes import EDM
from score_jax.samplers import SAMPLERS
from score_jax.types import Array

BUDGETS = (5, 8, 10, 16, 20, 32, 40, 64, 80)
QUICK = (10, 20)
TRAJECTORIES = 256
HIGH, LOW = 80.0, 0.002
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # of the adaptive solver
GRIDS = ("karras", "logsnr", "angle")
DEFAULT = ("adams", "angle")  # what docs/reference.md says to take
RIGHT = 1e-8  # how exact the truth must be
RESULTS = Path("benchmarks/results/sampler_frontier.json")

SAME = ("euler", "dpm_solver_pp_3m_common")  # ddim; of theirs
CASES = (
    *(case for case in DETERMINISTIC if case.name not in SAME),
    Case("deis_4", "deis", dict(order=4)),
    Case("unipc_4", "unipc", dict(order=4)),
    Case("adams_4", "adams", dict(order=4)),
)


def densities() -> dict[str, GaussianMixture]:
    """The two that everything is measured on."""
    weights = np.array([0.5, 0.3, 0.2])
    means = np.array([[-1.0, 0.4], [0.8, 1.0], [0.3, -1.1]])
    stds = dict(round=[0.25, 0.35, 0.3], thin=[[0.3, 0.02], [0.02, 0.2], [0.1, 0.3]])
    return {name: GaussianMixture(weights, means, np.array(s)) for name, s in stds.items()}


def setting(density: GaussianMixture) -> Setting:
    """EDM's process from σ = 80 to 0.002, and the perfect network of this density."""
    process = EDM(sigma_min=LOW, sigma_max=HIGH)
    return Setting(process, exact(process, density), 1.0, 0.0)


def truth(at: Setting, x: Array) -> tuple[np.ndarray, float]:
    """Where the flow carries x [n, 2], and how far from it another method ends.

    The other is `adams` of order 7 at 1500 steps, whose steps and formulas are its own.
    Raises AssertionError where they are more than 1e-8 apart.
    """
    right = flow(at, x)
    fine = Case("fine", "adams", dict(order=7, grid="angle"))
    other, _ = Runner(at, lambda steps: make(at, fine, steps), 1500)(1500, x)
    apart = float(np.max(np.abs(right - other)))
    assert apart < RIGHT, f"two exact solutions are {apart:.1e} apart, expected {RIGHT}"
    return right, apart


def ours(at: Setting, case: Case, x: Array, right: np.ndarray, budgets) -> list[Record]:
    """One sampler of ours at every grid; one compiled program for them all."""
    chosen: dict[str, Any] = {}
    sampler = lambda steps: make(at, case, steps, **chosen)
    chosen["grid"] = GRIDS[0]
    run, records = Runner(at, sampler, max(budgets)), []
    each = int(run(1, x)[1][0])  # evaluations a step
    for chosen["grid"] in GRIDS:
        for budget in budgets:
            if budget >= each:
                y, evaluations = run(budget // each, x)
                said = dict(of="score_jax", sampler=case.name, grid=chosen["grid"])
                spent = dict(budget=budget, evaluations=int(evaluations[0]))
                records.append(said | spent | dict(error=rms(y, right)))
    return records


def adaptive(at: Setting, x: Array, right: np.ndarray, budgets) -> list[Record]:
    """The adaptive solver, at the tolerance at which its slowest trajectory keeps the number."""
    found = []
    for tolerance in TOLERANCES:
        ends = dict(start=at.start, end=at.end, denoise=False)
        sampler = SAMPLERS["adaptive"](at.process, rtol=tolerance, atol=tolerance, **ends)
        y, evaluations = Runner(at, {1: sampler}.__getitem__, 1)(1, x)
        found.append(dict(evaluations=int(evaluations.max()), error=rms(y, right)))
    return [
        dict(of="score_jax", sampler="adaptive", grid="its own", budget=budget) | best(within)
        for budget in budgets
        if (within := [r for r in found if r["evaluations"] <= budget])
    ]


def denoiser(at: Setting) -> peers.Denoiser:
    """(x [n, 2], σ) -> E[x_0 | x] on NumPy arrays."""
    t = lambda sigma: at.process.time_of_logsnr(-2.0 * jnp.log(sigma))
    many = jax.jit(jax.vmap(lambda x, sigma: at.predict(x, t(sigma)).x0, (0, None)))
    return lambda x, sigma: np.array(many(x, sigma))


def theirs(at: Setting, x: np.ndarray, right: np.ndarray, budgets) -> list[Record]:
    """All schedulers of diffusers at all their grids, each in the best of its configurations."""
    denoise, records = denoiser(at), []
    for peer in progress(peers.peers(), "diffusers"):
        for budget in budgets:
            y, evaluations = peers.run(peer, budget, x, denoise, HIGH, LOW)
            error = rms(y, right)
            said = dict(of="diffusers", sampler=peer.scheduler, grid=peer.grid)
            spent = dict(budget=budget, evaluations=evaluations, options=peer.said)
            if np.isfinite(error):
                records.append(said | spent | dict(error=error))
    return least(records)


def least(records: list[Record]) -> list[Record]:
    """Of each sampler, grid and number of evaluations the record of least error."""
    found: dict[tuple, Record] = {}
    for r in sorted(records, key=lambda r: r["error"]):
        found.setdefault((r["sampler"], r["grid"], r["budget"]), r)
    return sorted(found.values(), key=lambda r: (r["sampler"], r["grid"], r["budget"]))


def measure(names, budgets, peer: str | None) -> list[Record]:
    """All records."""
    records = []
    with jax.enable_x64(True):
        for name in names:
            at = setting(densities()[name])
            x = starts(at, TRAJECTORIES)
            right, apart = truth(at, x)
            found = [ours(at, case, x, right, budgets) for case in progress(CASES, name)]
            found.append(adaptive(at, x, right, budgets))
            if peer:
                found.append(theirs(at, np.array(x), right, budgets))
            shared = dict(density=name, truth_error=apart)
            records += [shared | record for records_of_one in found for record in records_of_one]
    return records


def best(records: list[Record], **wanted: Any) -> Record:
    """The record of least error among those that have these values; {} if none has."""
    fit = [r for r in records if all(r.get(k) == v for k, v in wanted.items())]
    return min(fit, key=lambda r: r["error"], default={})


def title(record: Record) -> str:
    """Who made this error."""
    name = record["sampler"].removesuffix("Scheduler")
    return ", ".join(filter(None, [name, record["grid"], record.get("options")]))


def summary(records: list[Record], density: str) -> list[Record]:
    """A row a number of evaluations: the default, our best, theirs, and how far apart."""
    rows = []
    for budget in sorted({r["budget"] for r in records}):
        at = dict(density=density, budget=budget)
        mine = best(records, of="score_jax", **at)
        default = best(records, sampler=DEFAULT[0], grid=DEFAULT[1], **at)
        peer = best(records, of="diffusers", **at)
        row = {"evaluations": budget, "adams, angle": default["error"]}
        row |= {"best of ours": mine["error"], "which": title(mine)}
        if peer:
            row |= {"best of diffusers": peer["error"], "which of theirs": title(peer)}
            row["theirs over the default"] = peer["error"] / default["error"]
        rows.append(row)
    return rows


def lines(records: list[Record], density: str, key: Callable[[Record], Any]) -> dict[Any, dict]:
    """{line: {budget: the least error}}."""
    found: dict[Any, dict] = {}
    for r in records:
        if r["density"] == density:
            row = found.setdefault(key(r), {})
            row[r["budget"]] = min(r["error"], row.get(r["budget"], np.inf))
    return found


def wide(records: list[Record], density: str, of: str) -> list[Record]:
    """A row a line: ours by sampler and grid, theirs by scheduler, each count at its best."""
    key = (lambda r: (r["sampler"], r["grid"])) if of == "score_jax" else lambda r: (r["sampler"],)
    some = [r for r in records if r["of"] == of]
    return [
        dict(zip(("sampler", "grid"), name)) | {str(k): v for k, v in row.items()}
        for name, row in lines(some, density, key).items()
    ]


def report(records: list[Record]) -> str:
    """The tables, in Markdown."""
    peer = any(r["of"] == "diffusers" for r in records)
    versions = "".join(f", {name} {version(name)}" for name in ("torch", "diffusers") if peer)
    command = "python -m benchmarks.orders --frontier" + " --peer diffusers" * peer
    parts = [f"Measured by `{command}` on {machine()}{versions}, float64."]
    parts.append(__doc__[__doc__.index("From the prior") :].strip())
    parts.append("The angle grid's scale and exponent were chosen with both densities in sight.")
    for density in dict.fromkeys(r["density"] for r in records):
        rows = summary(records, density)
        apart = next(r["truth_error"] for r in records if r["density"] == density)
        parts += [f"## {density}", f"The truth is exact to {apart:.1e}."]
        parts.append(table(rows, list(rows[0])))
        budgets = [str(row["evaluations"]) for row in rows]
        mine = wide(records, density, "score_jax")
        parts += ["Ours:", table(mine, ["sampler", "grid", *budgets])]
        if peer:
            parts.append("Theirs, each number in the best configuration of `benchmarks.peers`:")
            parts.append(table(wide(records, density, "diffusers"), ["sampler", *budgets]))
    return "\n\n".join(parts)


def picture(records: list[Record]) -> np.ndarray:
    """Error against evaluations: a line a method at its best, theirs beside the default of ours."""
    family = {case.name: case.sampler for case in CASES}
    panels: dict[str, Any] = {}
    for density in dict.fromkeys(r["density"] for r in records):
        default = lines([r for r in records if r["sampler"] == DEFAULT[0]], density, title)
        for of in dict.fromkeys(r["of"] for r in records):
            some = [
                r for r in records if r["of"] == of and r["sampler"] not in ("adams_2", "adams_4")
            ]
            shown = lines(some, density, lambda r: family.get(r["sampler"], _short(r["sampler"])))
            shown["adams"] = default[", ".join(DEFAULT)]
            names = sorted(shown, key=lambda name: (name != "adams", name))
            panels[f"{density}: {of}"] = {k: sorted(shown[k].items()) for k in names}
    return plotting.curves(panels, "network evaluations", "error")


def _short(scheduler):
    for word in ("Scheduler", "Discrete"):
        scheduler = scheduler.removesuffix(word)
    return scheduler.removeprefix("EDM")


def run(options: argparse.Namespace) -> None:
    """The program, of what the command line asks for."""
    if options.peer:
        peers.installed()
    names = list(densities())[:1] if options.quick else list(densities())
    records = measure(names, QUICK if options.quick else BUDGETS, options.peer)
    page = report(records)
    print(page)
    path = options.json or (None if options.quick else RESULTS)
    write_records(records, path, page)
    if path is not None:
        plotting.save(picture(records), path.with_suffix(".png"))
