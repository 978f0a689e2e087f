"""What a spec may hold: interpolation, blanks, missing values, overrides, spellings, synonyms."""

import pytest

from oneformer_jax.app.spec import Spec, require
from oneformer_jax.errors import SpecError


def test_interpolation(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_OF_TEST", "/data")
    monkeypatch.setenv("BATCH_OF_TEST", "6")
    spec = load(
        """
results_dir: ${oc.env:DATA_OF_TEST}/out
dataset:
  train:
    images: ${oc.env:DATA_OF_TEST}/images
    panoptic: ${.images}_panoptic
    batch_size: ${oc.env:BATCH_OF_TEST}
  val: ${dataset.train}
  augmentation:
    train_crop_size: ["${dataset.image_size}", 512]
evaluate:
  results_dir: ${results_dir}/${evaluate.task}${inference.mode}
  batch_size: ${train.num_epochs}
"""
    )
    assert spec.dataset.train.images == "/data/images"
    assert spec.dataset.train.panoptic == "/data/images_panoptic"
    assert spec.dataset.val.panoptic == "/data/images_panoptic"
    assert spec.dataset.val.batch_size == 6
    assert spec.dataset.augmentation.train_crop_size == (1024, 512)  # a default, not in the file
    assert spec.evaluate.results_dir == "/data/out/semantic"
    assert spec.evaluate.batch_size == 50


@pytest.mark.tao(33)
def test_blank_and_missing_values_are_unset(load) -> None:
    spec = load("train:\n  num_epochs:\n  optim:\ndataset:\n  label_map: ???\n  train:\n    images: ''\nevaluate: ~\n")
    assert spec == Spec()
    assert spec.train.num_epochs == 50
    assert not spec.is_set("train.num_epochs")
    with pytest.raises(SpecError) as caught:
        require(spec, "dataset.label_map", "dataset.train.images", "evaluate.checkpoint", "train.num_epochs")
    message = str(caught.value)
    assert "run.yaml:5" in message
    assert all(key in message for key in ("dataset.label_map", "dataset.train.images", "evaluate.checkpoint"))
    assert "train.num_epochs" not in message


def test_what_refers_to_a_missing_value_is_missing(load) -> None:
    spec = load("results_dir: ???\ntrain:\n  results_dir: ${results_dir}/train\n")
    assert spec.train.results_dir == ""


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}\n", "~\n"])
def test_an_empty_spec_holds_the_defaults(load, text: str) -> None:
    assert load(text) == Spec()


def test_overrides(load) -> None:
    overrides = [
        "train.gpu_ids=[0,1]",
        "+train.num_epochs=3",
        "++train.seed=9",
        "~dataset.image_size",
        "~dataset.pixel_mean.nothing",
        "results_dir=/a folder/with spaces",
        "train.optim={lr: 1e-3, gamma: 0.5}",
        "dataset.label_map=${results_dir}/map.json",
        "train.results_dir=null",
        "dataset.train.images=",
        "dataset.val.images='a: b'",
        "evaluate.checkpoint=a=b",
    ]
    spec = load("train:\n  results_dir: x\n  optim: {momentum: 0.8}\ndataset:\n  image_size: 5\n", overrides)
    assert spec.train.gpu_ids == (0, 1)
    assert (spec.train.num_epochs, spec.train.seed) == (3, 9)
    assert spec.dataset.image_size == 1024
    assert spec.results_dir == "/a folder/with spaces"
    assert (spec.train.optim.lr, spec.train.optim.gamma, spec.train.optim.momentum) == (1e-3, 0.5, 0.8)
    assert spec.dataset.label_map == "/a folder/with spaces/map.json"
    assert (spec.train.results_dir, spec.dataset.train.images) == ("", "")
    assert spec.dataset.val.images == "a: b"
    assert spec.evaluate.checkpoint == "a=b"
    assert spec.place("train.seed") == "command line: ++train.seed=9"
    assert spec.place("train.optim.momentum").endswith("run.yaml:3")


