"""Masks in COCO's compressed run lengths."""

from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask


def run_lengths_of(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """A mask as JSON has it."""
    found = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}
