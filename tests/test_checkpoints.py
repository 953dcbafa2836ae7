"""Checkpoints: whole, or said to be damaged and passed over, whatever happens to their files."""

import contextlib
import json
import os
import resource
import shutil
import threading

import jax
import numpy as np
import pytest
from conftest import tiny_config
from test_training import metrics, run, same

from benchmarks.damage import DAMAGES, each_file_damaged, flip
from score_jax.build import build
from score_jax.errors import UserError
from score_jax.training import checkpoints as module
from score_jax.training.checkpoints import CannotSave, Checkpoints
from score_jax.training.state import create

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def experiment():
    return build(tiny_config())


def state_of(experiment, step):
    """A state that tells its step."""
    return create(experiment)._replace(
        step=np.int32(step),
        params=jax.tree.map(lambda leaf: leaf + step, create(experiment).params),
    )


def saved(experiment, workdir, *steps):
    with Checkpoints(workdir, experiment.training) as checkpoints:
        for step in steps:
            checkpoints.save(state_of(experiment, step), [(0.5, step)])
        checkpoints.wait()
    return workdir / "checkpoints"


def restored(experiment, workdir, **options):
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        return checkpoints.restore(like=create(experiment), **options)


def test_what_is_saved_comes_back(experiment, tmp_path):
    saved(experiment, tmp_path, 3, 7)
    state, pending = restored(experiment, tmp_path)
    same(jax.device_get(state), jax.device_get(state_of(experiment, 7)))
    assert pending == [[0.5, 7.0]]
    state, _ = restored(experiment, tmp_path, at_most=6)
    assert int(state.step) == 3


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_to_any_one_file_is_noticed_and_the_checkpoint_before_used(
    how, experiment, tmp_path, capsys
):
    """Every file of it in turn, the list of checksums too; a run that reads only leaves it."""
    saved(experiment, tmp_path, 3, 7)

    def look(file):
        state, _ = restored(experiment, tmp_path)
        assert int(state.step) == 3, file
        said = capsys.readouterr().out
        assert "checkpoint damaged, passed over: step 7: " in said
        assert file.name in said or file.name == "checksums.json", "and says which file"

    assert each_file_damaged(experiment, tmp_path, DAMAGES[how], look) > 15
    state, _ = restored(experiment, tmp_path)
    assert int(state.step) == 7


