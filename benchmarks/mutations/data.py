"""Data files and folders gone wrong, in every way that we could think of."""

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from PIL import Image

from benchmarks.mutations.configs import Config, on_images, on_points

# --- data gone wrong ---------------------------------------------------------------------


class Link(NamedTuple):
    """A symbolic link in place of a file."""

    target: str


class Data(NamedTuple):
    """A file or folder of data gone wrong.

    what: in words. files: {path: bytes, or a Link; None for an empty folder}. section: the
    config's data section. refused: whether it must be; else it may as well be read.
    """

    what: str
    files: Mapping[Any, bytes | Link | None]
    section: dict[str, Any]
    refused: bool = False


MARK = "unpickled"  # the folder that a pickle in these data makes where it is loaded


class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (MARK,)


def npy(x: ArrayLike, **options) -> bytes:
    """The array as a .npy file."""
    file = io.BytesIO()
    np.save(file, x, **options)
    return file.getvalue()


def npz(compressed: bool = False, /, **arrays: Any) -> bytes:
    """The arrays as a .npz file."""
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    """The members as a ZIP file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def claiming(shape: tuple[int, ...], dtype: str = "|u1", kind: str = "npy") -> bytes:
    """A file whose header claims this shape, with no more than a few bytes after it."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(117) + "\n"
    file = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
    return file if kind == "npy" else zipped(**{"x.npy": file})


