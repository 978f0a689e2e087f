"""Muon: matrices are updated by their orthogonalised momentum (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982).

All singular values of such an update are about 1, so that rare directions of the gradients count as much as frequent
ones. Its size does not depend on that of the gradients.
"""

import re

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: the largest slope at zero, with singular values that end between 0.7 and 1.2."""

# Rows or columns that mean something each: classes, places, words of a task.
NO_MATRIX = re.compile(r"/(class_embed|sampling_offsets)/|^task_mlp/")


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether the parameter maps features to features: of a convolution, those of its window to those of a pixel."""
    return name.endswith("/kernel") and len(shape) in (2, 4) and NO_MATRIX.search(name) is None


def scale_by_muon(rms: float) -> optax.GradientTransformation:
    """Gradients of matrices -> their orthogonalised Nesterov momentum, whose entries have this root mean square."""

    def update(updates: PyTree, _: PyTree | None) -> PyTree:
        return orthogonalised(updates, rms)

    return optax.chain(optax.trace(MOMENTUM, nesterov=True), optax.stateless(update))


def orthogonalised(kernels: PyTree[Float[Array, "*_ _"]], rms: float) -> PyTree[Float[Array, "*_ _"]]:
    """Each kernel, as the matrix of its last axis and all before, with all singular values at about the size at which
    its entries have this root mean square.

    Matrices of one shape, or of its transpose, are computed together.
    """
    arrays, tree = jax.tree.flatten(kernels)
    leaves = [array.reshape(-1, array.shape[-1]) for array in arrays]
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, leaf in enumerate(leaves):
        alike.setdefault(tuple(sorted(leaf.shape)), []).append(index)
    found: dict[int, Float[Array, "_ _"]] = {}
    for (rows, columns), indices in alike.items():
        wide = jnp.stack([leaves[i] if leaves[i].shape == (rows, columns) else leaves[i].T for i in indices])
        # The squares of an orthogonal matrix of r rows and c >= r columns add up to r.
        new = _newton_schulz(wide) * (rms * columns**0.5)
        for i, part in zip(indices, new, strict=True):
            found[i] = (part if leaves[i].shape == (rows, columns) else part.T).reshape(arrays[i].shape)
    return jax.tree.unflatten(tree, [found[index] for index in range(len(leaves))])


def _newton_schulz(matrices: Float[Array, "n r c"]) -> Float[Array, "n r c"]:
    """With r <= c: singular values between 0.7 and 1.2 in place of all that are not tiny."""
    linear, cubic, quintic = COEFFICIENTS
    x = matrices / (jnp.linalg.norm(matrices, axis=(1, 2), keepdims=True) + 1e-8)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = linear * x + (cubic * square + quintic * square @ square) @ x
    return x
