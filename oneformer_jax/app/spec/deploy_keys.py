"""The sections of `gen_trt_engine` and `quantize`."""

from functools import partial
from typing import Any, Literal

from oneformer_jax.app.spec.field import Paths, Section, key, location_key, own_key, results_folder, section

OWN_BACKEND = "a single backend of this project does the work of TAO's three and has no further options"
LANGUAGE_MODELS = "it is meant for 4-bit weights of language models"

_batch = partial(key, minimum=1, popular=True, tao="ignored where the ONNX file is static")


class Calibration(Section):
    """`gen_trt_engine.tensorrt.calibration`: the keys that TAO's Mask2Former has."""

    cal_image_dir: Paths = location_key(
        (),
        "",
        "Folder or folders of the images with which int8 and fp8 are calibrated.",
        extension=True,
        tao="not available for OneFormer",
    )
    cal_cache_file: str = location_key(
        "", "", "File of the calibrated ranges: read if it exists, otherwise written.", extension=True
    )
    cal_batch_size: int = own_key(1, "", "Images per calibration batch.", minimum=1)
    cal_batches: int = own_key(1, "", "Number of batches to calibrate with; 0: all images.", minimum=0)


class TensorRT(Section):
    """`gen_trt_engine.tensorrt`"""

    data_type: Literal["fp16", "fp32", "bf16", "int8", "fp8"] = key(
        "fp16",
        "data type",
        "Number format of the engine. Parts that would lose accuracy in it stay in float32.",
        enum=("fp16", "fp32"),
    )
    workspace_size: int = key(
        1024, "workspace size", "Memory that the builder may use, in MiB.", minimum=1, tao="rounded down to whole GiB"
    )
    min_batch_size: int = _batch(1, "Min batch size", "Smallest batch.")
    opt_batch_size: int = _batch(
        1, "Optimum batch size", "Batch to optimise for.", unset="the nearest to 1 that the other two allow"
    )
    max_batch_size: int = _batch(1, "Maximum batch size", "Largest batch.")
    layers_precision: tuple[str, ...] = key(
        (),
        "layers_precision",
        "Number formats of individual layers as NAME:FORMAT, where NAME is a node or operator of the ONNX file "
        "and may contain the wildcards * and ?.",
        tao="ignored: a fixed list is used",
    )
    calibration: Calibration = section(Calibration, "Calibration for int8 and fp8.")


class GenTrtEngine(Section):
    """`gen_trt_engine`"""

    results_dir: str = results_folder()
    gpu_id: int = key(
        0, "GPU ID", "Index of the GPU on which, and for which, the engine is built.", minimum=0, popular=True
    )
    onnx_file: str = location_key("", "ONNX file", "ONNX file of the exported model.")
    trt_engine: str = location_key(
        "",
        "TensorRT engine",
        "Engine file to write; empty: the name of the ONNX file with the suffix .engine, "
        "in the results folder of this action.",
    )
    timing_cache: str = location_key(
        "", "TensorRT timing cache", "File of kernel timings: read if it exists, and written after the build."
    )
    batch_size: int = key(
        0,
        "Batch size",
        "The single batch size of the engine; if the tensorrt.*_batch_size keys are changed, it must lie within "
        "their range.",
        tao="ignored: the ONNX file decides",
    )
    verbose: bool = key(False, "Verbose", "Print what TensorRT reports while it builds.")
    overwrite: bool = own_key(False, "", "Replace an existing engine.")
    verify_only: bool = own_key(
        False, "", "Build nothing: compare the engine that is there with its ONNX file, on this machine's GPU."
    )
    triton_dir: str = location_key(
        "",
        "",
        "Folder that gets a model repository for NVIDIA's Triton Inference Server with the engine, which needs a file "
        "with post-processing; empty: none.",
        extension=True,
    )
    tensorrt: TensorRT = section(TensorRT, "How the engine is built.", "TensorRT hyper params.")


class Quantize(Section):
    """`quantize`"""

    backend: Literal["modelopt.pytorch", "torchao", "modelopt.onnx"] = key(
        "torchao",
        "Quantization backend",
        "TAO's name of a library. torchao and modelopt.pytorch quantize a checkpoint, modelopt.onnx an ONNX file;"
        " all of them run this project's own implementation.",
        tao="torchao supports only weight_only_ptq, the others only static_ptq",
    )
    mode: Literal["static_ptq", "weight_only_ptq"] = key(
        "weight_only_ptq",
        "Quantization mode",
        "weight_only_ptq: quantize the weights only; static_ptq: quantize activations too, which produces an ONNX"
        " file.",
    )
    algorithm: Literal["minmax", "max", "entropy", "awq_clip", "awq_lite", "awq_full", "rtn_dq"] = key(
        "minmax",
        "Calibration algorithm",
        "How static_ptq determines the ranges of activations; max is the same as minmax.",
        only=("minmax", "max", "entropy"),
        note=LANGUAGE_MODELS,
        tao="read only by the modelopt backends",
    )
    layers: tuple[dict[str, Any], ...] = key(
        (),
        "Layer quantization configs",
        "Which layers are quantized, and to which format: a list of {module_name, weights: {dtype}, activations: "
        "{dtype}}. module_name is the name or class of a layer and may contain the wildcards * and ?; dtype is "
        "int8, fp8_e4m3fn, fp8_e5m2 or native; later entries override earlier ones. Empty: all layers to int8.",
        tao="empty: the file that is written is not quantized at all",
    )
    skip_names: tuple[str, ...] = key((), "Skip names", "Names or classes of layers that are not quantized.")
    model_path: str = location_key("", "Model path", "Model to quantize: a checkpoint or an ONNX file.", required=True)
    results_dir: str = results_folder(required=True)
    backend_kwargs: dict[str, Any] = key(
        {}, "Backend kwargs", "Further options of the backend.", only=({},), note=OWN_BACKEND
    )
    device: str = key(
        "cuda",
        "Calibration device",
        "Device to calibrate on; the CPU if ONNX Runtime does not support the device.",
        pattern="^(cuda|cpu|trt|cuda:[0-9]+)$",
        tao="read only by the modelopt backends",
    )
    overwrite: bool = own_key(False, "", "Replace an existing result.")
