"""The one mapping between an image file and the network: original size -> resized -> padded -> back."""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

Size = tuple[int, int]
STRIDE = 32
"""Of the network's coarsest map: padded sizes are multiples of it."""
_LONGEST_EDGE = 1_000_000


@dataclass(frozen=True)
class Geometry:
    """Sizes (height, width) in pixels. The resized image lies in the top left corner of the padded one.

    Pixel areas correspond, not pixel centres: the point (y, x) of the original, measured from the corner of the
    first pixel, lies at (y * resized_h / original_h, x * resized_w / original_w).
    """

    original: Size
    resized: Size
    padded: Size


def short_edge(original: Size, min_size: int, max_size: int, multiple: int = STRIDE) -> Geometry:
    """Shorter edge to `min_size`, longer edge at most `max_size`, aspect kept, padded to the next `multiple`.

    Sizes are those of detectron2's ResizeShortestEdge: the cap scales the unrounded size, then int(x + 0.5).
    """
    height, width = original
    scale = min_size / min(height, width)
    # Written as detectron2 orders it: rounding of the product decides the last pixel.
    target: tuple[float, float] = (min_size, scale * width) if height < width else (scale * height, min_size)
    if max(target) > max_size:
        cap = max_size / max(target)
        target = (target[0] * cap, target[1] * cap)
    resized = (max(1, int(target[0] + 0.5)), max(1, int(target[1] + 0.5)))
    padded = (-(-resized[0] // multiple) * multiple, -(-resized[1] // multiple) * multiple)
    return Geometry(original, resized, padded)


def letterbox(original: Size, size: Size) -> Geometry:
    """The largest copy with the same aspect that fits into `size`, padded to exactly `size`."""
    scale = min(size[0] / original[0], size[1] / original[1])
    height, width = (min(limit, max(1, int(edge * scale + 0.5))) for edge, limit in zip(original, size, strict=True))
    return Geometry(original, (height, width), size)


@dataclass(frozen=True)
class EvaluationPolicy:
    """The geometry of an evaluated image: `short_edge`, of the image squeezed into `squeeze` where that is given."""

    min_size: int = 800
    max_size: int = 1333
    squeeze: Size | None = None

    def __call__(self, original: Size) -> Geometry:
        return replace(short_edge(self.squeeze or original, self.min_size, self.max_size), original=original)

    @property
    def name(self) -> str:
        """What metrics record about it."""
        squeezed = f"square {self.squeeze[1]}x{self.squeeze[0]}, " if self.squeeze else ""
        return f"{squeezed}short_edge {self.min_size}, at most {self.max_size}"


@dataclass(frozen=True)
class Letterbox:
    """The geometry of a model with one static size (height, width): `letterbox`, padded on to the network's strides."""

    size: Size

    def __call__(self, original: Size) -> Geometry:
        height, width = (-(-edge // STRIDE) * STRIDE for edge in self.size)
        return replace(letterbox(original, self.size), padded=(height, width))

    @property
    def name(self) -> str:
        """What metrics record about it."""
        return f"letterbox {self.size[1]}x{self.size[0]}"


Policy = EvaluationPolicy | Letterbox


def policy_from_json(fields: dict[str, Any]) -> Policy:
    """The policy with these fields, as `vars` gives them and JSON returns them (lists for pairs).

    Raises ValueError: an edge that is no number of pixels; LookupError, TypeError: fields of no policy.
    """

    def edges(*values: Any) -> Size:
        for value in values:
            if type(value) is not int or not 0 < value <= _LONGEST_EDGE:
                raise ValueError(f"expected 1 to {_LONGEST_EDGE} pixels, not {str(value)[:60]}")
        height, width = values
        return height, width

    if "size" in fields:
        return Letterbox(edges(*fields["size"]))
    squeeze = fields["squeeze"]
    return EvaluationPolicy(*edges(fields["min_size"], fields["max_size"]), squeeze and edges(*squeeze))


def resize_image(image: UInt8[np.ndarray, "h w 3"], size: Size) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Bilinear when an edge grows; the mean over each target pixel's area when the image shrinks.

    Shrinking needs a low-pass filter: plain bilinear reads four pixels, however many a target pixel covers, and
    networks are trained on smoothly shrunk images (Pillow's bilinear filter widens with the scale as well).
    """
    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_and_pad(image: UInt8[np.ndarray, "h w 3"], geometry: Geometry) -> UInt8[np.ndarray, "hp wp 3"]:
    """The network's input (padded height, padded width, 3): resized, then padded with 0 at the bottom and right."""
    if image.shape[:2] != geometry.original:
        raise ValueError(f"image of size {image.shape[:2]} does not belong to {geometry}")
    padded = np.zeros((*geometry.padded, 3), np.uint8)
    height, width = geometry.resized
    padded[:height, :width] = resize_image(image, geometry.resized)
    return padded
