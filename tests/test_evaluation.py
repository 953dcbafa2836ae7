"""--mode=evaluate: features, what they are compared with, figures that say how they were made."""

import json
import os
import signal

import numpy as np
import pytest
from conftest import tiny_config, tiny_images, write_config

from score_jax.build import build
from score_jax.data.arrays import digits
from score_jax.data.base import Dataset
from score_jax.errors import UserError
from score_jax.evaluation import evaluate as evaluation
from score_jax.evaluation import features as extractors
from score_jax.evaluation import memorization
from score_jax.evaluation.classifier import classifier_features, train_classifier
from score_jax.evaluation.features import Features, make_extractor
from score_jax.evaluation.measure import compare
from score_jax.evaluation.reference import make_reference, read_reference
from score_jax.main import main
from score_jax.metrics.frechet import frechet_distance, moments

close = np.testing.assert_allclose
ALL = {"precision", "recall", "density", "coverage"}
ALL |= {"sliced_wasserstein", "maximum_mean_discrepancy"}


def correlated(n, d=6, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((d, d))
    return (rng.standard_normal((n, d)) @ mixing + shift).astype(np.float32)


# --- features ----------------------------------------------------------------------------


def test_the_classifiers_features_tell_real_digits_from_noise_and_blur():
    """Order known beforehand: halves of the data < blurred digits < noise."""
    data = digits()
    params = train_classifier(data.examples, data.labels, steps=200)
    features = lambda x: classifier_features(params, x)[0]
    real, logits = classifier_features(params, data.examples)
    assert (logits.argmax(1) == data.labels).mean() > 0.95
    x = data.examples.astype(np.float32)
    blurred = ((x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, (1, 1), (1, 2))) / 4).astype(
        np.uint8
    )
    noise = np.random.default_rng(0).integers(0, 256, data.examples.shape, dtype=np.uint8)
    halves = frechet_distance(real[::2], real[1::2])
    assert 3 * halves < frechet_distance(features(blurred), real)
    assert frechet_distance(features(blurred), real) < frechet_distance(features(noise), real)


def own(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    evaluation = tiny_images()["evaluation"] | dict(features=str(tmp_path / "mine.py"))
    return build(tiny_images() | dict(evaluation=evaluation))


def test_features_of_your_own_come_from_a_file_of_yours(tmp_path):
    text = "def features(images):\n    return images.reshape(len(images), -1)[:, :5] * 2.0\n"
    extractor = make_extractor(own(tmp_path, text), tmp_path)
    images = digits().examples[:3]
    found = extractor.extract(images)
    assert extractor.kind == "own" and extractor.name == "mine.py" and found.logits is None
    close(found.values, images.reshape(3, -1)[:, :5] * 2.0)
    other = make_extractor(own(tmp_path, text + "\n"), tmp_path)
    assert other.identity != extractor.identity


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "AttributeError"),
        ("def features(images): return images\n", r"must be numbers \[3, D\], got \[3, 8, 8, 1\]"),
        ("def features(images): raise KeyError('a')\n", r"features\(images\): KeyError: 'a'"),
        ("def features(images): return [[float('nan')]] * 3\n", "holds NaN or infinity"),
        ("import nothing_like_it\n", "ModuleNotFoundError: No module named 'nothing_like_it'"),
    ],
)
def test_a_file_of_yours_that_does_not_do_is_told(tmp_path, text, says):
    with pytest.raises(UserError, match=says):
        make_extractor(own(tmp_path, text), tmp_path).extract(digits().examples[:3])


def test_a_file_of_features_that_is_not_there_is_told(tmp_path):
    experiment = own(tmp_path, "")
    (tmp_path / "mine.py").unlink()
    with pytest.raises(UserError, match="no such file .*expected a Python file with features"):
        make_extractor(experiment, tmp_path)


def test_the_classifier_is_trained_once_and_again_only_if_it_is_damaged(tmp_path, monkeypatch):
    config = tiny_images()
    experiment = build(config | dict(evaluation=config["evaluation"] | dict(features="classifier")))
    trained = []

    def short(images, labels):
        trained.append(len(images))
        return train_classifier(images, labels, steps=2)

    monkeypatch.setattr(extractors.classifier, "train_classifier", short)
    first = make_extractor(experiment, tmp_path)
    second = make_extractor(experiment, tmp_path)
    assert trained == [1797] and first.identity == second.identity
    assert "not FID" in first.name and first.kind == "classifier"
    (tmp_path / "classifier.npz").write_bytes(b"damaged")
    assert make_extractor(experiment, tmp_path).identity == first.identity and len(trained) == 2
    labels = experiment.data.labels[::-1].copy()
    other = experiment._replace(data=experiment.data._replace(labels=labels))
    assert make_extractor(other, tmp_path).identity != first.identity and len(trained) == 3


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


def test_a_covariance_that_would_not_fit_is_not_made(tmp_path):
    text = "import numpy\ndef features(images): return numpy.zeros((len(images), 9000))\n"
    with pytest.raises(UserError, match="9,000 features an example, more than the 8,192"):
        make_extractor(own(tmp_path, text), tmp_path).extract(digits().examples[:3])
    experiment = build(tiny_images())
    wide = experiment._replace(data=Dataset("photos", np.zeros((3, 64, 64, 3), np.uint8)))
    with pytest.raises(UserError, match="'none': 12,288 features an example"):
        evaluation.check(wide)


