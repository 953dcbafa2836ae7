"""--mode=evaluate: figures, and how they were made."""

import json
import os
import signal

import numpy as np
import pytest
from conftest import tiny_images, write_config

from score_jax.build import build
from score_jax.evaluation import evaluate as evaluation
from score_jax.evaluation.evaluate import _agreement
from score_jax.evaluation.features import Extractor, Features, make_extractor
from score_jax.evaluation.measure import compare
from score_jax.main import main
from score_jax.metrics.frechet import frechet_distance, moments

ALL = {"precision", "recall", "density", "coverage"}
ALL |= {"sliced_wasserstein", "maximum_mean_discrepancy"}


def correlated(n, d=6, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((d, d))
    return (rng.standard_normal((n, d)) @ mixing + shift).astype(np.float32)


# --- figures -----------------------------------------------------------------------------


def test_all_figures_are_there_and_only_inceptions_have_the_literatures_names():
    samples, real = correlated(400, shift=0.3), correlated(500, seed=1)
    logits = np.random.default_rng(0).standard_normal((400, 7))
    for kind, names in (
        ("inception", {"fid", "kid", "inception_score"}),
        ("classifier", {"frechet_distance", "kernel_distance", "classifier_score"}),
    ):
        found = compare(Features(samples, logits), real, moments(real), kind=kind)
        assert set(found.metrics) == ALL | names and not found.left_out
    assert found.metrics["frechet_distance"] == pytest.approx(frechet_distance(samples, real))
    assert found.metrics["kernel_distance"]["standard_error"] > 0


def test_figures_that_cannot_be_had_are_left_out_with_the_reason_and_none_is_nan():
    samples, real = correlated(8), correlated(9, seed=1)
    found = compare(Features(samples), real, moments(real), kind="none")
    assert "without logits" in found.left_out["classifier_score"]
    assert "20 rows of each set" in found.left_out["kernel_distance"]
    for value in found.metrics.values():
        assert np.all(np.isfinite(list(value.values()) if isinstance(value, dict) else value))
    found = compare(Features(correlated(30)), None, moments(real), kind="inception")
    assert set(found.metrics) == {"fid"}
    assert found.left_out["kid"] == "the reference holds mean and covariance only"
    broken = samples.copy()
    broken[2, 3] = np.nan
    found = compare(Features(broken), real, moments(real), kind="none")
    assert not found.metrics and "NaN" in found.left_out["frechet_distance"]


def test_one_bandwidth_serves_all_samples_that_are_compared_with_the_same_data():
    real, near, far = correlated(300), correlated(200, seed=1), correlated(200, seed=2, shift=40.0)
    found = [compare(Features(x), real, moments(real), kind="none").metrics for x in (near, far)]
    widths = [metrics["maximum_mean_discrepancy"]["bandwidth"] for metrics in found]
    assert widths[0] == widths[1] > 0


# --- the command -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a config of digits and its run."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_images(training=dict(steps=2, log_every=2), sampler=dict(steps=2))
    config["data"] = dict(name="digits", split="train")
    config["evaluation"] = dict(samples=30, batch_size=30, features="none", allow_fewer=True)
    file = write_config(folder / "config.py", config | dict(test=dict(split="test")))
    words = ["launch.py", f"--config={file}", f"--workdir={folder / 'run'}"]
    assert main(words) == 0
    return words, folder / "run"


def result(workdir):
    return json.loads((workdir / "evaluation.json").read_text())


def test_samples_are_of_the_class_that_was_asked_for_as_often_as_the_classifier_says():
    config = tiny_images(evaluation=dict(samples=20, features="classifier"))
    none = build(config)
    config["model"] |= dict(classes=10)
    experiment = build(config)
    asked = np.arange(20) % 10
    logits = np.eye(10)[np.where(np.arange(20) < 3, 9 - asked, asked)]
    extractor = Extractor("classifier", "a classifier", {}, None)
    seen = Features(np.zeros((20, 2), np.float32), logits)
    found = _agreement(experiment, extractor, seen)["class_agreement"]
    assert found["value"] == 17 / 20 and found["standard_error"] == pytest.approx(0.0798, abs=1e-4)
    assert _agreement(none, extractor, seen) == {}
    assert _agreement(experiment, extractor._replace(kind="inception"), seen) == {}


def test_figures_stand_beside_those_of_real_data_at_the_same_number(run, capsys):
    words, workdir = run
    assert main([*words, "--mode=evaluate"]) == 0
    found, out = result(workdir), capsys.readouterr().out
    assert found["samples"] == 30 and found["reference"]["examples"] == 1437
    same = found["same_number"]
    assert same["examples"] == 30
    columns = [same[f"{who}_against_real"]["frechet_distance"] for who in ("real", "samples")]
    assert 0 < columns[0] < columns[1]
    assert "30 samples against 1,437 of digits/train, in the numbers themselves" in out
    assert "30 real" in out and "fid" not in found["metrics"]


def test_the_result_says_how_it_was_made(run):
    words, workdir = run
    assert main([*words, "--mode=evaluate"]) == 0
    found = result(workdir)
    made = found["made"]
    assert (made["step"], made["ema"], made["samples"], made["seed"]) == (2, 0.999, 30, 0)
    assert made["sampler"]["name"] == "ancestral" and made["sampler"]["steps"] == 2
    assert made["network_evaluations_per_sample"] == 2.0 and len(made["parameters_sha256"]) == 16
    assert found["protocol"]["fewer_than_50000_were_meant"] is True
    assert len(found["reference"]["sha256"]) == 64 and found["features"]["dimensions"] == 64
    assert found["held_out"]["examples"] == 360 and found["held_out"]["data"] == "digits/test"
    assert found["memorization"]["samples"] == 30
    for name in ("neighbors.png", "neighbors.json", "trajectory.png", "trajectory.json"):
        assert (workdir / "samples" / name).is_file()
    assert (workdir / "report.html").is_file() and not (workdir / "pieces").exists()


def test_an_evaluation_that_was_stopped_goes_on_and_gives_the_same_figures(run, monkeypatch):
    words, workdir = run
    monkeypatch.setattr(evaluation, "PIECE", 8)
    assert main([*words, "--mode=evaluate"]) == 0
    whole = result(workdir)
    asked = []

    def stopping(experiment, folder):
        extractor = make_extractor(experiment, folder)

        def extract(images):
            asked.append(len(images))
            if len(asked) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return extractor.extract(images)

        return extractor._replace(extract=extract)

    (workdir / "evaluation.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "make_extractor", stopping)
        assert main([*words, "--mode=evaluate"]) == 75
        assert not (workdir / "evaluation.json").exists()
        assert main([*words, "--mode=evaluate"]) == 0
    assert asked == [8, 8, 8, 6, 30], "three pieces before the stop, one after; then the noise"
    assert result(workdir) == whole


def test_the_report_of_the_run_opens_in_a_browser_with_all_its_pictures(run, tmp_path):
    from test_report_in_browser import BROWSER, PROBE, browse, seen

    if BROWSER is None:
        pytest.skip("no browser on PATH")
    words, workdir = run
    assert main([*words, "--mode=evaluate"]) == 0
    copy = tmp_path / "copy.html"
    copy.write_text((workdir / "report.html").read_text().replace("<head>", f"<head>{PROBE}"))
    dom = browse(tmp_path, copy, "--dump-dom")
    found = seen(dom)
    assert found["errors"] == "" and len(found["widths"]) == 4 and min(found["widths"]) > 0
    assert "4 samples under way" in dom and "of 30 those that are nearest" in dom


def test_what_was_damaged_or_deleted_is_made_again(run):
    words, workdir = run
    assert main([*words, "--mode=evaluate"]) == 0
    whole, samples = result(workdir), (workdir / "samples.npz").read_bytes()
    (workdir / "samples.npz").write_bytes(samples[:200])
    (workdir / "samples" / "trajectory.png").unlink()
    assert main([*words, "--mode=evaluate", "--config.evaluation.png=True"]) == 0
    assert result(workdir)["metrics"] == whole["metrics"]
    assert (workdir / "samples" / "trajectory.png").is_file()
    assert len(list((workdir / "samples" / "png").iterdir())) == 30


def test_a_reference_of_other_features_is_refused(run, tmp_path, capsys):
    words, _ = run
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(3), sigma=np.eye(3))
    option = f"--config.evaluation.reference={tmp_path / 'theirs.npz'}"
    assert main([*words, "--mode=evaluate", option]) == 2
    assert "holds 3 features, and the numbers themselves gives 64" in capsys.readouterr().err
    missing = f"--config.evaluation.reference={tmp_path / 'nothing.npz'}"
    assert main([*words, "--mode=evaluate", missing]) == 2
    assert "nothing.npz" in capsys.readouterr().err


def test_fewer_than_50000_have_to_be_meant_and_nothing_is_drawn_before(run, capsys):
    words, workdir = run
    before = (workdir / "samples.npz").read_bytes()
    options = ["--config.evaluation.allow_fewer=False", "--config.evaluation.samples=49999"]
    assert main([*words, "--mode=evaluate", *options]) == 2
    said = capsys.readouterr().err
    assert "49,999 is fewer than the 50,000" in said and "allow_fewer=True" in said
    assert (workdir / "samples.npz").read_bytes() == before


def test_samples_go_out_as_png_files_and_in_the_layout_of_adms_evaluation(run):
    from PIL import Image

    words, workdir = run
    assert main([*words, "--mode=sample", "--config.evaluation.png=True"]) == 0
    with np.load(workdir / "samples.npz") as file:
        samples = file["arr_0"]
    assert samples.shape == (30, 8, 8, 1) and samples.dtype == np.uint8
    files = sorted((workdir / "samples" / "png").iterdir())
    assert [file.name for file in files] == [f"{i:06d}.png" for i in range(30)]
    np.testing.assert_array_equal(np.asarray(Image.open(files[7])), samples[7, ..., 0])
    fewer = ["--config.evaluation.png=True", "--config.evaluation.samples=4"]
    assert main([*words, "--mode=sample", *fewer]) == 0
    assert len(list((workdir / "samples" / "png").iterdir())) == 4


def test_inceptions_figures_are_called_fid_and_missing_weights_are_told(run, monkeypatch, capsys):
    from score_jax.evaluation import inception, inception_weights

    words, workdir = run
    words = [*words, "--mode=evaluate", "--config.evaluation.features=inception"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(workdir / "nowhere"))
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "pt_inception-2015-12-05-6726825d.pth" in said and "6726825d0af5f729" in said
    weights = inception_weights.Weights(None, "0" * 64, False)
    answer = lambda params, x: (x.reshape(len(x), -1)[:, ::4] / 9.0, x[:, 0, :5, 0] / 50.0)
    monkeypatch.setattr(inception_weights, "check_is_there", lambda path: path)
    monkeypatch.setattr(inception_weights, "read_inception", lambda path: weights)
    monkeypatch.setattr(inception, "inception_features", answer)
    assert main(words) == 0
    assert {"fid", "kid", "inception_score"} <= set(result(workdir)["metrics"])
    assert "not checked against any checksum" in result(workdir)["features"]["name"]


def test_one_command_writes_the_reference_of_a_data_set_and_another_reads_it(run, tmp_path, capsys):
    words, workdir = run
    path = tmp_path / "digits.npz"
    option = f"--config.evaluation.reference={path}"
    elsewhere = [*words[:2], f"--workdir={tmp_path / 'nothing'}"]
    assert main([*elsewhere, "--mode=reference", option]) == 0
    assert "1,437 examples of digits/train, 64 features" in capsys.readouterr().out
    assert not (tmp_path / "nothing").exists() and sorted(os.listdir(tmp_path)) == ["digits.npz"]
    assert main([*words, "--mode=evaluate"]) == 0
    own_reference = result(workdir)["metrics"]
    assert main([*words, "--mode=evaluate", option]) == 0
    assert result(workdir)["metrics"] == own_reference
    assert result(workdir)["reference"]["file"] == str(path)
    assert main([*elsewhere, "--mode=reference"]) == 2
    assert "say where, --config.evaluation.reference=<file>.npz" in capsys.readouterr().err
    classifier = "--config.evaluation.features=classifier"
    assert main([*elsewhere, "--mode=reference", option, classifier]) == 2
    assert "a classifier is trained in every workdir anew" in capsys.readouterr().err
