"""The architecture of weights, read from the names and shapes of their parameters."""

from converters.huggingface_config import Json, backbone_of, told
from converters.infer_backbone import Told, infer_backbone
from converters.shapes import Shapes
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)

LEVELS, COORDINATES, POINTS = 3, 2, 4


def infer_architecture(
    shapes: Shapes, *, told_backbone: Told | None = None, hf_config: Json | None = None, task_pad_id: int = 0
) -> OneFormerConfig:
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
        backbone=infer_backbone(shapes, told=told_backbone, hf_config=backbone_of(hf, where=where)),
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
