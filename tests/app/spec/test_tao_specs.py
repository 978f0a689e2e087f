"""Specs as TAO's users have them load as they are, once their paths are filled in."""

import pytest

from oneformer_jax.app.spec import Spec, require
from oneformer_jax.errors import SpecError

# Everything that may be left out is blank, null or `???`; a section has no keys at all.
UNFILLED = """
results_dir:
dataset:
  train: {annotations: , images: , panoptic: , batch_size: 4, num_workers: 4}
  val:
    annotations: ???
    images: ???
    panoptic: ???
    batch_size: 4
  label_map:
  image_size: 1024
  cutmix_prob: 0.0
model:
  backbone:
    name: D2SwinTransformer
    freeze_at: 0
    swin: {embed_dim: 192, depths: [2, 2, 18, 2], qk_scale: null, use_checkpoint: false}
  one_former: {num_object_queries: 250}
  sem_seg_head: {num_classes: 150}
train:
  num_epochs: 100
  num_gpus: 8
  num_nodes: 1
  pretrained_model:
  pretrained_backbone: null
  precision: 16-mixed
  iters_per_epoch: 15000
evaluate:
"""
# The values that other specs hold: choices in another case, lists of data sets, -1 for "as long as the data".
VARIED = """
encryption_key: some_key
results_dir: /results/run
dataset:
  train:
    images: [/data/one/images, /data/two/images]
    annotations: [/data/one/panoptic.json, /data/two/panoptic.json]
    panoptic: [/data/one/masks, /data/two/masks]
  val:
    images: /data/one/val
    annotations: /data/one/val.json
    panoptic: /data/one/val_masks
    names: [one]
  image_size: [1024, 512]
  task_prob_train: {semantic: 0.33, instance: 0.66}
train:
  optim: {type: AdamW, lr: 1e-4, lr_scheduler: "WarmupPoly", warmup_iters: 0, warmup_factor: 1.0, weight_decay: 0}
  precision: bf16-mixed
  clip_grad_norm: 0.01
  clip_grad_norm_type: 2.0
  val_check_interval: 1
  freeze: []
  distributed_strategy: fsdp
  iters_per_epoch: -1
evaluate: {checkpoint: /w/model.pth, task: panoptic, gpu_ids: [0], iou_per_class: True}
inference: {mode: Instance, image_size: [1024, 1024], checkpoint: "/w/miou=0.68.pth"}
"""


@pytest.mark.tao(33)
def test_blank_null_and_question_marks(load, refusal) -> None:
    spec = load(UNFILLED)
    assert (spec.results_dir, spec.dataset.val.images, spec.train.pretrained_backbone) == ("", "", "")
    assert spec.evaluate == Spec().evaluate
    assert (spec.train.precision, spec.train.num_gpus, spec.train.iters_per_epoch) == ("16-mixed", 8, 15000)
    with pytest.raises(SpecError, match=r"run\.yaml:4.*dataset\.val\.images \(.*run\.yaml:7\)"):
        require(spec, "dataset.train.images", "dataset.val.images")


def test_paths_filled_in_on_the_command_line(load) -> None:
    spec = load(UNFILLED, ["results_dir=/r", "dataset.train.images=/a", "dataset.val.images=/b"])
    require(spec, "results_dir", "dataset.train.images", "dataset.val.images")


def test_spellings_lists_and_later_keys(load) -> None:
    spec = load(VARIED)
    assert spec.train.optim.lr_scheduler == "Warmuppoly"
    assert spec.train.optim.lr == 1e-4
    assert spec.train.precision == "bf16-mixed"
    assert spec.train.iters_per_epoch is None
    assert spec.train.clip_grad_norm_type == 2.0
    assert spec.dataset.train.annotations == ("/data/one/panoptic.json", "/data/two/panoptic.json")
    assert spec.dataset.val.names == ("one",)
    assert spec.dataset.image_size == (1024, 512)
    assert (spec.evaluate.task, spec.inference.mode) == ("panoptic", "instance")


@pytest.mark.parametrize("name", ["WarmupPoly", "warmuppoly", "WARMUPPOLY", "Warmuppoly"])
def test_schedules_in_any_case(load, name: str) -> None:
    assert load(f"train: {{optim: {{lr_scheduler: {name}}}}}\n").train.optim.lr_scheduler == "Warmuppoly"
