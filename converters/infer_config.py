"""The architecture of weights, read from the names and shapes of their parameters."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from converters.huggingface_config import Json, backbone_of, told
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)

LEVELS, COORDINATES, POINTS = 3, 2, 4


@dataclass(frozen=True)
class Shapes:
    """Shapes of parameters by their paths; `where` names their source in errors."""

    shapes: Mapping[str, tuple[int, ...]]
    where: str = ""

    def of(self, path: str, rank: int) -> tuple[int, ...]:
        """The shape of a parameter. Raises CheckpointError where it is missing or has another number of axes."""
        if path not in self.shapes:
            raise CheckpointError(
                f"no values for {path}, which determines the architecture",
                where=self.where,
                hint="only complete OneFormer models with a Swin backbone and Swin backbones alone can be converted",
            )
        shape = self.shapes[path]
        if len(shape) != rank or 0 in shape:
            raise CheckpointError(f"{path} has the shape {shape}, expected {rank} axes", where=self.where)
        return shape

    def __contains__(self, path: str) -> bool:
        return path in self.shapes

    def count(self, pattern: str) -> int:
        """How many layers there are whose number is the group of `pattern`, which fits the start of their paths."""
        return max((int(match[1]) + 1 for path in self.shapes if (match := re.match(pattern, path))), default=0)


def infer_architecture(shapes: Shapes, *, hf_config: Json | None = None, task_pad_id: int = 0) -> OneFormerConfig:
    """The model whose parameters (our names) have these shapes.

    All code bases have as many attention heads in both decoders, each of which samples 4 points a level in the pixel
    decoder: that tells how many. What the shapes do not show, where layers are normalised and what training drops, is
    Hugging Face's configuration (`huggingface_config.READ`), else our defaults. Without a text encoder that is the
    default one of a fitting width. Raises CheckpointError naming the parameter that is missing or does not fit, or
    the setting of another type.
    """
    hf, where = hf_config or {}, shapes.where
    kernel = "pixel_decoder/layer_0/attention/sampling_offsets/kernel"
    samples = shapes.of(kernel, 2)[-1] // (LEVELS * COORDINATES)
    heads = max(1, samples // POINTS)
    num_queries, hidden = shapes.of("predictor/query_embed", 2)
    conv_dim = shapes.of("pixel_decoder/level_embed", 2)[-1]
    if samples % POINTS or hidden % heads or conv_dim % heads:
        raise CheckpointError(
            f"{kernel} holds {samples} points a level, expected {POINTS} for each attention head and a number of heads "
            f"that divides the widths {conv_dim} and {hidden}",
            where=where,
        )
    pre_norm = "predictor/class_transformer/encoder_norm/scale" in shapes
    dropout = told(hf, "dropout", TransformerConfig.dropout, where=where)
    return OneFormerConfig(
        num_classes=shapes.of("predictor/class_embed/bias", 1)[-1] - 1,
        backbone=infer_swin(shapes, hf_config=backbone_of(hf, where=where)),
        pixel_decoder=PixelDecoderConfig(
            conv_dim=conv_dim,
            mask_dim=shapes.of("pixel_decoder/mask_features/bias", 1)[-1],
            num_layers=shapes.count(r"pixel_decoder/layer_(\d+)/"),
            num_heads=heads,
            num_points=POINTS,
            dim_feedforward=shapes.of("pixel_decoder/layer_0/feed_forward/linear1/bias", 1)[-1],
            dropout=dropout,
        ),
        transformer=TransformerConfig(
            hidden_dim=hidden,
            num_queries=num_queries,
            num_heads=heads,
            dim_feedforward=shapes.of("predictor/class_transformer/decoder_0_feed_forward/linear1/bias", 1)[-1],
            dec_layers=shapes.count(r"predictor/layer_(\d+)/") + 1,
            class_dec_layers=shapes.count(r"predictor/class_transformer/decoder_(\d+)_"),
            enc_layers=shapes.count(r"predictor/class_transformer/encoder_(\d+)_"),
            dropout=dropout,
            pre_norm=told(hf, "pre_norm", pre_norm, where=where),
            enforce_input_proj=conv_dim == hidden and "predictor/input_proj_0/kernel" in shapes,
            use_task_norm=told(hf, "use_task_norm", TransformerConfig.use_task_norm, where=where),
        ),
        text_encoder=_infer_text_encoder(shapes, hidden),
        task_seq_len=shapes.of("task_mlp/layer_0/kernel", 2)[0],
        task_pad_id=task_pad_id,
    )


def infer_swin(shapes: Shapes, *, hf_config: Json | None = None) -> SwinConfig:
    """The Swin transformer under `backbone` whose parameters (our names) have these shapes.

    What training drops is Hugging Face's (`huggingface_config.READ_OF_SWIN`), else our default. The image size of the
    pretraining matters only to an absolute position embedding; without one it is our default. Raises CheckpointError as
    `infer_architecture`.
    """
    hf, where = hf_config or {}, shapes.where
    patch_size, _, _, embed_dim = shapes.of("backbone/patch_embed/kernel", 4)
    depths = [shapes.count(rf"backbone/stage{i}_block(\d+)/") for i in range(4)]
    tables = [shapes.of(f"backbone/stage{i}_block0/attention/relative_position_bias", 2) for i in range(4)]
    ape = "backbone/absolute_pos_embed" in shapes
    width = shapes.of("backbone/stage0_block0/linear1/kernel", 2)[-1]
    ratio = told(hf, "mlp_ratio", width / embed_dim, where=where)
    return SwinConfig(
        embed_dim=embed_dim,
        depths=tuple(depths),
        num_heads=tuple(heads for _, heads in tables),
        window_size=(math.isqrt(tables[0][0]) + 1) // 2,
        patch_size=patch_size,
        mlp_ratio=ratio if int(ratio * embed_dim) == width else width / embed_dim,
        qkv_bias="backbone/stage0_block0/attention/qkv/bias" in shapes,
        drop_rate=told(hf, "hidden_dropout_prob", SwinConfig.drop_rate, where=where),
        attn_drop_rate=told(hf, "attention_probs_dropout_prob", SwinConfig.attn_drop_rate, where=where),
        drop_path_rate=told(hf, "drop_path_rate", SwinConfig.drop_path_rate, where=where),
        ape=ape,
        patch_norm="backbone/patch_norm/scale" in shapes,
        pretrain_img_size=(
            shapes.of("backbone/absolute_pos_embed", 4)[1] * patch_size if ape else SwinConfig.pretrain_img_size
        ),
    )


def _infer_text_encoder(shapes: Shapes, hidden: int) -> TextEncoderConfig:
    if "text_encoder/token_embedding" not in shapes:
        return TextEncoderConfig(width=hidden)
    vocab_size, width = shapes.of("text_encoder/token_embedding", 2)
    return TextEncoderConfig(
        width=width,
        num_layers=shapes.count(r"text_encoder/layer_(\d+)/"),
        vocab_size=vocab_size,
        context_length=shapes.of("text_encoder/positional_embedding", 2)[0],
        n_ctx=shapes.of("prompt_ctx", 2)[0] if "prompt_ctx" in shapes else 0,
        proj_num_layers=shapes.count(r"text_projector/layer_(\d+)/"),
    )
