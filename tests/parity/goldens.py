"""Reads the golden arrays: one tiny model of the original with its weights, inputs and every intermediate."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)


@dataclass(frozen=True)
class Golden:
    """`arrays` by the names of golden/README.md, the state dict apart; `meta` is what the file says of itself."""

    arrays: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    meta: dict[str, Any]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def config(self) -> OneFormerConfig:
        c = self.meta["config"]
        return OneFormerConfig(
            num_classes=c["classes"],
            backbone=SwinConfig(
                embed_dim=c["embed"],
                depths=tuple(c["depths"]),
                num_heads=tuple(c["heads"]),
                window_size=c["window"],
                mlp_ratio=c["mlp_ratio"],
                drop_path_rate=0.0,
            ),
            pixel_decoder=PixelDecoderConfig(
                conv_dim=c["hidden"],
                mask_dim=c["hidden"],
                num_layers=c["enc_layers"],
                num_heads=c["nheads"],
                dim_feedforward=c["encffn"],
                dropout=0.0,
            ),
            transformer=TransformerConfig(
                hidden_dim=c["hidden"],
                num_queries=c["queries"],
                num_heads=c["nheads"],
                dim_feedforward=c["ffn"],
                dec_layers=c["dec_layers"],
                class_dec_layers=c["class_dec"],
                dropout=0.0,
            ),
            text_encoder=TextEncoderConfig(
                width=c["text_width"],
                num_layers=c["text_layers"],
                vocab_size=c["vocab"],
                context_length=c["ctx"],
                n_ctx=c["n_ctx"],
                proj_num_layers=c["proj_layers"],
            ),
            task_seq_len=c["seq"],
        )

    @property
    def prompt_table(self) -> np.ndarray:
        """Every token row of the batch, (texts, length); image b uses rows `prompts[b]`."""
        return self["in/text_tokens"].reshape(-1, self["in/text_tokens"].shape[-1])

    @property
    def prompts(self) -> np.ndarray:
        images, texts, _ = self["in/text_tokens"].shape
        return np.arange(images * texts, dtype=np.int32).reshape(images, texts)


def load_golden(path: Path) -> Golden:
    """Reads one .npz file of golden/."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    state = {name.removeprefix("sd/"): arrays.pop(name) for name in list(arrays) if name.startswith("sd/")}
    return Golden(arrays, state, json.loads(str(arrays.pop("meta_json"))))


def channels_last(x: np.ndarray) -> np.ndarray:
    """(..., C, H, W) -> (..., H, W, C)."""
    return np.moveaxis(x, -3, -1)
