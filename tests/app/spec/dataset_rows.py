"""Rows of `dataset`: files, workers, sizes, random changes and the chances of the tasks."""

from pathlib import Path

from key_rows import Changes, Rows, evaluation_workers, loop, model, pipeline, policy, source, training

from oneformer_jax.app.settings.data import dataset_files
from oneformer_jax.app.settings.evaluation import inference_run
from oneformer_jax.app.spec import Spec
from oneformer_jax.data.datasets.files import Split

SIZES = "dataset.augmentation"
VALIDATED = ("model.test.instance_on=true",)


def label_maps(spec: Spec) -> dict[str, str]:
    return {name: Path(path).name for name, path in dataset_files(spec, "train").label_maps.items()}


def files_of(split: Split, other: Split) -> Rows:
    """The keys that name files; `other` is a split that has some too."""
    path = f"dataset.{split}"
    return {
        f"{path}.images": Changes(f"DATA/{other}/images", source(split, "images"), f"{other}/images"),
        f"{path}.annotations": Changes(
            f"DATA/{other}/annotations.json", source(split, "annotations"), f"{other}/annotations.json"
        ),
        f"{path}.panoptic": Changes(f"DATA/{other}/panoptic", source(split, "panoptic"), f"{other}/panoptic"),
        f"{path}.names": Changes("[mine]", source(split, "name"), "mine"),
    }


SPLITS: Rows = {
    "dataset.train.batch_size": Changes("2", loop("batch_size"), 2),
    "dataset.train.num_workers": Changes("3", pipeline("num_workers"), 3),
    **files_of("train", "val"),
    "dataset.val.batch_size": Changes("2", training("validation.batch_size"), 2),
    "dataset.val.num_workers": Changes("3", evaluation_workers("val"), 3),
    **files_of("val", "train"),
    "dataset.test.batch_size": Changes(
        "2", lambda spec: inference_run(spec).batch_size, 2, beside=("inference.checkpoint=/a",)
    ),
    "dataset.test.num_workers": Changes("3", evaluation_workers("test"), 3),
    **files_of("test", "train"),
    "dataset.workers": Changes("3", pipeline("num_workers"), 3),
}

AUGMENTATION: Rows = {
    f"{SIZES}.train_min_size": Changes("[480,640]", pipeline("augmentation.short_sizes"), (480, 640)),
    f"{SIZES}.train_max_size": Changes("900", pipeline("augmentation.longest"), 900),
    f"{SIZES}.train_crop_size": Changes("[64,96]", pipeline("augmentation.crop"), (64, 96)),
    f"{SIZES}.test_min_size": Changes("320", policy("min_size"), 320),
    f"{SIZES}.test_max_size": Changes("960", policy("max_size"), 960),
    f"{SIZES}.test_geometry": Changes("square", policy("squeeze"), (1024, 1024)),
    f"{SIZES}.flip_prob": Changes("0.25", pipeline("augmentation.flip_prob"), 0.25),
    f"{SIZES}.color_prob": Changes("0.25", pipeline("augmentation.color_prob"), 0.25),
    f"{SIZES}.rotation_prob": Changes("0.25", pipeline("augmentation.rotation_prob"), 0.25),
    f"{SIZES}.blur_prob": Changes("0.25", pipeline("augmentation.blur_prob"), 0.25),
    f"{SIZES}.erasing_prob": Changes("0.25", pipeline("augmentation.erasing_prob"), 0.25),
    f"{SIZES}.crop_max_area": Changes("0.9", pipeline("augmentation.crop_max_area"), 0.9),
}

WHOLE: Rows = {
    "dataset.pixel_mean": Changes("[1,2,3]", training("recipe.pixel_mean"), (1.0, 2.0, 3.0)),
    "dataset.pixel_std": Changes("[1,2,3]", training("recipe.pixel_std"), (1.0, 2.0, 3.0)),
    "dataset.contiguous_id": Changes("false", training("data.contiguous_id"), False),
    "dataset.on_bad_annotation": Changes("refuse", training("data.on_bad_annotation"), "refuse"),
    "dataset.label_map": Changes("DATA/label_map.json", label_maps, {"*": "label_map.json"}),
    "dataset.task_prob_train": Changes(
        "{instance: 1}", pipeline("task_prob"), {"semantic": 0.0, "instance": 1.0, "panoptic": 0.0}
    ),
    "dataset.task_prob_val": Changes("{instance: 1}", training("validation.tasks"), ("instance",), beside=VALIDATED),
    "dataset.task_seq_len": Changes("50", model("task_seq_len"), 50),
    "dataset.max_seq_len": Changes(
        "5", training("recipe.prompt_length"), 5, together=("model.text_encoder.context_length=5",)
    ),
    "dataset.image_size": Changes("[640,480]", policy("squeeze"), (480, 640)),
    "dataset.min_scale": Changes("0.5", pipeline("augmentation.min_scale"), 0.5),
    "dataset.max_scale": Changes("1.5", pipeline("augmentation.max_scale"), 1.5),
    "dataset.cutmix_prob": Changes("0.5", pipeline("cutmix_prob"), 0.5),
}

ROWS: tuple[Rows, ...] = (SPLITS, AUGMENTATION, WHOLE)
