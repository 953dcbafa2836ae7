"""Inception-v3 as FID's: the published network's answers, the graph's resize, the user's file.

tests/golden/inception.npz holds what torch-fidelity 0.4.0's FeatureExtractorInceptionV3 answered
("2048" and "logits_unbiased") to `image(shape)` for the SHAPES, with weights `goldens.he`.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import FOLDER, fill, he, relative_error
from jax.extend.core import jaxprs_in_params
from safetensors.numpy import save_file

from score_jax.errors import UserError
from score_jax.evaluation import inception, inception_weights
from score_jax.evaluation.inception import Inception, inception_features, resize, scaled
from score_jax.evaluation.inception_weights import NAME, SHA256, expected_shapes, read_inception

SHAPES = [(8, 8, 1), (32, 32, 3), (64, 64, 3), (320, 300, 3)]


def image(shape):
    noise = fill(f"image {shape}", shape) * np.sqrt(np.prod(shape[1:]))
    return np.clip(np.rint(110.0 + 60.0 * noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def tensors():
    return {name: he(name, shape) for name, shape in expected_shapes().items()}


@pytest.fixture(scope="module")
def file(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "w.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def weights(file):
    return read_inception(file)


@pytest.fixture(scope="module")
def published():
    with np.load(FOLDER / "inception.npz", allow_pickle=False) as answers:
        return dict(answers)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_and_logits_are_the_published_network_s(shape, weights, published):
    found = inception_features(weights.params, image(shape)[None])
    i = SHAPES.index(shape)
    assert relative_error(found.features[0], published["features"][i]) < 1e-5
    assert relative_error(found.logits[0], published["logits"][i]) < 1e-5


@pytest.mark.parametrize("antialias", [False, True])
def test_another_resize_would_be_noticed(antialias, weights, published, monkeypatch):
    """Pixels centered at i + 1/2, as everywhere today, with and without averaging."""
    centered = lambda x, n: jax.image.resize(x, (n, n, x.shape[-1]), "linear", antialias=antialias)
    monkeypatch.setattr(inception, "resize", centered)
    monkeypatch.setattr(inception, "_show", inception._show.__wrapped__)
    for shape, expected in zip(SHAPES, published["features"]):
        found = inception_features(weights.params, image(shape)[None])
        assert relative_error(found.features[0], expected) > 1e-3


def test_neither_batch_size_nor_padding_nor_gray_change_an_answer(weights, published):
    upright = image((8, 8, 1))
    gray = np.stack([upright, upright[::-1], upright])
    found = inception_features(weights.params, gray, batch=2)
    assert found.features.shape == (3, 2048) and found.logits.shape == (3, 1008)
    for i in (0, 2):
        assert relative_error(found.features[i], published["features"][0]) < 1e-5
    alone = inception_features(weights.params, np.repeat(gray[1:2], 3, -1))
    assert relative_error(found.features[1], alone.features[0]) < 1e-5
    assert relative_error(found.features[1], found.features[0]) > 0.01


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8),
               np.zeros((2, 8, 8, 4), np.uint8)],
)  # fmt: skip
def test_what_is_no_batch_of_8_bit_images_is_refused(images):
    with pytest.raises(ValueError, match="uint8 images"):
        inception_features(None, images)


def test_every_product_is_computed_in_full_precision():
    """A GPU would else round its factors to 10 bits, a TPU to 7."""
    x = jnp.zeros((1, 299, 299, 3))
    params = jax.eval_shape(lambda: Inception().init(jax.random.key(0), x))
    products = [
        equation.params["precision"]
        for fn, args in ((Inception().apply, (params, x)), (scaled, (jnp.zeros((8, 8, 3)),)))
        for equation in jax.make_jaxpr(fn)(*args).eqns
        for equation in _within(equation)
        if equation.primitive.name in ("conv_general_dilated", "dot_general")
    ]
    assert len(products) == 94 + 1 + 2
    assert set(products) == {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}


def _within(equation):
    """The equation and those of the programs that it calls."""
    yield equation
    for inner in jaxprs_in_params(equation.params):
        for other in inner.eqns:
            yield from _within(other)


@pytest.mark.parametrize("shape", [(5, 7), (20, 13), (1, 3), (11, 11)], ids=str)
def test_resize_is_tensorflow_s_pixel_by_pixel(shape):
    x = np.random.default_rng(0).uniform(0, 255, (*shape, 2))
    size, expected = 11, np.empty((11, 11, 2))
    for i in range(size):
        for j in range(size):
            s, t = i * shape[0] / size, j * shape[1] / size
            k, n = int(s), int(t)
            below, right = min(k + 1, shape[0] - 1), min(n + 1, shape[1] - 1)
            top = x[k, n] + (x[k, right] - x[k, n]) * (t - n)
            bottom = x[below, n] + (x[below, right] - x[below, n]) * (t - n)
            expected[i, j] = top + (bottom - top) * (s - k)
    np.testing.assert_allclose(resize(jnp.float32(x), size), expected, atol=255 * 2e-6)


@pytest.mark.parametrize("n", [8, 32, 299, 500])
def test_resize_keeps_a_constant_and_puts_pixel_i_of_a_ramp_at_i(n):
    """The ramp ends where the image does: its last pixel is repeated."""
    np.testing.assert_allclose(resize(jnp.full((n, 4, 1), 77.0), 299), 77.0, rtol=1e-6)
    ramp = jnp.broadcast_to(jnp.arange(n, dtype=jnp.float32)[:, None, None], (n, n, 1))
    expected = np.minimum(np.arange(299) * n / 299, n - 1)
    for picture in (resize(ramp, 299)[:, 5, 0], resize(ramp.swapaxes(0, 1), 299)[5, :, 0]):
        np.testing.assert_allclose(picture, expected, atol=n * 1e-6)


def test_bytes_are_shown_as_the_graph_scales_them():
    for byte, value in ((0, -1.0), (128, 0.0), (255, 127 / 128)):
        shown = scaled(jnp.full((4, 4, 1), byte, jnp.uint8))
        assert shown.shape == (299, 299, 3)
        np.testing.assert_allclose(shown, value, atol=1e-6)


def test_the_weights_are_as_many_as_published(tensors, weights):
    convolutions = sum(name.endswith("conv.weight") for name in tensors)
    assert convolutions == 94 and len(tensors) + convolutions == 566  # num_batches_tracked
    trained = [w.size for name, w in tensors.items() if "running" not in name]
    assert sum(trained) == 23_850_960
    # Folded: of scale and offset of each of 17,216 channels the offset is left; no bias at the end.
    assert sum(w.size for w in jax.tree.leaves(weights.params)) == 23_850_960 - 17_216 - 1008


def test_a_converted_file_is_read_but_not_called_published(weights):
    assert not weights.published and len(weights.sha256) == 64


def test_the_published_form_holds_the_same(tensors, weights, tmp_path, monkeypatch):
    """A stream of PyTorch as it was before archives, with the counters that are not needed."""
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(w) for name, w in tensors.items()}
    state |= {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(0)
        for name in tensors
        if name.endswith("running_var")
    }
    assert len(state) == 566
    path = tmp_path / NAME
    torch.save(state, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="not the published weights.*6726825d"):
        read_inception(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception_weights, "SHA256", digest)
    found = read_inception(path)
    assert found.published and found.sha256 == weights.sha256
    jax.tree.map(np.testing.assert_array_equal, found.params, weights.params)


def test_a_torch_file_of_other_bytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(b"half a download")
    with pytest.raises(UserError, match=f"{NAME}: not the published weights.*{SHA256}, got "):
        read_inception(path)


def test_a_missing_file_is_said_with_where_to_get_it_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        read_inception()
    told = str(error.value)
    for word in (str(tmp_path / "score_jax" / NAME), SHA256, "pytorch-fid", "fid_weights"):
        assert word in told
    assert "config.evaluation.inception=" in told and "features=none, or classifier" in told
    with pytest.raises(UserError, match="elsewhere.pth"):
        read_inception(tmp_path / "elsewhere.pth")


def test_the_file_in_the_cache_is_found(file, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "score_jax").mkdir()
    (tmp_path / "score_jax" / NAME).write_bytes(b"published, for those who have PyTorch")
    with pytest.raises(UserError, match="not the published weights"):
        read_inception()
    (tmp_path / "score_jax" / NAME).with_suffix(".safetensors").symlink_to(file)
    assert read_inception().sha256 == weights.sha256


def test_a_truncated_file_is_refused_by_name(file, tmp_path):
    path = tmp_path / "half.safetensors"
    path.write_bytes(file.read_bytes()[:1_000_000])
    with pytest.raises(UserError, match="half.safetensors: damaged"):
        read_inception(path)


def test_all_tensors_that_do_not_fit_are_listed(tensors, tmp_path):
    """As of torchvision's network, which has 1000 classes and other names."""
    path = tmp_path / "other.safetensors"
    others = {"fc.weight": np.zeros((1000, 2048), np.float32), "fc.bias": np.zeros(1008, int)}
    first, *rest = sorted(tensors)
    save_file({name: tensors[name] for name in rest} | others, path)
    with pytest.raises(UserError) as error:
        read_inception(path)
    told = str(error.value)
    assert f"missing: {first};" in told and "fc.weight float32 (1000, 2048), not" in told
    assert "fc.bias int64 (1008,), not float32 (1008,)" in told and "Mixed" not in told


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_weights_that_are_no_numbers_are_refused(value, tensors, tmp_path):
    """A variance below zero has no square root."""
    path = tmp_path / "nan.safetensors"
    name = "Mixed_6c.branch7x7_2.bn.running_var"
    save_file(tensors | {name: np.full_like(tensors[name], value)}, path)
    with pytest.raises(UserError, match="damaged: not finite in Mixed_6c.branch7x7_2.bias"):
        read_inception(path)
