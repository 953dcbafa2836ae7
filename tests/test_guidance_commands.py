"""From the command line: a classifier, a weaker network, images and masks, and what they leave."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_images, write_config
from PIL import Image

from score_jax.main import main

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = dict(features=8, multipliers=(1,), blocks=1, attention=())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of a few steps, its checkpoints of steps 20 and 40, images and a mask."""
    folder = tmp_path_factory.mktemp("guided")
    config = tiny_images(
        sampler=dict(steps=3),
        training=dict(steps=40, checkpoint_every=20, keep_every=20, sample_every=40, ema=0.5)
        | dict(learning_rate=1e-2),
        evaluation=dict(samples=4, batch_size=4),
    )
    config["data"] = dict(name="digits", split="train")
    config["test"] = dict(split="test")
    config["model"] |= SMALL | dict(dropout=0.0, classes=10, label_dropout=0.1)
    config["classifier"] = SMALL | dict(
        steps=30, batch_size=64, learning_rate=1e-2, sample_every=30, ema=0.5
    )
    write_config(folder / "digits.py", config)
    write_config(folder / "other.py", config | {"process": dict(name="vp"), "loss": dict(
        name="denoising"), "parameterization": dict(view="eps", condition="time"),
        "sampler": dict(name="ancestral", steps=3)})  # fmt: skip
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{name}.png")
    half = np.where(np.arange(8)[:, None] < 4, 255, 0).astype(np.uint8) * np.ones((1, 8), np.uint8)
    Image.fromarray(half).save(folder / "half.png")
    before = jax.config.jax_compilation_cache_dir
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert main(["launch.py", "--config=digits.py", "--workdir=run"]) == 0
    jax.config.update("jax_compilation_cache_dir", before)
    return folder


@pytest.fixture
def launch(trained, monkeypatch, capsys):
    """launch(mode, **guidance) -> (status, what was printed, what was said to be wrong)."""
    monkeypatch.chdir(trained)
    monkeypatch.setenv("XDG_CACHE_HOME", str(trained / "cache"))
    before = jax.config.jax_compilation_cache_dir

    def run(mode, *words, config="digits.py", workdir="run", **guidance):
        options = [f"--config.guidance.{name}={value}" for name, value in guidance.items()]
        flags = [f"--config={config}", f"--workdir={workdir}", f"--mode={mode}", *options, *words]
        status = main(["launch.py", *flags])
        return status, *capsys.readouterr()

    yield run
    jax.config.update("jax_compilation_cache_dir", before)


def samples():
    with np.load("run/samples.npz") as file:
        return file["arr_0"], file["arr_1"]


def made():
    return json.loads(Path("run/samples.json").read_text())


def report():
    return Path("run/report.html").read_text()


def test_samples_are_guided_by_the_networks_own_answer(launch):
    assert launch("sample")[0] == 0
    plain, labels = samples()
    assert made()["guidance"] is None and made()["network_evaluations_per_sample"] == 3
    assert launch("sample", weight=2.0)[0] == 0
    guided, same = samples()
    assert made()["guidance"]["weight"] == 2.0 and made()["network_evaluations_per_sample"] == 6
    np.testing.assert_array_equal(labels, same)
    assert np.any(guided != plain)
    assert "Guided by class, weight 2." in report()


def test_samples_are_guided_by_a_classifier_that_is_trained_first(launch):
    status, _, wrong = launch("sample", by="classifier", weight=1.0)
    assert status == 2 and "train it first (--mode=classifier)" in wrong

    status, said, _ = launch("classifier")
    assert status == 0 and "accuracy on 360 examples of digits/test" in said
    found = json.loads(Path("run/classifier/accuracy.json").read_text())
    assert found["accuracy"][0] > 0.2 > found["accuracy"][-1] and found["step"] == 30
    assert found["cross_entropy"][-1] == pytest.approx(np.log(10), abs=0.4)
    line = json.loads(Path("run/classifier/held_out.jsonl").read_text().splitlines()[-1])
    assert line["accuracy"] == pytest.approx(found["accuracy"], abs=1e-6)
    assert not list(Path("run/classifier").glob("samples/*"))

    assert launch("sample")[0] == 0
    plain = samples()[0]
    assert launch("sample", by="classifier", weight=5.0)[0] == 0
    assert np.any(samples()[0] != plain)
    assert made()["guide"]["step"] == 30 and made()["network_evaluations_per_sample"] == 6


def test_a_classifier_is_trained_on_and_is_of_one_config(launch):
    assert launch("classifier")[0] == 0
    status, said, _ = launch("classifier", "--config.classifier.steps=34")
    assert status == 0 and "going on from the checkpoint of step 30" in said
    status, _, wrong = launch("classifier", "--config.classifier.features=16")
    assert status == 2 and "config.classifier.features: 8 there, 16 here" in wrong


