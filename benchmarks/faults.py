"""Faults on purpose: killed runs, damaged checkpoints, mutated configs and data.

    python -m benchmarks.faults [--quick] [--json FILE]

Prints one table of what was tried and what came of it, as promised or not. In full: 100 times
kill -9, 20 of them within a save; every file of a checkpoint deleted, truncated and flipped; 500
mutated configs and 200 mutated data; it takes about an hour on two cores.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from benchmarks import damage, kills
from benchmarks.command import Record, arguments, machine, table, write_records
from benchmarks.mutations import battery as mutations

RESULTS = Path(__file__).parent / "results" / "faults.json"
COLUMNS = ["fault", "tried", "as promised", "promise"]


def measure(
    killed: dict[str, int], in_save: int, steps: int, configs: int, data: int
) -> list[Record]:
    """killed: how often, by config; in_save: of each, at least, while a checkpoint was written;
    steps: of a run that is killed and goes on, until the next one begins."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with tqdm(desc="kills", total=sum(killed.values())) as bar:

            def one(config):
                args = (config, root / config, killed[config], in_save, steps)
                return kills.battery(*args, tell=bar.update)

            with ThreadPoolExecutor() as pool:
                found = [record for records in pool.map(one, killed) for record in records]
        records += summary(found)
        config = min(killed, key=list(killed).index)
        records += damage.battery(kills.experiment_of(config), root / config / "run_1")

    with tqdm(desc="mutations", total=configs + data) as bar:
        rows = mutations.battery(configs, data, lambda rows: bar.update())
    for kind in ("config", "data"):
        these = [row for row in rows if row["kind"] == kind]
        ran = sum(row["verdict"] == "ran" for row in these)
        records.append(
            {"fault": f"mutated {kind}", "tried": len(these),
             "as promised": sum(row["clean"] for row in these),
             "promise": f"runs ({ran} did), or one message and status 2 within 20 seconds"}
        )  # fmt: skip
    for row in rows:
        if not row["clean"]:
            print(f"not clean: {row['mutated']}: {row['verdict']}\n{row['details']}")
    return records


def summary(found: list[Record]) -> list[Record]:
    """The kills, by config and moment."""
    records = []
    for config, moment in sorted({(r["config"], r["moment"]) for r in found}):
        these = [r for r in found if (r["config"], r["moment"]) == (config, moment)]
        steps = [r["step"] for r in these]
        records.append(
            {"fault": f"kill -9, {moment}, {config}, steps {min(steps)} to {max(steps)}",
             "tried": len(these), "as promised": sum(r["differs"] is None for r in these),
             "promise": "started again, the same bit for bit: parameters, EMA, optimizer, log"}
        )  # fmt: skip
    return records


def report(records: list[Record]) -> str:
    return f"{table(records, COLUMNS)}\n\n{machine()}"


def main() -> None:
    """The program."""
    options = arguments(__doc__.splitlines()[0])
    if options.quick:
        records = measure({"ddpm_digits": 2}, 1, steps=30, configs=10, data=10)
    else:
        killed = {"ddpm_digits": 70, "ncsn_digits": 30}
        records = measure(killed, in_save=10, steps=240, configs=500, data=200)
    page = report(records)
    print(page)
    path = options.json or (None if options.quick else RESULTS)
    write_records(records, path, page)


if __name__ == "__main__":
    main()
