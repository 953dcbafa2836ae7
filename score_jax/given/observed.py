"""Images and masks from files, and what is known of an image, of the words in config.guidance."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from score_jax.config import module_of
from score_jax.data.base import is_there
from score_jax.data.encoding import Encoding
from score_jax.errors import UserError, shortened, unknown
from score_jax.given.options import Guidance
from score_jax.inverse.observation import Observation, observe, pseudo_inverse
from score_jax.inverse.operators import blur, downsample, gray, mask, random_projection
from score_jax.keys import stream

MODES = {1: "L", 3: "RGB"}  # Pillow's, by channels
UNKNOWN = 128  # the gray of what is not known, in pictures
# The option that each operator has, and whether it can do without.
OPERATORS = {
    "mask": "mask",
    "gray": None,
    "downsample": "factor",
    "blur": "width",
    "random": "measurements",
}


class Known(NamedTuple):
    """What is known of a sample.

    shown: uint8 images [M, H, W, C] for pictures: the image, where there is one, and what is known
    of it. sha256: tells it from anything else that could be known.
    """

    observation: Observation
    shown: np.ndarray | None
    sha256: str


def read_image(file: str, option: str, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 image [H, W, C] in a PNG or JPEG file of just this shape, values 0 to 255.

    Raises UserError, naming the option, for another size or mode, and for what is no image.
    """
    if len(shape) != 3:
        raise UserError(f"{option} = {file} is an image, and the data are points {shape}")
    return _opened(file, option, shape, (MODES[shape[-1]],)).reshape(shape)


def read_mask(file: str, option: str, shape: tuple[int, ...]) -> np.ndarray:
    """[H, W] bool: where the image in the file is white. Raises UserError as `read_image` does,
    and for a mask with other colors than black and white, or all of one."""
    if len(shape) != 3:
        raise UserError(f"{option} = {file} is an image, and the data are points {shape}")
    pixels = _opened(file, option, shape, ("1", "L"))
    values = np.unique(pixels)
    if pixels.dtype == np.uint8 and not set(values) <= {0, 255}:
        found = next(value for value in values if value not in (0, 255))
        raise UserError(
            f"{option} = {file}: a mask is white (255) where the image is known and black (0) "
            f"where it is not; found {found}, one of {len(values)} values"
        )
    if len(values) < 2:
        every = "white: all is known" if values[0] else "black: nothing is known"
        raise UserError(f"{option} = {file}: the mask is all {every}, and nothing is to be done")
    return pixels > 0


def _opened(file, option, shape, modes) -> np.ndarray:
    if not is_there(Path(file), Path.is_file):
        raise UserError(f"{option}: no file {shortened(file)} (looked in {Path.cwd()})")
    height, width = shape[:2]
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            if image.size == (width, height) and image.mode in modes:
                return np.asarray(image)
            size, mode = image.size, image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{option} = {file}: not a whole PNG or JPEG image ({error})") from error
    raise UserError(
        f"{option} = {file}: expected {width}x{height} pixels of mode {' or '.join(modes)} (8 bits "
        f"a channel), as the data have, got {size[0]}x{size[1]} of mode {mode}; convert it first: "
        f'Image.open("{Path(file).name}").convert("{modes[-1]}").resize(({width}, {height}))'
    )


