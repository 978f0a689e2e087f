"""What weights of published files do not hold, by the exact names of the files: shapes alone would be a guess."""

from collections.abc import Mapping
from typing import Any

Dilations = tuple[tuple[int, ...], ...]

_UP_TO_20: Dilations = (
    (1, 20, 1),
    (1, 5, 1, 10),
    (1, 2, 1, 3, 1, 4, 1, 5, 1, 2, 1, 3, 1, 4, 1, 5, 1, 5),
    (1, 2, 1, 2, 1),
)
_UP_TO_28: Dilations = (
    (1, 28, 1),
    (1, 7, 1, 14),
    (1, 3, 1, 5, 1, 5, 1, 7, 1, 3, 1, 5, 1, 5, 1, 7, 1, 7),
    (1, 3, 1, 3, 1),
)
_UP_TO_18: Dilations = (
    (1, 18, 1),
    (1, 5, 1, 9),
    (1, 2, 1, 3, 1, 4, 1, 2, 1, 3, 1, 4, 1, 2, 1, 3, 1, 4),
    (1, 2, 1, 2, 1),
)
DINAT: Mapping[str, Dilations] = {
    "150_16_dinat_l_oneformer_coco_100ep.pth": _UP_TO_20,
    "250_16_dinat_l_oneformer_ade20k_160k.pth": _UP_TO_20,
    "896x896_250_16_dinat_l_oneformer_ade20k_160k.pth": _UP_TO_20,
    "1280x1280_250_16_dinat_l_oneformer_ade20k_160k.pth": _UP_TO_28,
    "coco_pretrain_1280x1280_150_16_dinat_l_oneformer_ade20k_160k.pth": _UP_TO_28,
    "250_16_dinat_l_oneformer_cityscapes_90k.pth": _UP_TO_18,
    "250_16_dinat_l_oneformer_mapillary_300k.pth": _UP_TO_20,
}
"""SHI-Labs' files -> the dilations of their configurations."""


def facts_of(location: str) -> dict[str, Any]:
    """What is known of the backbone in the file at a path or address, by its name; nothing where it is none of them."""
    name = location.rpartition("/")[2]
    return {"dilations": DINAT[name]} if name in DINAT else {}
