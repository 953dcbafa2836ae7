"""Every sampler on every process it applies to, against a density known exactly.

    python -m benchmarks.orders                  # the table, the plot and benchmarks/results/
    python -m benchmarks.orders --quick          # four processes, under three minutes
    python -m benchmarks.orders --json FILE      # records; FILE.md and FILE.png beside it
    python -m benchmarks.orders --frontier       # few evaluations: see benchmarks.sampler_frontier

Deterministic samplers: the distance (root mean square over 32 points, per coordinate) to where
the probability-flow ODE carries the same points, at up to 5, 8, 10, 16, 32 and 64 network
evaluations, and the measured order of convergence, between 160 and 320 steps. Float64, grid
uniform in the log-SNR, from the process's start to σ/α = 0.02, without the final denoising.

Stochastic samplers: mean, covariance and mode weights of 10,000 samples at 400 steps, started
from the exact law, against the exact ones; with Monte-Carlo standard errors. `error` is the
largest error of a mean.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.command import Record, arguments, machine, progress, table, write_records
from benchmarks.oracle import PROCESS_OPTIONS, Runner, Setting, density, flow, setting, starts
from score_jax import plotting
from score_jax.main import status_of
from score_jax.samplers import SAMPLERS

BUDGETS = (5, 8, 10, 16, 32, 64)
FINE = (160, 320)  # a multistep solver's first steps, of lower order, begin to show beyond
QUICK = ("vp", "ve", "edm", "flow")
RESULTS = Path("benchmarks/results/orders.json")


class Case(NamedTuple):
    """A row of the table: its name, the sampler's options, its theoretical order."""

    name: str
    sampler: str
    options: dict[str, Any] = {}
    order: int | None = None


DETERMINISTIC = (
    Case("ddim", "ddim", order=1),
    Case("euler", "euler", order=1),
    Case("heun", "heun", order=2),
    Case("dpm_solver_2", "dpm_solver_2", order=2),
    Case("dpm_solver_3", "dpm_solver_3", order=3),
    Case("dpm_solver_pp_2m", "dpm_solver_pp_2m", order=2),
    Case("dpm_solver_pp_3m", "dpm_solver_pp_3m", order=3),
    Case("dpm_solver_pp_3m_common", "dpm_solver_pp_3m", dict(common=True), 2),
    Case("deis_2", "deis", dict(order=2), 2),
    Case("deis", "deis", order=3),
    Case("unipc_2", "unipc", dict(order=2), 3),
    Case("unipc", "unipc", order=4),
    Case("adams_2", "adams", dict(order=2), 3),
    Case("adams", "adams", order=4),
)
STOCHASTIC = (
    Case("ancestral", "ancestral"),
    Case("ancestral_large", "ancestral", dict(variance="large")),
    Case("ddim_eta_1", "ddim", dict(eta=1.0)),
    Case("euler_maruyama", "euler_maruyama"),
    Case("reverse_diffusion", "reverse_diffusion"),
    Case("predictor_corrector", "predictor_corrector", dict(corrector="ald")),
    Case("edm_stochastic", "edm_stochastic", dict(s_min=0.0, s_noise=1.0)),
    Case("dpm_solver_pp_2m_sde", "dpm_solver_pp_2m", dict(eta=1.0)),
    Case("dpm_solver_pp_3m_sde", "dpm_solver_pp_3m", dict(eta=1.0)),
)


def make(at: Setting, case: Case, steps: int, **options):
    """The case's sampler, from the setting's start to its end."""
    shared = dict(steps=steps, start=at.start, end=at.end, denoise=False)
    grid = dict(grid="logsnr")
    return SAMPLERS[case.sampler](at.process, **shared | grid | case.options | options)


def rms(x: np.ndarray, truth: np.ndarray) -> float:
    """The root mean square distance, per coordinate."""
    return float(np.sqrt(np.mean((x - truth) ** 2)))


