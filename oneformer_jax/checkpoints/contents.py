"""The arrays of a checkpoint, of which kernels may be in 8 bits.

Those are stored as values and a float32 scale per output channel. Reading restores the array, so everything that takes
parameters takes those of a quantized checkpoint.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float32, PyTree

from oneformer_jax.models.oneformer import Params

DTYPES: dict[str, DTypeLike] = {"int8": jnp.int8, "fp8_e4m3fn": jnp.float8_e4m3fn, "fp8_e5m2": jnp.float8_e5m2}
VALUES, SCALE = "values_8bit", "scale"

Leaf = jax.Array | np.ndarray | jax.ShapeDtypeStruct


def kernels(params: Params) -> Iterator[tuple[str, Leaf]]:
    """The kernels of linear layers and convolutions: dotted name of the layer, array (or shape)."""
    for path, leaf in flatten_dict(params).items():
        if path[-1] == "kernel" and len(leaf.shape) >= 2:
            yield ".".join(path[:-1]), leaf


def quantized(params: Params, chosen: Mapping[str, str]) -> Params:
    """The parameters with the kernels of the layers `chosen` (name -> int8, fp8_e4m3fn, fp8_e5m2) in 8 bits."""
    return _replaced(params, chosen, _quantize)


def quantized_shapes(shapes: Params, chosen: Mapping[str, str]) -> Params:
    """Shapes and dtypes of `quantized` parameters, from those of the parameters."""

    def stored(kernel: jax.ShapeDtypeStruct, dtype: str) -> Params:
        scale = (1,) * (len(kernel.shape) - 1) + kernel.shape[-1:]
        return {
            VALUES: jax.ShapeDtypeStruct(kernel.shape, DTYPES[dtype]),
            SCALE: jax.ShapeDtypeStruct(scale, jnp.float32),
        }

    return _replaced(shapes, chosen, stored)


def restored(tree: PyTree) -> PyTree:
    """Quantized parameters as float32; others are left as they are."""
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {VALUES, SCALE}:
        return tree[VALUES].astype(jnp.float32) * tree[SCALE]
    return {name: restored(leaf) for name, leaf in tree.items()}


def bytes_of(tree: PyTree) -> int:
    """Bytes of all arrays (or shapes)."""
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _replaced(tree: Params, chosen: Mapping[str, str], replacement: Callable[[Any, str], Params]) -> Params:
    flat = flatten_dict(tree)
    for path, leaf in flat.items():
        layer = ".".join(path[:-1])
        if path[-1] == "kernel" and layer in chosen:
            flat[path] = replacement(leaf, chosen[layer])
    return unflatten_dict(flat)


def _quantize(kernel: ArrayLike, dtype: str) -> dict[str, np.ndarray]:
    """Symmetric: the largest magnitude of an output channel (the last axis) becomes the largest value of `dtype`."""
    values: Float32[np.ndarray, "*n c"] = np.asarray(kernel, np.float32)
    target = DTYPES[dtype]
    largest = np.float32(127 if dtype == "int8" else float(jnp.finfo(target).max))
    peak = np.abs(values).max(axis=tuple(range(values.ndim - 1)), keepdims=True)
    smallest = np.finfo(np.float32).tiny  # a scale of 0 would divide by it
    scale = np.where(peak > 0, np.maximum(peak / largest, smallest), np.float32(1)).astype(np.float32)
    scaled = values / scale
    return {VALUES: (np.rint(scaled) if dtype == "int8" else scaled).astype(target), SCALE: scale}
