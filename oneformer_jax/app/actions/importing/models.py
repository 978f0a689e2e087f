"""Models for imported data, and the largest of them whose training fits the memory of a GPU.

How much a step needs is estimated from its trace, as by `inspect model --device h100`; nothing is run.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from oneformer_jax.errors import OneFormerError

_UNITS = {"": 1.0, "g": 1.0, "gb": 1.0, "gib": 1.0, "m": 1 / 1024, "mb": 1 / 1024, "mib": 1 / 1024}
_LARGEST_BATCH, _SMALLEST_BATCH = 16, 2
_FEW, _MANY = 2_000, 20_000  # images
_STEPS, _STEPS_ON_CPU = 40_000, 1_500
_QUERIES, _QUERIES_ON_CPU = 150, 60


@dataclass(frozen=True)
class ModelSize:
    """A model by the keys of its spec, the longest edge of its crops, and how it trains; `least_images` below which a
    smaller one is taken."""

    name: str
    model: Mapping[str, Any]
    largest_crop: int
    steps: int
    batch: int
    queries: int
    least_images: int = 0
    train: Mapping[str, Any] | None = None


def _swin(dim: int, depth: int, heads: int, window: int, name: str, least_images: int) -> ModelSize:
    swin = {
        "embed_dim": dim,
        "depths": [2, 2, depth, 2],
        "num_heads": [heads, 2 * heads, 4 * heads, 8 * heads],
        "window_size": window,
    }
    precision = {"precision": "bf16-mixed", "optim": {"lr": 1e-4, "warmup_iters": 1000}}
    return ModelSize(
        name, {"backbone": {"swin": swin}}, 1024, _STEPS, _LARGEST_BATCH, _QUERIES, least_images, precision
    )


FOR_GPUS = (
    _swin(192, 18, 6, 12, "Swin-L", _MANY),
    _swin(128, 18, 4, 12, "Swin-B", _MANY),
    _swin(96, 18, 3, 7, "Swin-S", _FEW),
    _swin(96, 6, 3, 7, "Swin-T", 0),
)
"""The largest first. Without pretrained weights, large ones learn little from few images."""

FOR_CPUS = ModelSize(
    "a small Swin",
    {
        "backbone": {
            "swin": {
                "embed_dim": 48,
                "depths": [2, 2, 4, 2],
                "num_heads": [3, 6, 12, 12],
                "window_size": 8,
                "mlp_ratio": 2.0,
                "drop_path_rate": 0.0,
                "init": "fan_in",
            }
        },
        "sem_seg_head": {"convs_dim": 64, "mask_dim": 64, "transformer_enc_layers": 2},
        "one_former": {
            "hidden_dim": 64,
            "nheads": 4,
            "dim_feedforward": 256,
            "dec_layers": 4,
            "class_dec_layers": 1,
            "dropout": 0.0,
            "train_num_points": 2048,
        },
        "text_encoder": {"width": 64, "num_layers": 1, "n_ctx": 4},
    },
    256,
    _STEPS_ON_CPU,
    8,
    _QUERIES_ON_CPU,
    0,
    {"optim": {"lr": 6.0e-4, "backbone_multiplier": 1.0, "warmup_iters": 100}},
)
"""The model of configs/camvid_tiny.yaml, which two cores train in half an hour."""

Needed = Callable[[ModelSize, int], float]
"""Gigabytes that a step of a model needs with so many images."""


def gigabytes(text: str) -> float:
    """A size of memory such as 24GB or 16000M, in units of 2^30 bytes. Raises OneFormerError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(found[2].casefold()) if found else None
    if not found or unit is None or not float(found[1]):
        raise OneFormerError(f"{text!r} is no size of memory", where="--memory", hint="give it as in --memory 24GB")
    return float(found[1]) * unit


def fitting(memory: float, images: int, needed: Needed) -> tuple[ModelSize, int, float]:
    """The largest model for so many `images` whose step fits `memory` gigabytes with two images or more, its largest
    batch up to 16, and what that needs. Raises OneFormerError where none does."""
    for model in [size for size in FOR_GPUS if images >= size.least_images]:
        one, two = needed(model, 1), needed(model, 2)  # more images need as much more each
        batch = min(_LARGEST_BATCH, int((memory - one) // (two - one)) + 1)
        if batch >= _SMALLEST_BATCH:
            return model, batch, one + (batch - 1) * (two - one)
    raise OneFormerError(
        f"a training step of {model.name} with {_SMALLEST_BATCH} images needs {two:.1f} GB, more than {memory:.1f} GB",
        where="--memory",
        hint="leave it out: the spec then has a small model that any machine trains",
    )
