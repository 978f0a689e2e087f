"""The sections of evaluation, inference and export, and `wandb`."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from oneformer_jax.app.spec.field import Section, device_indices, key, location_key, own_key, results_folder
from oneformer_jax.app.spec.train_keys import PRECISION_ALIASES, Precision
from oneformer_jax.tasks import Task

ONE_HOST = "this action runs on one host"


class Wandb(Section):
    """`wandb`: read by train alone."""

    enable: bool = key(
        True,
        "",
        "Log the curves to Weights & Biases; needs the extra `wandb` and an account or WANDB_MODE=offline.",
        unset="nothing is sent",
        tao="on where the key is left out; logs in even when false",
    )
    project: str = key("TAO Toolkit", "", "Project.")
    entity: str = key("", "", "User or team; empty: the account's default.")
    group: str = key("", "", "Group of runs.")
    tags: tuple[str, ...] = key(("tao-toolkit",), "", "Tags.")
    reinit: bool = key(False, "", "Finish any run that is still open in this process first.", tao="ignored")
    sync_tensorboard: bool = key(
        False, "", "Upload the curves from the TensorBoard files instead of from the run itself.", tao="always on"
    )
    save_code: bool = key(False, "", "Upload the main script.", tao="always off")
    name: str = key("TAO Toolkit Training", "", "Name of the run.", tao="date and time are appended")
    run_id: str = key("", "", "ID of the run to continue.")


class OnImages(Section):
    """What evaluation and inference have in common: devices, the model, the batch."""

    num_gpus: int = key(
        1,
        "Number of GPUs",
        "Number of devices, at most as many as are available: the first ones unless gpu_ids is changed. Each "
        "processes its own batch.",
        minimum=1,
        popular=True,
    )
    gpu_ids: tuple[NonNegativeInt, ...] = device_indices()
    num_nodes: int = key(
        1, "Number of nodes", "Number of hosts.", minimum=1, popular=True, only=(1,), note=ONE_HOST, tao="ignored"
    )
    checkpoint: str = location_key(
        "", "Checkpoint path", "Checkpoint to run; unset: that of the training in results_dir.", tao="required"
    )
    trt_engine: str = location_key(
        "",
        "TensorRT Engine",
        "Exported model (.onnx) or engine to run instead of a checkpoint, without JAX.",
        tao="read only by the deployment tool",
    )
    results_dir: str = results_folder()
    batch_size: int = key(
        -1,
        "batch size",
        "Images per batch; -1: dataset.test.batch_size.",
        minimum=-1,
        tao="ignored: dataset.test.batch_size is used",
    )
    precision: Precision = own_key(
        "32",
        "precision",
        "Number format of a checkpoint's matrix products and convolutions; all else is float32. An exported model has "
        "its own.",
        aliases=PRECISION_ALIASES,
    )


class Evaluate(OnImages):
    """`evaluate`"""

    iou_per_class: bool = key(True, "IoU per class", "Report the IoU of each class.")
    task: Literal["", "semantic", "instance", "panoptic"] = own_key(
        "",
        "task",
        "The only task to score; empty: the tasks that model.test enables.",
        tao="in later versions: semantic or panoptic",
    )


class Inference(OnImages):
    """`inference`"""

    mode: Task = key("semantic", "Mode", "Task to run.")
    image_size: tuple[PositiveInt, PositiveInt] = key(
        (1024, 1024),
        "Image size",
        "[width, height] into which each image is fitted, keeping its aspect ratio.",
        unset="the size that evaluation gives an image",
        tao="each image is stretched to this size, losing its aspect ratio",
    )
    images_dir: str = location_key(
        "",
        "Images directory",
        "Folder, archive or address (URL) of the images; empty: dataset.test.images.",
        tao="only lower-case suffixes, no subfolders; a folder without images is accepted",
    )


class Export(Section):
    """`export`"""

    results_dir: str = results_folder()
    gpu_id: NonNegativeInt = key(0, "GPU ID", "Index of the device on which JAX and ONNX Runtime are compared.")
    checkpoint: str = location_key("", "checkpoint", "Checkpoint to export.")
    onnx_file: str = location_key(
        "", "onnx file", "The .onnx file to write; empty: model.onnx in the results folder of this action."
    )
    on_cpu: bool = key(
        False,
        "verbose",
        "Compare on the CPU. The file is the same either way: it contains standard operators only.",
        tao="false writes an operator that only a TensorRT plugin can run",
    )
    input_channel: int = key(
        3, "input channel", "Number of input channels.", minimum=3, only=(3,), note="images are RGB"
    )
    input_width: int = key(640, "input width", "Width of the input in pixels, a multiple of 32.", minimum=32)
    input_height: int = key(640, "input height", "Height of the input in pixels, a multiple of 32.", minimum=32)
    opset_version: int = key(17, "opset version", "Version of the ONNX operator set, 17 to 23.", minimum=1)
    batch_size: int = key(
        -1,
        "batch size",
        "Batch size; -1: any (a dynamic axis).",
        minimum=-1,
        tao="-1 leaves the inputs with a batch of 1",
    )
    verbose: bool = key(False, "verbose", "List all operators and print what the tracer reports.")
    task: Task = key(
        "semantic",
        "task",
        "Task that is built into the graph when include_postprocess is set; otherwise the task is an input.",
        unset="the task of include_postprocess",
        tao="read only by the deployment tool",
    )
    include_postprocess: Literal["none", "semantic", "instance", "panoptic"] = own_key(
        "none",
        "include post-processing",
        "Export a graph that takes uint8 images [B, H, W, 3] and returns results instead of logits: normalisation"
        " and post-processing are part of it.",
    )
    deformable_attention: Literal["gather", "grid_sample"] = own_key(
        "gather",
        "deformable attention",
        "Operators of deformable attention. gather: GatherND and products, which every runtime computes alike; "
        "grid_sample: GridSample, which several versions of TensorRT compute wrongly.",
        tao="GridSample with on_cpu, else an operator of a plugin of TensorRT",
    )
    triton_dir: str = location_key(
        "",
        "Triton directory",
        "Folder that gets a model repository for NVIDIA's Triton Inference Server with the file, which needs "
        "include_postprocess; empty: none.",
        extension=True,
    )
    overwrite: bool = own_key(False, "overwrite", "Replace an existing file.", tao="an existing file is an error")
