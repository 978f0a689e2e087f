"""Engines built and run through a fake of TensorRT, which fails where TensorRT would."""

import errno
import gc
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import pytest
from fake_tensorrt import (
    Builder,
    BuilderFlag,
    FakeCuda,
    IGridSampleLayer,
    InterpolationMode,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    plan_of,
)
from onnx import TensorProto
from small_graph import SIZE, feeds, small_model

from oneformer_jax.errors import DataError, EngineError, OneFormerError, SpecError
from oneformer_jax.predict.exported import OnnxBackend
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.predict.predictor import load_model
from oneformer_jax.predict.tensorrt_engine import TensorRTEngine

Build = Callable[..., Path]
KEYS = "gen_trt_engine"
RANGE = (f"{KEYS}.tensorrt.min_batch_size=1", f"{KEYS}.tensorrt.opt_batch_size=2", f"{KEYS}.tensorrt.max_batch_size=4")
FP32 = f"{KEYS}.tensorrt.data_type=fp32"


def graph_of(engine: Path) -> onnx.ModelProto:
    return onnx.load_from_string(plan_of(engine)["model"])


def formats(engine: Path) -> set[int]:
    """Of the weights."""
    return {tensor.data_type for tensor in graph_of(engine).graph.initializer} - {TensorProto.INT64}


@pytest.mark.tao(28)
@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_both_versions_are_built_for_in_the_same_way(build: Build, fakes: Any, version: str) -> None:
    fakes(version)
    engine = build(*RANGE, f"{KEYS}.tensorrt.workspace_size=512", f"{KEYS}.verbose=true")
    assert Builder.network is not None
    assert Builder.built is not None
    assert Builder.network._flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert Builder.built._limits == {MemoryPoolType.WORKSPACE: 512 * 2**20}
    assert BuilderFlag.TF32 not in Builder.built._flags
    assert Builder.built.profiling_verbosity == ProfilingVerbosity.DETAILED
    assert plan_of(engine)["profile"] == {
        "images": tuple((size, 3, SIZE, SIZE) for size in (1, 2, 4)),
        "task_tokens": tuple((size, 77) for size in (1, 2, 4)),
    }
    facts = json.loads(engine.with_name("model.engine.json").read_text())
    assert (facts["tensorrt"], facts["gpu"], facts["compute_capability"]) == (version, "GPU A", "8.9")
    assert facts["batch_sizes"] == [1, 2, 4]
    assert facts["data_type"] == "fp16"
    assert {"task vector", "normalisation", "softmax", "masked attention", "sampling coordinates"} == set(
        facts["float32"]
    )
    assert isinstance(Metadata.from_json(facts, where=""), Metadata)


@pytest.mark.tao(28)
def test_an_engine_gives_what_its_onnx_file_gives_also_for_batches_that_are_not_full(
    build: Build, exported: Path
) -> None:
    engine, peer = load_model(build(*RANGE, FP32)).backend, OnnxBackend(exported, device="cpu")
    for batch in (4, 1, 3):  # a smaller batch after a larger one: buffers hold what is left of it
        (feed,) = feeds(1, batch, seed=batch)
        for ours, theirs in zip(engine.run(**feed), peer.run(**feed), strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs)
    assert engine.batch_sizes == (1, 4)


@pytest.mark.tao(28)
def test_the_backend_fills_and_limits_batches(build: Build, exported: Path) -> None:
    smallest = (f"{KEYS}.tensorrt.min_batch_size=2", f"{KEYS}.tensorrt.max_batch_size=3")
    backend = load_model(build(*smallest, FP32)).backend
    peer = load_model(exported).backend
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    sizes = np.full((4, 2), SIZE, np.int32)
    tasks = ("semantic", "panoptic")
    ours, theirs = backend.predict(images[:1], sizes[:1], tasks), peer.predict(images[:1], sizes[:1], tasks)
    for task in tasks:
        for a, b in zip(ours[task], theirs[task], strict=True):
            assert len(a) == 1
            np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(EngineError, match="takes at most 3 images at once, not 4"):
        backend.predict(images, sizes, tasks)


