"""Files of weights: read for what they are, or refused with one message; nothing in them runs."""

import json
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from safetensors.numpy import save_file

from score_jax.errors import UserError
from score_jax.tensors import read

TENSORS = {
    "stem.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "stem.bias": np.ones(3, np.float32),
}


class Bomb:
    """What runs code when it is unpickled: it would write the file `went_off`."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return exec, (f"open({str(self.folder / 'went_off')!r}, 'w').close()",)


def written(path):
    """TENSORS in the form that the path's suffix says."""
    if path.suffix == ".safetensors":
        save_file(TENSORS, path)
    elif path.suffix == ".npz":
        np.savez(path, **TENSORS)
    else:
        path.write_bytes(msgpack_serialize(TENSORS))
    return path


FORMS = ("w.safetensors", "w.npz", "w.msgpack", "checkpoint_26")


@pytest.mark.parametrize("name", FORMS)
def test_what_was_written_is_read(name, tmp_path):
    found = read(written(tmp_path / name))
    assert set(found) == set(TENSORS)
    for key, value in TENSORS.items():
        np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused_by_name(name, share, tmp_path):
    path = written(tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=name) as error:
        dict(read(path))
    assert "damaged" in str(error.value)


@pytest.mark.parametrize("name", [*FORMS, "w.pth", "w.bin"])
def test_a_foreign_file_is_refused_by_name(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    with pytest.raises(UserError, match=name):
        dict(read(path))


@pytest.mark.parametrize(
    "name", ["w.pkl", "w.pickle", "w.pth", "w.pt", "w.bin", "w.npz", "weights"]
)
def test_a_pickle_bomb_does_not_go_off(name, tmp_path):
    path = tmp_path / name
    with open(path, "wb") as file:
        pickle.dump({"stem.weight": Bomb(tmp_path)}, file)
    with pytest.raises(UserError, match=name):
        dict(read(path))
    assert not (tmp_path / "went_off").exists()


@pytest.mark.parametrize("name", ["w.pth", "checkpoint_3", "w.npz"])
def test_a_bomb_in_an_archive_does_not_go_off(name, tmp_path):
    """As torch.save and np.savez with objects would make it."""
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, weight=np.array([Bomb(tmp_path)], dtype=object))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb(tmp_path), protocol=2))
            archive.writestr("archive/version", "3\n")
    with pytest.raises(UserError, match=name):
        dict(read(path))
    assert not (tmp_path / "went_off").exists()


def test_an_archive_that_holds_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("score_jax.limits.memory", lambda: 2**20)
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=np.zeros(2**20, np.float32))
    assert path.stat().st_size < 2**14
    with pytest.raises(UserError, match="w.npz need .* of memory"):
        dict(read(path))


def test_a_header_that_claims_what_is_not_there_is_refused(tmp_path):
    header = {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(UserError, match="w.safetensors"):
        read(path)


@pytest.mark.parametrize("name", ["nothing.safetensors", "a/folder", ""])
def test_a_file_that_is_not_there_is_said_so(name, tmp_path):
    with pytest.raises(UserError, match="no file"):
        read(tmp_path / name)


def test_without_torch_its_files_are_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "w.pth"
    path.write_bytes(b"anything")
    with pytest.raises(UserError, match=r"score_jax\[torch\]"):
        read(path)


def test_a_torch_checkpoint_is_read_when_torch_is_installed(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "checkpoint_1.pth"
    ema = {"shadow_params": [torch.zeros(2)]}
    nested = {"model": {"w": torch.ones(2, 3)}, "ema": ema, "step": 7}
    torch.save(nested, path)
    found = read(path)
    np.testing.assert_array_equal(found["model"]["w"], np.ones((2, 3)))
    assert found["ema"]["shadow_params"][0].shape == (2,) and found["step"] == 7
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="checkpoint_1.pth"):
        read(path)
