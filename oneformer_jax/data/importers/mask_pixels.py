"""Masks as runs of numbers: grey values, positions in a palette, or colours as R + 256 G + 65536 B."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from oneformer_jax.data.datasets.images import read_label_pixels
from oneformer_jax.data.geometry import Size

GREY = 0x010101
"""The number of a grey colour divided by its grey value."""


class Mask(NamedTuple):
    """A mask row after row: the number of each run of equal pixels and where it starts. Smooth segments have far fewer
    runs than pixels, so that these are quicker to look up."""

    numbers: Int32[np.ndarray, " n"]
    starts: Int64[np.ndarray, " n"]
    size: Size
    is_color: bool
    palette: UInt8[np.ndarray, "k 3"]

    def painted(self, values: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, "h w"]:
        """A map with a value for each run."""
        lengths = np.diff(self.starts, append=self.size[0] * self.size[1])
        return np.repeat(values, lengths).reshape(self.size)

    @property
    def pixels(self) -> Int32[np.ndarray, "h w"]:
        """The number of each pixel."""
        return self.painted(self.numbers)


def read_mask(path: Path, *, palette_colors: bool = False) -> Mask:
    """`palette_colors`: the colours of a palette count, not its positions. Raises DataError as `read_label_pixels`."""
    pixels, palette = read_label_pixels(path, palette_colors=palette_colors)
    height, width = pixels.shape[:2]
    if is_color := pixels.ndim == 3:
        words = np.zeros((height, width, 4), np.uint8)
        words[..., :3] = pixels
        pixels = words.view("<i4")[..., 0]
    flat = pixels.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return Mask(flat[starts].astype(np.int32), starts, (height, width), is_color, palette)


def color_of(number: int) -> tuple[int, int, int]:
    """The colour that a number stands for."""
    return number & 255, number >> 8 & 255, number >> 16 & 255


def number_of(color: tuple[int, int, int]) -> int:
    """The number that stands for a colour."""
    return color[0] | color[1] << 8 | color[2] << 16
