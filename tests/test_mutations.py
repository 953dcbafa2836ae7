"""Configs and data gone wrong: refused with one message, or run; nothing of theirs is executed.

`python -m benchmarks.faults` is the long form of this, which trains for real.
"""

import os
import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from benchmarks.mutations import battery
from benchmarks.mutations.attempt import Outcome, attempt, is_clean, wrong
from benchmarks.mutations.battery import _Workers, examples
from benchmarks.mutations.configs import mutated_configs, on_images, on_points
from benchmarks.mutations.data import (
    IMAGES,
    MARK,
    Data,
    Link,
    Trap,
    arrays_gone_wrong,
    bomb,
    config_of,
    lay,
    mutated_data,
    npz,
    picture,
)
from score_jax import limits
from score_jax.data.arrays import array
from score_jax.data.folder import folder
from score_jax.errors import UserError

FEW = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
GB = 10**9


@pytest.fixture(scope="module", autouse=True)
def desk():
    """A machine of 2 GB, so that no test takes more, and the compilation cache left as it was."""
    before = jax.config.jax_compilation_cache_dir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "memory", lambda: 2 * GB)
        yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def attempted(tmp_path_factory):
    """attempted(config, data) -> the outcome, up to where training would begin."""

    def run(config, data=None):
        here = tmp_path_factory.mktemp("attempt")
        if data is not None:
            lay(data, here)
        return attempt(config, here / "run", begin_only=True)

    return run


def refusal(outcome):
    """The message of an outcome that must be a refusal, and a good one."""
    assert is_clean(outcome, refused=True), (wrong(outcome, refused=True), outcome.message)
    assert outcome.left == "nothing"
    return outcome.message


# --- what a hundred mistakes have in common ----------------------------------------------


def test_a_config_gone_wrong_runs_or_is_refused_with_one_message(attempted):
    @FEW
    @given(mutated_configs())
    def check(case):
        what, config = case
        outcome = attempted(config)
        assert is_clean(outcome), (what, wrong(outcome), outcome.message[-3000:])

    check()


def test_data_gone_wrong_are_read_or_refused_with_one_message(attempted):
    @FEW
    @given(mutated_data())
    def check(data):
        outcome = attempted(config_of(data), data)
        assert is_clean(outcome, data.refused), (data.what, wrong(outcome), outcome.message)

    check()


@pytest.mark.parametrize("config", on_points()[::4] + on_images()[:1])
def test_what_is_mutated_is_good(attempted, config):
    """Else every mutation would be refused for another reason than its own."""
    outcome = attempted(config)
    assert outcome.status == 130 and outcome.phase == "working" and outcome.left == "a run"


def test_the_same_number_gives_the_same_mutations_and_no_two_alike():
    first, again = (examples(mutated_configs(), 30) for _ in range(2))
    assert repr(first) == repr(again) and len({what for what, _ in first}) == 30
    assert sum("nothing" in what for what, _ in first) < 3


# --- data that would do harm -------------------------------------------------------------

PICKLES = [data for data in arrays_gone_wrong() if "pickle" in data.what]


@pytest.mark.parametrize("data", PICKLES, ids=lambda data: data.what)
def test_a_pickle_in_the_data_is_never_loaded(attempted, data, tmp_path, monkeypatch):
    message = refusal(attempted(config_of(data), data))  # no stray folder is part of `wrong`
    assert "x.np" in message
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))  # the trap would have sprung
    assert Path(MARK).is_dir()


@pytest.mark.parametrize("name", ["x.npy", "x"])
def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path, monkeypatch, name):
    path = tmp_path / "x.npz"
    path.write_bytes(bomb(name=name))
    assert path.stat().st_size < GB / 100 and zipfile.ZipFile(path).infolist()[0].file_size > 3 * GB

    def inflated(*args, **options):
        raise AssertionError("a member was opened")

    monkeypatch.setattr(zipfile.ZipFile, "open", inflated)
    with pytest.raises(UserError, match="of memory, and this machine has 2.0 GB"):
        array(path=str(path))
    monkeypatch.setattr(limits, "memory", lambda: 1000 * GB)
    with pytest.raises(UserError, match=r"claims to be 3,221,225,600 bytes, deflated to 3,"):
        array(path=str(path))


