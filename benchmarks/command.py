"""What all programs here share: two flags, progress, a table, a list of flat records."""

import argparse
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from score_jax.files import whole

Record = dict[str, Any]  # of what JSON has


def arguments(description: str, **more: Mapping[str, Any]) -> argparse.Namespace:
    """--quick, under three minutes on two cores; --json FILE, where the records go.

    more: further flags by their names, as argparse has them.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="less of everything: under 3 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records, a flat list")
    for flag, options in more.items():
        parser.add_argument(f"--{flag}", **options)
    return parser.parse_args()


def progress(items: Iterable, description: str) -> Iterable:
    """tqdm on a terminal, silence elsewhere."""
    return tqdm(list(items), desc=description, disable=not sys.stderr.isatty(), leave=False)


def machine() -> str:
    """The device and the versions that a number comes from."""
    device = jax.devices()[0]
    return (
        f"{jax.device_count()} {device.device_kind} ({platform.machine()}), "
        f"Python {platform.python_version()}, jax {version('jax')}"
    )


def table(records: list[Record], columns: list[str]) -> str:
    """A Markdown table of these columns, floats to three digits."""
    cell = lambda value: "" if value is None else f"{value:.3g}" if type(value) is float else value
    rows = [[str(cell(record.get(column))) for column in columns] for record in records]
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    line = lambda row: "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |"
    return "\n".join([line(columns), line(["-" * w for w in widths]), *map(line, rows)])


def write_records(records: list[Record], path: Path | None, page: str | None = None) -> None:
    """The records as JSON, if a path was given, and the page beside it as .md, each whole."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        lines = ",\n".join(map(json.dumps, records))  # one a line
        partial.write_text(f"[\n{lines}\n]\n")
    if page is not None:
        with whole(path.with_suffix(".md")) as partial:
            partial.write_text(page + "\n")
