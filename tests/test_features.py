"""What samples are compared by, what with, and whether they are copies: the parts."""

import numpy as np
import pytest
from conftest import tiny_config, tiny_images

from score_jax.build import build
from score_jax.data.arrays import digits
from score_jax.data.base import Dataset
from score_jax.errors import UserError
from score_jax.evaluation import features as extractors
from score_jax.evaluation import memorization
from score_jax.evaluation.classifier import classifier_features, train_classifier
from score_jax.evaluation.features import make_extractor
from score_jax.evaluation.reference import make_reference, read_reference
from score_jax.evaluation.refusals import check
from score_jax.metrics.frechet import frechet_distance

close = np.testing.assert_allclose


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
        ("x = 1\n", "expected a function features in it"),
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


def test_a_covariance_that_would_not_fit_is_not_made(tmp_path):
    text = "import numpy\ndef features(images): return numpy.zeros((len(images), 9000))\n"
    with pytest.raises(UserError, match="9,000 features an example, more than the 8,192"):
        make_extractor(own(tmp_path, text), tmp_path).extract(digits().examples[:3])
    experiment = build(tiny_images())
    wide = experiment._replace(data=Dataset("photos", np.zeros((3, 64, 64, 3), np.uint8)))
    with pytest.raises(UserError, match="'none': 12,288 features an example"):
        check(wide)


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