def test_one_bandwidth_serves_all_samples_that_are_compared_with_the_same_data():
    real, near, far = correlated(300), correlated(200, seed=1), correlated(200, seed=2, shift=40.0)
    found = [compare(Features(x), real, moments(real), kind="none").metrics for x in (near, far)]
    widths = [metrics["maximum_mean_discrepancy"]["bandwidth"] for metrics in found]
    assert widths[0] == widths[1] > 0


# --- the reference -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def points():
    return build(tiny_config())


def test_a_reference_is_of_all_examples_and_made_once(points, tmp_path):
    extractor, path = make_extractor(points, tmp_path), tmp_path / "reference.npz"
    found = make_reference(points, extractor, path)
    x = points.data.examples
    close(found.moments.mean, x.astype(np.float64).mean(0), rtol=1e-9)
    close(found.moments.covariance, np.cov(x.T.astype(np.float64)), rtol=1e-9)
    assert found.moments.count == 300
    close(np.sort(found.some.values, axis=0), np.sort(x, axis=0))
    assert not np.array_equal(found.some.values, x), "in random order"
    asked = []
    counting = extractor._replace(extract=lambda x: asked.append(x) or extractor.extract(x))
    again = make_reference(points, counting, path)
    assert not asked and again.settings == found.settings
    other = build(tiny_config(data=dict(seed=5)))
    assert make_reference(other, counting, path).moments.count == 300 and asked
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    path.write_bytes(damaged)
    close(make_reference(points, extractor, path).moments.mean, found.moments.mean)


def test_a_reference_of_others_is_mean_and_covariance(points, tmp_path):
    """As EDM and pytorch-fid publish them."""
    extractor, path = make_extractor(points, tmp_path), tmp_path / "theirs.npz"
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2))
    found = read_reference(path, extractor)
    assert found.some is None and found.moments.count == 0
    assert found.settings["data"] == "of others, theirs.npz"


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (None, "no file .*--mode=reference makes it"),
        (b"nonsense", "not a readable .npz"),
        (dict(mu=np.zeros(2)), r"expected mu \[D\] and sigma \[D, D\]"),
        (dict(mu=np.zeros(2), sigma=np.eye(3)), r"expected mu \[D\]"),
        (dict(mu=np.full(2, np.nan), sigma=np.eye(2)), "mu or sigma holds NaN"),
        (
            dict(mu=np.zeros(2), sigma=np.eye(2), settings='{"extractor": {"features": "a"}}'),
            "holds other features .*make it anew with --mode=reference",
        ),
    ],
)
def test_a_reference_that_does_not_fit_is_told(points, tmp_path, arrays, says):
    path = tmp_path / "reference.npz"
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    elif arrays is not None:
        np.savez(path, **arrays)
    with pytest.raises(UserError, match=says):
        read_reference(path, make_extractor(points, tmp_path))


# --- memorization ------------------------------------------------------------------------


def test_the_nearest_training_examples_are_found_block_by_block(monkeypatch):
    rng = np.random.default_rng(0)
    examples = rng.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    queries = rng.integers(0, 256, (7, 4, 4, 1), dtype=np.uint8)
    queries[3] = examples[31]
    flat = lambda x: x.reshape(len(x), -1).astype(float)
    apart = np.sqrt(((flat(queries)[:, None] - flat(examples)) ** 2).mean(-1))
    for block in (16 * 8, 2**26):
        monkeypatch.setattr(memorization, "BLOCK", block)
        found = memorization.neighbors(queries, examples, k=3)
        close(found.distances, np.sort(apart, axis=1)[:, :3], atol=1e-6)
        np.testing.assert_array_equal(found.indices, np.argsort(apart, axis=1)[:, :3])


def test_copies_are_counted_and_shown_first():
    rng = np.random.default_rng(1)
    draw = lambda n: rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)
    data, test, samples = Dataset("a", draw(60)), Dataset("b", draw(20)), draw(30)
    samples[[4, 9]] = data.examples[[17, 2]]
    figures, (shown, found) = memorization.compare(samples, data, test)
    assert figures["copies"] == 2 and figures["smallest_distance"] == 0.0
    assert set(shown[:2]) == {4, 9} and len(shown) == 8
    assert found.indices[0, 0] == (17 if shown[0] == 4 else 2)
    close(figures["median_distance"], figures["median_distance_of_test"], rtol=0.2)
    mirrored = data.examples[:5, :, ::-1]
    assert memorization.compare(mirrored, data, None)[0]["copies"] == 0
    assert memorization.compare(mirrored, data, None, flip=True)[0]["copies"] == 5
    assert figures["smallest_distance_of_test"] > 10


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
    assert found["errors"] == "" and len(found["widths"]) == 3 and min(found["widths"]) > 0
    assert "8 samples under way" in dom and "of 30 those that are nearest" in dom


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
