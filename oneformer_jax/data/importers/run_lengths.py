"""Masks in COCO's compressed run lengths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.coco_instances import compress, run_lengths
from oneformer_jax.data.geometry import Size


def run_lengths_of(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """A mask as JSON has it."""
    found = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def united(parts: Sequence[Any], size: Size) -> Any:
    """The parts of an object, each in COCO's notations, as one mask. Raises DataError: a part is not as COCO has it."""
    if all(isinstance(part, list) for part in parts):
        return [polygon for part in parts for polygon in part]
    found = coco_mask.merge(run_lengths([compress(part, size) for part in parts], size))
    return {"size": list(size), "counts": found["counts"].decode()}
