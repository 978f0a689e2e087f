"""Data sets on disk: formats, their records, checks."""

from typing import Literal

Format = Literal["coco_panoptic", "coco_instances"]
"""Of annotation files."""

OnBad = Literal["drop", "refuse"]
"""What becomes of annotations from which nothing can be learned: they are left out, or the file is refused."""
