"""TFDS images without TensorFlow: the official builders, on archives served on this machine."""

import gzip
import hashlib
import http.server
import io
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import lazy_imports_utils
from tensorflow_datasets.image_classification import cifar, mnist

from score_jax.data import tfds as ours
from score_jax.data import tfds_without_tf
from score_jax.data.tfds import tfds_images
from score_jax.errors import UserError

CIFAR = "cifar-10-binary.tar.gz"


def random_images(seed, count, shape):
    """count images and labels, no two images alike."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, 10, count, np.uint8)


def pairs(images, labels):
    """What a set of labeled images holds, whatever its order."""
    return sorted((np.asarray(x).tobytes(), int(y)) for x, y in zip(images, labels, strict=True))


def cifar_archive(train, test):
    """The official archive, but small: rows of one label byte and 3 x 32 x 32 pixel bytes."""

    def rows(images, labels):
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return np.concatenate([labels[:, None], flat], axis=1).tobytes()

    files = {"batches.meta.txt": "\n".join(f"class {i}" for i in range(10)).encode() + b"\n\n"}
    for k in range(5):
        files[f"data_batch_{k + 1}.bin"] = rows(train[0][k::5], train[1][k::5])
    files["test_batch.bin"] = rows(*test)
    members = {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}
    members["../../../escaped.txt"] = b"written outside"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


class Server:
    """Serves `files` on 127.0.0.1 and notes the paths of what it is asked for."""

    def __init__(self):
        self.files, self.asked = {}, []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                content = server.files.get(self.path.lstrip("/"))
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if self.command == "GET" and content:
                    self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def dirs(tmp_path):
    return {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache")}


def register(monkeypatch, builder, url, files):
    """Makes the contents of files the ones whose checksums the builder knows."""
    infos = {
        url + name: UrlInfo(
            size=tfds.core.utils.Size(len(content)),
            checksum=hashlib.sha256(content).hexdigest(),
            filename=name,
        )
        for name, content in files.items()
    }
    monkeypatch.setattr(builder, "url_infos", infos)


def official_cifar10_at(monkeypatch, url, archive):
    """Leaves the official CIFAR-10 builder as it is but for the address and the checksum."""
    info = cifar.Cifar10._cifar_info.fget(tfds.builder("cifar10"))
    moved = property(lambda self: info._replace(url=url + CIFAR))
    monkeypatch.setattr(cifar.Cifar10, "_cifar_info", moved)
    register(monkeypatch, cifar.Cifar10, url, {CIFAR: archive})


@pytest.fixture
def small_cifar10(monkeypatch, server):
    """A server of a small CIFAR-10; returns its training and its test images and labels."""
    with monkeypatch.context() as patch:
        train, test = random_images(0, 23, (32, 32, 3)), random_images(1, 7, (32, 32, 3))
        server.files[CIFAR] = cifar_archive(train, test)
        official_cifar10_at(patch, server.url, server.files[CIFAR])
        yield train, test


def no_tensorflow():
    """Neither TensorFlow nor anything in its place is left."""
    return "tensorflow" not in sys.modules and "_module" not in vars(lazy_imports_utils.tensorflow)


def test_cifar10_is_prepared_from_its_archive_without_tensorflow(small_cifar10, server, dirs):
    train, test = small_cifar10
    data = tfds_images(dataset="cifar10", **dirs)
    assert data.examples.shape == (23, 32, 32, 3) and data.examples.dtype == np.uint8
    assert data.labels.dtype == np.int32
    assert pairs(data.examples, data.labels) == pairs(*train)
    data = tfds_images(dataset="cifar10", split="test", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*test)
    assert f"/{CIFAR}" in server.asked
    assert no_tensorflow()


def test_mnist_is_prepared_from_its_four_files_without_tensorflow(monkeypatch, server, dirs):
    train, test = random_images(2, 11, (28, 28, 1)), random_images(3, 5, (28, 28, 1))
    server.files.update(
        {
            "train-images-idx3-ubyte.gz": idx(train[0][..., 0]),
            "train-labels-idx1-ubyte.gz": idx(train[1]),
            "t10k-images-idx3-ubyte.gz": idx(test[0][..., 0]),
            "t10k-labels-idx1-ubyte.gz": idx(test[1]),
        }
    )
    monkeypatch.setattr(mnist.MNIST, "URL", server.url)
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 11)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 5)
    register(monkeypatch, mnist.MNIST, server.url, server.files)
    for split, expected in {"train": train, "test": test}.items():
        data = tfds_images(dataset="mnist", split=split, **dirs)
        assert data.examples.shape[1:] == (28, 28, 1)
        assert pairs(data.examples, data.labels) == pairs(*expected)
    assert no_tensorflow()


def test_a_data_set_beyond_the_memory_for_shuffling_is_prepared(small_cifar10, dirs, monkeypatch):
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    data = tfds_images(dataset="cifar10", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*small_cifar10[0])


def test_a_process_that_is_overtaken_uses_what_the_other_has_prepared(
    small_cifar10, dirs, monkeypatch, tmp_path
):
    tfds_images(dataset="cifar10", data_dir=str(tmp_path / "faster"), cache_dir=dirs["cache_dir"])
    split_generators = cifar.Cifar10._split_generators

    def overtaken(builder, downloads):
        target = Path(dirs["data_dir"]) / "cifar10"
        shutil.copytree(tmp_path / "faster" / "cifar10", target, dirs_exist_ok=True)
        return split_generators(builder, downloads)

    monkeypatch.setattr(cifar.Cifar10, "_split_generators", overtaken)
    data = tfds_images(dataset="cifar10", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*small_cifar10[0])
    assert len(half_prepared(dirs["data_dir"])) == 1


def test_a_member_that_points_outside_its_archive_is_not_written(small_cifar10, dirs, tmp_path):
    tfds_images(dataset="cifar10", **dirs)
    assert not list(tmp_path.parent.rglob("escaped.txt"))


def test_a_second_call_reads_the_cache_alone(small_cifar10, server, dirs, monkeypatch):
    first = tfds_images(dataset="cifar10", **dirs)
    asked = list(server.asked)
    monkeypatch.setattr(ours, "_decode", lambda *_: pytest.fail("decoded again"))
    second = tfds_images(dataset="cifar10", **dirs)
    assert server.asked == asked
    np.testing.assert_array_equal(first.examples, second.examples)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_a_cached_array_that_was_cut_short_is_decoded_again(small_cifar10, dirs):
    tfds_images(dataset="cifar10", **dirs)
    for path in Path(dirs["cache_dir"]).rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-1])
    data = tfds_images(dataset="cifar10", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*small_cifar10[0])


def test_a_slice_of_a_split_is_its_beginning(small_cifar10, dirs):
    whole = tfds_images(dataset="cifar10", **dirs)
    part = tfds_images(dataset="cifar10", split="train[:9]", **dirs)
    np.testing.assert_array_equal(part.examples, whole.examples[:9])
    np.testing.assert_array_equal(part.labels, whole.labels[:9])


@pytest.mark.parametrize("place", ["another data_dir", "the same data_dir"])
def test_the_cache_of_other_images_under_the_same_name_is_not_used(
    place, small_cifar10, dirs, monkeypatch, server
):
    tfds_images(dataset="cifar10", **dirs)
    if place == "another data_dir":
        dirs["data_dir"] += "2"
    else:
        shutil.rmtree(dirs["data_dir"])
    other = random_images(4, 23, (32, 32, 3))
    server.files[CIFAR] = cifar_archive(other, small_cifar10[1])
    register(monkeypatch, cifar.Cifar10, server.url, {CIFAR: server.files[CIFAR]})
    data = tfds_images(dataset="cifar10", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*other)


def test_preparing_prints_nothing_where_no_terminal_watches(small_cifar10, dirs, capfd):
    tfds_images(dataset="cifar10", **dirs)
    assert capfd.readouterr() == ("", "")


# --- downloads that fail -----------------------------------------------------------------


def half_prepared(data_dir):
    """What would be taken for a data set, or for one in the making."""
    return list(Path(data_dir).glob("cifar10/*"))


def test_a_wrong_checksum_is_refused_and_leaves_nothing(small_cifar10, server, dirs):
    wrong = random_images(5, 23, (32, 32, 3))
    right, server.files[CIFAR] = server.files[CIFAR], cifar_archive(wrong, small_cifar10[1])
    with pytest.raises(UserError, match="wrong checksum"):
        tfds_images(dataset="cifar10", **dirs)
    assert not half_prepared(dirs["data_dir"])
    assert not Path(dirs["cache_dir"]).exists()
    server.files[CIFAR] = right
    data = tfds_images(dataset="cifar10", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*small_cifar10[0])


def test_a_missing_file_on_the_server_is_reported_with_its_code(small_cifar10, server, dirs):
    server.files.clear()
    with pytest.raises(UserError, match="404"):
        tfds_images(dataset="cifar10", **dirs)
    assert not half_prepared(dirs["data_dir"])


def test_a_refused_connection_names_the_url_and_the_places_that_help(small_cifar10, server, dirs):
    server.stop()
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        tfds_images(dataset="cifar10", **dirs)
    assert time.monotonic() - start < 10
    data_dir = Path(dirs["data_dir"])
    version = str(cifar.Cifar10.VERSION)
    for part in [
        server.url + CIFAR,
        f"at {data_dir / 'cifar10' / version}\n",
        f"{CIFAR} into {data_dir / 'downloads' / 'manual'}\n",
        "configs/ncsn_digits.py",
        "configs/ddpm_mnist.py",
    ]:
        assert part in str(caught.value)
    assert not half_prepared(dirs["data_dir"])
    assert no_tensorflow()


def test_a_file_put_where_the_message_says_is_used_and_checked(small_cifar10, server, dirs):
    server.stop()
    with pytest.raises(UserError) as caught:
        tfds_images(dataset="cifar10", **dirs)
    folder = Path(re.search(rf"{CIFAR} into (.*)", str(caught.value))[1])
    folder.mkdir(parents=True)
    (folder / CIFAR).write_bytes(b"something else")
    with pytest.raises(UserError, match="wrong checksum"):
        tfds_images(dataset="cifar10", **dirs)
    (folder / CIFAR).write_bytes(server.files[CIFAR])
    data = tfds_images(dataset="cifar10", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*small_cifar10[0])


def test_a_copy_put_where_the_message_says_is_used(small_cifar10, server, dirs, tmp_path):
    tfds_images(dataset="cifar10", data_dir=str(tmp_path / "other"), cache_dir=dirs["cache_dir"])
    server.stop()
    with pytest.raises(UserError) as caught:
        tfds_images(dataset="cifar10", **dirs)
    place = re.search(r"\(array_record\) from another machine at (.*)", str(caught.value))[1]
    shutil.copytree(tmp_path / "other" / "cifar10" / Path(place).name, place)
    data = tfds_images(dataset="cifar10", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*small_cifar10[0])


def test_a_host_that_never_answers_is_given_up_soon(small_cifar10, dirs, monkeypatch):
    monkeypatch.setattr(tfds_without_tf, "_ANSWER_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        official_cifar10_at(monkeypatch, url, b"")
        start = time.monotonic()
        with pytest.raises(UserError, match="no answer|timed out"):
            tfds_images(dataset="cifar10", **dirs)
        assert time.monotonic() - start < 5
    assert not half_prepared(dirs["data_dir"])


# --- what the user may get wrong ---------------------------------------------------------


def test_an_unknown_name_is_met_with_a_few_near_ones(dirs):
    with pytest.raises(UserError, match="no data set 'cifr10'.*'cifar10'") as caught:
        tfds_images(dataset="cifr10", **dirs)
    assert len(re.findall("'", str(caught.value))) <= 2 * 6


def test_an_unknown_split_is_met_with_the_splits(small_cifar10, dirs):
    with pytest.raises(UserError, match="'trian'; known: test, train. Did you mean 'train'"):
        tfds_images(dataset="cifar10", split="trian", **dirs)


@pytest.mark.parametrize("dataset", ["mnist:0.0.7", "emnist/nosuch", "huggingface:mnist", ""])
def test_a_name_that_cannot_be_opened_is_a_user_error(dataset, dirs):
    with pytest.raises(UserError, match=re.escape(repr(dataset))):
        tfds_images(dataset=dataset, **dirs)


def test_a_data_set_without_images_is_refused_before_its_download(dirs):
    with pytest.raises(UserError, match="ag_news_subset has no feature 'image'.*label"):
        tfds_images(dataset="ag_news_subset", **dirs)
    assert not Path(dirs["data_dir"]).exists()


def test_a_tfrecord_directory_is_refused_with_the_way_out(small_cifar10, dirs, tmp_path):
    tfds_images(dataset="cifar10", **dirs)
    prepared = Path(dirs["data_dir"]) / "cifar10" / str(cifar.Cifar10.VERSION)
    info = json.loads((prepared / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (prepared / "dataset_info.json").write_text(json.dumps(info))
    for path in prepared.glob("*array_record*"):
        path.rename(prepared / path.name.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="tfrecord form, which needs TensorFlow; name another"):
        tfds_images(dataset="cifar10", **dirs)
    dirs["data_dir"] = str(tmp_path / "another")
    data = tfds_images(dataset="cifar10", **dirs)
    assert pairs(data.examples, data.labels) == pairs(*small_cifar10[0])


def test_a_directory_without_its_description_is_not_taken_for_a_data_set(small_cifar10, dirs):
    (Path(dirs["data_dir"]) / "cifar10" / str(cifar.Cifar10.VERSION)).mkdir(parents=True)
    with pytest.raises(UserError, match="not a complete data set"):
        tfds_images(dataset="cifar10", **dirs)


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_damaged_file_of_a_prepared_data_set_is_a_user_error(damage, small_cifar10, dirs):
    tfds_images(dataset="cifar10", split="test", **dirs)
    (path,) = Path(dirs["data_dir"]).glob("cifar10/*/*train*")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(UserError, match="is damaged.*delete it"):
        tfds_images(dataset="cifar10", **dirs)


def test_a_cache_that_cannot_be_written_is_a_user_error(small_cifar10, dirs):
    Path(dirs["cache_dir"]).write_text("a file")
    with pytest.raises(UserError, match="name another cache_dir"):
        tfds_images(dataset="cifar10", **dirs)


def test_a_cache_without_enough_room_is_a_user_error(small_cifar10, dirs, monkeypatch):
    usage = SimpleNamespace(free=23 * 32 * 32 * 3 - 1)
    tfds_images(dataset="cifar10", data_dir=dirs["data_dir"], cache_dir=dirs["cache_dir"] + "2")
    monkeypatch.setattr(ours.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="make room"):
        tfds_images(dataset="cifar10", **dirs)


# --- other data sets, made here ----------------------------------------------------------


class _Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of the `images` of its class, given as arrays: TFDS is to encode them."""

    VERSION = tfds.core.Version("1.0.0")
    image = tfds.features.Image(shape=(None, None, 3))

    def _info(self):
        features = tfds.features.FeaturesDict({"image": self.image})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, image in enumerate(self.images):
            yield i, {"image": image}


