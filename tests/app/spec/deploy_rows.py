"""Rows of `gen_trt_engine`, `quantize` and the calibration images."""

from operator import attrgetter
from pathlib import Path

from key_rows import Changes, Observed, Refused, Rows, result_folder

from oneformer_jax.app.settings.deployment import engine_run, quantization_run

HERE = ("results_dir=HERE",)
ONNX = ("gen_trt_engine.onnx_file=/a.onnx",)
TRT = "gen_trt_engine.tensorrt"
CHECKPOINT, GRAPH = ("quantize.model_path=/a",), ("quantize.model_path=/a.onnx", "quantize.backend=modelopt.onnx")
STATIC = (*GRAPH, "quantize.mode=static_ptq", "dataset.quant_calibration_dataset.images_dir=DATA/val/images")


def engine(field: str) -> Observed:
    """A field of the settings of an engine."""
    return lambda spec: attrgetter(field)(engine_run(spec))


ENGINE: Rows = {
    "gen_trt_engine.results_dir": Changes("HERE/mine", result_folder("gen_trt_engine"), "mine", beside=HERE),
    "gen_trt_engine.gpu_id": Changes("1", engine("device"), 1, beside=ONNX),
    "gen_trt_engine.onnx_file": Changes("/mine.onnx", engine("onnx_file"), Path("/mine.onnx"), beside=ONNX),
    "gen_trt_engine.trt_engine": Changes("/mine.plan", engine("path"), Path("/mine.plan"), beside=ONNX),
    "gen_trt_engine.timing_cache": Changes("/cache", engine("build.timing_cache"), Path("/cache"), beside=ONNX),
    "gen_trt_engine.batch_size": Changes("4", engine("batch_sizes"), (4, 4, 4), beside=ONNX),
    "gen_trt_engine.verbose": Changes("true", engine("build.verbose"), True, beside=ONNX),
    "gen_trt_engine.overwrite": Changes("true", engine("overwrite"), True, beside=ONNX),
    "gen_trt_engine.triton_dir": Changes("/mine", engine("triton"), Path("/mine"), beside=ONNX),
    "gen_trt_engine.verify_only": Changes("true", engine("verify_only"), True, beside=ONNX),
    f"{TRT}.data_type": Changes("bf16", engine("data_type"), "bf16", beside=ONNX),
    f"{TRT}.workspace_size": Changes("512", engine("build.workspace"), 512, beside=ONNX),
    f"{TRT}.min_batch_size": Changes(
        "2", engine("batch_sizes"), (2, 2, 4), beside=ONNX, together=(f"{TRT}.max_batch_size=4",)
    ),
    f"{TRT}.opt_batch_size": Changes(
        "3", engine("batch_sizes"), (1, 3, 4), beside=ONNX, together=(f"{TRT}.max_batch_size=4",)
    ),
    f"{TRT}.max_batch_size": Changes("4", engine("batch_sizes"), (1, 1, 4), beside=ONNX),
    f"{TRT}.layers_precision": Changes("[Conv:fp32]", engine("layers"), ("Conv:fp32",), beside=ONNX),
    f"{TRT}.calibration.cal_image_dir": Changes("[/a,/b]", engine("calibration.images"), ("/a", "/b"), beside=ONNX),
    f"{TRT}.calibration.cal_cache_file": Changes("/cache", engine("calibration.cache"), Path("/cache"), beside=ONNX),
    f"{TRT}.calibration.cal_batch_size": Changes("2", engine("calibration.batch_size"), 2, beside=ONNX),
    f"{TRT}.calibration.cal_batches": Changes("2", engine("calibration.batches"), 2, beside=ONNX),
}


def quantized(field: str) -> Observed:
    """A field of the settings of a quantization."""
    return lambda spec: attrgetter(field)(quantization_run(spec))


QUANTIZE: Rows = {
    "quantize.backend": Changes("modelopt.pytorch", quantized("backend"), "modelopt.pytorch", beside=CHECKPOINT),
    "quantize.mode": Changes(
        "static_ptq", quantized("target"), "quantized_model.onnx", beside=(*CHECKPOINT, *STATIC[3:])
    ),
    "quantize.algorithm": Changes("entropy", quantized("algorithm"), "entropy", beside=STATIC),
    "quantize.layers": Changes("[{module_name: Conv}]", quantized("rules"), ({"module_name": "Conv"},), beside=GRAPH),
    "quantize.skip_names": Changes("[head]", quantized("skip_names"), ("head",), beside=GRAPH),
    "quantize.model_path": Changes("/mine.onnx", quantized("model"), Path("/mine.onnx"), beside=GRAPH),
    "quantize.results_dir": Changes("HERE/mine", result_folder("quantize"), "mine", beside=HERE),
    "quantize.backend_kwargs": Refused("{a: 1}"),
    "quantize.device": Changes("cpu", quantized("device"), "cpu", beside=STATIC),
    "quantize.overwrite": Changes("true", quantized("overwrite"), True, beside=CHECKPOINT),
    "dataset.quant_calibration_dataset.images_dir": Changes("/photos", quantized("images"), "/photos", beside=STATIC),
}

ROWS: tuple[Rows, ...] = (ENGINE, QUANTIZE)
