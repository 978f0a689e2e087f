"""A picture as somebody has it in a program: a path, a Pillow image or an array."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from oneformer_jax.data.datasets.images import EncodedImage, pillow_picture, read_image, upper_bits
from oneformer_jax.errors import DataError

_PICTURE = "the picture"  # what is no file


def as_picture(picture: Any) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a path, a Pillow image or an array: uint8, uint16 or floating point from 0 (black) to 1 (white),
    (height, width) or 1, 3 or 4 channels last.

    Raises DataError: anything else, saying what to do.
    """
    if isinstance(picture, str | Path | EncodedImage):
        return read_image(Path(picture) if isinstance(picture, str) else picture)
    if isinstance(picture, Image.Image):
        return pillow_picture(picture, _PICTURE)
    array = np.asarray(picture)
    found = f"found shape {array.shape} and type {array.dtype}"
    if array.dtype.kind != "f" and (array.dtype.kind != "u" or array.dtype.itemsize > 2):
        hint = "give uint8 (0..255) or uint16 (0..65535): picture.astype(np.uint8) where it lies in 0..255"
        raise DataError(f"a picture must be an array of uint8, uint16 or floating point in 0..1, {found}", hint=hint)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "give one picture at a time, its channels last: batch[i], or picture.transpose(1, 2, 0)"
        raise DataError(f"a picture must have the shape (height, width, 3), {found}", hint=hint)
    if not array.size:
        raise DataError(f"a picture must have pixels, {found}")
    if array.dtype.kind == "f":
        array = _scaled(array)
    elif array.dtype.itemsize == 2:
        array = upper_bits(array, 16, _PICTURE)
    channels = array.reshape(*array.shape[:2], -1)[..., :3]
    return np.ascontiguousarray(np.broadcast_to(channels, (*array.shape[:2], 3)))


def _scaled(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """0..1 as 0..255. Raises DataError: other values, of which nothing says what is white."""
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= 0 and highest <= 1):  # nor where one of them is no number
        found = "values that are no numbers (NaN)" if np.isnan(lowest) else f"{lowest:g} to {highest:g}"
        hint = "picture.round().clip(0, 255).astype(np.uint8) where it lies in 0..255; undo a normalisation before"
        raise DataError(f"a picture must lie in 0..1 where it is floating point, found {found}", hint=hint)
    return np.rint(255 * values.astype(np.float32)).astype(np.uint8)