RED = np.broadcast_to(np.uint8([200, 30, 60]), (16, 16, 3))


class MadeUnequal(_Made):
    images = [RED, RED[:8]]


class MadeJpeg(_Made):
    image = tfds.features.Image(shape=(16, 16, 3), encoding_format="jpeg")
    images = [RED]


class MadeDeep(_Made):
    image = tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)
    images = []


class MadeWithTensors(_Made):
    def _split_generators(self, dl_manager):
        return {"train": lazy_imports_utils.tensorflow.data.TFRecordDataset("x")}


def test_images_of_unequal_size_are_refused_with_the_way_out(dirs):
    with pytest.raises(UserError, match=r"differ in size.*image-folder data set, which crops"):
        tfds_images(dataset="made_unequal", **dirs)
    assert not list(Path(dirs["cache_dir"]).rglob("*.npy"))


def test_arrays_are_encoded_as_jpeg_where_the_builder_says_so(dirs):
    data = tfds_images(dataset="made_jpeg", **dirs)
    assert data.labels is None
    # One color in YCbCr of 8 bits is that color to a rounding; channels in another order are not.
    assert np.abs(data.examples[0].astype(int) - RED).max() <= 2
    stored = b"".join(p.read_bytes() for p in Path(dirs["data_dir"]).rglob("*.array_record*"))
    assert b"JFIF" in stored


def test_images_of_sixteen_bits_are_refused(dirs):
    with pytest.raises(UserError, match="must be uint8 with 1 or 3 channels, they are uint16"):
        tfds_images(dataset="made_deep", **dirs)


def test_a_builder_that_needs_more_of_tensorflow_says_so(dirs):
    with pytest.raises(UserError, match="TensorFlow is not installed.*does not supply 'data'"):
        tfds_images(dataset="made_with_tensors", **dirs)
    assert no_tensorflow()


def test_importing_our_module_imports_no_tfds():
    code = "import sys, score_jax.data.tfds; sys.exit('tensorflow_datasets' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
