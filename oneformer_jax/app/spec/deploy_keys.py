"""The sections of `gen_trt_engine` and `quantize`."""

from typing import Any, Literal

from oneformer_jax.app.spec.field import Paths, Section, key, section

OWN_BACKEND = "one backend of this project does what the three of TAO do; it has no further options"
LANGUAGE_MODELS = "it is for 4-bit weights of language models"


class Calibration(Section):
    """`gen_trt_engine.tensorrt.calibration`: the keys that TAO's Mask2Former has."""

    cal_image_dir: Paths = key(
        (), "", "Folders of the images that int8 and fp8 are calibrated with.", extension=True, tao="OneFormer has none"
    )
    cal_cache_file: str = key(
        "", "", "File of the calibrated ranges: read where it exists, else written.", extension=True
    )
    cal_batch_size: int = key(1, "", "Images of a calibration batch.", minimum=1, extension=True)
    cal_batches: int = key(1, "", "Batches to calibrate with; 0: all images.", minimum=0, extension=True)


class TensorRT(Section):
    """`gen_trt_engine.tensorrt`"""

    data_type: Literal["fp16", "fp32", "bf16", "int8", "fp8"] = key(
        "fp16",
        "data type",
        "Number format of the engine; what it would spoil stays float32.",
        enum=("fp16", "fp32"),
    )
    workspace_size: int = key(
        1024, "workspace size", "Memory of the builder in MiB.", minimum=1, tao="rounded down to whole GiB"
    )
    min_batch_size: int = key(
        1, "Min batch size", "Smallest batch.", minimum=1, popular=True, tao="ignored where the ONNX file is static"
    )
    opt_batch_size: int = key(
        1,
        "Optimum batch size",
        "Batch to optimise for.",
        minimum=1,
        popular=True,
        tao="ignored where the ONNX file is static",
    )
    max_batch_size: int = key(
        1, "Maximum batch size", "Largest batch.", minimum=1, popular=True, tao="ignored where the ONNX file is static"
    )
    layers_precision: tuple[str, ...] = key(
        (),
        "layers_precision",
        "Number formats of layers, as NAME:FORMAT; NAME is a node or operator of the ONNX file and may hold * and ?.",
        tao="ignored: a fixed list is used",
    )
    calibration: Calibration = section(Calibration, "Calibration of int8 and fp8.")


class GenTrtEngine(Section):
    """`gen_trt_engine`"""

    results_dir: str = key("", "Results directory", "Folder of this action; empty: its own one in <results_dir>.")
    gpu_id: int = key(0, "GPU ID", "Index of the GPU that the engine is built on, and for.", minimum=0, popular=True)
    onnx_file: str = key("", "ONNX file", "The exported model.")
    trt_engine: str = key(
        "", "TensorRT engine", "The file to write; empty: the name of the ONNX file with .engine, in the result folder."
    )
    timing_cache: str = key(
        "", "TensorRT timing cache", "File of kernel timings: read where it exists, and written after the build."
    )
    batch_size: int = key(
        0,
        "Batch size",
        "The one batch size of the engine; where the tensorrt.*_batch_size keys are changed, one between them.",
        tao="ignored: the ONNX file decides",
    )
    verbose: bool = key(False, "Verbose", "Print what TensorRT reports while it builds.")
    overwrite: bool = key(False, "", "Replace an engine that is there already.", extension=True)
    tensorrt: TensorRT = section(TensorRT, "How the engine is built.", "TensorRT hyper params.")


class Quantize(Section):
    """`quantize`"""

    backend: Literal["modelopt.pytorch", "torchao", "modelopt.onnx"] = key(
        "torchao",
        "Quantization backend",
        "TAO's name of a library: the first two quantize a checkpoint, the last one an ONNX file, each on this "
        "project's own backend.",
        tao="torchao knows weight_only_ptq alone, the others static_ptq alone",
    )
    mode: Literal["static_ptq", "weight_only_ptq"] = key(
        "weight_only_ptq",
        "Quantization mode",
        "Weights alone, or activations too; then the result is an ONNX file.",
    )
    algorithm: Literal["minmax", "max", "entropy", "awq_clip", "awq_lite", "awq_full", "rtn_dq"] = key(
        "minmax",
        "Calibration algorithm",
        "How static_ptq finds the ranges of activations; max is minmax.",
        only=("minmax", "max", "entropy"),
        note=LANGUAGE_MODELS,
        tao="read by the modelopt backends only",
    )
    layers: tuple[dict[str, Any], ...] = key(
        (),
        "Layer quantization configs",
        "What is quantized to what: a list of {module_name, weights: {dtype}, activations: {dtype}}. module_name is "
        "the name or class of a layer and may hold * and ?; dtype is int8, fp8_e4m3fn, fp8_e5m2 or native; later "
        "entries win. Empty: all layers, to int8.",
        tao="empty: a file is written in which nothing is quantized",
    )
    skip_names: tuple[str, ...] = key((), "Skip names", "Names or classes of layers that are left as they are.")
    model_path: str = key("", "Model path", "The model: a checkpoint, or an ONNX file.", required=True)
    results_dir: str = key(
        "", "Results directory", "Folder of this action; empty: its own one in <results_dir>.", required=True
    )
    backend_kwargs: dict[str, Any] = key(
        {}, "Backend kwargs", "Further options of the backend.", only=({},), note=OWN_BACKEND
    )
    device: str = key(
        "cuda",
        "Calibration device",
        "Device of the calibration; the processor where ONNX Runtime does not have it.",
        pattern="^(cuda|cpu|trt|cuda:[0-9]+)$",
        tao="read by the modelopt backends only",
    )
    overwrite: bool = key(False, "", "Replace a result that is there already.", extension=True)
