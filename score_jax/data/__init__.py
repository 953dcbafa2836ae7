"""Data sets: DATASETS maps a name to a loader (**options) -> Dataset.

Loaders raise UserError for an option's value that cannot be, for what `base.checked` refuses and,
where all of it is held in memory, for more than there is.
"""

from collections.abc import Callable

from score_jax.data.arrays import array, digits, mnist5k, toy
from score_jax.data.base import Dataset
from score_jax.data.blank import blank
from score_jax.data.folder import folder
from score_jax.data.tfds import tfds_images

DATASETS: dict[str, Callable[..., Dataset]] = {
    "array": array,
    "blank": blank,
    "digits": digits,
    "folder": folder,
    "mnist5k": mnist5k,
    "tfds": tfds_images,
    "toy": toy,
}
