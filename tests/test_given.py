"""Images, masks and operators from files: what is known of a sample, and what cannot be meant."""

import jax
import numpy as np
import pytest
from PIL import Image

from score_jax.data.encoding import Encoding
from score_jax.errors import UserError
from score_jax.given.observed import known, read_image, read_mask
from score_jax.given.options import Guidance

SHAPE = (4, 6, 1)
ENCODING = Encoding(centered=True, flip=True, dequantize=True)


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A folder with an image and a mask of SHAPE, and others that do not fit."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(image()[..., 0]).save("image.png")
    Image.fromarray(white()).save("mask.png")


def image(channels=1):
    return np.random.default_rng(channels).integers(0, 256, (4, 6, channels), dtype=np.uint8)


def white():
    """The left half of the pixels is known."""
    return np.where(np.arange(6) < 3, 255, 0).astype(np.uint8) * np.ones((4, 1), np.uint8)


def options(**changes):
    return Guidance(**dict(image="image.png", mask="mask.png") | changes)


def test_an_image_is_read_as_it_is():
    np.testing.assert_array_equal(read_image("image.png", "image", SHAPE), image())
    Image.fromarray(image(3)).save("rgb.png")
    np.testing.assert_array_equal(read_image("rgb.png", "image", (4, 6, 3)), image(3))


def test_a_mask_is_where_it_is_white():
    np.testing.assert_array_equal(read_mask("mask.png", "mask", SHAPE), white() == 255)
    Image.fromarray(white()).convert("1").save("bits.png")
    np.testing.assert_array_equal(read_mask("bits.png", "mask", (4, 6, 3)), white() == 255)


def test_what_is_known_is_the_operator_of_the_image_in_the_networks_units():
    """Not mirrored and not dequantized, whatever training does."""
    found = known(options(), SHAPE, ENCODING)
    x_0 = image() / 127.5 - 1.0
    np.testing.assert_allclose(found.observation.y, x_0[:, :3].ravel(), atol=1e-6)
    again = found.observation.forward(x_0.astype(np.float32))
    np.testing.assert_allclose(again, found.observation.y, atol=1e-6)


def test_the_picture_shows_the_image_and_what_is_known_of_it():
    found = known(options(), SHAPE, ENCODING).shown
    np.testing.assert_array_equal(found[0], image())
    np.testing.assert_array_equal(found[1][:, :3], image()[:, :3])
    assert np.all(found[1][:, 3:] == 128)
    coarse = known(options(mask=None, operator="downsample", factor=2), SHAPE, ENCODING).shown
    means = image()[..., 0].reshape(2, 2, 3, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    assert np.abs(coarse[1][..., 0] - means).max() <= 0.5 + 1e-3


def test_noise_is_added_to_an_image_and_not_to_what_was_observed():
    big = Encoding()
    noisy = known(options(noise=0.3), SHAPE, big).observation
    clean = known(options(), SHAPE, big).observation
    z = (noisy.y - clean.y) / 0.3
    assert np.abs(z).max() > 0.5 and abs(float(np.mean(z))) < 4 / 12**0.5
    np.save("y.npy", np.arange(12.0))
    given = known(options(image=None, observed="y.npy", noise=0.3), SHAPE, big)
    np.testing.assert_array_equal(given.observation.y, np.arange(12.0))
    assert given.shown is None


def test_an_operator_of_ones_own_is_a_function_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("def operator(x):\n    return x.sum(0)\n")
    found = known(options(mask=None, operator="mine.py"), SHAPE, ENCODING)
    np.testing.assert_allclose(found.observation.y, (image() / 127.5 - 1.0).sum(0), rtol=1e-5)
    back = found.observation.adjoint(found.observation.y)
    np.testing.assert_allclose(back, np.broadcast_to(found.observation.y, SHAPE), rtol=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        dict(operator="blur", width=1.0),
        dict(operator="random", measurements=5),
        dict(operator="downsample", factor=2),
    ],
)
def test_every_operator_can_be_named(more):
    found = known(options(mask=None, **more), SHAPE, ENCODING).observation
    x_0 = (image() / 127.5 - 1.0).astype(np.float32)
    np.testing.assert_allclose(jax.jit(found.forward)(x_0), found.y, atol=1e-6)