def encoded(image: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The uint8 image [H, W, C] in the network's units, float32: not mirrored, not dequantized."""
    plain = encoding._replace(flip=False, dequantize=False)
    return np.asarray(plain.encode(jax.random.key(0), image))


def known(options: Guidance, shape: tuple[int, ...], encoding: Encoding) -> Known:
    """What the options say is known: y = A x_0 + noise n of the image's x_0, or y from a file.

    shape: of x. Raises UserError for options that are missing, too many or do not fit A, for files
    that cannot be read, and as `read_image`, `read_mask` and `inverse.observation.observe`.
    """
    if (options.image is None) == (options.observed is None):
        raise UserError(
            "what is known of the samples? Give one of config.guidance.image, a PNG file, and "
            "config.guidance.observed, a .npy file of the operator's values"
        )
    operator = _operator(options, shape)
    if options.observed is not None:
        y = _observed(options.observed)
        found = observe(y, operator, options.noise, shape)
        return Known(found, None, _digest(found))
    assert options.image is not None  # or y would be given
    image = read_image(options.image, "config.guidance.image", shape)
    y = np.asarray(_applied(operator, encoded(image, encoding), options))
    z = jax.random.normal(stream(options.seed, "observation"), y.shape)
    found = observe(y + options.noise * np.asarray(z), operator, options.noise, shape)
    picture = encoding.decode(np.asarray(_seen(options, found, shape))[None])[0]
    if options.operator in (None, "mask"):
        assert options.mask is not None  # as `_operator` sees to
        where = read_mask(options.mask, "config.guidance.mask", shape)
        picture = np.where(where[..., None], picture, np.uint8(UNKNOWN))
    return Known(found, np.stack([image, picture]), _digest(found))


def _seen(options, found, shape):
    """y as an image: itself where it is one of this size, else the smallest x with this y."""
    if options.operator not in (None, "mask") and found.y.shape[:2] == shape[:2]:
        if found.y.ndim == 3 and found.y.shape[-1] in (1, shape[-1]):
            return np.broadcast_to(found.y, shape)
    return pseudo_inverse(found, found.y)


def _digest(found: Observation) -> str:
    """Tells what is known from anything else: by y, the noise, and what A makes of a random x."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal(found.shape, np.float32))
    digest = hashlib.sha256(np.float32(found.noise).tobytes())
    for part in (found.y, found.forward(x)):
        digest.update(np.asarray(part, np.float32).tobytes())
    return digest.hexdigest()[:16]


def _own(options) -> str | None:
    return options.operator if (options.operator or "").endswith(".py") else None


def _operator(options: Guidance, shape: tuple[int, ...]):
    """The linear function of x that the options name."""
    name, own = options.operator or "mask", _own(options)
    if name not in OPERATORS and own is None:
        raise unknown("config.guidance.operator", name, (*OPERATORS, "<a file>.py"))
    needed = OPERATORS.get(name)
    for option in filter(None, OPERATORS.values()):
        value = getattr(options, option)
        if option == needed and value is None:
            raise UserError(f"config.guidance.operator = {name!r} needs config.guidance.{option}")
        if option != needed and value is not None:
            raise UserError(
                f"config.guidance.{option} = {value!r} is not for config.guidance.operator = "
                f"{name!r}; leave it out"
            )
    if own is not None:
        return module_of("config.guidance.operator", Path(own), "operator").operator
    if name != "random" and len(shape) != 3:
        raise UserError(
            f"config.guidance.operator = {name!r} is for images, and the data are points {shape}; "
            "use 'random' or a Python file of yours with operator(x)"
        )
    given: Any = getattr(options, needed) if needed is not None else None
    if name == "mask":
        where = read_mask(given, "config.guidance.mask", shape)
        return mask(np.broadcast_to(where[..., None], shape))
    if name == "gray":
        return gray()
    if name == "downsample":
        return downsample(given)
    if name == "blur":
        return blur(given)
    return random_projection(options.seed, given, shape)


def _applied(operator, x_0, options):
    try:
        return operator(x_0)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"config.guidance.operator = {options.operator} cannot be applied to an example of "
            f"shape {x_0.shape}: {type(error).__name__}: {shortened(str(error))}"
        ) from error


def _observed(file: str) -> np.ndarray:
    if not is_there(Path(file), Path.is_file):
        raise UserError(
            f"config.guidance.observed: no file {shortened(file)} (looked in {Path.cwd()})"
        )
    try:
        values = np.load(file, allow_pickle=False)
        return np.asarray(values, np.float32)
    except Exception as error:  # NumPy raises a dozen kinds
        raise UserError(
            f"config.guidance.observed = {file}: not a readable .npy file of numbers ({error})"
        ) from error