def test_a_run_goes_on_from_before_the_damage_and_ends_where_it_would_have(tmp_path, capsys):
    whole = run(tiny_config(training=dict(steps=20)), tmp_path / "whole")
    run(tiny_config(), tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "12"
    flip(max(newest.rglob("d/*"), key=lambda file: file.stat().st_size), np.random.default_rng(0))
    again = run(tiny_config(training=dict(steps=20)), tmp_path / "run")
    assert "checkpoint damaged, passed over: step 12" in capsys.readouterr().out
    same(again, whole)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert (newest.parent / "12.damaged0").is_dir()


def test_with_no_whole_checkpoint_the_run_refuses_and_touches_nothing(tmp_path):
    """No silent fresh start, and nothing renamed that a second look might find whole."""
    run(tiny_config(), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    for file in folder.rglob("manifest.ocdbt"):
        file.unlink()
    before = sorted(str(file) for file in folder.rglob("*"))
    with pytest.raises(
        UserError, match="(?s)no whole checkpoint in .* delete this folder to start"
    ):
        run(tiny_config(training=dict(steps=20)), tmp_path / "run")
    assert sorted(str(file) for file in folder.rglob("*")) == before
    assert [m["step"] for m in metrics(tmp_path / "run")] == [4, 8, 12]


def test_checkpoints_that_are_gone_altogether_are_missed(tmp_path, capsys):
    """The newest with a word; all of them, and the run does not begin again by itself."""
    run(tiny_config(), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    shutil.rmtree(folder / "12")
    run(tiny_config(), tmp_path / "run")
    said = capsys.readouterr().out
    assert "the checkpoint of step 12 is gone; that of step 10 is the newest" in said
    for step in ("10", "12"):
        shutil.rmtree(folder / step)
    with pytest.raises(UserError, match="has held a checkpoint of step 12, and holds none"):
        run(tiny_config(), tmp_path / "run")
    shutil.rmtree(folder)
    assert int(run(tiny_config(), tmp_path / "run").step) == 12


def test_the_newest_are_kept_and_every_kth_for_good(tmp_path):
    options = dict(steps=12, checkpoint_every=2, keep=2, keep_every=4)
    run(tiny_config(training=options), tmp_path / "run")
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {"4", "8", "10", "12", "saved.json"}


def test_what_a_killed_process_left_half_written_is_no_checkpoint_and_goes(experiment, tmp_path):
    folder = saved(experiment, tmp_path, 3)
    shutil.copytree(folder / "3", folder / ".writing.7")
    shutil.copytree(folder / "3", folder / ".writing.8.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path, experiment.training, read_only=True) as checkpoints:
        assert checkpoints.steps() == [3]
    with Checkpoints(tmp_path, experiment.training) as checkpoints:
        assert checkpoints.steps() == [3]
    assert sorted(os.listdir(folder)) == ["3", "saved.json"]


def test_a_checkpoint_has_no_name_before_it_has_its_checksums(experiment, tmp_path, monkeypatch):
    """So a process killed at any moment of a save leaves the steps before it, or all."""
    seen, at = [], threading.Event()

    def look(file):
        names = os.listdir(tmp_path / "checkpoints")
        seen.append({name for name in names if name.isdigit()})
        at.set()
        return checksum(file)

    checksum = module._checksum
    saved(experiment, tmp_path, 3)
    monkeypatch.setattr(module, "_checksum", look)
    saved(experiment, tmp_path, 7)
    assert at.is_set() and all(names == {"3"} for names in seen)
    sums = json.loads((tmp_path / "checkpoints" / "7" / "checksums.json").read_text())
    files = {f for f in (tmp_path / "checkpoints" / "7").rglob("*") if f.is_file()}
    assert len(sums) == len(files) - 1 == len(seen)


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond 100 bytes, within this and not in what pytest says afterwards."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_stops_the_saving_and_spares_what_was_saved(experiment, tmp_path):
    folder = saved(experiment, tmp_path, 3)
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    state, whole = state_of(experiment, 7), "step 7 in .*That of step 3 is whole"
    with (
        Checkpoints(tmp_path, experiment.training) as checkpoints,
        full_disk(),
        pytest.raises(CannotSave, match=whole),
    ):
        checkpoints.save(state, [])
        checkpoints.wait()
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()} == before


def test_a_folder_that_may_not_be_written_to_stops_the_run(tmp_path, monkeypatch):
    """After the step that could not be saved, with the last good checkpoint named."""
    rename = os.rename

    def refuse(source, target):
        if str(target).endswith("/10"):
            raise PermissionError(13, "Permission denied", str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(CannotSave, match=r"step 10 .*Permission denied.*step 5 is whole"):
        run(tiny_config(), tmp_path / "run")
    monkeypatch.undo()
    again = run(tiny_config(), tmp_path / "run")
    same(again, run(tiny_config(), tmp_path / "whole"))


def test_orbax_failing_half_way_spares_what_was_saved(experiment, tmp_path, monkeypatch):
    """Where there was room at first, and then there was not."""
    folder = saved(experiment, tmp_path, 3)
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}

    def fail(file):
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(module, "_checksum", fail)
    with Checkpoints(tmp_path, experiment.training) as checkpoints:
        checkpoints.save(state_of(experiment, 7), [])
        with pytest.raises(CannotSave, match="step 7 .*No space left.*That of step 3 is whole"):
            checkpoints.wait()
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()} == before


def test_a_reader_beside_a_writer_takes_the_newest_there_is(
    experiment, tmp_path, monkeypatch, capsys
):
    """While it looks at a checkpoint, newer ones are saved and this one is deleted."""
    folder = saved(experiment, tmp_path, 3, 7)
    look = Checkpoints._damage

    def overtaken(self, step):
        monkeypatch.undo()
        saved(experiment, tmp_path, 11, 15)
        assert not (folder / "7").exists()
        return look(self, step)

    monkeypatch.setattr(Checkpoints, "_damage", overtaken)
    state, _ = restored(experiment, tmp_path)
    assert int(state.step) == 15 and "damaged" not in capsys.readouterr().out


def test_a_damaged_line_of_the_log_is_left_out_and_said_and_no_other(tmp_path, capsys):
    run(tiny_config(), tmp_path / "run")
    file = tmp_path / "run" / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[1] = b"\xff" + lines[1]
    file.write_bytes(b"".join(lines) + b'{"step": 13, "lo')
    run(tiny_config(training=dict(steps=16)), tmp_path / "run")
    assert [line["step"] for line in metrics(tmp_path / "run")] == [4, 12, 16]
    assert capsys.readouterr().out.count("a damaged line is left out") == 1