def bomb(gigabytes: int = 3, name: str = "x.npy") -> bytes:
    """A ZIP file of a few megabytes whose one member, images of zeros, inflates to this many.

    Its deflated stream is one block of zeros, written again and again.
    """
    block, times = 2**24, gigabytes * 64
    header = claiming((times * block // 64, 8, 8, 1))[:-64]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = deflate.compress(header) + deflate.flush(zlib.Z_FULL_FLUSH)
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    repeated = zeros.compress(bytes(block)) + zeros.flush(zlib.Z_FULL_FLUSH)
    stream = start + repeated * times + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    size = len(header) + times * block
    crc = 0  # wrong, and not looked at before all has been inflated
    words = struct.pack("<IIIHH", crc, len(stream), size, len(name), 0)
    local = b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 0) + words + name.encode() + stream
    central = b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + words
    central += struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + b"PK\x05\x06" + end


def picture(mode: str = "RGB", kind: str = "PNG", size: int = 8, **options) -> bytes:
    """A small image file."""
    x = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    image = Image.fromarray(x).convert("L" if mode.startswith("I") else mode)
    image = image.convert(mode) if mode.startswith("I") else image
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def giant(side: int) -> bytes:
    """A PNG file whose header claims side x side pixels."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


POINTS = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
LABELS = np.arange(16) % 3
NPY, NPZ = (dict(name="array", path=f"data/x.{kind}") for kind in ("npy", "npz"))
FOLDER = dict(name="folder", path="data", size=8, channels=1)

SOUND = (
    Data("points", {"data/x.npy": npy(POINTS)}, NPY),
    Data("images", {"data/x.npy": npy(IMAGES)}, NPY),
    Data("images and labels", {"data/x.npz": npz(x=IMAGES, y=LABELS)}, NPZ),
    Data("deflated images", {"data/x.npz": npz(True, x=IMAGES, labels=LABELS)}, NPZ),
    Data("a folder of PNG", {f"data/{i}.png": picture() for i in range(3)}, FOLDER),
    Data("a folder of JPEG", {f"data/{i}.jpg": picture(kind="JPEG") for i in range(3)}, FOLDER),
)


def arrays_gone_wrong() -> list[Data]:
    """.npy and .npz files that are no data, or unusual data."""
    trapped = np.array([Trap()], object)
    bad = POINTS.copy()
    bad[3, 1] = np.nan
    structured = np.zeros(4, [("a", "f4"), ("b", "u1")])
    of_npy = {  # content: whether it must be refused
        "a pickled object array": (npy(trapped, allow_pickle=True), True),
        "a bare pickle": (pickle.dumps(Trap()), True),
        "an empty file": (b"", True),
        "two bytes": (b"\x93N", True),
        "a wrong magic": (b"\x93NUMPX" + npy(POINTS)[6:], True),
        "version 9": (npy(POINTS)[:6] + b"\x09\x00" + npy(POINTS)[8:], True),
        "a text": (b"1.0 2.0\n3.0 4.0\n", True),
        "a header of code": (npy(POINTS).replace(b"{'descr'", b"__import_"), True),
        "0-d": (npy(np.float32(3)), True),
        "1-d": (npy(POINTS[:, 0]), True),
        "5-d": (npy(IMAGES[None]), True),
        "no points": (npy(POINTS[:0]), True),
        "no dimensions": (npy(POINTS[:, :0]), True),
        "images without rows": (npy(IMAGES[:, :0]), True),
        "images of two channels": (npy(np.repeat(IMAGES, 2, -1)), True),
        "float images": (npy(IMAGES / 255.0), True),
        "int16 images": (npy(IMAGES.astype(np.int16)), True),
        "bool images": (npy(IMAGES > 9), True),
        "complex points": (npy(POINTS.astype(complex)), True),
        "whole-number points": (npy(POINTS.astype(int)), True),
        "points of strings": (npy(POINTS.astype(str)), True),
        "points of dates": (npy(POINTS.astype(int).astype("M8[D]")), True),
        "a structured array": (npy(structured), True),
        "a structured 2-d array": (npy(structured[:, None]), True),
        "big-endian points": (npy(POINTS.astype(">f8")), False),
        "half-precision points": (npy(POINTS.astype(np.float16)), False),
        "long double points": (npy(POINTS.astype(np.longdouble)), False),
        "points too large for float32": (npy(POINTS.astype(float) * 1e300), True),
        "huge points": (npy(POINTS * np.float32(1e37)), False),
        "Fortran order": (npy(np.asfortranarray(POINTS)), False),
        "a NaN": (npy(bad), True),
        "an infinity": (npy(np.where(np.isnan(bad), np.inf, bad)), True),
        "images without channels": (npy(IMAGES[..., 0]), False),
        "one point": (npy(POINTS[:1]), False),
        "one image": (npy(IMAGES[:1]), False),
        "odd images": (npy(IMAGES[:, :7, :5]), False),
        "images of one pixel": (npy(IMAGES[:, :1, :1]), False),
        "points in 1000 dimensions": (npy(np.ones((9, 1000), np.float32)), False),
        "a claimed petabyte": (claiming((10**15, 8, 8, 1)), True),
        "a claimed 9 GB": (claiming((9 * 2**24, 8, 8, 1)), True),
        "a claimed negative shape": (claiming((-1, 2), "<f4"), True),
        "a claimed overflow": (claiming((2**40, 2**40, 2), "<f4"), True),
        "a .npz under this name": (npz(x=POINTS), False),
    }
    of_npz = {
        "a pickled x": (npz(x=trapped), True),
        "pickled labels": (npz(x=POINTS[:1], y=trapped), True),
        "a bare pickle as x": (zipped(x=pickle.dumps(Trap())), True),
        "a bare pickle as x.npy": (zipped(**{"x.npy": pickle.dumps(Trap())}), True),
        "no key of ours": (npz(z=POINTS), True),
        "a thousand other keys": (npz(**{f"key_{i}": POINTS[:1] for i in range(1000)}), True),
        "no member": (zipped(), True),
        "labels of another length": (npz(x=IMAGES, y=LABELS[:3]), True),
        "negative labels": (npz(x=IMAGES, y=-LABELS), True),
        "float labels": (npz(x=IMAGES, y=LABELS / 2), True),
        "text labels": (npz(x=IMAGES, y=LABELS.astype(str)), True),
        "one-hot labels": (npz(x=IMAGES, y=np.eye(16, dtype=int)), True),
        "labels of 2^40": (npz(x=IMAGES, y=LABELS + 2**40), True),
        "a label without dimensions": (npz(x=IMAGES, y=3), True),
        "no labels at all": (npz(x=IMAGES), False),
        "a claimed petabyte inside": (claiming((10**15, 8, 8, 1), kind="npz"), True),
        "a zip bomb": (bomb(), True),
        "a zip bomb as labels": (npz(x=IMAGES)[:0] + bomb(name="y.npy"), True),
        "paths out of the archive": (zipped(**{"../../escaped.npy": npy(POINTS)}), True),
        "an absolute path": (zipped(**{"/absolute/x.npy": npy(POINTS)}), True),
        "x is a text": (zipped(x=b"1 2 3"), True),
        "a .npy under this name": (npy(POINTS), False),
        "rubbish after PK": (b"PK\x03\x04" + bytes(100), True),
        "an empty file": (b"", True),
    }
    made = [Data(f"npy: {w}", {"data/x.npy": c}, NPY, r) for w, (c, r) in of_npy.items()]
    made += [Data(f"npz: {w}", {"data/x.npz": c}, NPZ, r) for w, (c, r) in of_npz.items()]
    return [
        *made,
        Data("npy: a folder of this name", {"data/x.npy": None}, NPY, True),
        Data("npy: a link to nothing", {"data/x.npy": Link("nowhere")}, NPY, True),
        Data("npy: a link to itself", {"data/x.npy": Link("x.npy")}, NPY, True),
        Data("npy: a link to a file", {"a.npy": npy(POINTS), "data/x.npy": Link("../a.npy")}, NPY),
        Data("npy: an endless device", {"data/x.npy": Link("/dev/zero")}, NPY, True),
    ]


def folders_gone_wrong() -> list[Data]:
    """Folders of files that are no images, or unusual ones."""
    good: dict[Any, Any] = {"data/good.png": picture()}
    frames = [Image.new("L", (8, 8), level) for level in (0, 99, 200)]
    animated = io.BytesIO()
    frames[0].save(animated, "PNG", save_all=True, append_images=frames[1:])
    gif = io.BytesIO()
    frames[0].save(gif, "GIF")
    bad_crc = bytearray(picture())
    bad_crc[-13] ^= 255
    of_file = {
        "a text": (b"not an image", True),
        "nothing": (b"", True),
        "a GIF": (gif.getvalue(), True),
        "a TIFF": (picture(kind="TIFF"), True),
        "16-bit gray": (picture("I;16"), True),
        "a palette": (picture("P"), False),
        "one bit": (picture("1"), False),
        "gray": (picture("L"), False),
        "alpha": (picture("RGBA"), False),
        "gray and alpha": (picture("LA"), False),
        "an animation": (animated.getvalue(), False),
        "a damaged sum": (bytes(bad_crc), False),
        "a JPEG under this name": (picture(kind="JPEG"), False),
        "a CMYK JPEG": (picture("CMYK", "JPEG"), False),
        "a progressive JPEG": (picture(kind="JPEG", progressive=True), False),
        "a claimed 10^9 pixels": (giant(31623), True),
        "a claimed 10^8 pixels": (giant(9500), True),
        "a claimed 4 x 10^18 pixels": (giant(2**31 - 1), True),
        "no pixels": (giant(0), True),
        "one pixel": (picture(size=1), False),
        "a script": (b"#!/bin/sh\ntouch unpickled\n", True),
    }
    made = [
        Data(f"folder: {w}", good | {"data/odd.png": c}, FOLDER, r) for w, (c, r) in of_file.items()
    ]
    outside: dict[Any, Any] = {"outside/secret.png": picture()}
    only_links = {"data/link.png": Link("../outside/secret.png"), "data/more": Link("../outside")}
    classes = FOLDER | dict(by_class=True)
    huge = FOLDER | dict(size=10**6)
    return [
        *made,
        Data("folder: empty", {"data": None}, FOLDER, True),
        Data("folder: missing", {}, FOLDER, True),
        Data("folder: a file of this name", {"data": picture()}, FOLDER, True),
        Data("folder: no image in it", {"data/readme.txt": b"x"}, FOLDER, True),
        Data("folder: links out of it only", outside | only_links, FOLDER, True),
        Data("folder: links out of it too", good | outside | only_links, FOLDER),
        Data("folder: a link to itself", good | {"data/loop": Link(".")}, FOLDER),
        Data("folder: hidden files only", {"data/.a.png": picture()}, FOLDER, True),
        Data("folder: hidden files", good | {"data/._b.png": b"x", "data/.c/d.png": b"x"}, FOLDER),
        Data("folder: a folder named like an image", good | {"data/a.png/b.txt": b"x"}, FOLDER),
        Data("folder: unreadable names", {b"data/\xff\xfe.png": picture(), **good}, FOLDER),
        Data("folder: unreadable and bad", {b"data/\xff\xfe.png": b"x", **good}, FOLDER, True),
        Data("folder: newlines in names", {"data/a\nb.png": b"x"}, FOLDER, True),
        Data("folder: a very long name", {f"data/{'x' * 250}.png": b"x"}, FOLDER, True),
        Data("folder: far too large a size", good, huge, True),
        Data("folder: no classes", good, classes, True),
        Data("folder: classes", {f"data/{c}/a.png": picture() for c in "abc"}, classes),
        Data("folder: size 0", good, FOLDER | dict(size=0), True),
        Data("folder: two channels", good, FOLDER | dict(channels=2), True),
    ]


ODD = (*arrays_gone_wrong(), *folders_gone_wrong())


@st.composite
def mutated_data(draw) -> Data:
    """One of ODD, or sound data cut short or with a byte changed."""
    how = draw(st.sampled_from(("odd", "odd", "cut short", "changed")))
    if how == "odd":
        return draw(st.sampled_from(ODD))
    sound = draw(st.sampled_from(SOUND))
    path = draw(st.sampled_from(sorted(sound.files)))
    content = bytearray(sound.files[path])
    at = draw(st.integers(0, len(content) - 1))
    if how == "changed":
        content[at] ^= draw(st.integers(1, 255))
    else:
        del content[at:]
    return sound._replace(
        what=f"{sound.what}: byte {at} of {path} {how}",
        files=sound.files | {path: bytes(content)},
        refused=how == "cut short" and not path.endswith("jpg"),
    )


def lay(data: Data, folder: Path) -> None:
    """Writes the files of the data below a folder."""
    for name, content in data.files.items():
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(path if content is None else os.path.dirname(path), exist_ok=True)
        if isinstance(content, Link):
            os.symlink(content.target, path)
        elif content is not None:
            with open(path, "wb") as file:
                file.write(content)


def config_of(data: Data) -> Config:
    """A good config, but for its data."""
    points = "point" in data.what
    return (on_points()[0] if points else on_images()[0]) | {"data": data.section}
