"""Pretrained parameters in another window size, image size, number of classes and number of queries."""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

from converters.fit import fit_backbone, fit_model
from converters.rules import ConversionError
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)
from oneformer_jax.models.oneformer import init

SWIN = SwinConfig(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), window_size=4)
MODEL = OneFormerConfig(
    num_classes=5,
    backbone=SWIN,
    pixel_decoder=PixelDecoderConfig(conv_dim=32, mask_dim=32, num_layers=1, num_heads=2, dim_feedforward=32),
    transformer=TransformerConfig(hidden_dim=32, num_queries=6, num_heads=2, dim_feedforward=32, dec_layers=2),
    text_encoder=TextEncoderConfig(width=32, num_layers=1, vocab_size=16, context_length=8, n_ctx=2),
    task_seq_len=9,
)


def random_params(config: OneFormerConfig, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(partial(init, config), jax.random.key(0))
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)


def backbone(seed: int = 0, **changes: Any) -> dict[str, Any]:
    config = dataclasses.replace(MODEL, backbone=dataclasses.replace(SWIN, **changes))
    return random_params(config, seed)["backbone"]


def model(seed: int = 0, *, num_classes: int = 5, n_ctx: int = 2, **changes: Any) -> dict[str, Any]:
    config = dataclasses.replace(
        MODEL,
        num_classes=num_classes,
        transformer=dataclasses.replace(MODEL.transformer, **changes),
        text_encoder=dataclasses.replace(MODEL.text_encoder, n_ctx=n_ctx),
    )
    return random_params(config, seed)


def torchs_bicubic(grid: np.ndarray, size: int) -> np.ndarray:
    """(height, width, channels) at (size, size)."""
    x = torch.from_numpy(grid).permute(2, 0, 1)[None]
    x = torch.nn.functional.interpolate(x, (size, size), mode="bicubic", align_corners=False)
    return x[0].permute(1, 2, 0).numpy()


def equal(ours: Any, theirs: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_same_architecture_is_carried_over_whole() -> None:
    theirs = backbone(0)
    params, report = fit_backbone(theirs, backbone(1))
    equal(params, theirs)
    assert len(report.matched) == len(flatten_dict(theirs))
    assert (report.reshaped, report.absent, report.skipped) == ({}, (), {})


@pytest.mark.slow
@pytest.mark.tao(8)
@pytest.mark.parametrize("window", [7, 3, 12])
def test_biases_of_another_window(window: int) -> None:
    theirs = backbone(0)
    params, report = fit_backbone(theirs, backbone(1, window_size=window))
    side = 2 * window - 1
    for name, heads in (("stage0_block0", 1), ("stage1_block1", 2), ("stage3_block0", 4)):
        table = theirs[name]["attention"]["relative_position_bias"].reshape(7, 7, heads)
        fitted = params[name]["attention"]["relative_position_bias"]
        assert fitted.dtype == np.float32
        np.testing.assert_allclose(fitted, torchs_bicubic(table, side).reshape(-1, heads), atol=1e-5)
        assert report.reshaped[f"{name}/attention/relative_position_bias"] == f"bicubic, 7x7 to {side}x{side}"
        equal(params[name]["linear1"], theirs[name]["linear1"])
    assert len(report.reshaped) == 5


@pytest.mark.slow
def test_an_absolute_position_embedding_of_another_image_size() -> None:
    theirs = backbone(0, ape=True, pretrain_img_size=32)
    params, report = fit_backbone(theirs, backbone(1, ape=True, pretrain_img_size=56))
    expected = torchs_bicubic(theirs["absolute_pos_embed"][0], 14)
    np.testing.assert_allclose(params["absolute_pos_embed"][0], expected, atol=1e-5)
    assert report.reshaped == {"absolute_pos_embed": "bicubic, 8x8 to 14x14"}


def test_what_a_classifier_lacks_stays_fresh() -> None:
    theirs = {name: x for name, x in backbone(0).items() if not name.startswith("norm")}
    fresh = backbone(1)
    params, report = fit_backbone(theirs, fresh)
    assert report.absent == tuple(f"norm{i}/{name}" for i in range(4) for name in ("bias", "scale"))
    equal(params["norm2"], fresh["norm2"])
    equal(params["merging1"], theirs["merging1"])


@pytest.mark.tao(8)
def test_a_few_missing_names_are_reported() -> None:
    theirs = backbone(0)
    del theirs["patch_norm"]
    params, report = fit_backbone(theirs, fresh := backbone(1))
    assert report.absent == ("patch_norm/bias", "patch_norm/scale")
    equal(params["patch_norm"], fresh["patch_norm"])


@pytest.mark.tao(8)
@pytest.mark.parametrize("other", [{"depths": (1, 1, 1, 1)}, {"depths": (1, 2, 3, 1)}])
def test_another_depth_is_refused_in_both_directions(other: dict[str, Any]) -> None:
    for theirs, ours in ((backbone(), backbone(**other)), (backbone(**other), backbone())):
        with pytest.raises(ConversionError, match=r"only \d+ of \d+ names agree: model.backbone must match") as raised:
            fit_backbone(theirs, ours)
        assert raised.value.report.missing or raised.value.report.unexpected


def test_another_width_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"shapes that do not fit: .* instead of") as raised:
        fit_backbone(backbone(), backbone(embed_dim=16))
    assert "patch_embed/kernel" in raised.value.report.misfits


