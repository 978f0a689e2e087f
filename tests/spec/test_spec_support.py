"""What is not honoured is named, and the page about it is the one that the declarations give."""

from pathlib import Path

from oneformer_jax.spec import Spec, unsupported_keys
from oneformer_jax.spec.support import notes
from oneformer_jax.spec.support_page import page


def test_only_what_the_user_changes_is_named(load) -> None:
    assert unsupported_keys(Spec()) == []
    text = """
train: {precision: bf16, distributed_strategy: fsdp, seed: 5, accumulate_grad_batches: 1, freeze: [backbone]}
wandb: {enable: false, project: mine}
dataset: {cutmix_prob: 0.0, train: {images: [a, b], annotations: c}}
model: {backbone: {freeze_at: 2, swin: {window_size: 7}}, export: true}
"""
    expected = ["wandb.project", "model.backbone.freeze_at", "dataset.train.images"]
    expected += ["train.freeze", "train.precision", "train.distributed_strategy"]
    assert unsupported_keys(load(text)) == expected
    assert all(notes()[key] for key in expected)


def test_the_page_is_up_to_date() -> None:
    path = Path(__file__).resolve().parents[2] / "docs" / "unsupported-keys.md"
    assert path.read_text(encoding="utf-8") == page()
