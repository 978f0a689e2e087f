"""What waits for the backward pass between two programs: what one returns and the other takes.

`jax.vjp`'s pullback is a pytree of all that the derivative reads, parameters and constants too. XLA copies what a
program only passes on, each array on its own; so those are left out here and put back in the backward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.tree_util import PyTreeDef
from jaxtyping import PyTree


@dataclass(frozen=True, eq=False)  # equal to itself alone: constants are not compared
class _Rest:
    """Of a pullback without its arrays: its structure, and for each leaf the number of the parameter that it is, the
    constant, or None for the next of the arrays."""

    structure: PyTreeDef
    sources: tuple[int | np.ndarray | None, ...]


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["rest"])
@dataclass(frozen=True)
class Pullback:
    """A pullback at some parameters, with which it has to be called; `arrays` (or what stands for them) are what else
    it reads."""

    arrays: tuple[Any, ...]
    rest: _Rest

    @classmethod
    def without(cls, params: PyTree, pullback: Callable[..., Any]) -> "Pullback":
        """Of a pullback of `jax.vjp` at `params`, in the trace in which that was made."""
        numbers = {id(leaf): number for number, leaf in enumerate(jax.tree.leaves(params))}
        leaves, structure = jax.tree.flatten(pullback)
        sources = tuple(leaf if isinstance(leaf, np.ndarray) else numbers.get(id(leaf)) for leaf in leaves)
        arrays = tuple(leaf for leaf, source in zip(leaves, sources, strict=True) if source is None)
        return cls(arrays, _Rest(structure, sources))

    def __call__(self, params: PyTree, cotangents: PyTree) -> Any:
        """What the pullback returns for the cotangents of its outputs."""
        known, arrays = jax.tree.leaves(params), iter(self.arrays)

        def leaf(source: int | np.ndarray | None) -> Array | np.ndarray:
            if source is None:
                return next(arrays)
            return known[source] if isinstance(source, int) else source

        return jax.tree.unflatten(self.rest.structure, map(leaf, self.rest.sources))(cotangents)