def test_other_heads_are_refused() -> None:
    with pytest.raises(ConversionError, match="stage0_block0/attention/relative_position_bias") as raised:
        fit_backbone(backbone(), backbone(num_heads=(2, 2, 2, 4), window_size=7))
    assert len(raised.value.report.misfits) == 1


@pytest.mark.tao(7)
def test_classes_queries_and_context_rows_start_afresh() -> None:
    theirs, fresh = model(0), model(1, num_classes=9, num_queries=8, n_ctx=3)
    params, report = fit_model(theirs, fresh)
    assert report.reshaped == {
        "predictor/class_embed/bias": "newly initialised: 10 classes instead of 6",
        "predictor/class_embed/kernel": "newly initialised: 10 classes instead of 6",
        "predictor/query_embed": "newly initialised: 8 queries instead of 6",
        "prompt_ctx": "newly initialised: 3 context rows instead of 2",
    }
    equal(params["predictor"]["class_embed"], fresh["predictor"]["class_embed"])
    equal(params["predictor"]["query_embed"], fresh["predictor"]["query_embed"])
    equal(params["predictor"]["layer_0"], theirs["predictor"]["layer_0"])
    assert jax.tree.structure(params) == jax.tree.structure(fresh)


def test_a_model_for_inference_lacks_the_parts_for_training() -> None:
    fresh = model(1)
    theirs = {part: x for part, x in model(0).items() if part not in ("text_encoder", "text_projector", "prompt_ctx")}
    params, report = fit_model(theirs, fresh)
    equal(params["text_encoder"], fresh["text_encoder"])
    equal(params["backbone"], theirs["backbone"])
    assert {path.split("/")[0] for path in report.absent} == {"text_encoder", "text_projector", "prompt_ctx"}


def test_context_rows_that_the_model_does_not_have_are_left_out() -> None:
    params, report = fit_model(model(0), model(1, n_ctx=0))
    assert "prompt_ctx" not in params
    assert report.skipped == {"prompt_ctx": "not in this model"}


def test_a_models_backbone_takes_another_window_too() -> None:
    fresh = model(1) | {"backbone": backbone(1, window_size=5)}
    _, report = fit_model(model(0), fresh)
    assert report.reshaped["backbone/stage0_block0/attention/relative_position_bias"] == "bicubic, 7x7 to 9x9"


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"dim_feedforward": 48}, {"dec_layers": 3}, {"hidden_dim": 64}])
def test_other_differences_of_a_model_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ConversionError, match=r"no values for|shapes that do not fit"):
        fit_model(model(0), model(1, **other))


@pytest.mark.parametrize("as_shapes", [True, False])
def test_the_classifier_is_put_into_the_order_of_the_data_and_starts_anew_for_other_classes(as_shapes: bool) -> None:
    theirs, fresh = ("a", "b", "c", "d", "e"), model(1)
    weights = model(0)
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), fresh) if as_shapes else fresh
    before, untouched = (params["predictor"]["class_embed"] for params in (weights, template))

    def fitted(*classes: tuple[str, ...]) -> dict[str, Any]:
        params, _ = fit_model(weights, template, classes=classes)
        np.testing.assert_array_equal(params["predictor"]["query_embed"], weights["predictor"]["query_embed"])
        return params["predictor"]["class_embed"]

    turned = fitted(theirs, ("c", "a", "b", "e", "d"))
    for name in ("kernel", "bias"):  # the sixth output is no-object
        np.testing.assert_array_equal(turned[name], before[name][..., [2, 0, 1, 4, 3, 5]])
        for same in ((theirs, theirs), ((), theirs)):
            np.testing.assert_array_equal(fitted(*same)[name], before[name])
        for others in (("a", "b", "c", "d", "f"), ("a", "b", "c", "d")):  # four of five outputs have a name
            assert fitted(theirs, others)[name] is untouched[name]
