"""What both sides of a comparison compute: a model's size and its inputs, as plain arrays. Imports neither side."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from oneformer_jax.data.task_text import prompt_rows, prompt_table, task_tokens

# Everything else is at the default of the published models, which both sides share.
BACKBONES: dict[str, dict[str, Any]] = {
    "swin_t": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7},
    "swin_l": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "window_size": 12},
}
PRECISIONS = ("32", "bf16")
CLASSES, SEGMENTS, TEXTS, PANOPTIC = 133, 15, 134, 2
DROP_PATH = 0.3
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 1e-4, 0.05, 0.01


@dataclass(frozen=True)
class Workload:
    """`size` is the side of the square images. With `training` it is a step, else a forward pass. `precision` is what
    products are computed in, "32" or "bf16"."""

    backbone: str
    size: int
    batch: int = 1
    device: str = "cpu"
    training: bool = False
    precision: str = "32"

    @property
    def kind(self) -> str:
        return "training" if self.training else "inference"

    @property
    def name(self) -> str:
        """Of the result's file."""
        name = f"{self.kind}-{self.backbone}-{self.size}-b{self.batch}-{self.device}"
        return name if self.precision == "32" else f"{name}-{self.precision}"

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 (B, H, W, 3)."""
        shape = (self.batch, self.size, self.size, 3)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    @property
    def images(self) -> np.ndarray:
        """The pixels, normalised: float32 (B, H, W, 3)."""
        return ((self.pixels - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)).astype(np.float32)

    @property
    def task(self) -> np.ndarray:
        """The panoptic task's tokens for every image, (B, 77)."""
        return np.tile(task_tokens(0, 77)[PANOPTIC], (self.batch, 1))

    @cached_property
    def segments(self) -> np.ndarray:
        """The segment of each pixel: blocks of 32 x 32 pixels in a random order, -1 for none; int16 (B, H, W)."""
        blocks = np.random.default_rng(1).integers(-1, SEGMENTS, (self.batch, self.size // 32, self.size // 32))
        return np.kron(blocks, np.ones((1, 32, 32))).astype(np.int16)

    @cached_property
    def segment_class(self) -> np.ndarray:
        """The class of each segment, (B, SEGMENTS)."""
        return np.random.default_rng(2).integers(0, CLASSES, (self.batch, SEGMENTS)).astype(np.int32)

    @cached_property
    def prompt_table(self) -> np.ndarray:
        """Tokens of the prompts of all classes and of the fillers."""
        return prompt_table([f"object {i}" for i in range(CLASSES)])

    @property
    def prompts(self) -> np.ndarray:
        """Rows of `prompt_table` for each image, (B, TEXTS)."""
        return np.stack([prompt_rows(classes, PANOPTIC, CLASSES, TEXTS) for classes in self.segment_class])


@dataclass(frozen=True)
class AttentionWorkload:
    """One deformable-attention layer of the pixel decoder, forward and backward, at an image size."""

    size: int
    batch: int = 1
    device: str = "cpu"

    kind = "deformable attention"
    heads, points, channels = 8, 4, 32

    @property
    def name(self) -> str:
        """Of the result's file."""
        return f"deformable_attention-{self.size}-b{self.batch}-{self.device}"

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level."""
        return tuple((self.size // stride, self.size // stride) for stride in (8, 16, 32))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Values, locations some pixels around each query's own place, softmax weights, cotangent."""
        rng = np.random.default_rng(0)
        centres = [
            np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), -1) for h, w in self.shapes
        ]
        reference = np.concatenate([c.reshape(-1, 2) for c in centres])
        queries, levels = len(reference), len(self.shapes)
        offsets = rng.normal(size=(self.batch, queries, self.heads, levels, self.points, 2)) * 4
        sizes = np.array(self.shapes)[:, ::-1]
        locations = reference[None, :, None, None, None] + offsets / sizes[None, None, None, :, None]
        weights = rng.dirichlet(np.ones(levels * self.points), size=(self.batch, queries, self.heads))
        value = rng.normal(size=(self.batch, queries, self.heads, self.channels))
        cotangent = rng.normal(size=(self.batch, queries, self.heads * self.channels))
        arrays = (value, locations, weights.reshape(offsets.shape[:-1]), cotangent)
        return tuple(x.astype(np.float32) for x in arrays)
