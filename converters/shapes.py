"""Shapes of parameters, from which architectures are read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from oneformer_jax.errors import CheckpointError


@dataclass(frozen=True)
class Shapes:
    """Shapes of parameters by their paths; `where` names their source in errors."""

    shapes: Mapping[str, tuple[int, ...]]
    where: str = ""

    def of(self, path: str, rank: int) -> tuple[int, ...]:
        """The shape of a parameter. Raises CheckpointError where it is missing or has another number of axes."""
        if path not in self.shapes:
            raise CheckpointError(
                f"no values for {path}, which determines the architecture",
                where=self.where,
                hint="only complete OneFormer models and complete backbones alone can be converted",
            )
        shape = self.shapes[path]
        if len(shape) != rank or 0 in shape:
            raise CheckpointError(f"{path} has the shape {shape}, expected {rank} axes", where=self.where)
        return shape

    def __contains__(self, path: str) -> bool:
        return path in self.shapes

    def count(self, pattern: str) -> int:
        """How many layers there are whose number is the group of `pattern`, which fits the start of their paths."""
        return max((int(match[1]) + 1 for path in self.shapes if (match := re.match(pattern, path))), default=0)
