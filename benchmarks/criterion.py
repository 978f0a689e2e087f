"""Matching and losses, forward and backward: this project against the usual PyTorch formulation, side by side.

The PyTorch side computes the masks of all queries of all layers, samples them and dense target masks with
`grid_sample`, sorts for the uncertain points and goes through layers and images in loops (Cheng et al. 2022). Both
sides start from the same class logits, mask embeddings and mask features, and end with their gradients.

    python benchmarks/criterion.py            # both sizes
    python benchmarks/criterion.py small
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.criterion import OneFormerObjective
from oneformer_jax.losses.matching import CriterionConfig, Pairs, assign, matching_costs, pair_slots
from oneformer_jax.models.predictions import LayerPredictions, TrainingOutputs


@dataclass(frozen=True)
class Size:
    """`segments` is the number of segments of every image, `image` the side of the targets, four times the masks'."""

    layers: int
    batch: int
    image: int
    channels: int
    queries: int
    segments: int
    points: int
    classes: int = 133
    table: int = 100


SIZES = {
    "small": Size(layers=6, batch=8, image=256, channels=128, queries=100, segments=10, points=2048),
    "large": Size(layers=10, batch=2, image=1024, channels=256, queries=150, segments=15, points=12544),
}


def random_inputs(size: Size) -> tuple[LayerPredictions, Batch]:
    """Random predictions, and targets of random blocks."""
    rng = np.random.default_rng(0)
    mask = size.image // 4

    def normal(*shape: int, scale: float = 1.0) -> Any:
        return rng.normal(size=shape, scale=scale).astype(np.float32)

    outputs = LayerPredictions(
        class_logits=normal(size.layers, size.batch, size.queries, size.classes + 1),
        mask_embeddings=normal(size.layers, size.batch, size.queries, size.channels),
        mask_features=normal(size.batch, mask, mask, size.channels, scale=0.2),
        object_queries=normal(size.batch, size.queries, size.channels),
    )
    blocks = rng.integers(-1, size.segments, size=(size.batch, 1, size.image // 32, size.image // 32))
    segment_class = np.full((size.batch, size.table), -1, np.int32)
    segment_class[:, : size.segments] = rng.integers(0, size.classes, size=(size.batch, size.segments))
    batch = Batch(
        images=np.zeros((size.batch, 1, 1, 3), np.uint8),
        segment_index=np.kron(blocks, np.ones((32, 32))).astype(np.int16),
        segment_class=segment_class,
        segment_plane=np.zeros_like(segment_class),
        task=np.zeros(size.batch, np.int32),
        prompts=np.zeros((size.batch, 1), np.int32),
        sample=np.arange(size.batch, dtype=np.int32),
    )
    return outputs, batch


def jax_stages(size: Size, outputs: LayerPredictions, batch: Batch) -> dict[str, Callable[[], Any]]:
    config = CriterionConfig(num_points=size.points)
    outputs, batch = jax.tree.map(jnp.asarray, (outputs, batch))
    objective = OneFormerObjective(config)
    over = objective.normalisers([batch.segment_class], outputs.class_logits.shape[2])
    key, scale = jax.random.key(0), jnp.float32(np.log(1 / 0.07))
    costs = jax.jit(partial(matching_costs, config=config))
    num_segments = np.full(size.batch, size.segments)

    @jax.jit
    def gradients(outputs: LayerPredictions, batch: Batch, pairs: Pairs) -> Any:

        def losses(layers: LayerPredictions) -> Any:
            return objective.loss(TrainingOutputs(layers, layers.object_queries, scale), batch, pairs, over, key)

        return jax.value_and_grad(losses, has_aux=True)(outputs)

    def match() -> Pairs:
        cost = np.asarray(costs(outputs, batch, key))
        return assign(cost, num_segments, num_groups=1, slots=pair_slots(num_segments, 1))

    pairs = jax.tree.map(jnp.asarray, match())
    return {"matching": match, "loss and gradients": lambda: jax.block_until_ready(gradients(outputs, batch, pairs))}


def sample(masks: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Masks (N, H, W) at points (N, P, 2)."""
    return F.grid_sample(masks[:, None], 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]


def torch_stages(size: Size, outputs: LayerPredictions, batch: Batch) -> dict[str, Callable[[], Any]]:
    logits, embeddings, features, _ = (torch.tensor(x) for x in outputs)
    leaves = [x.requires_grad_() for x in (logits, embeddings, features)]
    index = torch.tensor(batch.segment_index[:, 0])
    dense = [torch.stack([index[b] == t for t in range(size.segments)]).float() for b in range(size.batch)]
    classes = torch.tensor(batch.segment_class[:, : size.segments]).long()
    weight = torch.ones(size.classes + 1)
    weight[-1] = 0.1

    def masks() -> torch.Tensor:
        return torch.einsum("lbqc,bhwc->lbqhw", embeddings, features)

    @torch.no_grad()
    def match(all_masks: torch.Tensor) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        return [
            [match_one(logits[layer, b], all_masks[layer, b], b) for b in range(size.batch)]
            for layer in range(size.layers)
        ]

    def match_one(logits: torch.Tensor, masks: torch.Tensor, b: int) -> tuple[np.ndarray, np.ndarray]:
        points = torch.rand(1, size.points, 2)
        x = sample(masks, points.expand(size.queries, -1, -1))
        t = sample(dense[b], points.expand(size.segments, -1, -1))
        cross_entropy = (F.softplus(-x) @ t.T + F.softplus(x) @ (1 - t).T) / size.points
        p = x.sigmoid()
        dice = 1 - (2 * p @ t.T + 1) / (p.sum(-1)[:, None] + t.sum(-1)[None] + 1)
        cost = 5 * cross_entropy + 5 * dice - 2 * logits.softmax(-1)[:, classes[b]]
        return linear_sum_assignment(cost.numpy())

    # The masks of all queries are computed once a step; their time counts in the second stage.
    computed = masks().detach()
    fixed = match(computed)

    def loss() -> None:
        for leaf in leaves:
            leaf.grad = None
        all_masks = masks()
        total = torch.zeros(())
        for layer in range(size.layers):
            x = torch.cat([all_masks[layer, b, fixed[layer][b][0]] for b in range(size.batch)])
            t = torch.cat([dense[b][fixed[layer][b][1]] for b in range(size.batch)])
            with torch.no_grad():
                candidates = torch.rand(len(x), 3 * size.points, 2)
                kept = int(0.75 * size.points)
                uncertain = (-sample(x, candidates).abs()).topk(kept, dim=1).indices
                chosen = candidates.gather(1, uncertain[..., None].expand(-1, -1, 2))
                points = torch.cat([chosen, torch.rand(len(x), size.points - kept, 2)], dim=1)
                target = sample(t, points)
            value = sample(x, points)
            p = value.sigmoid()
            cross_entropy = F.binary_cross_entropy_with_logits(value, target, reduction="none").mean(1).sum()
            dice = (1 - (2 * (p * target).sum(1) + 1) / (p.sum(1) + target.sum(1) + 1)).sum()
            target_class = torch.full((size.batch, size.queries), size.classes)
            for b, (query, segment) in enumerate(fixed[layer]):
                target_class[b, query] = classes[b][segment]
            entropy = F.cross_entropy(logits[layer].transpose(1, 2), target_class, weight)
            total = total + 2 * entropy + 5 * (cross_entropy + dice) / (size.batch * size.segments)
        total.backward()

    return {"matching": partial(match, computed), "loss and gradients": loss}


def milliseconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """The shortest of some runs after a first one, in which JAX compiles."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__} on CPU")
    for name in sys.argv[1:] or SIZES:
        size = SIZES[name]
        print(f"\n{name}: {size}\n{'':20} {'torch ms':>10} {'jax ms':>10} {'ratio':>7}")
        inputs = random_inputs(size)
        in_jax, in_torch = jax_stages(size, *inputs), torch_stages(size, *inputs)
        for stage in in_jax:
            reference, time_ = milliseconds(in_torch[stage]), milliseconds(in_jax[stage])
            print(f"{stage:20} {reference:10.0f} {time_:10.0f} {reference / time_:6.1f}x")


if __name__ == "__main__":
    main()
