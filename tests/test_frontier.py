"""python -m benchmarks.frontier: what it samples, and what it leaves."""

import json

import pytest
from conftest import tiny_config, write_config

from benchmarks import frontier
from score_jax.build import build
from score_jax.errors import UserError
from score_jax.main import main


@pytest.mark.parametrize(
    ("name", "budget", "spent"),
    [
        ("ddim", 10, 10),
        ("heun", 10, 9),  # two a step, the last of them the denoising one
        ("dpm_solver_pp_3m", 10, 10),
        ("ancestral", 7, 7),
    ],
)
def test_a_sampler_takes_the_steps_that_its_evaluations_allow(name, budget, spent):
    section = {"name": name, "grid": "ladder"}
    experiment = frontier.at_cost(build(tiny_config()), section, budget)
    assert frontier.evaluations(experiment) == spent
    more = build(
        experiment.config
        | {"sampler": experiment.config["sampler"] | {"steps": experiment.sampler.steps + 2}}
    )
    assert frontier.evaluations(more) > budget


def test_too_few_evaluations_are_refused():
    with pytest.raises(UserError, match="heun needs more than 0 evaluations"):
        frontier.at_cost(build(tiny_config()), {"name": "heun", "grid": "ladder"}, 0)


def test_a_run_s_frontier_is_drawn_kept_and_gone_on_with(tmp_path, monkeypatch, capsys):
    file = write_config(tmp_path / "config.py", tiny_config())
    workdir = tmp_path / "run"
    assert main(["launch.py", f"--config={file}", f"--workdir={workdir}"]) == 0
    words = ["frontier", f"--workdir={workdir}", "--samples=40", "--grids", "ladder"]
    words += ["--samplers", "ddim", "deis", "nonsense", "--evaluations", "3", "6"]
    assert frontier.main(words) == 0
    out = capsys.readouterr().out
    assert "nonsense, ladder: left out" in out and "40 other real ones: " in out
    folder = workdir / "frontier"
    records = json.loads((folder / "frontier.json").read_text())
    assert [(r["sampler"], r["evaluations"]) for r in records] == [
        ("ddim, ladder", 3.0),
        ("ddim, ladder", 6.0),
        ("deis, ladder", 3.0),
        ("deis, ladder", 6.0),
    ]
    assert all(r["frechet_distance"] > 0 and r["samples"] == 40 for r in records)
    assert (folder / "frontier.png").is_file() and "| ddim, ladder" in out
    monkeypatch.setattr(frontier, "measured", lambda *args: pytest.fail("drawn again"))
    assert frontier.main(words) == 0
    assert json.loads((folder / "frontier.json").read_text()) == records


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert frontier.main(["frontier", f"--workdir={tmp_path}"]) == 2
    assert "config.json" in capsys.readouterr().err
