"""Rows of `gen_trt_engine`, `quantize` and the calibration images."""

from operator import attrgetter
from pathlib import Path

from key_rows import Changes, Observed, Refused, Rows, Shown
from stopped_actions import result_folder
from stopped_deployment import quantization

from oneformer_jax.app.settings.deployment import engine_run

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

QUANTIZE: Rows = {
    "quantize.backend": Shown("app/actions/test_quantize.py::test_models_that_the_backend_does_not_take_are_refused"),
    "quantize.mode": Changes(
        "static_ptq", lambda spec: quantization(spec).target, "quantized_model.onnx", beside=(*CHECKPOINT, *STATIC[3:])
    ),
    "quantize.algorithm": Changes(
        "entropy",
        lambda spec: quantization(spec).measured_ranges.call_args.kwargs["algorithm"],
        "entropy",
        beside=STATIC,
    ),
    "quantize.layers": Changes(
        "[{module_name: Conv}]",
        lambda spec: quantization(spec).chosen_layers.call_args.args[1],
        ({"module_name": "Conv"},),
        beside=GRAPH,
    ),
    "quantize.skip_names": Changes(
        "[head]", lambda spec: quantization(spec).chosen_layers.call_args.args[2], ("head",), beside=GRAPH
    ),
    "quantize.model_path": Changes(
        "/mine.onnx", lambda spec: quantization(spec).read_graph.call_args.args[0], Path("/mine.onnx"), beside=GRAPH
    ),
    "quantize.results_dir": Changes("HERE/mine", result_folder("quantize"), "mine", beside=HERE),
    "quantize.backend_kwargs": Refused("{a: 1}"),
    "quantize.device": Changes(
        "cpu", lambda spec: quantization(spec)._providers.call_args.args[0], "cpu", beside=STATIC
    ),
    "quantize.overwrite": Shown("app/actions/test_quantize.py::test_a_result_is_replaced_only_when_asked"),
    "dataset.quant_calibration_dataset.images_dir": Changes(
        "DATA/train/images",
        lambda spec: len(quantization(spec).calibration_feeds.call_args.args[0]),
        4,
        beside=STATIC,
    ),
}

ROWS: tuple[Rows, ...] = (ENGINE, QUANTIZE)
