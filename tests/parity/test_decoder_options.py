"""Options of the predictor that no golden has, against Hugging Face's tiny random models."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from carried import from_huggingface

from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig, PixelDecoderConfig, TransformerConfig
from oneformer_jax.models.oneformer import decode, encode, predict

pytestmark = [pytest.mark.slow, pytest.mark.again]

SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
CONFIG = OneFormerConfig(
    num_classes=3,
    backbone=SwinConfig(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4),
    pixel_decoder=PixelDecoderConfig(conv_dim=32, mask_dim=32, num_layers=1, num_heads=2, dim_feedforward=64),
    transformer=TransformerConfig(hidden_dim=32, num_queries=6, num_heads=2, dim_feedforward=64, dec_layers=4),
    task_seq_len=16,
)


@pytest.mark.parametrize("option", ["pre_norm", "use_task_norm", "enforce_input_proj"])
def test_option(option: str) -> None:
    value = not getattr(CONFIG.transformer, option)
    torch.manual_seed(0)
    theirs = transformers.OneFormerForUniversalSegmentation(
        transformers.OneFormerConfig(
            backbone_config=transformers.SwinConfig(**SWIN, out_features=["stage1", "stage2", "stage3", "stage4"]),
            num_labels=3,
            num_queries=6,
            conv_dim=32,
            mask_dim=32,
            hidden_dim=32,
            encoder_feedforward_dim=64,
            dim_feedforward=64,
            encoder_layers=1,
            decoder_layers=4,
            num_attention_heads=2,
            task_seq_len=16,
            text_encoder_width=32,
            **{option: value},
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    params: dict[str, Any] = from_huggingface({k: x.numpy() for k, x in theirs.state_dict().items()}, CONFIG)[0]
    if option == "enforce_input_proj":  # Hugging Face leaves these out of its state dict
        for i, conv in enumerate(theirs.model.transformer_module.input_projections):
            kernel, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
            params["predictor"][f"input_proj_{i}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    config = dataclasses.replace(CONFIG, transformer=dataclasses.replace(CONFIG.transformer, **{option: value}))

    rng = np.random.default_rng(0)
    image, task = (
        rng.standard_normal((1, 3, 64, 96)).astype(np.float32),
        rng.standard_normal((1, 16)).astype(np.float32),
    )
    with torch.no_grad():
        expected = theirs(torch.from_numpy(image), torch.from_numpy(task))
    params = jax.tree.map(jnp.asarray, params)
    features = encode(params, jnp.asarray(image.transpose(0, 2, 3, 1)), config=config)
    layers = decode(params, features, jnp.asarray(task), config=config)
    queries = expected.transformer_decoder_contrastive_queries.numpy()
    np.testing.assert_allclose(layers.object_queries, queries, atol=5e-5)
    class_logits, masks = predict(params, features, jnp.asarray(task), config=config)
    np.testing.assert_array_equal(class_logits, layers.class_logits[-1])
    np.testing.assert_allclose(class_logits, expected.class_queries_logits.numpy(), atol=3e-4)
    np.testing.assert_allclose(masks, expected.masks_queries_logits.numpy(), atol=1e-3)