def test_samples_are_guided_by_an_earlier_checkpoint_of_the_same_run(launch):
    assert launch("sample", by="weaker", weight=2.0, step=20)[0] == 0
    guided, guide = samples()[0], made()["guide"]
    assert guide["step"] == 20
    assert launch("sample", by="weaker", weight=2.0, step=40)[0] == 0
    assert np.any(samples()[0] != guided)
    itself = samples()[0]  # away from itself: nowhere
    assert launch("sample")[0] == 0
    np.testing.assert_allclose(itself.astype(int), samples()[0], atol=1)
    status, _, wrong = launch("sample", by="weaker", weight=2.0, step=3)
    assert status == 2 and "holds the steps 20, 40" in wrong


def test_a_weaker_network_of_another_process_is_refused(launch):
    assert launch("train", "--config.training.steps=2", config="other.py", workdir="other")[0] == 0
    status, _, wrong = launch("sample", by="weaker", weight=1.0, run="other")
    assert status == 2 and "must be of the same process" in wrong and "config.process" in wrong
    status, _, wrong = launch("sample", by="weaker", weight=1.0, run="nowhere")
    assert status == 2 and "no checkpoint in nowhere/checkpoints; train it first" in wrong


def test_what_is_known_of_an_image_is_in_every_sample_and_in_the_picture(launch):
    known = dict(image="a.png", mask="half.png")
    status, _, wrong = launch("sample", name="replacement", **known)
    assert status == 0, wrong
    image = np.asarray(Image.open("a.png"))
    for sample in samples()[0]:
        np.testing.assert_array_equal(sample[:4, :, 0], image[:4])
    assert len({sample.tobytes() for sample in samples()[0]}) == 4
    picture = np.asarray(Image.open("run/samples/final.png"))
    tile = np.asarray(Image.open("a.png").resize((64, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(picture[4:68, 4:68, 0], tile)
    assert "First the image and what is known of it" in report() and "6 images" in report()
    first = made()["given"]
    assert launch("sample", name="replacement", **known | dict(image="b.png"))[0] == 0
    assert made()["given"] != first


def test_samples_start_from_an_image(launch):
    """From so little noise (sigma = 0.08) that it is still to be seen."""
    start = ["--config.sampler.start=0.1667", "--config.sampler.steps=1"]
    assert launch("sample", *start, name="sdedit", image="a.png")[0] == 0
    image = np.asarray(Image.open("a.png")).ravel()
    for sample in samples()[0]:
        assert np.corrcoef(sample.ravel(), image)[0, 1] > 0.8
    status, _, wrong = launch("sample", *start, name="sdedit")
    assert status == 2 and "config.guidance.image: which image?" in wrong


@pytest.mark.parametrize("name", ["dps", "pigdm", "mmps", "repaint", "twisted", "interpolation"])
def test_every_method_draws_shows_and_reports(launch, name):
    """Samples, their pictures, those under way or why there are none, the report."""
    more = dict(repaint=dict(repeats=2, jump=2), twisted=dict(noise=0.1, particles=2),
                interpolation=dict(to="b.png", rtol=1e-1, atol=1e-1)).get(name, {})  # fmt: skip
    known = dict(image="a.png") | ({} if name == "interpolation" else dict(mask="half.png"))
    Path("run/samples/trajectory.json").unlink(missing_ok=True)
    status, said, wrong = launch("sample", name=name, **known, **more)
    assert status == 0, wrong
    alone = name not in ("twisted", "interpolation")
    assert Path("run/samples/trajectory.json").is_file() == alone
    assert ("no picture of samples under way" in said) != alone and "a report: " in said
    assert made()["guidance"]["name"] == name
    first = "First the two images" if name == "interpolation" else "First the image and what"
    assert first in report()


def test_another_name_leaves_out_what_was_the_olds(launch):
    options = ["--config.guidance.image=a.png", "--config.guidance.mask=half.png"]
    assert launch("sample", *options, name="replacement")[0] == 0
    status, said, wrong = launch("sample", config="run/config.json", name="none")
    assert status == 0 and "config.guidance.mask = 'half.png' is not for none: left out" in said


def test_a_run_of_before_goes_on(launch):
    """Its config knows nothing of guidance, classifiers and conditions."""
    path = Path("run/config.json")
    config = json.loads(path.read_text())
    old = {
        name: section for name, section in config.items() if name not in ("guidance", "classifier")
    }
    for name in ("concat_condition", "condition_dropout"):
        del old["model"][name]
    del old["data"]["condition"]
    path.write_text(json.dumps(old))
    assert launch("sample")[0] == 0


def test_samples_of_one_image_are_not_evaluated(launch):
    status, _, wrong = launch("evaluate", name="dps", image="a.png", mask="half.png")
    assert status == 2 and "compare with no data set" in wrong


def test_an_unknown_class_is_one_clear_message(launch):
    status, _, wrong = launch("sample", "--config.evaluation.label=10")
    assert status == 2 and "must be -1 (none) or one of the 10 classes" in wrong
    assert wrong.count("\n") == 1