@pytest.mark.tao(6)
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("fp32", "32"),
        ("FP32", "32"),
        ("32", "32"),
        ("'32'", "32"),
        ("32-true", "32"),
        ("16", "16-mixed"),
        ("fp16", "16-mixed"),
        ("16-mixed", "16-mixed"),
        ("bf16", "bf16-mixed"),
        ("bf16-mixed", "bf16-mixed"),
    ],
)
def test_precision(load, written: str, meant: str) -> None:
    assert load(f"train:\n  precision: {written}\n").train.precision == meant


def test_choices_in_any_case(load) -> None:
    spec = load("train:\n  optim: {lr_scheduler: WarmupPoly, type: adamw}\nexport: {task: Panoptic}\n")
    assert (spec.train.optim.lr_scheduler, spec.train.optim.type) == ("Warmuppoly", "AdamW")
    assert spec.export.task == "panoptic"


def test_numbers_and_text(load) -> None:
    spec = load(
        "results_dir: 2024-01-02\ntrain:\n  optim: {lr: 1e-5, weight_decay: 0}\n  num_epochs: '7'\n"
        "wandb:\n  run_id: 12\ndataset:\n  image_size: [640, 480]\n  train:\n    images: [a, b]\n"
    )
    assert spec.results_dir == "2024-01-02"
    assert (spec.train.optim.lr, spec.train.optim.weight_decay, spec.train.num_epochs) == (1e-5, 0.0, 7)
    assert spec.wandb.run_id == "12"
    assert spec.dataset.image_size == (640, 480)
    assert spec.dataset.train.images == ("a", "b")


def test_yaml_merge_keys(load) -> None:
    spec = load("dataset:\n  train: &train\n    images: a\n    batch_size: 3\n  val:\n    <<: *train\n    images: b\n")
    assert (spec.dataset.val.images, spec.dataset.val.batch_size) == ("b", 3)


@pytest.mark.tao(10)
def test_a_task_that_is_not_named_has_no_chance(load) -> None:
    chances = load("dataset:\n  task_prob_train: {semantic: 1}\n").dataset.task_prob_train
    assert (chances.semantic, chances.instance, chances.panoptic) == (1.0, 0.0, 0.0)
    assert Spec().dataset.task_prob_train.instance == 0.66


@pytest.mark.tao(3)
def test_synonyms(load, refusal) -> None:
    text = "model:\n  task_toggling:\n    instance_on: true\n    semantic_on: false\n"
    test = load(text + "dataset:\n  augmentation: {cutmix_prob: 0.5}\n").model.test
    assert (test.semantic_on, test.instance_on, test.panoptic_on) == (False, True, False)
    assert load("dataset:\n  augmentation: {cutmix_prob: 0.5}\n").dataset.cutmix_prob == 0.5
    assert load(text + "  test: {instance_on: true}\n").model.test.instance_on
    message = refusal(text + "  test:\n    instance_on: false\n")
    assert "run.yaml:3: model.task_toggling.instance_on is true" in message
    assert "model.test.instance_on is false" in message
    assert load(text, ["model.task_toggling.instance_on=false"]).model.test.instance_on is False
    assert "did you mean model.task_toggling.semantic_on?" in refusal("model:\n  task_toggling: {semantics_on: true}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # the first is the block of TAO's page, word by word
        (
            '{coco_panoptic: "s3://bucket/data/train/label_map_panoptic.json; *: label_map.json"}',
            {
                "coco_panoptic": "s3://bucket/data/train/label_map_panoptic.json",
                "*": "s3://bucket/data/train/label_map.json",
            },
        ),
        ('{coco_panoptic: "a.json; *: b.json"}', {"coco_panoptic": "a.json", "*": "b.json"}),
        ('{coco_instances: "/x/a.json;*: /y/b.json"}', {"coco_instances": "/x/a.json", "*": "/y/b.json"}),
        ('{coco_instances: /x/a.json, "*": /y/b.json}', {"coco_instances": "/x/a.json", "*": "/y/b.json"}),
    ],
)
def test_label_maps_of_several_formats_as_the_page_writes_them(text: str, expected: dict[str, str], load) -> None:
    assert load(f"dataset:\n  label_map: {text}\n").dataset.label_map == expected


def test_a_semicolon_that_separates_nothing(load) -> None:
    with pytest.raises(SpecError, match=r"dataset.label_map: found .*a\.json; b\.json"):
        load('dataset:\n  label_map: {coco_instances: "a.json; b.json"}\n')
