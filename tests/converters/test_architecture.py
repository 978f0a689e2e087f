"""An architecture is read from the shapes of its own parameters."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from state_dicts import in_memory, rows, shape_of
from tiers import examples

from converters.infer_backbone import infer_swin
from converters.infer_config import infer_architecture
from converters.shapes import Shapes
from converters.weights import convert, template
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)
from oneformer_jax.models.oneformer import init

TINY = OneFormerConfig(
    num_classes=5,
    backbone=SwinConfig(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), window_size=4),
    pixel_decoder=PixelDecoderConfig(conv_dim=32, mask_dim=32, num_layers=1, num_heads=2, dim_feedforward=48),
    transformer=TransformerConfig(hidden_dim=32, num_queries=6, num_heads=2, dim_feedforward=40, dec_layers=3),
    text_encoder=TextEncoderConfig(width=32, num_layers=1, vocab_size=64, context_length=12, n_ctx=2),
    task_seq_len=9,
)


def shapes_of(config: OneFormerConfig) -> dict[str, tuple[int, ...]]:
    template = jax.eval_shape(partial(init, config), jax.random.key(0))
    return {"/".join(path): leaf.shape for path, leaf in flatten_dict(template).items()}


def swin_shapes(config: SwinConfig) -> Shapes:
    return Shapes({"/".join(path): leaf.shape for path, leaf in flatten_dict(template(config, "")).items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": {"ape": True, "pretrain_img_size": 64, "patch_norm": False, "qkv_bias": False, "mlp_ratio": 2.5}},
        {"pixel_decoder": {"num_layers": 3, "conv_dim": 64, "mask_dim": 96}},
        {"transformer": {"enforce_input_proj": True, "dec_layers": 1, "class_dec_layers": 3}},
        {"transformer": {"enc_layers": 2, "pre_norm": True}},
        {"transformer": {"enc_layers": 1}},
        {"text_encoder": {"n_ctx": 0, "proj_num_layers": 1, "width": 64, "num_layers": 2}},
    ],
)
def test_every_part(changes: dict[str, dict[str, object]]) -> None:
    parts = {name: dataclasses.replace(getattr(TINY, name), **fields) for name, fields in changes.items()}
    config = dataclasses.replace(TINY, **parts)
    assert infer_architecture(Shapes(shapes_of(config))) == config


@pytest.mark.slow
@settings(max_examples=examples(10))
@given(
    st.sampled_from([4, 8, 12]),
    st.lists(st.integers(1, 3), min_size=4, max_size=4),
    st.integers(2, 6),
    st.booleans(),
    st.sampled_from([2.0, 4.0]),
)
def test_any_swin(width: int, depths: list[int], window: int, qkv_bias: bool, mlp_ratio: float) -> None:
    config = SwinConfig(
        embed_dim=width,
        depths=tuple(depths),
        num_heads=(1, 2, 4, 4),
        window_size=window,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
    )
    assert infer_swin(swin_shapes(config)) == config


@pytest.mark.slow
def test_the_published_model() -> None:
    assert infer_architecture(Shapes(shapes_of(OneFormerConfig()))) == OneFormerConfig()


def test_heads_of_the_pixel_decoder_are_those_that_sample_four_points() -> None:
    pixel_decoder = dataclasses.replace(TINY.pixel_decoder, num_heads=4)
    transformer = dataclasses.replace(TINY.transformer, num_heads=4)
    config = dataclasses.replace(TINY, pixel_decoder=pixel_decoder, transformer=transformer)
    shapes = Shapes(shapes_of(config))
    assert infer_architecture(shapes) == config


def test_points_that_no_number_of_heads_samples() -> None:
    kernel = "pixel_decoder/layer_0/attention/sampling_offsets/kernel"
    for points, widths in ((6, "32 and 32"), (20, "32 and 32")):
        shapes = shapes_of(TINY) | {kernel: (32, points * 3 * 2)}
        with pytest.raises(CheckpointError, match=rf"weights.pth: {kernel} holds {points} points a level.*{widths}"):
            infer_architecture(Shapes(shapes, "weights.pth"))


def test_without_text_encoder_it_is_the_default_of_the_width() -> None:
    shapes = shapes_of(TINY)
    inference = {path: x for path, x in shapes.items() if not path.startswith(("text_", "prompt", "logit"))}
    config = infer_architecture(Shapes(inference))
    assert config == dataclasses.replace(TINY, text_encoder=TextEncoderConfig(width=32))


@pytest.mark.parametrize(
    ("path", "shape", "message"),
    [
        ("predictor/query_embed", None, "no values for predictor/query_embed, which determines the architecture"),
        ("predictor/query_embed", (3,), r"predictor/query_embed has the shape \(3,\), expected 2 axes"),
        ("backbone/patch_embed/kernel", (4, 4, 3, 0), "expected 4 axes"),
    ],
)
def test_a_damaged_parameter(path: str, shape: tuple[int, ...] | None, message: str) -> None:
    shapes = shapes_of(TINY)
    del shapes[path]
    with pytest.raises(CheckpointError, match=message):
        infer_architecture(Shapes(shapes if shape is None else shapes | {path: shape}))


def test_an_impossible_model_is_refused(shared: Path) -> None:
    manifest = rows(shared / "reference/keys_swin_tiny_imagenet.csv")
    state = {row["key"]: np.broadcast_to(np.float32(0), shape_of(row)) for row in manifest}
    for block in range(2):
        state[f"layers.0.blocks.{block}.attn.relative_position_bias_table"] = np.zeros((169, 7), np.float32)
    with pytest.raises(CheckpointError, match="no model has the architecture that the shapes imply"):
        convert(in_memory(state))
