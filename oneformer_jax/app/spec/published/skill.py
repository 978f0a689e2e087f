"""What an orchestrator reads before it starts an action: the command, its inputs and outputs, and where data come from.

The form is that of TAO's `skill_info.yaml`. Its keys are those of the spec, so a runner made for TAO fills in the same
ones. It is one file of the bundle (`published.bundle`) that describes this project to TAO's tools.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oneformer_jax.app.spec.published.schema import ACTIONS, DEPLOYMENT

IMAGES = "images.tar.gz"
FILES = {
    "images": IMAGES,
    "images_dir": IMAGES,
    "panoptic": "images_panoptic.tar.gz",
    "annotations": "annotations.json",
    "label_map": "label_map.json",
}
# Where the formats of annotations have label maps of their own: the file for each format, * for every other.
LABEL_MAPS = {"inference": {"coco_panoptic": "label_map_panoptic.json", "*": FILES["label_map"]}}
# Whose files are taken where a data set is not given.
SUBSTITUTES = {"inference_dataset": "eval_dataset", "calibration_dataset": "train_datasets"}
DATA = (
    "dataset.train.images",
    "dataset.train.annotations",
    "dataset.train.panoptic",
    "dataset.label_map",
    "dataset.val.images",
    "dataset.val.annotations",
    "dataset.val.panoptic",
    "dataset.test.images",
)
TEST_DATA = ("dataset.test.annotations", "dataset.test.panoptic")
CALIBRATION = "dataset.quant_calibration_dataset.images_dir"
INPUTS = {
    "train": (
        *DATA,
        "train.pretrained_backbone",
        "train.pretrained_model",
        "train.resume_training_checkpoint_path",
    ),
    "evaluate": (*DATA, *TEST_DATA, "evaluate.checkpoint", "evaluate.trt_engine"),
    "inference": (*DATA, "inference.images_dir", "inference.checkpoint", "inference.trt_engine"),
    "export": ("export.checkpoint",),
    "quantize": (*DATA, CALIBRATION, "quantize.model_path"),
    "gen_trt_engine": ("gen_trt_engine.onnx_file",),
}
OPTIONAL = {*INPUTS["train"][len(DATA) :], "evaluate.trt_engine", "inference.trt_engine"}
# Where the value of a key comes from, besides the data: the run before this one, or a name chosen for the result.
PARAMETERS = {
    "train": {
        "train.pretrained_model": "ptm_if_no_resume_model",
        "train.resume_training_checkpoint_path": "resume_model",
    },
    "evaluate": {"evaluate.checkpoint": "parent_model", "evaluate.trt_engine": "parent_model"},
    "inference": {"inference.checkpoint": "parent_model", "inference.trt_engine": "parent_model"},
    "export": {"export.checkpoint": "parent_model", "export.onnx_file": "create_onnx_file"},
    "quantize": {"quantize.model_path": "parent_model"},
    "gen_trt_engine": {
        "gen_trt_engine.onnx_file": "parent_model",
        "gen_trt_engine.trt_engine": "create_engine_file",
    },
}
# What a training without other weights starts from, and the keys of model.backbone.swin that it is made for.
PRETRAINED_BACKBONE: tuple[str, Mapping[str, Any]] = (
    "https://github.com/SwinTransformer/storage/releases/download/v1.0.8/swin_tiny_patch4_window7_224_22k.pth",
    {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7},
)
SHORTHANDS = {
    "num_epochs": "train.num_epochs",
    "batch_size": "dataset.train.batch_size",
    "train_batch_size": "dataset.train.batch_size",
    "val_batch_size": "dataset.val.batch_size",
    "test_batch_size": "dataset.test.batch_size",
    "learning_rate": "train.optim.lr",
    "num_classes": "model.sem_seg_head.num_classes",
    "contiguous_id": "dataset.contiguous_id",
    "image_size": "dataset.image_size",
    "train_min_size": "dataset.augmentation.train_min_size",
    "train_max_size": "dataset.augmentation.train_max_size",
    "train_crop_size": "dataset.augmentation.train_crop_size",
    "test_min_size": "dataset.augmentation.test_min_size",
    "test_max_size": "dataset.augmentation.test_max_size",
    "pretrained_model": "train.pretrained_model",
    "pretrained_backbone": "train.pretrained_backbone",
    "resume_checkpoint": "train.resume_training_checkpoint_path",
    "export_onnx": "export.onnx_file",
    "export_width": "export.input_width",
    "export_height": "export.input_height",
    "export_task": "export.task",
    "inference_images": "inference.images_dir",
    "inference_mode": "inference.mode",
    "quant_backend": "quantize.backend",
    "quant_model_path": "quantize.model_path",
    "calibration_images": CALIBRATION,
    "trt_data_type": "gen_trt_engine.tensorrt.data_type",
    "trt_engine": "gen_trt_engine.trt_engine",
    "trt_min_batch_size": "gen_trt_engine.tensorrt.min_batch_size",
    "trt_opt_batch_size": "gen_trt_engine.tensorrt.opt_batch_size",
    "trt_max_batch_size": "gen_trt_engine.tensorrt.max_batch_size",
}


def skill_info() -> dict[str, Any]:
    """All actions, as plain YAML data."""
    return {
        "name": "oneformer-jax",
        "network_arch": "oneformer",
        "automl_enabled": True,
        "container_image": "oneformer_jax",
        "data_format": "coco_panoptic",
        "gpu_spec_key": "train.num_gpus",
        "actions": {action: action_info(action, INPUTS[action]) for action in ACTIONS},
        "data_sources": {action: sources(action, INPUTS[action]) for action in ACTIONS if data_keys(action)},
        "spec_params": {action: parameters(action) for action in ACTIONS},
        "key_defaults": {},
        "spec_shorthand_keys": dict(SHORTHANDS),
        "spec_templates": {action: f"../references/spec_template_{action}.yaml" for action in ACTIONS},
        "deploy_spec_templates": {action: f"../references/spec_template_deploy_{action}.yaml" for action in DEPLOYMENT},
        "description": "One model for semantic, instance and panoptic segmentation: OneFormer, trained and run in JAX",
    }


def action_info(action: str, keys: Sequence[str], optional: Collection[str] = OPTIONAL) -> dict[str, Any]:
    """The command of an action, and its inputs: the `keys` that name them."""
    folders = {key.path for key in data_keys(action) if key.is_folder}
    inputs = {
        path: {"type": "folder" if path in folders else "file", **({"optional": True} if path in optional else {})}
        for path in keys
    }
    return {
        "command": f"oneformer {action} -e {{config_path}}",
        "config_format": "yaml",
        "mode": "config",
        "inputs": inputs,
        "outputs": {"results_dir": {"type": "folder"}},
        "upload_excludes": ["inputs/"],
    }


@dataclass(frozen=True)
class DataKey:
    """A key whose value is a file of a data set: of which, and the file's name for each format, "*" for all others."""

    path: str
    source: str
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """The file's name where the format does not count."""
        return self.files["*"]

    @property
    def is_folder(self) -> bool:
        """Whether the file is an archive that is unpacked into a folder."""
        return self.name.endswith(".tar.gz")