def test_labels_are_held_to_the_same_size(tmp_path):
    small = npz(x=IMAGES)
    path = tmp_path / "x.npz"
    path.write_bytes(small)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("y.npy", bytes(10**8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "memory", lambda: 10**7)
        with pytest.raises(UserError, match=r"the numbers of y\.npy need 0.1 GB"):
            array(path=str(path))


def test_large_data_that_are_stored_as_they_are_are_no_bomb(tmp_path, monkeypatch):
    from score_jax.data import arrays

    monkeypatch.setattr(arrays, "LARGE", 1000)
    x = np.zeros((1000, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "x.npz", x=x)
    assert array(path=str(tmp_path / "x.npz")).examples.shape == x.shape
    np.savez_compressed(tmp_path / "x.npz", x=np.random.default_rng(0).integers(0, 2, x.size))
    with pytest.raises(UserError, match="expected images"):  # read, and of another shape
        array(path=str(tmp_path / "x.npz"))


def test_a_link_out_of_a_folder_is_not_followed(tmp_path):
    files = {
        "data/good.png": picture("L"),
        "outside/secret.png": picture("RGBA"),
        "data/link.png": Link("../outside/secret.png"),
        "data/more": Link("../outside"),
    }
    lay(Data("links", files, {}), tmp_path)
    assert (tmp_path / "data/more/secret.png").is_file()
    assert len(folder(path=str(tmp_path / "data"), size=8).examples) == 1
    os.unlink(tmp_path / "data/good.png")
    with pytest.raises(UserError, match="no .png"):
        folder(path=str(tmp_path / "data"), size=8)


# --- what no machine could do ------------------------------------------------------------


def changed(config, **options):
    """The config with options "section__option" set."""
    config = {name: dict(section) for name, section in config.items()}
    for name, value in options.items():
        section, option = name.split("__")
        config.setdefault(section, {})[option] = value
    return config


def test_more_parameters_than_memory_are_refused_with_their_number(attempted):
    message = refusal(attempted(changed(on_points()[0], model__width=100_000)))
    assert "20,000,700,002 parameters of mlp with width = 100000" in message  # 2 w^2 + 7 w + 2
    assert "need 320.0 GB of memory, and this machine has 2.0 GB; make it smaller" in message
    message = refusal(attempted(changed(on_images()[0], model__features=10_000)))
    assert "parameters of unet with features = 10000" in message


@pytest.mark.parametrize("size", [10**k for k in (6, 9, 12, 20)])
@pytest.mark.parametrize(
    "option",
    [
        "data__size",
        "model__depth",
        "model__width",
        "process__levels",
        "sampler__steps",
        "training__batch_size",
        "evaluation__samples",
    ],
)
def test_a_size_that_no_machine_could_have_is_refused_by_its_name(attempted, option, size):
    outcome = attempted(changed(on_points()[0], **{option: size}))
    assert is_clean(outcome), outcome.message
    if size >= 10**9:
        assert option.split("__")[1].removesuffix("s") in refusal(outcome)


@pytest.mark.parametrize("option", ["model__features", "model__blocks", "model__multipliers"])
def test_a_network_of_images_that_no_machine_could_have_is_refused(attempted, option):
    value = (1, 10**9) if option == "model__multipliers" else 10**9
    assert option.split("__")[1] in refusal(attempted(changed(on_images()[0], **{option: value})))


@pytest.mark.parametrize(
    ("sampler", "option"),
    [
        (dict(name="mala", end=0.1, steps=3), "nodes"),
        (dict(name="predictor_corrector", steps=3), "corrections"),
        (dict(name="deis"), "order"),
        (dict(name="unipc"), "steps"),
        (dict(name="annealed_langevin", levels=3), "steps_per_level"),
        (dict(name="adaptive"), "max_evaluations"),
    ],
)
def test_a_sampler_that_no_machine_could_run_is_refused_by_the_option(attempted, sampler, option):
    config = on_points()[2] | dict(sampler=sampler | {option: 10**10})
    assert option in refusal(attempted(config))


# --- the judge, and the battery ----------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome(0, "", 1.0, "done", "a run"), ""),
        (Outcome(130, "\nstopped", 1.0, "working", "a run"), ""),
        (Outcome(2, "error: no", 1.0, "starting"), ""),
        (Outcome(None, "Traceback", 1.0, "starting"), "an exception escaped"),
        (Outcome(1, "error: disk", 1.0, "starting"), "status 1"),
        (Outcome(2, "no", 1.0, "starting"), "not one message"),
        (Outcome(2, "a warning\nerror: no", 1.0, "starting"), "not one message"),
        (Outcome(2, "error: a\nerror: b", 1.0, "starting"), "not one message"),
        (Outcome(2, "error: " + 1500 * "x", 1.0, "starting"), "a long message"),
        (Outcome(0, "Traceback", 1.0, "done"), "a traceback"),
        (Outcome(2, "error: no", 21.0, "starting"), "slow"),
        (Outcome(2, "error: no", 1.0, "starting", "half a run"), "half a run left"),
        (Outcome(2, "error: no", 1.0, "starting", strays=("a",)), "stray files a"),
    ],
)
def test_what_is_wrong_is_said(outcome, verdict):
    assert wrong(outcome) == verdict and is_clean(outcome) == (not verdict)


def test_what_must_be_refused_may_not_run():
    assert wrong(Outcome(0, "", 1.0, "done"), refused=True) == "not refused"
    assert wrong(Outcome(2, "error: no", 1.0, "starting"), refused=True) == ""


def test_a_case_that_hangs_or_kills_its_worker_is_reported_and_the_next_goes_on(monkeypatch):
    case = ("no section", {})
    with _Workers() as workers:
        monkeypatch.setattr(battery, "REFUSED_WITHIN", 0.0)
        outcome = workers.attempt("config", case)
        assert wrong(outcome) == "an exception escaped" and "hung" in outcome.message
        monkeypatch.setattr(battery, "REFUSED_WITHIN", 60.0)
        outcome = workers.attempt("data", None)  # the worker fails
        assert wrong(outcome) == "an exception escaped" and "died" in outcome.message
        assert "lacks the section" in refusal(workers.attempt("config", case))
