"""State dicts with the published names and shapes, and a source to convert them from."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.files.read import Source


def in_memory(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> Source:
    return Source("weights.pth", arrays, config)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def array(row: Mapping[str, str]) -> np.ndarray:
    """One element, broadcast: the shapes are real, the memory is not."""
    return np.broadcast_to(np.zeros((), row["dtype"]), shape_of(row))


def shape_of(row: Mapping[str, str]) -> tuple[int, ...]:
    return () if row["shape"] == "scalar" else tuple(int(n) for n in row["shape"].split("x"))
