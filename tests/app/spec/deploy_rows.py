"""Rows of `gen_trt_engine`, `quantize` and the calibration images."""

from pathlib import Path

from key_rows import Changes, Observed, Refused, Rows, Shown
from stopped_actions import result_folder
from stopped_deployment import engine_build, quantization

from oneformer_jax.app.spec import Spec

HERE = ("results_dir=HERE",)
ONNX = ("gen_trt_engine.onnx_file=/a.onnx",)
TRT = "gen_trt_engine.tensorrt"
INT8 = (*ONNX, f"{TRT}.data_type=int8", f"{TRT}.calibration.cal_image_dir=DATA/val/images")
CHECKPOINT, GRAPH = ("quantize.model_path=/a",), ("quantize.model_path=/a.onnx", "quantize.backend=modelopt.onnx")
STATIC = (*GRAPH, "quantize.mode=static_ptq", "dataset.quant_calibration_dataset.images_dir=DATA/val/images")
ANOTHER = "deploy/test_tensorrt.py::test_an_engine_is_replaced_only_when_asked"
CALIBRATION = "deploy/test_tensorrt.py::test_calibration_reads_images_and_keeps_its_ranges"


def setting(field: str) -> Observed:
    """A field of the builder's settings."""
    return lambda spec: getattr(engine_build(spec).build_engine.call_args.args[2], field)


def prepared(position: int) -> Observed:
    """What the graph is converted with: its format or the choices of layers."""
    return lambda spec: engine_build(spec).with_precision.call_args.args[position]


def calibrated(position: int) -> Observed:
    """What calibration images are read with: their paths, the metadata, the batch size."""

    def value(spec: Spec) -> object:
        found = engine_build(spec).calibration_feeds.call_args.args[position]
        return len(found) if isinstance(found, list) else found

    return value


ENGINE: Rows = {
    "gen_trt_engine.results_dir": Changes("HERE/mine", result_folder("gen_trt_engine"), "mine", beside=HERE),
    "gen_trt_engine.gpu_id": Changes("1", lambda spec: engine_build(spec).CudaDevice.call_args.args[0], 1, beside=ONNX),
    "gen_trt_engine.onnx_file": Changes(
        "/mine.onnx", lambda spec: engine_build(spec).read_graph.call_args.args[0], Path("/mine.onnx"), beside=ONNX
    ),
    "gen_trt_engine.trt_engine": Changes(
        "/mine.plan", lambda spec: engine_build(spec).write_engine.call_args.args[0], Path("/mine.plan"), beside=ONNX
    ),
    "gen_trt_engine.timing_cache": Changes("/cache", setting("timing_cache"), Path("/cache"), beside=ONNX),
    "gen_trt_engine.batch_size": Changes("4", setting("batch_sizes"), (4, 4, 4), beside=ONNX),
    "gen_trt_engine.verbose": Changes("true", setting("verbose"), True, beside=ONNX),
    "gen_trt_engine.overwrite": Shown(ANOTHER),
    f"{TRT}.data_type": Changes("bf16", prepared(1), "bf16", beside=ONNX),
    f"{TRT}.workspace_size": Changes("512", setting("workspace"), 512, beside=ONNX),
    f"{TRT}.min_batch_size": Changes(
        "2", setting("batch_sizes"), (2, 2, 4), beside=ONNX, together=(f"{TRT}.max_batch_size=4",)
    ),
    f"{TRT}.opt_batch_size": Changes(
        "3", setting("batch_sizes"), (1, 3, 4), beside=ONNX, together=(f"{TRT}.max_batch_size=4",)
    ),
    f"{TRT}.max_batch_size": Changes("4", setting("batch_sizes"), (1, 1, 4), beside=ONNX),
    f"{TRT}.layers_precision": Changes("[Conv:fp32]", prepared(2), ("Conv:fp32",), beside=ONNX),
    f"{TRT}.calibration.cal_image_dir": Shown(CALIBRATION),
    f"{TRT}.calibration.cal_cache_file": Shown(CALIBRATION),
    f"{TRT}.calibration.cal_batch_size": Changes(
        "2", calibrated(2), 2, beside=INT8, together=(f"{TRT}.calibration.cal_batches=0",)
    ),
    f"{TRT}.calibration.cal_batches": Changes("2", calibrated(0), 2, beside=INT8),
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