def test_gray_is_the_luminance_of_an_rgb_image():
    Image.fromarray(image(3)).save("rgb.png")
    found = known(options(image="rgb.png", mask=None, operator="gray"), (4, 6, 3), ENCODING)
    expected = (image(3) / 127.5 - 1.0) @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found.observation.y[..., 0], expected, atol=1e-6)


def test_what_is_seen_of_it_is_what_was_measured():
    """With its noise; blurred where it is blurred, and not sharpened."""
    noisy = known(options(noise=0.5), SHAPE, ENCODING).shown[1][:, :3, 0].astype(int)
    assert 20 < np.abs(noisy - image()[:, :3, 0]).mean() < 100
    blurred = known(options(mask=None, operator="blur", width=2.0), SHAPE, ENCODING).shown[1]
    assert blurred.std() < image().std() / 2


def test_another_seed_is_other_noise_and_other_projections():
    of = lambda seed, **more: known(options(seed=seed, **more), SHAPE, ENCODING).observation.y
    assert np.any(of(0, noise=0.1) != of(1, noise=0.1))
    random = dict(mask=None, operator="random", measurements=5)
    assert np.any(of(0, **random) != of(1, **random))


def test_other_files_have_another_digest(tmp_path):
    before = known(options(), SHAPE, ENCODING).sha256
    (tmp_path / "mine.py").write_text(
        "import numpy as np\noperator = lambda x: np.load('k.npy') * x"
    )
    digests = set()
    for factor in (1.0, 2.0):  # what it loads is no part of its file
        np.save("k.npy", np.float32(factor))
        digests.add(known(options(mask=None, operator="mine.py"), SHAPE, ENCODING).sha256)
    assert len(digests) == 2
    Image.fromarray(255 - image()[..., 0]).save("image.png")
    changed = known(options(), SHAPE, ENCODING).sha256
    Image.fromarray(255 - white()).save("mask.png")
    assert len({before, changed, known(options(), SHAPE, ENCODING).sha256}) == 3