@pytest.mark.slow
def test_buffers_are_made_once_for_the_largest_batch_and_returned(build: Build, fakes: Any) -> None:
    path = build(*RANGE, FP32)
    cuda: FakeCuda = fakes()
    engine = TensorRTEngine(path)
    sizes = sorted(len(buffer) for buffer in cuda.memory.values())
    assert sizes == sorted(4 * 4 * count for count in (3 * SIZE * SIZE, 77, 6 * 8, 6 * (SIZE // 4) ** 2))
    engine.run(feeds(1, 2)[0])
    assert len(cuda.memory) == 4
    del engine
    gc.collect()
    assert not cuda.memory


@pytest.mark.parametrize(
    ("elsewhere", "message"),
    [
        ({"version": "11.4.0.106"}, "built for TensorRT 10.16.1.11, but this is 11.4.0.106"),
        ({"name": "GPU B"}, "built for GPU GPU A, but this is GPU B"),
        ({"capability": (9, 0)}, "built for compute capability 8.9, but this is 9.0"),
    ],
)
def test_an_engine_of_another_place_is_refused(
    build: Build, fakes: Any, elsewhere: dict[str, Any], message: str
) -> None:
    path = build(FP32)
    fakes(**elsewhere)
    with pytest.raises(EngineError, match=message) as caught:
        load_model(path)
    assert "build it here with gen_trt_engine" in str(caught.value)


def test_engines_that_cannot_be_used_say_why(build: Build, fakes: Any, tmp_path: Path) -> None:
    path = build(FP32)
    with pytest.raises(EngineError, match="there is no GPU 3, only 1"):
        TensorRTEngine(path, device_id=3)
    path.write_bytes(b"nothing")
    with pytest.raises(EngineError, match="TensorRT cannot load it: Magic tag does not match"):
        TensorRTEngine(path)
    path.with_name("model.engine.json").unlink()
    with pytest.raises(EngineError, match="metadata of the engine cannot be read"):
        TensorRTEngine(path)
    with pytest.raises(EngineError, match="no such file"):
        load_model(tmp_path / "absent.plan")
    fakes("9.3.0")
    with pytest.raises(EngineError, match=r"TensorRT 9.3.0 is not supported\n  -> install version 10 or 11"):
        build(FP32, f"{KEYS}.overwrite=true")


def test_an_engine_is_replaced_only_when_asked(build: Build) -> None:
    path = build(FP32)
    before = path.read_bytes()
    with pytest.raises(EngineError, match=r"exists already\n  -> set gen_trt_engine.overwrite=true"):
        build()
    assert path.read_bytes() == before
    build(f"{KEYS}.overwrite=true")
    assert path.read_bytes() != before
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "model.engine",
        "model.engine.json",
        "model.engine.report.json",
        "status.json",
    ]


def test_a_build_that_fails_leaves_nothing(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Builder, "build_serialized_network", lambda *_: None)
    with pytest.raises(EngineError, match="TensorRT could not build the engine"):
        build()
    assert [file.name for file in (tmp_path / KEYS).iterdir()] == []


@pytest.mark.parametrize("file", [1, 2])
def test_a_full_disk_leaves_the_engine_and_the_metadata_of_one_build(
    build: Build, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    engine = build(FP32)
    before = {path.name: path.read_bytes() for path in engine.parent.glob("*.engine*")}
    calls = itertools.count(1)

    def sync(_: int) -> None:
        if next(calls) >= file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OneFormerError, match=r"No space left on device\n  -> free disk space"):
        build(f"{KEYS}.overwrite=true")
    assert {path.name: path.read_bytes() for path in engine.parent.glob("*.engine*")} == before
    assert len(before) == 3


def test_an_engine_that_computes_something_else_is_kept_under_another_name(
    build: Build, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = f"dataset.test.images={photos}"
    right = build(FP32, images, *RANGE)
    report = json.loads(right.with_name("model.engine.report.json").read_text())
    assert report["passed"]
    assert report["images"] == {"random": 3 * (1 + 2 + 4), "real": 2}
    before = right.read_bytes()
    monkeypatch.setattr(Builder, "samples_nearest", True)
    with pytest.raises(
        EngineError, match=r"model\.failed\.engine: the engine and ONNX Runtime disagree: .* agree, not"
    ):
        build(FP32, images, f"{KEYS}.overwrite=true")
    assert right.read_bytes() == before
    assert load_model(right).predict(np.zeros((SIZE, SIZE, 3), np.uint8), "semantic").semantic is not None
    failed = right.with_name("model.failed.engine")
    assert not json.loads(failed.with_name("model.failed.engine.report.json").read_text())["passed"]
    assert failed.with_name("model.failed.engine.json").is_file()
    with pytest.raises(EngineError, match=r"model\.failed\.engine: the engine and ONNX Runtime disagree"):
        build(FP32, f"{KEYS}.trt_engine={failed}", f"{KEYS}.verify_only=true")


@pytest.mark.parametrize("data_type", ["fp32", "fp16", "bf16"])
def test_an_engine_that_is_there_is_compared_again(build: Build, data_type: str) -> None:
    keys = f"{KEYS}.tensorrt.data_type={data_type}"
    engine = build(keys)
    before, report = engine.read_bytes(), engine.with_name("model.engine.report.json")
    report.unlink()
    assert build(keys, f"{KEYS}.verify_only=true") == engine
    assert engine.read_bytes() == before
    assert json.loads(report.read_text())["passed"]
    last = json.loads((engine.parent / "status.json").read_text().splitlines()[-1])
    assert last["message"] == "Engine compared with its graph."


def test_what_the_keys_say_is_refused_before_anything_is_calibrated(build: Build, exported: Path, photos: Path) -> None:
    int8 = (f"{KEYS}.tensorrt.data_type=int8", f"{KEYS}.tensorrt.calibration.cal_image_dir={photos / 'absent'}")
    with pytest.raises(EngineError, match=r"model\.engine: no such file\n  -> leave gen_trt_engine\.verify_only out"):
        build(*int8, f"{KEYS}.verify_only=true")
    onnx.save(small_model(2), exported)
    with pytest.raises(SpecError, match="takes only batches of 2, not of 1 to 1"):
        build(*int8, f"{KEYS}.batch_size=1")


def test_parsers_that_do_not_know_the_name_of_linear_sampling_are_put_right(build: Build, exported: Path) -> None:
    model = onnx.version_converter.convert_version(small_model(), 20)
    (sampler,) = (node for node in model.graph.node if node.op_type == "GridSample")
    assert [fact.s for fact in sampler.attribute if fact.name == "mode"] == [b"linear"]
    onnx.save(model, exported)
    build(FP32)
    assert Builder.network is not None
    layers = [Builder.network.get_layer(index) for index in range(Builder.network.num_layers)]
    (layer,) = (layer for layer in layers if layer.type == LayerType.GRID_SAMPLE)
    layer.__class__ = IGridSampleLayer
    assert layer.interpolation_mode == InterpolationMode.LINEAR


def test_a_timing_cache_is_written_and_read(build: Build, tmp_path: Path) -> None:
    cache = tmp_path / "caches" / "timings"
    build(FP32, f"{KEYS}.timing_cache={cache}")
    assert cache.read_bytes() == b"timings"
    cache.write_bytes(b"timings of an earlier build")
    build(FP32, f"{KEYS}.timing_cache={cache}", f"{KEYS}.overwrite=true")
    assert cache.read_bytes() == b"timings of an earlier build"
    cache.write_bytes(b"of another version")
    with pytest.raises(EngineError, match="timing cache is damaged, or of another TensorRT or GPU"):
        build(FP32, f"{KEYS}.timing_cache={cache}", f"{KEYS}.overwrite=true")


@pytest.mark.tao(28)
@pytest.mark.parametrize(
    ("data_type", "expected"),
    [
        ("fp32", {TensorProto.FLOAT}),
        ("fp16", {TensorProto.FLOAT, TensorProto.FLOAT16}),
        ("bf16", {TensorProto.FLOAT, TensorProto.BFLOAT16}),
        ("int8", {TensorProto.FLOAT, TensorProto.INT8}),
        ("fp8", {TensorProto.FLOAT, TensorProto.FLOAT8E4M3FN}),
    ],
)
def test_the_data_type_is_that_of_the_graph(
    build: Build, photos: Path, monkeypatch: pytest.MonkeyPatch, data_type: str, expected: set[int]
) -> None:
    calibration = f"{KEYS}.tensorrt.calibration.cal_image_dir={photos}"
    assert formats(build(f"{KEYS}.tensorrt.data_type={data_type}", calibration)) == expected


@pytest.mark.tao(28)
def test_the_precision_of_layers_is_what_the_spec_says(build: Build, photos: Path) -> None:
    engine = build(f"{KEYS}.tensorrt.layers_precision=[Conv:fp32,Softmax:fp16]")
    types = {value.name: value.type.tensor_type.elem_type for value in _inferred(engine)}
    assert types["features"] == TensorProto.FLOAT
    assert types["weights"] == TensorProto.FLOAT16
    calibration = f"{KEYS}.tensorrt.calibration.cal_image_dir={photos}"
    eight = build(
        f"{KEYS}.tensorrt.data_type=int8", f"{KEYS}.tensorrt.layers_precision=[Conv:fp16]", calibration,
        f"{KEYS}.overwrite=true",
    )  # fmt: skip
    convolution = next(node for node in graph_of(eight).graph.node if node.op_type == "Conv")
    read = {name for node in graph_of(eight).graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert not read & set(convolution.input)
    for choice, message in (("Conv", "expected NAME:FORMAT"), ("Nothing*:fp32", "no node has this name or operator")):
        with pytest.raises(SpecError, match=message):
            build(f"{KEYS}.tensorrt.layers_precision=[{choice}]", f"{KEYS}.overwrite=true")


def _inferred(engine: Path) -> Any:
    return onnx.shape_inference.infer_shapes(graph_of(engine), strict_mode=True).graph.value_info


def test_calibration_reads_images_and_keeps_its_ranges(build: Build, photos: Path, tmp_path: Path) -> None:
    cache, keys = tmp_path / "ranges.json", f"{KEYS}.tensorrt.calibration"
    int8 = (f"{KEYS}.tensorrt.data_type=int8", f"{keys}.cal_cache_file={cache}", f"{KEYS}.overwrite=true")
    with pytest.raises(SpecError, match=r"no value for gen_trt_engine.tensorrt.calibration.cal_image_dir"):
        build(*int8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder contains no images"):
        build(*int8, f"{keys}.cal_image_dir={tmp_path / 'empty'}")
    assert not cache.exists()
    build(*int8, f"{keys}.cal_image_dir={photos}", f"{keys}.cal_batch_size=2")
    ranges = json.loads(cache.read_text())["ranges"]
    # The red image: (255 - 120) / 60 is the largest normalised value, (0 - 110) / 60 the smallest.
    assert ranges["images"] == pytest.approx((255 - 100) / 60, rel=1e-5)
    build(*int8, f"{keys}.cal_image_dir={photos}", f"{keys}.cal_batches=1")
    assert json.loads(cache.read_text())["ranges"] == ranges  # read, not measured
    cache.unlink()
    build(*int8, f"{keys}.cal_image_dir={photos}", f"{keys}.cal_batches=1")
    assert json.loads(cache.read_text())["ranges"]["images"] == pytest.approx((255 - 120) / 60, rel=1e-5)
    cache.write_text('{"ranges": {"other": 1.0}}')
    with pytest.raises(EngineError, match="the ranges belong to another graph"):
        build(*int8)
    cache.write_text("[]")
    with pytest.raises(EngineError, match="not a cache of calibrated ranges"):
        build(*int8)


@pytest.mark.parametrize(
    ("batch", "overrides", "expected"),
    [
        (-1, [], (1, 1, 1)),
        (-1, ["batch_size=4"], (4, 4, 4)),
        (-1, ["tensorrt.max_batch_size=8"], (1, 1, 8)),
        (-1, ["tensorrt.min_batch_size=2", "tensorrt.max_batch_size=8"], (2, 2, 8)),
        (-1, ["batch_size=4", "tensorrt.max_batch_size=8"], (1, 1, 8)),
        (2, [], (2, 2, 2)),
        (2, ["batch_size=2"], (2, 2, 2)),
        (-1, ["tensorrt.min_batch_size=2"], "2, 2 and 1 are not in order"),
        (-1, ["batch_size=9", "tensorrt.max_batch_size=8"], "9 does not lie between 1 and 8"),
        (2, ["batch_size=1"], "takes only batches of 2, not of 1 to 1"),
        (2, ["tensorrt.max_batch_size=4"], "takes only batches of 2, not of 1 to 4"),
    ],
)
def test_batch_sizes_are_those_of_the_spec_or_refused(
    build: Build, exported: Path, batch: int, overrides: list[str], expected: Any
) -> None:
    onnx.save(small_model(batch), exported)
    keys = [f"{KEYS}.{override}" for override in overrides]
    if isinstance(expected, str):
        with pytest.raises(SpecError, match=expected):
            build(FP32, *keys)
    else:
        shapes = plan_of(build(FP32, *keys))["profile"]["task_tokens"]
        assert tuple(shape[0] for shape in shapes) == expected


def test_files_that_are_no_exported_model_are_refused(build: Build, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"'model.bin' is not the name of an engine"):
        build(f"{KEYS}.trt_engine={tmp_path / 'model.bin'}")
    foreign = small_model()
    del foreign.metadata_props[:]
    onnx.save(foreign, exported)
    with pytest.raises(EngineError, match="not exported by this project"):
        build()
    custom = small_model()
    custom.graph.node[0].domain = "nvidia"
    custom.opset_import.append(onnx.helper.make_opsetid("nvidia", 1))
    onnx.save(custom, exported)
    with pytest.raises(EngineError, match="TensorRT cannot read it: Plugin not found: Conv"):
        build(FP32)
    exported.write_bytes(b"nothing")
    with pytest.raises(EngineError, match="not a usable ONNX file"):
        build()
    exported.unlink()
    with pytest.raises(OneFormerError, match="no such file"):
        build()
    assert [file.name for file in (tmp_path / KEYS).iterdir()] == []


def test_a_quantized_file_keeps_its_format(build: Build, exported: Path) -> None:
    from converters.graphs.activations import measured_ranges, quantizable_layers, with_8bit_activations
    from converters.graphs.graph import Graph

    model = small_model()
    layers = {layer.key: "int8" for layer in quantizable_layers(Graph(model))}
    onnx.save(with_8bit_activations(model, layers, measured_ranges(model, feeds())), exported)
    with pytest.raises(SpecError, match=r"data_type: is fp16, but the activations of .* are quantized to int8"):
        build()
    assert TensorProto.INT8 in formats(build(f"{KEYS}.tensorrt.data_type=int8"))
