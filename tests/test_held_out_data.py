"""The test section of a config: data that are not trained on."""

import numpy as np
import pytest
from conftest import tiny_config, tiny_images, write_config

from score_jax.build import build
from score_jax.data import DATASETS
from score_jax.errors import UserError
from score_jax.main import main, parse


def images(**test):
    config = tiny_images()
    return config | dict(data=config["data"] | dict(split="train"), test=test)


@pytest.mark.parametrize(("name", "test", "train"), [("digits", 360, 1437), ("mnist5k", 500, 4500)])
def test_a_split_has_every_example_once(name, test, train):
    load = DATASETS[name]
    parts = load(split="train"), load(split="test")
    assert [len(part.examples) for part in parts] == [train, test]
    everything = load().examples.reshape(train + test, -1)
    together = np.concatenate([part.examples.reshape(len(part.examples), -1) for part in parts])
    assert sorted(map(bytes, together)) == sorted(map(bytes, everything))
    assert all(set(part.labels) == set(range(10)) for part in parts)


def test_what_the_test_section_leaves_out_is_as_in_the_data_section():
    experiment = build(images(split="test"))
    assert experiment.config["test"] == dict(name="digits", split="test", condition="none")
    assert experiment.test.name == "digits/test" and len(experiment.test.examples) == 360
    assert experiment.on_test().data is experiment.test
    config = tiny_config(data=dict(name="toy", density="three_modes", size=50)) | dict(
        test=dict(seed=1)
    )
    assert build(config).config["test"] == dict(name="toy", density="three_modes", size=50, seed=1)


def test_without_the_section_there_are_no_test_data():
    experiment = build(tiny_images())
    assert experiment.test is None and experiment.config["test"] == {}
    assert experiment.on_test() is experiment


@pytest.mark.parametrize(
    ("test", "says"),
    [
        (dict(split="train"), "config.test names the data that are trained on"),
        (dict(split="tset"), "Did you mean 'test'"),
        (dict(split="all"), "of 1000 examples of digits are among the data that are trained on"),
        (dict(name="mnist5k"), "examples of shape (28, 28, 1) of mnist5k, but the data digits"),
        (dict(flip=True), "unknown option of config.test 'flip'"),
        (dict(name="digit"), "Did you mean 'digits'"),
        (dict(split=3), "config.test.split must be str"),
    ],
)
def test_data_that_cannot_be_the_test_data_are_refused(test, says):
    with pytest.raises(UserError) as error:
        build(images(**test))
    assert says in str(error.value)


def test_other_data_leave_the_test_data_out_and_say_so(tmp_path, capsys):
    write_config(tmp_path / "config.py", images(split="test"))
    words = ["launch.py", f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"]
    blank = ["--config.data.name=blank", "--config.data.size=8", "--config.data.channels=1"]
    assert main([*words, "--mode=sample", *blank]) == 2  # no run: but the config was right
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if "config." in line]  # of data.split none
    assert "config.test = {'split': 'test'} is for digits, not for blank: no held-out loss" in line
    assert "train it first" in said.err
    again = ["--config.data.name=mnist5k", "--config.test.split=test", "--config.data.split=train"]
    assert build(parse([*words, *again]).config).test.name == "mnist5k/test"
