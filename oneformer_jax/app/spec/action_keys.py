"""The sections of evaluation, inference and export, and `wandb`."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from oneformer_jax.app.spec.field import Section, key
from oneformer_jax.tasks import Task

ONE_HOST = "it runs on one host"


class Wandb(Section):
    """`wandb`: read by train alone."""

    enable: bool = key(
        True,
        "",
        "Send curves to Weights & Biases: needs the extra `wandb`, and an account or WANDB_MODE=offline.",
        tao="logs in even when false",
    )
    project: str = key("TAO Toolkit", "", "Project.")
    entity: str = key("", "", "User or team; empty: the account's default.")
    group: str = key("", "", "Group of runs.")
    tags: tuple[str, ...] = key(("tao-toolkit",), "", "Tags.")
    reinit: bool = key(False, "", "End a run that is still open in this process first.", tao="ignored")
    sync_tensorboard: bool = key(
        False, "", "Take the curves from TensorBoard's files instead of the run itself.", tao="always on"
    )
    save_code: bool = key(False, "", "Upload the main script.", tao="always off")
    name: str = key("TAO Toolkit Training", "", "Name of the run.", tao="date and time are appended")
    run_id: str = key("", "", "Run to continue.")


class OnImages(Section):
    """What evaluation and inference have in common: devices, the model, the batch."""

    num_gpus: int = key(
        1,
        "Number of GPUs",
        "Devices: the first ones, unless gpu_ids is changed; at most those that there are. Each has its own batch.",
        minimum=1,
        popular=True,
    )
    gpu_ids: tuple[NonNegativeInt, ...] = key(
        (0,),
        "GPU IDs",
        "Indices of the devices among the visible ones. Counts only when changed; num_gpus must then agree or be 1.",
        popular=True,
    )
    num_nodes: int = key(
        1, "Number of nodes", "Hosts.", minimum=1, popular=True, only=(1,), note=ONE_HOST, tao="ignored"
    )
    checkpoint: str = key("", "Checkpoint path", "Checkpoint of the model.")
    trt_engine: str = key(
        "",
        "TensorRT Engine",
        "Exported model (.onnx) to run instead of a checkpoint, without JAX.",
        tao="read by the deployment tool only",
    )
    results_dir: str = key("", "Results directory", "Folder of this action; empty: its own one in <results_dir>.")
    batch_size: int = key(
        -1,
        "batch size",
        "Images of a batch; -1: dataset.test.batch_size.",
        minimum=-1,
        tao="ignored: dataset.test.batch_size counts",
    )


class Evaluate(OnImages):
    """`evaluate`"""

    iou_per_class: bool = key(True, "IoU per class", "Report the IoU of each class.")
    task: Literal["", "semantic", "instance", "panoptic"] = key(
        "",
        "task",
        "The one task to score; empty: those that model.test switches on.",
        extension=True,
        tao="in later versions: semantic or panoptic",
    )


class Inference(OnImages):
    """`inference`"""

    mode: Task = key("semantic", "Mode", "The task.")
    image_size: tuple[PositiveInt, PositiveInt] = key(
        (1024, 1024),
        "Image size",
        "[width, height] that an image is fitted into, aspect ratio kept.",
        tao="the image is squeezed into it, aspect ratio lost",
    )
    images_dir: str = key(
        "",
        "Images directory",
        "Folder, archive or address of the images; empty: dataset.test.images.",
        tao="no subfolders, lower-case suffixes only; a folder without images passes",
    )


class Export(Section):
    """`export`"""

    results_dir: str = key("", "Results directory", "Folder of this action; empty: its own one in <results_dir>.")
    gpu_id: NonNegativeInt = key(0, "GPU ID", "Index of the device on which JAX and ONNX Runtime are compared.")
    checkpoint: str = key("", "checkpoint", "Checkpoint to export.")
    onnx_file: str = key("", "onnx file", "The .onnx file to write; empty: model.onnx in the folder of this action.")
    on_cpu: bool = key(
        False,
        "verbose",
        "Compare on the processor. The file is the same: it has standard operators only.",
        tao="false writes an operator that only TensorRT's plugin runs",
    )
    input_channel: int = key(3, "input channel", "Channels of the input.", minimum=3, only=(3,), note="images are RGB")
    input_width: int = key(640, "input width", "Width of the input, a multiple of 32.", minimum=32)
    input_height: int = key(640, "input height", "Height of the input, a multiple of 32.", minimum=32)
    opset_version: int = key(17, "opset version", "ONNX operator set, 17 to 23.", minimum=1)
    batch_size: int = key(
        -1,
        "batch size",
        "Batch; -1: any.",
        minimum=-1,
        tao="-1 leaves the inputs at a batch of 1",
    )
    verbose: bool = key(False, "verbose", "List all operators, and what the tracing says.")
    task: Task = key(
        "semantic",
        "task",
        "With include_postprocess the task of the graph; else the task is an input.",
        tao="read by the deployment tool only",
    )
    include_postprocess: Literal["none", "semantic", "instance", "panoptic"] = key(
        "none",
        "include post-processing",
        "Take uint8 images [B, H, W, 3] and give results, not logits: normalisation and post-processing in the graph.",
        extension=True,
    )
    overwrite: bool = key(
        False, "overwrite", "Replace a file that is there.", extension=True, tao="a file that is there is an error"
    )