def bad_files():
    Image.fromarray(image()[:3, :, 0]).save("small.png")
    Image.fromarray(image(3)).save("rgb.png")
    Image.fromarray(np.dstack([image(3), white()])).save("alpha.png")
    Image.fromarray((image()[..., 0] > 5).astype(np.uint16) * 40_000).save("deep.png")
    Image.fromarray(white() // 2).save("gray.png")
    Image.fromarray(np.full_like(white(), 255)).save("all.png")
    Image.fromarray(np.zeros_like(white())).save("none.png")
    with open("broken.png", "wb") as file:
        file.write(open("image.png", "rb").read()[:40])
    np.save("nan.npy", np.full(12, np.nan))
    np.save("few.npy", np.zeros(7))
    with open("text.npy", "w") as file:
        file.write("1 2 3")
    for name, body in (
        ("affine", "return x[0] + 1.0"),
        ("square", "return x**2"),
        ("stopped", "import jax; return jax.lax.stop_gradient(x)"),
        ("fails", "return x @ x"),
        ("pair", "return x, x"),
    ):
        with open(f"{name}.py", "w") as file:
            file.write(f"def operator(x):\n    {body}\n")
    with open("syntax.py", "w") as file:
        file.write("def operator(x) return x")
    with open("empty.py", "w") as file:
        file.write("")


OWN = dict(mask=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image="small.png"), "expected 6x4 pixels of mode L .*, got 6x3 of mode L; convert"),
        (dict(image="rgb.png"), "of mode L .*got 6x4 of mode RGB"),
        (dict(image="alpha.png"), "got 6x4 of mode RGBA"),
        (dict(image="deep.png"), "got 6x4 of mode I;16"),
        (dict(image="broken.png"), "not a whole PNG or JPEG image"),
        (dict(image="imaeg.png"), "config.guidance.image: no file imaeg.png .looked in"),
        (dict(image=None), "Give one of config.guidance.image"),
        (dict(observed="few.npy"), "Give one of config.guidance.image"),
        (dict(mask="small.png"), "config.guidance.mask = small.png: expected 6x4"),
        (dict(mask="rgb.png"), "of mode 1 or L"),
        (dict(mask="gray.png"), r"white \(255\) .*found 127"),
        (dict(mask="all.png"), "all is known"),
        (dict(mask="none.png"), "nothing is known"),
        (dict(mask=None), "operator = 'mask' needs config.guidance.mask"),
        (dict(operator="gray"), "config.guidance.mask = 'mask.png' is not for .*'gray'"),
        (OWN | dict(operator="gray"), "gray needs images of 3 channels"),
        (OWN | dict(operator="blurr", width=1.0), "unknown config.guidance.operator 'blurr'"),
        (OWN | dict(operator="blur", width=-1.0), "blur.width must be positive"),
        (OWN | dict(operator="downsample", factor=5), "does not divide the 4 x 6 pixels"),
        (OWN | dict(operator="random", measurements=25), "must lie in 1 .. 24"),
        (OWN | dict(operator="affine.py"), "forward must be linear"),
        (OWN | dict(operator="square.py"), "forward must be linear"),
        (OWN | dict(operator="stopped.py"), "gradient is not its own"),
        (OWN | dict(operator="fails.py"), "cannot be applied to an example of shape"),
        (OWN | dict(operator="syntax.py"), "SyntaxError"),
        (OWN | dict(operator="empty.py"), "expected a function operator"),
        (OWN | dict(operator="gone.py"), "no such file .*expected a Python file with operator"),
        (dict(image=None, observed="few.npy"), "must agree"),
        (dict(image=None, observed="nan.npy"), "real and finite"),
        (dict(image=None, observed="text.npy"), "not a readable .npy file"),
        (dict(image=None, observed="gone.npy"), "no file gone.npy"),
    ],
)
def test_what_does_not_fit_is_refused_with_one_message(changes, message):
    bad_files()
    with pytest.raises(UserError, match=message):
        known(options(**changes), SHAPE, ENCODING)


def test_points_have_no_images():
    np.save("y.npy", np.zeros(1))
    with pytest.raises(UserError, match="is an image, and the data are points"):
        known(options(mask=None, operator="random", measurements=1), (2,), ENCODING)
    with pytest.raises(UserError, match="is for images, and the data are points"):
        known(options(image=None, observed="y.npy", mask=None, operator="gray"), (2,), ENCODING)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(weight=-1.0), "config.guidance.weight must be at least 0"),
        (dict(by="clas", weight=1.0), "Did you mean 'class'"),
        (dict(weight=1.0, interval=(2.0, 1.0)), "with 0 <= low < high"),
        (dict(weight=1.0, interval=(1.0,)), "with 0 <= low < high"),
        (dict(interval=(0.0, 1.0)), "is of guidance, and config.guidance.weight = 0 is none"),
        (dict(rescale=0.5), "config.guidance.weight = 0 is none"),
        (dict(by="classifier"), "config.guidance.weight = 0 is none"),
        (dict(weight=1.0, rescale=1.5), r"rescale must be in \[0, 1\]"),
        (dict(weight=1.0, by="weaker"), "needs the weaker network"),
        (dict(weight=1.0, run="runs/x"), "are the weaker network's"),
        (dict(weight=1.0, by="classifier", rescale=0.5), "has none to bring the deviation back"),
        (dict(noise=-0.1), "config.guidance.noise must be at least 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Guidance(**changes)
