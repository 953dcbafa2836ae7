"""What is shown of training while it runs: a bar on a terminal, elsewhere a few lines."""

import io
import re
import sys
from types import SimpleNamespace

import jax
import pytest
from conftest import tiny_config

from score_jax import bars
from score_jax.build import build
from score_jax.training import progress
from score_jax.training.loop import train
from score_jax.training.progress import EVERY, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless `now` is moved."""
    clock = SimpleNamespace(now=1000.0)
    clock.time = lambda: clock.now
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr("tqdm.std.time", clock.time)
    return clock


def test_the_bar_counts_the_time_left_from_the_end_of_the_first_call(clock, monkeypatch):
    """Ten minutes of compiling, then a second a step: 90 steps are left, and 90 seconds."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(100, 200) as shown:
        assert "compiling:" in terminal.getvalue() and "100/200" in terminal.getvalue()
        clock.now += 600
        shown.reached(101)
        for step in range(102, 111):
            clock.now += 1
            shown.reached(step)
    last = terminal.getvalue().rstrip().split("\r")[-1]
    assert re.search(r"^training: .* 110/200 \[00:09<01:30, ", last), last
    assert "compiling" not in terminal.getvalue().split("training:")[-1]


def test_a_bar_is_all_that_a_terminal_is_shown(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(0, 2) as shown:
        shown.reached(1)
        shown.tell("loss 3", last=False)
    assert capsys.readouterr().out == "" and "loss 3" in sys.stderr.getvalue()


def test_a_log_file_is_told_at_most_a_line_every_thirty_seconds_the_first_and_the_last(
    clock, capsys
):
    with Progress(0, 1_000) as shown:
        clock.now += 600  # compiling
        for step in range(10, 1_001, 10):
            shown.reached(step)
            clock.now += 1  # 100 seconds in all
            shown.tell(f"loss {step}", last=step == 1_000)
    out, err = capsys.readouterr()
    steps = [
        int(re.match(r"step ([\d,]+) of 1,000", line)[1].replace(",", ""))
        for line in out.splitlines()
    ]
    assert err == "" and EVERY == 30.0 and steps == [10, 310, 610, 910, 1_000]


def test_a_line_tells_the_time_left_without_that_of_compiling(clock, capsys):
    with Progress(0, 1_000) as shown:
        clock.now += 600
        shown.reached(100)
        clock.now += 20
        shown.reached(200)
        shown.tell("5 images/s, loss 0.1", last=False)
    assert capsys.readouterr().out == "step 200 of 1,000: 5 images/s, loss 0.1, 02:40 left\n"


def test_a_host_that_does_not_lead_says_nothing(clock, monkeypatch, capsys):
    for module in (progress, bars):
        monkeypatch.setattr(module, "leads", lambda: False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(0, 10) as shown:
        shown.reached(1)
        shown.tell("loss 3", last=True)
    assert capsys.readouterr().out == "" and sys.stderr.getvalue() == ""


@pytest.mark.parametrize("steps", [12, 14])
def test_a_run_without_a_terminal_says_how_far_it_is_at_its_first_and_last_line(
    steps, tmp_path, capsys
):
    """Also where its last step is no log line's."""
    jax.device_get(train(build(tiny_config(training=dict(steps=steps))), tmp_path))
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == [f"step 4 of {steps}", f"step 12 of {steps}"]
    assert all(re.search(r"images/s, loss \d", line) for line in lines) and err == ""
    assert " left" in lines[0] and (" left" in lines[1]) == (steps == 14)
