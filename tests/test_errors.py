"""Mistakes at the command line and in a config: status 2, one message, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax import commands
from score_jax import config as configs
from score_jax.build import build, known_options
from score_jax.data import DATASETS
from score_jax.errors import UserError, unknown
from score_jax.losses import LOSSES
from score_jax.main import main
from score_jax.models import MODELS
from score_jax.parallel import check_divides
from score_jax.processes import PROCESSES
from score_jax.samplers import SAMPLERS
from score_jax.workdir import open_workdir

ROOT = Path(__file__).parent.parent

TINY = """
from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="array", path="points.npy"),
            process=dict(name="ve", sigma_min=0.01, sigma_max=10.0),
            model=dict(name="mlp", width=8, depth=1, scale=100.0),
            parameterization=dict(view="eps", condition="log_sigma"),
            loss=dict(name="denoising", view="score", weight="sigma2", reduction="half_sum"),
            sampler=dict(name="ancestral", steps=3),
            training=dict(steps=2, batch_size=8),
            evaluation=dict(samples=20, batch_size=4, features="none", allow_fewer=True),
        )
    )
"""


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch, tmp_path_factory):
    """A folder to work in, with good configs and their data; no run reaches the user's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = jax.config.jax_compilation_cache_dir
    Path("tiny.py").write_text(TINY)
    toy = 'name="toy", density="three_modes", size=64'
    Path("toy.py").write_text(TINY.replace('name="array", path="points.npy"', toy))
    np.save("points.npy", np.random.default_rng(0).normal(size=(64, 2)))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def files():
    """Every file and folder here, and what each file holds."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.fixture
def refused(capsys, monkeypatch):
    """refused(*words) -> the message of a command line that must be refused."""

    def train(experiment, workdir):
        raise AssertionError("not refused: training began")

    monkeypatch.setattr(commands, "train", train)

    def run(*words, leaves_all_as_it_was=True):
        before = files()
        status = main(["launch.py", *map(str, words)])
        out, err = capsys.readouterr()
        assert status == 2, err
        assert err.startswith("error: ") and err.count("error: ") == 1 and "Traceback" not in err
        assert len(err) < 1500
        if leaves_all_as_it_was:
            assert files() == before
            assert out == ""
        return err

    return run


@pytest.fixture
def option_refused(refused):
    """The same for `--config.<option>` words and a good config, toy.py for options of data."""

    def run(*options):
        config = "toy.py" if any(option.startswith("data.") for option in options) else "tiny.py"
        words = [f"--config.{option}" for option in options]
        return refused(f"--config={config}", "--workdir=w", *words)

    return run


def test_the_config_that_the_mistakes_are_made_in_has_none(desk):
    """Else a test below could pass for another mistake than its own."""
    for name in ("tiny.py", "toy.py"):
        assert build(configs.load(name)).training.steps == 2


# --- flags -------------------------------------------------------------------------------


def test_no_config(refused):
    message = refused()
    assert "which experiment? Give --config" in message and "usage: " in message


def test_a_missing_config_file_is_answered_with_the_nearest(refused):
    message = refused("--config=tinny.py")
    assert "unknown config file 'tinny.py'" in message and "Did you mean 'tiny.py'?" in message


def test_a_missing_config_folder(refused):
    assert "unknown config file 'nowhere/tiny.py'" in refused("--config=nowhere/tiny.py")


def test_a_config_that_is_no_python_file(refused):
    Path("tiny.yaml").write_text("training: 3")
    message = refused("--config=tiny.yaml")
    assert "--config=tiny.yaml" in message and "Python file" in message


def test_an_unknown_mode_is_answered_with_the_nearest(refused):
    message = refused("--config=tiny.py", "--mode=trian")
    assert "unknown --mode 'trian'" in message and "Did you mean 'train'?" in message


def test_an_unknown_flag_is_answered_with_the_nearest(refused):
    message = refused("--confg=tiny.py")
    assert "'confg'" in message and "Did you mean: config" in message and "usage: " in message


@pytest.mark.parametrize("words", [["-x"], ["--mode"], ["--config=tiny.py", "--workdir"]])
def test_a_flag_that_cannot_be_read(refused, words):
    message = refused(*words)
    assert words[-1].strip("-") in message and "usage: " in message


def test_a_stray_word(refused):
    message = refused("--config=tiny.py", "train")
    assert "what is 'train'? Options start with --" in message


@pytest.mark.parametrize(
    "words", [["--config.training.steps"], ["--config.training.steps", "3"]], ids=len
)
def test_an_option_without_its_value(refused, words):
    message = refused("--config=tiny.py", *words)
    assert "--config.training.steps needs a value: --config.training.steps=<value>" in message


@pytest.mark.parametrize("name", ["foo", "", "training", "training.", "training.steps.more", "a b"])
def test_an_option_of_another_form_is_answered_with_the_form(refused, name):
    message = refused("--config=tiny.py", f"--config.{name}=1")
    assert f"--config.{name}=1" in message
    assert "--config.<section>.<option>=<value>" in message and "training.steps=200" in message


# --- config files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\ndef get_config(:\n", [":2", "SyntaxError"]),
        ("x = 1\ny = 1 / 0\n", [":2", "ZeroDivisionError", "division by zero"]),
        ("def get_config():\n    x = {}\n    return x['a']\n", [":3", "KeyError", "'a'"]),
        ("import no_such_package_of_anybody\n", [":1", "no_such_package_of_anybody"]),
        ("x = 1\n", ["get_config"]),
        ("def get_config():\n    return [1]\n", ["ConfigDict", "got list"]),
        ("def get_config():\n    return {'a': 1}\n", ["ConfigDict", "got dict"]),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict(dict(training=3))\n",
            ["config.training", "section", "got 3"],
        ),
        ("def get_config(): return 'ü'".encode("latin-1"), ["SyntaxError"]),
    ],
    ids=[
        "syntax", "top level", "in get_config", "import", "no get_config", "a list", "a dict",
        "no section", "encoding",
    ],
)  # fmt: skip
def test_a_config_file_that_fails_is_named_with_the_line_and_the_reason(refused, text, says):
    Path("bad.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refused("--config=bad.py", "--workdir=w")
    assert "--config=bad.py" in message
    for part in says:
        assert part in message


def test_a_config_without_a_section_is_told_which(refused):
    Path("tiny.py").write_text(TINY.replace("evaluation=", "evaluaton="))
    message = refused("--config=tiny.py")
    assert "unknown config section 'evaluaton'" in message
    assert "Did you mean 'evaluation'?" in message
    lines = [line for line in TINY.splitlines() if "evaluation=" not in line]
    Path("tiny.py").write_text("\n".join(lines))
    assert "lacks the section evaluation" in refused("--config=tiny.py")


def test_an_option_is_accepted_by_a_locked_config_that_does_not_name_it(desk):
    Path("locked.py").write_text(TINY + "\n_make = get_config\nget_config = lambda: _make().lock()")
    config = configs.load("locked.py")
    configs.override(config, "training.warmup", "3", known_options)
    assert build(config).training.warmup == 3


# --- names -------------------------------------------------------------------------------


def test_an_unknown_section_is_answered_with_the_nearest(option_refused):
    message = option_refused("trainning.steps=3")
    assert "unknown config section 'trainning'" in message and "'training'?" in message


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("training.stepps", "steps"),
        ("training.learning_rat", "learning_rate"),
        ("evaluation.sample", "samples"),
        ("process.sigma_mx", "sigma_max"),
        ("model.widht", "width"),
        ("loss.reducton", "reduction"),
        ("sampler.step", "steps"),
        ("sampler.clipp", "clip"),
        ("parameterization.veiw", "view"),
        ("data.densty", "density"),
        ("data.centred", "centered"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest(option_refused, option, near):
    section, name = option.split(".")
    message = option_refused(f"{option}=3")
    assert f"unknown option of config.{section} '{name}'" in message
    assert f"Did you mean '{near}'?" in message


@pytest.mark.parametrize("option", ["training.items=3", "model.parent=3", "data.__class__=3"])
def test_an_option_that_python_has_a_meaning_for_is_as_unknown_as_any(option_refused, option):
    assert "unknown option of config." in option_refused(option)


FAMILIES = {
    "data": DATASETS,
    "loss": LOSSES,
    "model": MODELS,
    "process": PROCESSES,
    "sampler": SAMPLERS,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_misspelt_name_is_answered_with_the_nearest_and_with_all(option_refused, family):
    name = max(FAMILIES[family], key=len)
    message = option_refused(f"{family}.name={name[:-1]}_")
    assert f"unknown config.{family}.name '{name[:-1]}_'" in message
    assert f"Did you mean '{name}'?" in message
    assert all(known in message for known in FAMILIES[family])


@pytest.mark.parametrize("given", ["3", "[1]", "{'a': 1}", "{[1]: 2}"])
def test_a_name_that_is_no_word(option_refused, given):
    message = option_refused(f"process.name={given}")
    assert "config.process.name" in message and "known: " in message


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_name_is_answered_with_all(option_refused, family):
    message = option_refused(f"{family}.name=None")
    assert f"config.{family} needs a name" in message
    assert all(known in message for known in FAMILIES[family])


def test_a_missing_option_is_named(refused):
    Path("tiny.py").write_text(TINY.replace("steps=2, batch_size=8", "seed=1"))
    message = refused("--config=tiny.py")
    assert "config.training needs steps, batch_size" in message
    Path("tiny.py").write_text(TINY.replace(', path="points.npy"', ""))
    assert "config.data needs path" in refused("--config=tiny.py")


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("data.density=three_mode", "three_modes"),
        ("loss.law=unifrom", "uniform"),
        ("loss.view=epsilon", "eps"),
        ("loss.weight=sigma", "sigma2"),
        ("loss.reduction=halfsum", "half_sum"),
        ("sampler.grid=unifrom", "uniform"),
        ("sampler.variance=smal", "small"),
        ("parameterization.view=epss", "eps"),
        ("parameterization.condition=log_sigm", "log_sigma"),
        ("evaluation.features=clasifier", "classifier"),
    ],
)
def test_a_misspelt_choice_is_answered_with_the_nearest(option_refused, option, near):
    name, given = option.split("=")
    message = option_refused(option)
    assert f"{name} '{given}'" in message and f"Did you mean '{near}'?" in message


def test_the_answer_to_an_unknown_name_stands_on_one_line():
    assert str(unknown("color", "gren", {"red", "green"})) == (
        "unknown color 'gren'; known: green, red. Did you mean 'green'?"
    )
    assert "Did you mean" not in str(unknown("color", "xyz", ["red"]))
    assert "known: none" in str(unknown("color", "red", []))
    assert "'3'" in str(unknown("color", 3, ["red"]))


# --- types -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "expected", "got"),
    [
        ("training.steps=abc", "int", "'abc' (str)"),
        ("training.steps='2'", "int", "'2' (str)"),
        ("training.steps=True", "int", "True (bool)"),
        ("training.steps=2.0", "int", "2.0 (float)"),
        ("training.steps=", "int", "'' (str)"),
        ("training.learning_rate=fast", "float", "'fast' (str)"),
        ("training.learning_rate=nan", "float", "'nan' (str)"),
        ("training.clip=none", "float | None", "'none' (str)"),
        ("process.sigma_max=[1]", "float", "[1] (list)"),
        ("sampler.clip=1", "bool", "1 (int)"),
        ("data.centered=yes", "bool", "'yes' (str)"),
    ],
)
def test_a_value_of_another_type_is_refused(option_refused, option, expected, got):
    name = option.split("=")[0]
    assert f"config.{name} must be {expected}, got {got}" in option_refused(option)


def test_a_whole_number_is_accepted_for_a_float(desk):
    config = configs.load("tiny.py")
    configs.override(config, "process.sigma_max", "7", known_options)
    configs.override(config, "training.clip", "2", known_options)
    experiment = build(config)
    assert experiment.process.sigma_max == 7.0 and experiment.training.clip == 2.0
    assert type(experiment.config["process"]["sigma_max"]) is float


# --- values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        "training.steps=0",
        "training.batch_size=0",
        "training.batch_size=-8",
        "training.steps_per_call=0",
        "training.log_every=0",
        "training.sample_every=0",
        "training.checkpoint_every=0",
        "training.keep=0",
        "training.seed=-1",
        "training.learning_rate=0",
        "training.learning_rate=-0.1",
        "training.learning_rate=1e999",
        "training.learning_rate=1" + 400 * "0",
        "training.warmup=-1",
        "training.clip=0",
        "training.ema=1.0",
        "training.ema=-0.1",
        "training.steps_per_call=3",
        "evaluation.samples=0",
        "evaluation.batch_size=0",
        "sampler.steps=0",
        "sampler.end=1.0",
        "sampler.end=-0.1",
        "process.sigma_min=0",
        "process.sigma_min=20",
        "process.sigma_max=1e999",
        "data.size=0",
        "data.seed=-1",
        "data.seed=1" + 30 * "0",
        "training.keep_every=0",
        "training.keep_every=-5",
        "training.beta1=1.0",
        "training.beta2=-0.5",
        "training.adam_eps=-1",
        "training.seed=1" + 30 * "0",
        "training.seed=4294967297",
        "evaluation.seed=-1",
        "model.width=1",
        "model.width=3",
        "model.depth=-1",
    ],
)
def test_a_number_that_cannot_be_is_refused_with_its_name(option_refused, option):
    section, name = option.split("=")[0].split(".")
    assert name in option_refused(option)


@pytest.mark.parametrize(
    "option",
    [
        "sampler.step_size=0",
        "sampler.step_size=-1",
        "sampler.steps_per_level=0",
        "sampler.levels=0",
    ],
)
def test_a_number_that_langevin_dynamics_cannot_have_is_refused_by_name(refused, option):
    section = 'sampler=dict(name="annealed_langevin", grid="uniform", levels=3, steps_per_level=2)'
    Path("tiny.py").write_text(TINY.replace('sampler=dict(name="ancestral", steps=3)', section))
    message = refused("--config=tiny.py", "--workdir=w", f"--config.{option}")
    assert option.split("=")[0] in message


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("loss.law=ladder", "law = 'ladder' needs a process with a ladder"),
        ("sampler.grid=ladder", "grid = 'ladder' needs a process with a ladder"),
        ("parameterization.condition=level", "condition = 'level' needs a process with a ladder"),
        ("parameterization.view=posterior_mean", "view = 'posterior_mean' needs a process with"),
    ],
)
def test_a_ladder_is_not_asked_of_a_process_that_has_none(option_refused, option, says):
    message = option_refused(option)
    assert says in message and "got VE" in message and "; use '" in message


def images(side, channels=1, labels=True):
    """Writes x.npz; returns the data section that reads it."""
    y = {"y": np.arange(6)} if labels else {}
    np.savez("x.npz", x=np.zeros((6, side, side, channels), np.uint8), **y)
    return 'data=dict(name="array", path="x.npz", centered=False)'


INDEXED = dict(
    process='process=dict(name="ncsn", sigma_min=0.01, sigma_max=1.0, levels=4)',
    parameterization='parameterization=dict(view="eps", condition="level")',
    loss='loss=dict(name="denoising", law="ladder")',
    sampler='sampler=dict(name="ancestral", grid="ladder", steps=3)',
)


def swap(**sections):
    """Rewrites tiny.py with other sections."""
    lines = TINY.splitlines()
    for name, text in sections.items():
        (at,) = (i for i, line in enumerate(lines) if line.strip().startswith(f"{name}="))
        lines[at] = f"            {text},"
    Path("tiny.py").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("model", "process"),
    [
        ('model=dict(name="unet", features=8, multipliers=(1, 1))', {}),
        (
            'model=dict(name="refinenet", features=8, levels=4)',
            INDEXED,
        ),
    ],
    ids=["unet", "refinenet"],
)
def test_images_that_the_network_cannot_halve_are_refused(refused, model, process):
    swap(data=images(7), model=model, **process)
    message = refused("--config=tiny.py", "--workdir=w")
    assert "needs images" in message and "(7, 7, 1)" in message


def test_points_are_refused_by_a_network_of_images(refused):
    swap(model='model=dict(name="unet", features=8)')
    message = refused("--config=tiny.py", "--workdir=w")
    assert "model unet" in message and "needs images" in message and "(2,)" in message


def test_images_are_refused_by_a_network_of_points(refused):
    swap(data=images(8))
    message = refused("--config=tiny.py", "--workdir=w")
    assert "mlp" in message and "(8, 8, 1)" in message


@pytest.mark.parametrize(
    ("model", "option"),
    [
        ("unet", "features=0"),
        ("unet", "blocks=-1"),
        ("unet", "dropout=1.5"),
        ("refinenet", "features=0"),
    ],
)
def test_a_number_that_a_network_of_images_cannot_have_is_refused(refused, model, option):
    ladder = "levels=4, " if model == "refinenet" else ""
    swap(data=images(8), model=f'model=dict(name="{model}", {ladder}{option})', **INDEXED)
    message = refused("--config=tiny.py", "--workdir=w")
    assert option.split("=")[0] in message


@pytest.mark.parametrize("levels", [5, None])
def test_a_network_and_a_process_of_different_levels_are_refused(refused, levels):
    swap(data=images(8), model='model=dict(name="refinenet", features=8, levels=4)')
    if levels:
        swap(
            data=images(8),
            model='model=dict(name="refinenet", features=8, levels=4)',
            process=f'process=dict(name="ncsn", sigma_min=0.01, sigma_max=1.0, levels={levels})',
        )
    message = refused("--config=tiny.py", "--workdir=w")
    assert "config.model.levels = 4" in message and f"has {levels or 'no'} levels" in message


@pytest.mark.parametrize(
    ("section", "text", "value"),
    [
        ("parameterization", 'parameterization=dict(condition="time")', "'level'"),
        ("loss", 'loss=dict(name="denoising", law="uniform")', "'ladder'"),
        ("data", 'data=dict(name="array", path="x.npz", centered=True)', "False"),
    ],
)
def test_a_network_with_parameters_for_each_level_is_asked_at_its_levels_only(
    refused, section, text, value
):
    sections = INDEXED | dict(data=images(8), model='model=dict(name="refinenet", levels=4)')
    swap(**(sections | {section: text}))
    message = refused("--config=tiny.py", "--workdir=w")
    assert f"it needs config.{section}." in message and f" = {value}, got" in message


@pytest.mark.parametrize("option", ["sampler.clip", "data.flip", "data.dequantize"])
def test_what_is_for_images_is_refused_for_points(option_refused, option):
    message = option_refused(f"{option}=True")
    assert f"config.{option} = True is for images" in message


def test_another_name_leaves_out_what_was_the_old_ones(desk, capsys):
    """The file's options for the old choice go, and are named; the command line's stay."""
    np.save("x.npy", np.zeros((3, 2), np.float32))
    config = configs.load("tiny.py")
    for name, text in (("process.name", "vp"), ("process.beta_max", "9.0")):
        configs.override(config, name, text, known_options)
    assert build(config).process.beta_max == 9.0
    assert "config.process.sigma_min = 0.01 is not for vp: left out" in capsys.readouterr().out


def test_a_classifier_is_not_asked_of_points(option_refused):
    message = option_refused("evaluation.features=classifier")
    assert "config.evaluation.features" in message and "use 'none'" in message


@pytest.mark.parametrize(
    "data",
    [
        'data=dict(name="folder", path="no_such", size=8)',
        'data=dict(name="array", path="no_such")',
        'data=dict(name="array", path="no_such/x.npy")',
    ],
)
def test_data_that_is_not_there_is_named_with_where_it_was_looked_for(refused, data):
    swap(data=data)
    message = refused("--config=tiny.py", "--workdir=w")
    assert "data.path" in message and "no_such" in message and str(Path.cwd()) in message


# --- devices -----------------------------------------------------------------------------


def test_a_batch_that_the_devices_cannot_share_is_refused(option_refused, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    message = option_refused()
    assert "config.training.batch_size = 8" in message
    assert "3 devices" in message and "for example 6" in message


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_a_batch_is_shared_equally_or_answered_with_one_that_can_be(devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    for size in range(1, 20):
        if size % devices == 0:
            check_divides(size)
            continue
        with pytest.raises(UserError, match=f"batch_size = {size} ") as error:
            check_divides(size)
        suggested = int(str(error.value).rsplit(" ", 1)[1])
        assert suggested > 0
        check_divides(suggested)


# --- workdirs ----------------------------------------------------------------------------


def start(mode="train", **options):
    """Opens ./w as a run of the tiny config, with options changed."""
    config = configs.load("tiny.py")
    for name, value in options.items():
        configs.override(config, name.replace("__", "."), repr(value), known_options)
    experiment = build(config)
    with open_workdir(Path("w"), experiment.config, mode, experiment.data):
        pass


@pytest.mark.parametrize("mode", ["sample", "evaluate", "likelihood"])
def test_a_mode_that_needs_a_run_is_refused_without_one(refused, mode):
    message = refused("--config=tiny.py", "--workdir=w", f"--mode={mode}")
    assert "no run in w" in message and "--mode=train" in message


@pytest.mark.parametrize("mode", ["sample", "evaluate", "likelihood"])
def test_a_run_without_a_checkpoint_is_refused_by_name(refused, mode):
    start()
    message = refused(
        "--config=tiny.py", "--workdir=w", f"--mode={mode}", leaves_all_as_it_was=False
    )
    assert "no checkpoint in w/checkpoints" in message and "--mode=train" in message
    left = sorted(name for name in os.listdir("w") if not name.startswith("."))
    assert left == ["config.json", "data.json", "starts.jsonl"]


def test_the_workdir_of_another_config_is_refused_with_all_that_differs(option_refused):
    start()
    message = option_refused("model.width=16", "process.sigma_max=5", "training.batch_size=4")
    assert "w holds another run" in message and "--workdir" in message
    for line in (
        "model.width: 8 there, 16 here",
        "process.sigma_max: 10.0 there, 5.0 here",
        "training.batch_size: 8 there, 4 here",
    ):
        assert line in message
    assert message.count(" there, ") == 3


def test_another_process_is_another_config(option_refused):
    start()
    swap(process='process=dict(name="vp")')
    message = option_refused()
    assert "process.name: 've' there, 'vp' here" in message
    assert "process.beta_min: None there, 0.1 here" in message


def test_a_run_may_go_on_longer_at_another_rate_with_another_sampler(desk, capsys):
    start()
    start(training__steps=9, training__learning_rate=0.5, sampler__steps=7, evaluation__samples=3)
    out = capsys.readouterr().out
    assert "training.steps: 2 there, 9 here" in out and out.count(" there, ") == 4
    assert json.loads(Path("w/config.json").read_text())["training"]["steps"] == 9
    starts = [json.loads(line) for line in Path("w/starts.jsonl").read_text().splitlines()]
    assert [len(start["changed"]) for start in starts] == [0, 4]
    assert starts[1]["changed"]["sampler.steps"] == [3, 7]


def test_the_same_config_finds_its_workdir_and_changes_nothing_in_it(desk, capsys):
    start()
    before = Path("w/config.json").read_bytes()
    start()
    assert Path("w/config.json").read_bytes() == before
    assert capsys.readouterr().out == ""


def test_a_change_of_what_the_parameters_are_or_have_seen_is_refused(refused):
    start()
    for option in (
        "training.seed=1",
        "training.steps_per_call=2",
        "model.depth=2",
        "loss.view=eps",
        "parameterization.view=x0",
        "model.scale=1.0",
    ):
        message = refused("--config=tiny.py", "--workdir=w", f"--config.{option}")
        assert f"{option.split('=')[0]}: " in message and message.count(" there, ") == 1


@pytest.mark.parametrize("mode", ["train", "sample"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("thesis.txt", "years of work"),
        ("config.json", '{"architectures": ["llama"], "layers": 3}'),
        ("config.json", "[1]"),
        ("config.json", "3"),
    ],
)
def test_a_folder_of_somebody_else_s_is_left_alone(refused, mode, name, text):
    Path("w").mkdir()
    Path("w", name).write_text(text)
    message = refused("--config=tiny.py", "--workdir=w", f"--mode={mode}")
    assert ("not a run of ours" if mode == "train" else "no run in w") in message
    assert "--workdir" in message


def test_a_damaged_config_of_a_run_is_said_and_made_anew(desk, capsys):
    start()
    whole = Path("w/config.json").read_text()
    Path("w/config.json").write_text('{"data": ')
    start()
    said = capsys.readouterr().out
    assert said.count("w/config.json is missing or damaged; made anew") == 1
    assert Path("w/config.json").read_text() == whole


def test_a_run_does_not_go_on_from_other_data(refused):
    start()
    np.save("points.npy", np.load("points.npy") + 1)
    message = refused("--config=tiny.py", "--workdir=w")
    assert "w holds another run" in message and "data.sha256" in message


def test_the_same_data_may_lie_elsewhere(desk, capsys):
    start()
    os.rename("points.npy", "moved.npy")
    start(data__path="moved.npy")
    assert "data.path: 'points.npy' there, 'moved.npy' here" in capsys.readouterr().out


@pytest.mark.parametrize("workdir", ["taken", "taken/below"])
def test_a_workdir_that_is_a_file_is_refused(refused, workdir):
    Path("taken").write_text("a file")
    message = refused("--config=tiny.py", f"--workdir={workdir}")
    assert workdir in message and "give another --workdir" in message


# --- what else can end a command ----------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "status", "says"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 75, "stopped"),
        (lambda: interrupted(), 130, "stopped"),
        (lambda: full(), 1, "error: [Errno 28] No space left on device: 'w/x'"),
        (lambda: no_memory(), 2, "error: out of memory (no more is known)"),
        (lambda: np.empty(2**55), 2, "error: out of memory"),
        (lambda: exhausted(), 2, "error: out of memory (RESOURCE_EXHAUSTED: 9 GB)"),
    ],
    ids=["SIGTERM", "SIGINT", "ENOSPC", "MemoryError()", "MemoryError", "RESOURCE_EXHAUSTED"],
)
def test_whatever_ends_a_command_it_says_so_without_a_traceback(
    ends, status, says, desk, monkeypatch, capsys
):
    """75 is what a scheduler takes for "queue me again"."""
    monkeypatch.setattr(commands, "train", lambda experiment, workdir: ends())
    assert main(["launch.py", "--config=tiny.py"]) == status
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said


def full():
    raise OSError(28, "No space left on device", "w/x")


def interrupted():
    raise KeyboardInterrupt


def no_memory():
    raise MemoryError


def exhausted():
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore of it")


@pytest.mark.parametrize("error", [RuntimeError("it cannot be"), FileNotFoundError(2, "it cannot")])
def test_a_bug_of_ours_keeps_its_traceback(error, desk, monkeypatch):
    def bug(experiment, workdir):
        raise error

    monkeypatch.setattr(commands, "train", bug)
    with pytest.raises(type(error), match="it cannot"):
        main(["launch.py", "--config=tiny.py"])


# --- the real exit status ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which experiment?"),
        (["--config=tiny.py", "--config.training.steps=abc"], "config.training.steps must be int"),
        (["--config=tiny.py", "--mode=sample"], "no run in runs/tiny"),
    ],
    ids=["no config", "type", "no run"],
)
def test_launch_exits_with_status_2_and_one_message(words, says):
    before = files()
    done = subprocess.run(
        [sys.executable, "-B", str(ROOT / "launch.py"), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.startswith("error: ") and says in done.stderr
    assert "Traceback" not in done.stderr
    assert files() == before
