"""The page: sections in their order, a table of contents, one file."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from score_jax.files import whole
from score_jax.report import curves, gallery, history, measures
from score_jax.report.markup import Markup, code, join, tag
from score_jax.report.read import Run, read_run
from score_jax.report.style import STYLE

SECTIONS = {
    "figures": ("Figures at a glance", measures.glance),
    "likelihood": ("Likelihood", measures.likelihood),
    "training": ("Training", curves.training),
    "noise-levels": ("Error by noise level", curves.noise_levels),
    "samples": ("Samples", gallery.grids),
    "trajectories": ("From noise to data", gallery.trajectories),
    "neighbors": ("Nearest training examples", gallery.neighbors),
    "config": ("Config", history.config),
    "starts": ("Starts", history.starts),
}


def write_report(
    workdir: Path, hints: Mapping[str, Mapping[str, Any] | None] | None = None
) -> Path:
    """Writes workdir/report.html, whole or not at all, and returns its path.

    The page follows from the files in workdir and the hints alone, holds its pictures and needs no
    network. What is missing is left out, or its section names the command that makes it, with the
    options that hints has for its mode, unless it has None; what is damaged is passed over, and
    named at the end. Raises UserError for a folder without a config.json.
    """
    path = Path(workdir) / "report.html"
    page = make_page(read_run(Path(workdir), hints or {}))
    with whole(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")
    return path


def make_page(run: Run) -> str:
    """The HTML of a run's report."""
    found = {name: (title, make(run)) for name, (title, make) in SECTIONS.items()}
    shown = {name: pair for name, pair in found.items() if pair[1] is not None}
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, (title, _) in shown.items()]
    sections = [
        tag("section", tag("h2", title, id=f"{name}-title"), content,
            id=name, aria_labelledby=f"{name}-title")
        for name, (title, content) in shown.items()
    ]  # fmt: skip
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{run.name}: report of a run"),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "body",
        tag("header", tag("h1", run.name), history.header(run)),
        tag("nav", tag("ol", links), aria_label="Contents"),
        tag("main", sections),
        tag("footer", _footer(run)),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def _footer(run) -> Markup:
    try:
        ours = f"score_jax {version('score_jax')}"
    except PackageNotFoundError:  # run from its source, not installed
        ours = "score_jax"
    lost = f"Damaged, and passed over: {', '.join(run.damaged)}." if run.damaged else None
    return join(
        tag("p", "Made from the files of the run's folder by ", code(run.command("report")),
            f" ({ours})."),
        tag("p", lost) if lost else None,
    )  # fmt: skip
