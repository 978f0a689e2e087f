"""Keys that contradict each other are refused at a line; what gradient clipping means."""

import pytest

from oneformer_jax.app.settings.evaluation import evaluation_policy
from oneformer_jax.app.settings.training import optimizer_config
from oneformer_jax.app.spec import oddities


@pytest.mark.tao(38)
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.text_encoder.width=128", "model.text_encoder.width is 128 but model.one_former.hidden_dim is 256"),
        ("model.one_former.num_object_queries=16", "it must exceed model.text_encoder.n_ctx, 16"),
        ("model.one_former.nheads=7", "model.one_former.hidden_dim 256 is not divisible by model.one_former.nheads 7"),
        ("model.sem_seg_head.mask_dim=128", "must be equal"),
        ("model.text_encoder.context_length=60", "dataset.max_seq_len is 77"),
        ("model.backbone.swin.embed_dim=100", "stage 0 has 100 channels, not divisible by 6 heads"),
        ("model.backbone.swin.depths=[2,2,2]", "a list of 4 x whole number > 0"),
        ("dataset.task_prob_train={semantic: 0, instance: 0, panoptic: 0}", "every task has probability 0"),
        ("dataset.task_prob_train.semantic=-1", "dataset.task_prob_train.semantic: found -1"),
        ("dataset.min_scale=3", "dataset.min_scale 3.0 exceeds dataset.max_scale 2.0"),
        ("evaluate.batch_size=0", "evaluate.batch_size is 0"),
        ("model.sem_seg_head.in_features=[res4,res5]", "use ['res3', 'res4', 'res5']"),
        ("model.one_former.num_feature_levels=4", "not available; use 3"),
        ("train.num_gpus=1000000000", "train.num_gpus is 1000000000: it counts devices of one machine, at most 1024"),
        ("dataset.max_scale=1e300", "dataset.max_scale: found 1e+300 (a number), expected 0 or a number that float32"),
        ("dataset.max_scale=1000", "dataset.max_scale 1000 times the 1024 pixels of dataset.augmentation.train_crop"),
        ("dataset.pixel_mean=[1e308,0,0]", "dataset.pixel_mean: found 1e+308"),
        ("dataset.pixel_std=[1e-320,1,1]", "dataset.pixel_std: found 1e-320"),
        ("dataset.augmentation.train_min_size=[800,70000]", "short edge has 7e+04 pixels; give at most 32768"),
        ("dataset.image_size=70000", "dataset.image_size: images whose short edge has 7e+04 pixels"),
        (
            "model.one_former.train_num_points=99999999999",
            "found 99999999999 (a whole number), expected at most 2147483",
        ),
        ("model.one_former.train_num_points=2000000000", "oversample_ratio 3 points of each mask: give at most"),
        ("model.backbone.swin.depths=[99999999999999999999,1,1,1]", "depths: found 99999999999999999999"),
        ("model.backbone.swin.depths=[2,2,999,2]", "depths: 1005 layers, each of which is compiled; give at most 200"),
    ],
)
def test_contradictions(refusal, override: str, words: str) -> None:
    message = refusal("", [override])
    assert words in message
    assert f"command line: {override}" in message


def test_what_tao_accepts_is_said_and_not_refused(load) -> None:
    assert list(oddities(load(""))) == []
    spec = load("", ["model.backbone.freeze_at=-1", "dataset.augmentation.test_min_size=2000"])
    assert list(oddities(spec)) == [
        "model.backbone.freeze_at is -1: nothing is frozen, as with 0",
        "dataset.augmentation.test_min_size 2000 exceeds dataset.augmentation.test_max_size 1333: "
        "the long side of every image becomes 1333 pixels",
    ]
    # As Detectron2's ResizeShortestEdge, which TAO uses: scaled to the short side, then down to the long one.
    assert evaluation_policy(spec)((480, 640)).resized == (1000, 1333)
    assert evaluation_policy(spec)((900, 300)).resized == (1333, 444)


@pytest.mark.tao(38)
def test_coupled_widths_change_together(load) -> None:
    text = """
model:
  one_former: {hidden_dim: 64, nheads: 4}
  text_encoder: {width: 64}
  sem_seg_head: {convs_dim: 64, mask_dim: 64}
  backbone:
    swin: {embed_dim: 32, depths: [1, 1, 1, 1], num_heads: [1, 2, 4, 8]}
dataset:
  augmentation: {train_crop_size: [500, 333]}
"""
    assert load(text).dataset.augmentation.train_crop_size == (500, 333)


@pytest.mark.tao(2)
@pytest.mark.parametrize(
    ("keys", "clip"),
    [
        ("", ("full_model", 1.0, 2.0)),
        ("{clip_grad_norm: 0.1}", ("full_model", 1.0, 2.0)),
        ("{clip_grad_norm: 0.01}", ("full_model", 0.01, 2.0)),
        ("{clip_grad_norm: 0}", ("full_model", 0.0, 2.0)),
        ("{clip_grad_norm: 0.01, clip_gradients: {enabled: false}}", ("full_model", 0.01, 2.0)),
        ("{clip_gradients: {enabled: false}}", ("full_model", 0.0, 2.0)),
        ("{clip_gradients: {clip_value: 0.5, norm_type: 1}}", ("full_model", 0.5, 1.0)),
        ("{clip_gradients: {clip_value: 0.5, clip_type: value}}", ("value", 0.5, 2.0)),
    ],
)
def test_gradient_clip(load, keys: str, clip: tuple[str, float, float]) -> None:
    config = optimizer_config(load(f"train: {keys}\n").train)
    assert (config.clip_type, config.clip_value, config.clip_norm_type) == clip


@pytest.mark.tao(2)
def test_two_wishes_for_clipping_are_refused(refusal) -> None:
    message = refusal("train:\n  clip_grad_norm: 0.01\n  clip_gradients: {clip_value: 0.5}\n")
    assert "run.yaml:2" in message
    assert "change only one" in message
