"""Files that are no whole images: refused by name, before they can do harm."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from score_jax.data.folder import folder
from score_jax.errors import UserError


def refusal(call, *args, **options):
    with pytest.raises(UserError) as error:
        call(*args, **options)
    return str(error.value)


def encoded(kind):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_cut_short_is_refused_by_name(tmp_path, kind):
    content, path = encoded(kind), tmp_path / "cut.png"
    for length in (0, 1, 8, 20, 40, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:length])
        message = refusal(folder, path=str(tmp_path), size=4)
        assert str(path) in message and "not a whole PNG, JPEG or WebP" in message, length


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_image_is_read_or_refused_and_never_a_crash(tmp_path, kind):
    content, path = encoded(kind), tmp_path / "damaged.png"
    for at in range(0, len(content), 17):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :])
        try:
            folder(path=str(tmp_path), size=4)
        except UserError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("content", [b"just a text", b"GIF89a", b"%!PS-Adobe-3.0\nshowpage\n"])
def test_a_file_that_only_calls_itself_an_image_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert "not a whole PNG, JPEG or WebP" in refusal(folder, path=str(tmp_path), size=4)


def test_an_image_of_another_kind_is_refused_whatever_its_name(tmp_path):
    """Only three of Pillow's many decoders are ever fed."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", "BMP")
    assert "not a whole PNG, JPEG or WebP" in refusal(folder, path=str(tmp_path), size=4)


def test_16_bit_gray_is_refused_because_pillow_would_clip_it(tmp_path):
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    for channels in (1, 3):
        message = refusal(folder, path=str(tmp_path), size=4, channels=channels)
        assert "a.png" in message and "8 bits" in message


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(folder.__globals__, "MAX_PIXELS", 35)
    Image.new("L", (5, 7)).save(tmp_path / "a.png")
    assert len(folder(path=str(tmp_path), size=2).examples) == 1
    Image.new("L", (6, 6)).save(tmp_path / "b.png")
    message = refusal(folder, path=str(tmp_path), size=2)
    assert "b.png" in message and "6x6" in message and "35 pixels" in message


def test_an_image_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path):
    """A PNG of 60 bytes that claims 900 million pixels."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "bomb.png").write_bytes(bomb + chunk(b"IEND", b""))
    message = refusal(folder, path=str(tmp_path), size=2)
    assert "bomb.png" in message and "pixels" in message
