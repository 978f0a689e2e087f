"""What a model is: frozen, hashable dataclasses that hold every architectural choice and nothing of a run.

Defaults are those of the published Swin-L configuration. A checkpoint stores one `OneFormerConfig` as JSON.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import flax.linen as nn


@runtime_checkable
class BackboneConfig(Protocol):
    """Any hashable object with `build()` is a backbone configuration.

    The module maps normalised images (B, H, W, 3) to `{"res2": (B, H/4, W/4, C2), ..., "res5": (B, H/32, W/32, C5)}`
    when called as `module(images, deterministic=...)`.
    """

    def build(self, name: str | None = None) -> nn.Module: ...


@dataclass(frozen=True)
class SwinConfig:
    """Swin transformer (Liu et al. 2021, section 3).

    `init` is the distribution of initial kernels: "original" (normal, 0.02) or "fan_in" (normal, 1 / sqrt(inputs)). The
    original's suits wide networks; a narrow one that starts from it hardly leaves the plateau of its first epochs.
    `frozen_stages` run as in evaluation while the rest trains: without dropout and drop path.
    """

    embed_dim: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (6, 12, 24, 48)
    window_size: int = 12
    patch_size: int = 4
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_scale: float | None = None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.3
    ape: bool = False
    patch_norm: bool = True
    pretrain_img_size: int = 384
    use_checkpoint: bool = False
    init: Literal["original", "fan_in"] = "original"
    frozen_stages: tuple[int, ...] = ()

    def build(self, name: str | None = None) -> nn.Module:
        from oneformer_jax.models.backbones.swin import Swin  # the configuration stays importable without its module

        return Swin(self, name=name)


@dataclass(frozen=True)
class PixelDecoderConfig:
    """Multi-scale deformable-attention pixel decoder (Cheng et al. 2022, section 3.2; Zhu et al. 2021)."""

    conv_dim: int = 256
    mask_dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    num_points: int = 4
    dim_feedforward: int = 1024
    dropout: float = 0.1


@dataclass(frozen=True)
class TransformerConfig:
    """Task-conditioned queries and masked-attention decoder (Jain et al. 2023, section 3.2).

    `dec_layers` counts predictions: the initial queries and `dec_layers - 1` decoder layers.
    """

    hidden_dim: int = 256
    num_queries: int = 150
    num_heads: int = 8
    dim_feedforward: int = 2048
    dec_layers: int = 10
    class_dec_layers: int = 2
    enc_layers: int = 0
    dropout: float = 0.1
    pre_norm: bool = False
    enforce_input_proj: bool = False
    use_task_norm: bool = True


@dataclass(frozen=True)
class TextEncoderConfig:
    """Text transformer of the query-text contrastive loss (Jain et al. 2023, section 3.3). Used in training only."""

    width: int = 256
    num_layers: int = 6
    vocab_size: int = 49408
    context_length: int = 77
    n_ctx: int = 16
    proj_num_layers: int = 2


@dataclass(frozen=True)
class OneFormerConfig:
    """The whole model. `task_seq_len` is the length of the task token rows that enter the task MLP as raw ids;
    `task_pad_id` is the id they are padded with: it belongs to the weights (0 in the original, 49407 in TAO)."""

    num_classes: int = 133
    backbone: BackboneConfig = field(default_factory=SwinConfig)
    pixel_decoder: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    task_seq_len: int = 77
    task_pad_id: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as a checkpoint stores them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "OneFormerConfig":
        """The inverse of `to_json` for Swin models."""
        parts = {
            "backbone": SwinConfig,
            "pixel_decoder": PixelDecoderConfig,
            "transformer": TransformerConfig,
            "text_encoder": TextEncoderConfig,
        }

        def rebuild(kind: type, values: dict[str, Any]) -> Any:
            return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

        return cls(**{k: rebuild(parts[k], v) if k in parts else v for k, v in data.items()})
