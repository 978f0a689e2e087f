"""Post-processing as part of a graph, at the network's size: NumPy's rules of `postprocess` as array operations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int32

from converters.onnx.operators import MATMUL
from oneformer_jax.models.ops import interpolation_matrix
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.tasks import Task

Finish = Callable[[Array, Array], tuple[Array, ...]]


def finish(task: Task, is_thing: Bool[np.ndarray, " k"], size: tuple[int, int], thresholds: Thresholds) -> Finish:
    """A function of class logits (B, Q, K + 1) and mask logits (B, Q, h, w) that returns `RESULTS[task]`.

    semantic: class indices (B, H, W). instance: N labels, scores (0: no instance) and masks (B, N, H, W), best pairs
    first. panoptic: ids (B, H, W), 0 for none, and for id i + 1 label (-1: no segment) and score at i, (B, Q).
    """
    if task == "semantic":
        return lambda classes, masks: (_semantic(classes, masks, size),)
    if task == "instance":
        return lambda classes, masks: _instance(classes, masks, is_thing, size, thresholds.test_topk_per_image)
    return lambda classes, masks: _panoptic(classes, masks, is_thing, size, thresholds)


def _semantic(
    classes: Float[Array, "b q k1"], masks: Float[Array, "b q h w"], size: tuple[int, int]
) -> Int32[Array, "b hp wp"]:
    votes = jax.nn.softmax(classes, axis=-1)[..., :-1].swapaxes(1, 2)
    sums = MATMUL.bind(votes, _flat(jax.nn.sigmoid(_resized(masks, size))))
    return jnp.argmax(sums, axis=1).astype(jnp.int32).reshape(-1, *size)


def _instance(
    classes: Float[Array, "b q k1"],
    masks: Float[Array, "b q h w"],
    is_thing: Bool[np.ndarray, " k"],
    size: tuple[int, int],
    count: int,
) -> tuple[Int32[Array, "b n"], Float[Array, "b n"], Bool[Array, "b n hp wp"]]:
    queries, height, width = masks.shape[1:]
    num_classes = classes.shape[-1] - 1
    probabilities = jax.nn.softmax(classes, axis=-1)[..., :-1].reshape(-1, queries * num_classes)
    # The pair of place p is query p // K and class p % K; tables spare the graph integer division.
    best, place = jax.lax.top_k(probabilities, min(count, queries * num_classes))
    chosen = _one_hot(place, queries * num_classes)
    of_query = MATMUL.bind(chosen, jnp.asarray(np.kron(np.eye(queries), np.ones((num_classes, 1))), jnp.float32))
    of_class = MATMUL.bind(chosen, jnp.asarray(np.tile(np.eye(num_classes), (queries, 1)), jnp.float32))
    logits = _resized(MATMUL.bind(of_query, _flat(masks)).reshape(-1, best.shape[1], height, width), size)
    inside = (logits > 0).astype(jnp.float32)
    quality = (jax.nn.sigmoid(logits) * inside).sum((2, 3)) / (inside.sum((2, 3)) + 1e-6)
    thing = MATMUL.bind(of_class, jnp.asarray(is_thing[:, None], jnp.float32))[..., 0]
    return jnp.argmax(of_class, axis=-1).astype(jnp.int32), best * quality * thing, logits > 0


def _panoptic(
    classes: Float[Array, "b q k1"],
    masks: Float[Array, "b q h w"],
    is_thing: Bool[np.ndarray, " k"],
    size: tuple[int, int],
    thresholds: Thresholds,
) -> tuple[Int32[Array, "b hp wp"], Int32[Array, "b q"], Float[Array, "b q"]]:
    queries, num_classes = classes.shape[1], classes.shape[-1] - 1
    probabilities = jax.nn.softmax(classes, axis=-1)
    scores, labels = probabilities.max(-1), _one_hot(jnp.argmax(probabilities, axis=-1), num_classes + 1)
    confident = (scores > thresholds.object_mask_threshold).astype(jnp.float32)
    kept = confident * labels[..., :-1].sum(-1)

    logits = _flat(_resized(masks, size))
    inside = (logits >= 0).astype(jnp.float32)
    strength = jax.nn.sigmoid(logits) * (scores * kept)[..., None]
    won = _one_hot(jnp.argmax(strength, axis=1), queries).swapaxes(1, 2) * kept[..., None]
    visible = won * inside
    enough = won.sum(-1) >= thresholds.overlap_threshold * inside.sum(-1)
    valid = kept * (visible.sum(-1) > 0).astype(jnp.float32) * enough.astype(jnp.float32)

    # Segments of one stuff class join the first of them: the first q' whose class and validity are those of q.
    stuff = labels[..., :-1] * jnp.asarray(~is_thing, jnp.float32)[None, None] * valid[..., None]
    thing = valid * (1 - stuff.sum(-1))
    same = MATMUL.bind(stuff, stuff.swapaxes(1, 2)) + thing[..., None] * jnp.eye(queries)[None]
    first = _one_hot(jnp.argmax(same, axis=-1), queries) * valid[..., None]
    number = MATMUL.bind(first, jnp.arange(1, queries + 1, dtype=jnp.float32)[:, None])  # (b, q, 1)
    ids = MATMUL.bind(number.swapaxes(1, 2), visible).astype(jnp.int32).reshape(-1, *size)
    leads = (first * jnp.eye(queries)[None]).sum(-1)
    best = (first * scores[..., None]).max(1) * leads
    names = MATMUL.bind(labels, jnp.arange(num_classes + 1, dtype=jnp.float32)[:, None])[..., 0]
    return ids, ((names + 1) * leads - 1).astype(jnp.int32), best


def _resized(masks: Float[Array, "b q h w"], size: tuple[int, int]) -> Float[Array, "b q hp wp"]:
    rows, columns = (interpolation_matrix(a, b) for a, b in zip(masks.shape[2:], size, strict=True))
    return MATMUL.bind(MATMUL.bind(jnp.asarray(rows), masks), jnp.asarray(columns.T))


def _flat(maps: Float[Array, "b q h w"]) -> Float[Array, "b q h*w"]:
    return maps.reshape(-1, maps.shape[1], maps.shape[2] * maps.shape[3])


def _one_hot(index: Array, count: int) -> Array:
    """float32, on a new last axis."""
    numbers = np.arange(count, dtype=np.int32).reshape(*[1] * index.ndim, -1)
    return (index.astype(jnp.int32)[..., None] == numbers).astype(jnp.float32)