def deterministic(process: str, case: Case, at: Setting, truth: np.ndarray) -> list[Record]:
    """The records of one deterministic sampler on one process. In float64."""
    x = starts(at, len(truth))
    run = Runner(at, lambda steps: make(at, case, steps), FINE[-1])
    errors = [rms(run(steps, x)[0], truth) for steps in FINE]
    order = float(np.log(errors[0] / errors[1]) / np.log(FINE[1] / FINE[0]))
    each = run(1, x)[1][0]  # evaluations a step
    records = []
    for budget in BUDGETS:
        if budget < each:
            continue
        samples, evaluations = run(budget // int(each), x)
        shared = dict(sampler=case.name, process=process, budget=budget)
        error, spent = rms(samples, truth), int(evaluations[0])
        records.append(dict(shared, evaluations=spent, error=error, order=order))
    return records


def adaptive(process: str, at: Setting, truth: np.ndarray) -> list[Record]:
    """The adaptive solver at several tolerances, which has no order in its steps."""
    x, records = starts(at, len(truth)), []
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
        make = lambda steps, tol=tolerance: SAMPLERS["adaptive"](
            at.process, start=at.start, end=at.end, rtol=tol, atol=tol, denoise=False
        )
        samples, evaluations = Runner(at, make, 1)(1, x)
        shared = dict(sampler="adaptive", process=process, tolerance=tolerance)
        spent = float(evaluations.mean())
        records.append(dict(shared, evaluations=spent, error=rms(samples, truth), order=None))
    return records


def stochastic(process: str, case: Case, at: Setting, n: int, steps: int) -> Record:
    """Errors of the moments and mode weights of n samples, with their standard errors."""
    p = density()
    law = lambda t: p.noised(at.process.alpha(t), at.process.sigma(t))
    target = law(at.end)
    x = jax.jit(jax.vmap(law(at.start).sample))(jax.random.split(jax.random.key(2), n))
    samples, evaluations = Runner(at, lambda steps: make(at, case, steps), steps)(steps, x)
    centered = samples - np.asarray(target.mean())
    products = np.stack([centered[:, i] * centered[:, j] for i, j in ((0, 0), (0, 1), (1, 1))], 1)
    covariance = np.asarray(target.covariance())[[0, 0, 1], [0, 1, 1]]
    # responsibilities have the exact mean w_k, so they measure mode weights without a boundary
    shares = np.asarray(
        jax.jit(jax.vmap(lambda x: jax.nn.softmax(target.component_log_probs(x))))(samples)
    )
    record = dict(sampler=case.name, process=process, evaluations=int(evaluations[0]))
    for name, values, truth in (
        ("mean", centered, 0.0),
        ("covariance", products, covariance),
        ("weight", shares, np.asarray(p.weights)),
    ):
        errors, se = np.abs(values.mean(0) - truth), values.std(0) / np.sqrt(n)
        worst = int(np.argmax(errors / se))
        record |= {f"{name}_error": float(errors[worst]), f"{name}_se": float(se[worst])}
    return dict(record, error=record["mean_error"], order=None, samples=n)


def measure(processes, in_full, n: int, steps: int) -> list[Record]:
    """All records of these processes; adaptive and stochastic ones on `in_full` only."""
    records = []
    for process in progress(processes, "processes"):
        with jax.enable_x64(True):
            at = setting(process)
            truth = flow(at, starts(at, 32))
            for case in progress(DETERMINISTIC, process):
                records += deterministic(process, case, at, truth)
            if process not in in_full:
                continue
            records += adaptive(process, at, truth)
            for case in progress(STOCHASTIC, process):
                records.append(stochastic(process, case, at, n, steps))
    return records


def wide(records: list[Record]) -> list[Record]:
    """One row a sampler and process: the order, and the error at each budget."""
    rows: dict[tuple[str, str], Record] = {}
    for r in records:
        if "budget" in r:
            row = rows.setdefault((r["sampler"], r["process"]), {})
            row |= dict(sampler=r["sampler"], process=r["process"], order=round(r["order"], 2))
            row[f"{r['budget']}"] = r["error"]
    return list(rows.values())


def report(records: list[Record]) -> str:
    """The tables, in Markdown."""
    deterministic = wide(records)
    by_tolerance = [r for r in records if "tolerance" in r]
    moments = [r for r in records if "samples" in r]
    pairs = [f"{a}_{b}" for a in ("mean", "covariance", "weight") for b in ("error", "se")]
    return "\n\n".join(
        [
            f"Measured by `python -m benchmarks.orders` on {machine()}, float64.",
            "Error at up to so many network evaluations, and order of convergence:",
            table(deterministic, ["process", "sampler", "order", *map(str, BUDGETS)]),
            "The adaptive solver, by tolerance:",
            table(by_tolerance, ["process", "tolerance", "evaluations", "error"]),
            "Stochastic samplers: the worst error of each kind, in standard errors, and its own:",
            table(moments, ["process", "sampler", "evaluations", *pairs]),
        ]
    )


def picture(records: list[Record]) -> np.ndarray:
    """Error against evaluations, a panel a process."""
    panels: dict[str, Any] = {}
    for r in records:
        if r["sampler"] in dict.fromkeys(c.name for c in DETERMINISTIC) or "tolerance" in r:
            lines = panels.setdefault(r["process"], {})
            lines.setdefault(r["sampler"], []).append((r["evaluations"], r["error"]))
    return plotting.curves(panels, "network evaluations", "error")


def main() -> None:
    """The program."""
    options = arguments(
        __doc__.splitlines()[0],
        frontier=dict(action="store_true", help="at few evaluations, see sampler_frontier"),
        peer=dict(choices=["diffusers"], help="with --frontier: its schedulers beside ours"),
    )
    if options.peer and not options.frontier:
        sys.exit("error: --peer is for --frontier: schedulers of others have no orders here")
    if options.frontier:
        from benchmarks import sampler_frontier  # which imports this module

        sys.exit(status_of(lambda: sampler_frontier.run(options)))
    if options.quick:
        jax.config.update("jax_disable_most_optimizations", True)  # most of it is compilation
        records = measure(QUICK, in_full=("vp",), n=4_000, steps=200)
    else:
        records = measure(PROCESS_OPTIONS, in_full=(*QUICK, "ddpm"), n=10_000, steps=400)
    page = report(records)
    print(page)
    path = options.json or (None if options.quick else RESULTS)
    write_records(records, path, page)
    if path is not None:
        plotting.save(picture(records), path.with_suffix(".png"))


if __name__ == "__main__":
    main()
