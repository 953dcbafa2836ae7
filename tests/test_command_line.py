"""Words of a command line: what is a text, what is a home folder, which config was meant."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config, write_config
from PIL import Image

from score_jax.build import FAMILIES, build, known_options
from score_jax.config import load, override
from score_jax.errors import UserError
from score_jax.main import main, parse

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A folder to work in, which is the home folder too, with a config and an image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write_config(Path("tiny.py"), tiny_config())
    Path("2024").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("2024/a.png")
    return tmp_path


def parsed(*words):
    return parse(["launch.py", *words])


FOLDER = ("--config.data.name=folder", "--config.data.size=8")


@pytest.mark.parametrize("path", ["2024", "1e5", "0x10", "None", "True", "(1,)", "photos"])
def test_a_path_that_reads_like_a_number_stays_a_text(path):
    config = parsed("--config=tiny.py", *FOLDER, f"--config.data.path={path}").config
    assert config.data.path == path and config.data.size == 8


def test_a_folder_whose_name_is_a_number_is_read():
    words = ("--config.model.name=unet", "--config.model.attention=()")
    config = parsed("--config=tiny.py", *FOLDER, "--config.data.path=2024", *words).config
    assert build(config).data.name == "2024"


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("evaluation.reference", "2024", "2024"),  # a text or None
        ("evaluation.reference", "None", None),
        ("evaluation.features", "2024", "2024"),
        ("training.steps", "2024", 2024),
        ("training.clip", "2024", 2024),
        ("sampler.steps", "7", 7),
        ("data.density", "7", "7"),
        ("loss.law", "None", "None"),  # a text in any case
        ("test.density", "7", "7"),  # of the same kind of data, where nothing else is said
    ],
)
def test_what_the_signature_calls_a_text_is_one_and_nothing_else_is(option, text, value):
    section, name = option.split(".")
    found = parsed("--config=tiny.py", f"--config.{option}={text}").config[section][name]
    assert found == value and type(found) is type(value)


def test_the_types_of_all_options_are_known():
    for family, (table, _) in FAMILIES.items():
        for name in table:
            assert None not in known_options(family, name).values()
    assert known_options("data", "folder")["path"] is str
    assert known_options("data", "folder")["flip"] is bool
    assert known_options("training", None)["steps"] is int
    assert known_options("data", "foldr") is None


def test_a_quoted_text_is_what_is_between_the_quotes():
    config = load("tiny.py")
    override(config, "data.density", "'2024'", known_options)
    assert config.data.density == "2024"


def test_the_home_folder_may_be_written_as_a_tilde_in_every_path(desk):
    """The shell leaves it as it is behind an equals sign."""
    Path("other").mkdir()
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save("other/a.png")
    command = parsed(
        "--config=~/tiny.py",
        "--workdir=~/runs/x",
        *FOLDER,
        "--config.data.path=~/2024",
        "--config.test.path=~/other",
        "--config.model.name=unet",
        "--config.model.attention=()",
        "--config.evaluation.reference=~/r.npz",
        "--config.guidance.image=~/other/a.png",
        "--config.guidance.name=sdedit",
    )
    resolved = build(command.config).config
    assert command.workdir == desk / "runs" / "x"
    assert resolved["data"]["path"] == str(desk / "2024")
    assert resolved["test"]["path"] == str(desk / "other")
    assert resolved["evaluation"]["reference"] == str(desk / "r.npz")
    assert resolved["guidance"]["image"] == str(desk / "other" / "a.png")


@pytest.fixture
def clone(desk):
    """Stands where our configs lie."""
    shutil.copytree(ROOT / "configs", "configs", ignore=shutil.ignore_patterns("__pycache__"))


def said(capsys, *words):
    assert main(["launch.py", *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("given", ["configs/ddpm_mnst.py", "ddpm_mnist", "confgs/ddpm_mnist.py"])
def test_a_misspelt_config_is_answered_with_the_nearest_and_not_with_all(clone, capsys, given):
    message = said(capsys, f"--config={given}")
    assert f"unknown config file '{given}'" in message and "'configs/ddpm_mnist.py'" in message
    assert "configs/*.py, listed in docs/configs.md" in message
    assert message.count("configs/") <= 5 and "ncsnpp" not in message


def test_a_config_like_none_that_is_there_is_told_where_they_are(clone, capsys):
    message = said(capsys, "--config=xyzzy.py")
    assert "configs/*.py, listed in docs/configs.md" in message and "Did you mean" not in message


@pytest.mark.parametrize("word", ["--confg=tiny.py", "--workdr=x", "train"])
def test_the_usage_names_a_few_configs_to_start_from(clone, capsys, word):
    message = said(capsys, word)
    usage = message[message.index("usage:") :]
    named = [name for name in usage.replace(",", " ").split() if name.startswith("configs/")]
    assert named.pop(0) == "configs/*.py" and 3 <= len(named) <= 4
    assert all(Path(name).is_file() for name in named)
    assert max(map(len, usage.splitlines())) <= 100


def test_the_usage_elsewhere_says_what_a_config_is(capsys):
    assert "--config   the experiment: a Python file with a get_config()" in said(capsys)


def test_jax_is_told_of_the_host_before_an_option_imports_it(desk, monkeypatch):
    """Schedules are made on the CPU, also where JAX_PLATFORMS names an accelerator alone."""
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    parsed("--config=tiny.py", "--config.training.steps=3")
    assert os.environ["JAX_PLATFORMS"] == "cuda,cpu"


def test_an_unknown_home_is_no_crash():
    with pytest.raises(UserError, match="no folder ~no_such_user/photos"):
        words = ("--config.data.path=~no_such_user/photos",)
        build(parsed("--config=tiny.py", *FOLDER, *words).config)
