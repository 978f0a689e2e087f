"""The smallest configuration that has every part."""

from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)

TINY = OneFormerConfig(
    num_classes=3,
    backbone=SwinConfig(embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2), window_size=4, drop_path_rate=0.5),
    pixel_decoder=PixelDecoderConfig(conv_dim=32, mask_dim=32, num_layers=1, num_heads=2, dim_feedforward=32),
    transformer=TransformerConfig(
        hidden_dim=32, num_queries=5, num_heads=2, dim_feedforward=32, dec_layers=3, class_dec_layers=1
    ),
    text_encoder=TextEncoderConfig(width=32, num_layers=1, vocab_size=64, context_length=16, n_ctx=2),
    task_seq_len=16,
)
