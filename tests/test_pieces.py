"""Long work in pieces: nothing done is done again, nothing half-done is taken for done."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import tiny_config, write_config
from test_training import ROOT, run

from score_jax.main import main
from score_jax.pieces import drop, in_pieces
from score_jax.signals import Interrupted

pytestmark = pytest.mark.usefixtures("quick_compile")


class Work:
    """Squares, slowly thought of as work: which pieces were asked for, and when to be stopped."""

    def __init__(self, stop_after=None):
        self.asked, self.stop_after, self.told = [], stop_after, []

    def make(self, indices, tell):
        self.asked.append(indices.start)
        assert tell(0.5) is None
        if len(self.asked) == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
            if tell(0.9) is False:
                return None
        return {"square": np.asarray(indices) ** 2, "row": np.ones((len(indices), 3), np.float32)}

    def all(self, folder, total=23, size=5, identity="it"):
        return in_pieces(folder, "squares", identity, total, size, self.make, self.told.append)


def test_all_pieces_together_are_the_whole(tmp_path):
    work = Work()
    found = work.all(tmp_path)
    np.testing.assert_array_equal(found["square"], np.arange(23) ** 2)
    assert found["row"].shape == (23, 3) and work.asked == [0, 5, 10, 15, 20]
    assert work.told == sorted(work.told) and work.told[-1] == 1.0
    drop(tmp_path, "squares", "it")
    assert not (tmp_path / "pieces").exists()


def test_what_was_done_before_a_stop_is_not_done_again(tmp_path):
    with pytest.raises(Interrupted, match="2 of 5 pieces of 5 are kept .*the same command") as stop:
        Work(stop_after=3).all(tmp_path)
    assert stop.value.signal == signal.SIGTERM
    work = Work()
    np.testing.assert_array_equal(work.all(tmp_path)["square"], np.arange(23) ** 2)
    assert work.asked == [10, 15, 20]


def test_more_of_the_same_goes_on_from_what_there_is(tmp_path):
    """The last piece was a short one, and is made anew."""
    Work().all(tmp_path, total=12)
    work = Work()
    assert len(work.all(tmp_path, total=23)["square"]) == 23
    assert work.asked == [10, 15, 20]


def test_damaged_pieces_and_half_written_ones_are_made_again(tmp_path):
    Work().all(tmp_path)
    first, second, third, *_ = sorted((tmp_path / "pieces").rglob("*.npz"))
    os.truncate(first, first.stat().st_size // 2)
    flipped = bytearray(second.read_bytes())
    flipped[len(flipped) // 3] ^= 1
    second.write_bytes(flipped)
    third.rename(third.with_name(f".{third.name}"))
    work = Work()
    np.testing.assert_array_equal(work.all(tmp_path)["square"], np.arange(23) ** 2)
    assert work.asked == [0, 5, 10]


def test_pieces_of_other_work_are_never_mixed_in_and_do_not_stay(tmp_path):
    Work().all(tmp_path, identity={"seed": 0})
    work = Work()
    work.all(tmp_path, identity={"seed": 1})
    assert len(work.asked) == 5 and len(list((tmp_path / "pieces").iterdir())) == 1


# --- the commands ------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path):
    config = tiny_config() | dict(likelihood=dict(examples=40, batch_size=8))
    file = write_config(tmp_path / "config.py", config)
    run(config, tmp_path / "run")
    return ["launch.py", f"--config={file}", f"--workdir={tmp_path / 'run'}"]


def stop_in(monkeypatch, module, name, call):
    """Has SIGTERM arrive within the call-th call of what `module.name` makes."""
    make, calls = getattr(module, name), []

    def stopping(*args):
        made = make(*args)

        def called(*args):
            calls.append(args)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return made(*args)

        return called

    monkeypatch.setattr(module, name, stopping)


def test_a_stopped_sampling_goes_on_and_ends_in_the_same_samples(
    words, tmp_path, monkeypatch, capsys
):
    """With 75, for the scheduler; and in a run that trains, the samples are drawn at the end."""
    from score_jax import samples

    assert main([*words, "--mode=sample"]) == 0
    whole = (tmp_path / "run" / "samples.npz").read_bytes()
    with monkeypatch.context() as patch:
        stop_in(patch, samples, "make_draw", 2)
        assert main([*words, "--mode=sample"]) == 75
    assert "1 of 3 pieces of 8 are kept" in capsys.readouterr().err
    assert (tmp_path / "run" / "samples.npz").read_bytes() == whole, "the old ones stay whole"
    assert main([*words]) == 0
    assert (tmp_path / "run" / "samples.npz").read_bytes() == whole
    assert not (tmp_path / "run" / "pieces").exists()


def test_a_stopped_likelihood_goes_on_and_ends_in_the_same_number(words, tmp_path, monkeypatch):
    from score_jax.evaluation import likelihood

    assert main([*words, "--mode=likelihood"]) == 0
    whole = json.loads((tmp_path / "run" / "likelihood.json").read_text())
    with monkeypatch.context() as patch:
        stop_in(patch, likelihood, "make_likelihood", 3)
        assert main([*words, "--mode=likelihood"]) == 75
    kept = len(list((tmp_path / "run" / "pieces").rglob("*.npz")))
    assert kept in (2, 3), "the third too, if it was done when the signal was heard"
    assert main([*words, "--mode=likelihood"]) == 0
    assert json.loads((tmp_path / "run" / "likelihood.json").read_text()) == whole


# --- two processes, one folder -----------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from score_jax.workdir import locked

with locked(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("what", "mode", "says"),
    [("training", "train", "another process trains in"),
     ("results", "sample", "another process draws or measures in")],
)  # fmt: skip
def test_two_processes_do_not_do_the_same_work_in_one_folder(
    what, mode, says, words, tmp_path, capsys
):
    """The second is told who the first is; when that is killed, the way is free."""
    before = (tmp_path / "run" / "starts.jsonl").read_text()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run"), what],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    try:
        assert main([*words, f"--mode={mode}"]) == 2
        said = capsys.readouterr().err
        assert says in said and f"process {holder.pid} on " in said
        assert (tmp_path / "run" / "starts.jsonl").read_text() == before
    finally:
        holder.kill()
        holder.wait()
    assert main([*words, f"--mode={mode}"]) == 0


def test_samples_may_be_drawn_while_another_process_trains(words, tmp_path):
    from pathlib import Path

    from score_jax.workdir import locked

    with locked(Path(tmp_path / "run"), "training"):
        assert main([*words, "--mode=sample"]) == 0


ENDLESS = """
import os, signal, threading
import jax, numpy as np
from score_jax.main import leave
from score_jax.parallel import in_batches
from score_jax.signals import StopSignals

def endless(shared, x):
    return jax.lax.while_loop(lambda y: y[0, 0] < 2.0, lambda y: 0.5 * y @ y, x)

with StopSignals() as stop:
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    x = np.ones((4, 300, 300), np.float32) / 300
    found = in_batches(endless, 2)(None, x, progress=lambda fraction: stop.signal is None)
print(found)
leave(75)
"""


def test_a_stop_is_heard_while_the_devices_compute_and_ends_the_process_at_once():
    """By something they would compute forever."""
    ended = subprocess.run(
        [sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (75, "None\n"), ended.stderr
