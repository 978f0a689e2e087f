"""Masks in COCO's notations (polygons, run lengths) as compressed run lengths, checked before C code reads them."""

from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Size
from oneformer_jax.errors import DataError


def compress(segmentation: Any, size: Size) -> bytes:
    """The compressed run lengths of a mask in an image of `size` (height, width).

    Args:
        segmentation: a list of polygons `[x0, y0, x1, y1, ...]`, or an object with `size` and `counts`: a list of
            numbers or, compressed, a text.

    Raises DataError: anything else, or a mask that does not fit the image.
    """
    height, width = size
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            stated = str(segmentation.get("size"))[:120]
            raise DataError(f"the mask is of size {stated}, the image of [{height}, {width}] (height, width)")
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            _check_runs(_decompressed(counts), size)
            return counts.encode()
        runs = _numbers(counts)
        if runs is None or runs.dtype.kind != "i":
            raise DataError("the counts of a mask must be a string or a list of integers")
        _check_runs(runs, size)
        return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)["counts"]
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(
            "the segmentation is empty or not a list of polygons",
            hint="annotations that contain only boxes have no masks to train on",
        )
    polygons = [_polygon(polygon, size) for polygon in segmentation]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"]


def _numbers(values: Any) -> Shaped[np.ndarray, " n"] | None:
    """A one-dimensional array of integers or floats, None where `values` are anything else."""
    try:
        array = np.array(values)
    except ValueError:  # lists of several lengths
        return None
    return array if array.ndim == 1 and array.dtype.kind in "if" else None


def _polygon(polygon: Any, size: Size) -> list[float]:
    points = _numbers(polygon)
    if points is None or len(points) < 6 or len(points) % 2:
        raise DataError(f"a polygon must be a list of three or more points x, y, not {str(polygon)[:60]}")
    # Exact outlines may leave the image by a little; numbers far outside would make huge outlines.
    reach = np.tile([size[1], size[0]], len(points) // 2)
    if not ((points >= -reach) & (points <= 2 * reach)).all():  # not a number is never inside
        raise DataError(f"a polygon lies outside the image of {size[0]}x{size[1]} (height x width)")
    return points.astype(float).tolist()


def _check_runs(runs: Int64[np.ndarray, " n"], size: Size) -> None:
    pixels = size[0] * size[1]
    if (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise DataError(f"the run lengths of a mask do not cover the image of {size[0]}x{size[1]} (height x width)")


def _decompressed(text: str) -> Int64[np.ndarray, " n"]:
    """The run lengths of COCO's text: groups of five bits, low ones first, from character 48 on; bit 6 says that more
    follow. From the fourth run on, differences to the run two before."""
    if not text.isascii():
        raise DataError("the counts of a mask are not valid compressed run lengths")
    digits = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(digits & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    complete = ends.size and ends[-1] == digits.size - 1 and lengths.max() <= 7
    if not complete or digits.min() < 0 or digits.max() > 63:
        raise DataError("the counts of a mask are not valid compressed run lengths")
    starts = ends - lengths + 1
    place = np.arange(digits.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * place), starts)
    runs -= np.where(digits[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
