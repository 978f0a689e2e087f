"""The tables of TAO's page on OneFormer, row by row: what each key of each action is filled with."""

import re

PRETRAINED_BACKBONE = (
    "https://github.com/SwinTransformer/storage/releases/download/v1.0.8/swin_tiny_patch4_window7_224_22k.pth"
)

# action, key, data set, file
DATA = (
    ("evaluate", "dataset.train.images", "train_datasets", "images.tar.gz"),
    ("evaluate", "dataset.label_map", "train_datasets", "label_map.json"),
    ("evaluate", "dataset.train.annotations", "train_datasets", "annotations.json"),
    ("evaluate", "dataset.train.panoptic", "train_datasets", "images_panoptic.tar.gz"),
    ("evaluate", "dataset.val.images", "eval_dataset", "images.tar.gz"),
    ("evaluate", "dataset.val.annotations", "eval_dataset", "annotations.json"),
    ("evaluate", "dataset.val.panoptic", "eval_dataset", "images_panoptic.tar.gz"),
    ("evaluate", "dataset.test.images", "eval_dataset", "images.tar.gz"),
    ("evaluate", "dataset.test.annotations", "eval_dataset", "annotations.json"),
    ("evaluate", "dataset.test.panoptic", "eval_dataset", "images_panoptic.tar.gz"),
    ("inference", "dataset.train.images", "train_datasets", "images.tar.gz"),
    ("inference", "dataset.label_map", "train_datasets", "coco_panoptic: label_map_panoptic.json; *: label_map.json"),
    ("inference", "dataset.train.annotations", "train_datasets", "annotations.json"),
    ("inference", "dataset.train.panoptic", "train_datasets", "images_panoptic.tar.gz"),
    ("inference", "dataset.val.images", "eval_dataset", "images.tar.gz"),
    ("inference", "dataset.val.annotations", "eval_dataset", "annotations.json"),
    ("inference", "dataset.val.panoptic", "eval_dataset", "images_panoptic.tar.gz"),
    ("inference", "dataset.test.images", "eval_dataset", "images.tar.gz"),
    ("quantize", "dataset.train.images", "train_datasets", "images.tar.gz"),
    ("quantize", "dataset.train.annotations", "train_datasets", "annotations.json"),
    ("quantize", "dataset.label_map", "train_datasets", "label_map.json"),
    ("quantize", "dataset.train.panoptic", "train_datasets", "images_panoptic.tar.gz"),
    ("quantize", "dataset.val.images", "eval_dataset", "images.tar.gz"),
    ("quantize", "dataset.val.annotations", "eval_dataset", "annotations.json"),
    ("quantize", "dataset.val.panoptic", "eval_dataset", "images_panoptic.tar.gz"),
    ("quantize", "dataset.test.images", "eval_dataset", "images.tar.gz"),
    ("quantize", "dataset.quant_calibration_dataset.images_dir", "train_datasets", "images.tar.gz"),
    ("train", "dataset.train.images", "train_datasets", "images.tar.gz"),
    ("train", "dataset.train.annotations", "train_datasets", "annotations.json"),
    ("train", "dataset.label_map", "train_datasets", "label_map.json"),
    ("train", "dataset.train.panoptic", "train_datasets", "images_panoptic.tar.gz"),
    ("train", "dataset.val.images", "eval_dataset", "images.tar.gz"),
    ("train", "dataset.val.annotations", "eval_dataset", "annotations.json"),
    ("train", "dataset.val.panoptic", "eval_dataset", "images_panoptic.tar.gz"),
    ("train", "dataset.test.images", "eval_dataset", "images.tar.gz"),
)

# action, key, inference function
FUNCTIONS = (
    ("evaluate", "encryption_key", "key"),
    ("evaluate", "evaluate.checkpoint", "parent_model"),
    ("evaluate", "evaluate.trt_engine", "parent_model"),
    ("evaluate", "results_dir", "output_dir"),
    ("export", "encryption_key", "key"),
    ("export", "export.checkpoint", "parent_model"),
    ("export", "export.onnx_file", "create_onnx_file"),
    ("export", "results_dir", "output_dir"),
    ("gen_trt_engine", "encryption_key", "key"),
    ("gen_trt_engine", "gen_trt_engine.onnx_file", "parent_model"),
    ("gen_trt_engine", "gen_trt_engine.trt_engine", "create_engine_file"),
    ("gen_trt_engine", "results_dir", "output_dir"),
    ("inference", "encryption_key", "key"),
    ("inference", "inference.checkpoint", "parent_model"),
    ("inference", "inference.trt_engine", "parent_model"),
    ("inference", "results_dir", "output_dir"),
    ("quantize", "encryption_key", "key"),
    ("quantize", "quantize.model_path", "parent_model"),
    ("quantize", "results_dir", "output_dir"),
    ("train", "encryption_key", "key"),
    ("train", "results_dir", "output_dir"),
    ("train", "train.pretrained_model", "ptm_if_no_resume_model"),
    ("train", "train.resume_training_checkpoint_path", "resume_model"),
    ("train", "train.pretrained_backbone", "link"),
)

# key, default
DEVICES = (
    ("train.num_gpus", 1),
    ("train.gpu_ids", (0,)),
    ("train.num_nodes", 1),
)


def rows_of(page: str) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]], set[tuple[str, str]]]:
    """The rows that the text of the page has, as above."""
    data = re.findall(r"^\| (\w+) \| ([\w.]+) \| (\w+) \| ([^|]+?) \| No \|$", page, re.MULTILINE)
    functions = re.findall(r"^\| (\w+) \| ([\w.]+) \| (\w+|\{'link'[^|]+\}) \| [^|]+ \|$", page, re.MULTILINE)
    devices = re.findall(r"^([\w.]+) \| [^|]+ \| (\d+|\[\d+\]) \|$", page, re.MULTILINE)
    named = {(action, key, "link" if name.startswith("{") else name) for action, key, name in functions}
    return set(data), named, set(devices)
