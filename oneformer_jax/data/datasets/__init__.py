"""Data sets on disk: formats, their records, checks."""

from typing import Literal

Format = Literal["coco_panoptic", "coco_instances"]
"""Of annotation files."""
