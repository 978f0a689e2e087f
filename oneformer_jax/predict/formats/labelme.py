"""labelme: a JSON file beside a picture, whose shapes a person can correct."""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Int64

from oneformer_jax.data.geometry import Size
from oneformer_jax.postprocess.contours import Ring
from oneformer_jax.postprocess.segments import Segment

VERSION = "5.5.0"  # of labelme, whose files have masks and descriptions from 5.2 on


def labelme_of(segments: Sequence[Segment], size: Size, file_name: str, tolerance: float) -> dict[str, Any]:
    """The file beside the picture `file_name` of (height, width): polygons, and a mask for what has holes.

    Polygons leave out corners as far as their lines stay within `tolerance` pixels. Parts of one segment are a group.
    """
    shapes = [shape for number, segment in enumerate(segments, 1) for shape in _shapes(segment, number, tolerance)]
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def _shapes(segment: Segment, number: int, tolerance: float) -> Iterator[dict[str, Any]]:
    rings = segment.contours
    if any(_is_hole(ring) for ring in rings):
        left, top, right, bottom = segment.box
        corners = [[left, top], [right - 1, bottom - 1]]
        yield _shape(segment, "mask", corners, None, _png(segment.inner_mask))
        return
    group = number if len(rings) > 1 else None
    for ring in rings:
        yield _shape(segment, "polygon", _simplified(ring, tolerance).tolist(), group)


def _shape(
    segment: Segment, kind: str, points: list[Any], group: int | None, mask: str | None = None
) -> dict[str, Any]:
    return {
        "label": segment.name,
        "points": points,
        "group_id": group,
        "description": "" if segment.score is None else f"{segment.score:.3f}",
        "shape_type": kind,
        "flags": {},
        "mask": mask,
    }


def _is_hole(ring: Ring) -> bool:
    x, y = ring.T
    return bool((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() < 0)


def _simplified(ring: Ring, tolerance: float) -> Int64[np.ndarray, "k 2"]:
    simple = cv2.approxPolyDP(ring.astype(np.int32), tolerance, closed=True).reshape(-1, 2).astype(np.int64)
    return simple if len(simple) > 2 else ring


def _png(mask: Bool[np.ndarray, "h w"]) -> str:
    encoded = cv2.imencode(".png", 255 * mask.astype(np.uint8))[1]
    return base64.b64encode(encoded.tobytes()).decode("ascii")
