"""Times deformable attention against PyTorch's `grid_sample` formulation, both in turn in one run on the CPU.

`python benchmarks/deformable_attention.py [--batch 1] [--repeats 10]`: one layer of the pixel decoder at 512 x 512
(5376 queries, 8 heads, 3 levels, 4 points, 32 channels). Prints the fastest and the median milliseconds and the ratios.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import torch

from oneformer_jax.models.deformable_attention import deformable_attention

SHAPES = ((64, 64), (32, 32), (16, 16))
HEADS, POINTS, CHANNELS = 8, 4, 32


def random_inputs(batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values, locations some pixels around each query's own place, softmax weights, cotangent."""
    rng = np.random.default_rng(0)
    centres = [np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), -1) for h, w in SHAPES]
    reference = np.concatenate([c.reshape(-1, 2) for c in centres])
    queries = len(reference)
    offsets = rng.normal(size=(batch, queries, HEADS, len(SHAPES), POINTS, 2)) * 4
    sizes = np.array(SHAPES)[:, ::-1]
    locations = reference[None, :, None, None, None] + offsets / sizes[None, None, None, :, None]
    weights = rng.dirichlet(np.ones(len(SHAPES) * POINTS), size=(batch, queries, HEADS))
    value = rng.normal(size=(batch, queries, HEADS, CHANNELS))
    cotangent = rng.normal(size=(batch, queries, HEADS * CHANNELS))
    weights = weights.reshape(*offsets.shape[:-1])
    return tuple(x.astype(np.float32) for x in (value, locations, weights, cotangent))  # type: ignore[return-value]


def torch_attention(value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    b, q, n, d = value.shape
    total = torch.zeros(b * n, d, q)
    for level, part in enumerate(value.split([h * w for h, w in SHAPES], dim=1)):
        image = part.permute(0, 2, 3, 1).reshape(b * n, d, *SHAPES[level])
        grid = 2 * locations[:, :, :, level].transpose(1, 2).reshape(b * n, q, POINTS, 2) - 1
        sampled = torch.nn.functional.grid_sample(image, grid, align_corners=False)
        total = total + (sampled * weights[:, :, :, level].transpose(1, 2).reshape(b * n, 1, q, POINTS)).sum(-1)
    return total.reshape(b, n * d, q).transpose(1, 2)


def milliseconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()

    inputs = random_inputs(arguments.batch)
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs[:3]]
    cotangent = torch.tensor(inputs[3])
    arrays = [jax.device_put(x) for x in inputs]

    def attention(value: jax.Array, locations: jax.Array, weights: jax.Array) -> jax.Array:
        return deformable_attention(value, SHAPES, locations, weights)

    def forward_backward(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        output, pullback = jax.vjp(attention, *arrays[:3])
        return output, *pullback(arrays[3])

    def torch_forward() -> None:
        with torch.no_grad():
            torch_attention(*tensors)

    jax_forward, jax_both = jax.jit(attention), jax.jit(forward_backward)
    contestants: dict[str, Callable[[], object]] = {
        "torch forward": torch_forward,
        "jax forward": lambda: jax.block_until_ready(jax_forward(*arrays[:3])),
        "torch forward + backward": lambda: torch.autograd.grad(torch_attention(*tensors), tensors, cotangent),
        "jax forward + backward": lambda: jax.block_until_ready(jax_both(*arrays)),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(arguments.repeats + 2):  # the first two rounds compile and warm up
        for name, function in contestants.items():
            elapsed = milliseconds(function)
            if round_ >= 2:
                times[name].append(elapsed)
    for name, values in times.items():
        print(f"{name:26s} fastest {min(values):7.1f} ms   median {np.median(values):7.1f} ms")
    for kind in ("forward", "forward + backward"):
        ours, theirs = times[f"jax {kind}"], times[f"torch {kind}"]
        print(f"{kind}: {min(theirs) / min(ours):.1f} times as fast as PyTorch (fastest), ", end="")
        print(f"{np.median(theirs) / np.median(ours):.1f} (median)")


if __name__ == "__main__":
    main()