def data_keys(action: str) -> tuple[DataKey, ...]:
    """The keys of an action that are filled from data sets."""
    return tuple(
        DataKey(path, _data_set(path, action), _files(path, action))
        for path in INPUTS[action]
        if path.rpartition(".")[2] in FILES
    )


def parameters(action: str) -> dict[str, str]:
    """The keys of an action that are not filled from data sets, and how each is found."""
    return {"encryption_key": "key", "results_dir": "output_dir", **PARAMETERS[action]}


def _files(path: str, action: str) -> Mapping[str, str]:
    name = path.rpartition(".")[2]
    return LABEL_MAPS.get(action, {"*": FILES[name]}) if name == "label_map" else {"*": FILES[name]}


def sources(action: str, keys: Sequence[str]) -> dict[str, Any]:
    """The file of a data set that becomes the value of each of the `keys`; archives are unpacked into a folder."""
    folder = {"runtime": "extracted_folder"}
    return {
        key.path: {"source": key.source, "path": key.name} | (folder if key.is_folder else {})
        for key in data_keys(action)
        if key.path in keys
    }


def _data_set(path: str, action: str) -> str:
    if path == CALIBRATION:
        return "calibration_dataset"
    if path == "inference.images_dir" or (path == "dataset.test.images" and action == "inference"):
        return "inference_dataset"
    return "eval_dataset" if path.startswith(("dataset.val.", "dataset.test.")) else "train_datasets"
