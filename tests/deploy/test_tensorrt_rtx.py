"""Our graphs in TensorRT-RTX, which parses ONNX and builds engines without a GPU: same parser, same typing rules.

It is no proof for TensorRT itself, and nothing runs. 8-bit floats need a GPU that has them.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_graph import SIZE, feeds, metadata, small_model, small_results_model

from converters.graphs.activations import measured_ranges, quantizable_layers, with_8bit_activations
from converters.graphs.delicate import REASONS, RESULTS, TASK, delicate_nodes
from converters.graphs.graph import Graph
from converters.graphs.layers import FP8, INT8
from converters.graphs.precision import with_precision
from converters.graphs.weights import tables, weighted_layers, with_8bit_weights
from converters.onnx.settings import Ending
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.tensorrt_engine import reports
from oneformer_jax.tasks import TASKS, Task

BATCHES = (1, 2, 4)


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def built(rtx: Any, path: Path, capabilities: tuple[str, ...]) -> int:
    """The size of the engine for these GPUs, with batches of 1 to 4 where the graph takes any."""
    logger = reports(rtx)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        config.set_compute_capability(getattr(rtx.ComputeCapability, name), index)
    profile = builder.create_optimization_profile()
    for tensor in map(network.get_input, range(network.num_inputs)):
        batch, *rest = tensor.shape
        profile.set_shape(tensor.name, *((size if batch == -1 else batch, *rest) for size in BATCHES))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, logger.errors
    return int(plan.nbytes)


def variant(model: onnx.ModelProto, name: str, inputs: list[dict[str, np.ndarray]] | None = None) -> onnx.ModelProto:
    """The graph in one of the formats that we write."""
    if name in ("fp32", "fp16", "bf16"):
        return with_precision(model, name)[0]
    kind, _, dtype = name.partition("_")
    graph = Graph(model)
    if kind == "weights":
        layers = weighted_layers(graph) + tables(graph)
        weights = with_8bit_weights(model, {layer.key: dtype.partition("_fp16")[0] for layer in layers})
        return with_precision(weights, "fp16")[0] if dtype.endswith("_fp16") else weights
    chosen = {layer.key: dtype for layer in quantizable_layers(graph)}
    return with_8bit_activations(model, chosen, measured_ranges(model, inputs or feeds(batch=2)))


@pytest.mark.parametrize("batch", [-1, 2], ids=["dynamic", "static"])
@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16", f"weights_{INT8}", f"weights_{INT8}_fp16", f"static_{INT8}"])
def test_our_graphs_build_for_two_kinds_of_gpu(rtx: Any, tmp_path: Path, name: str, batch: int) -> None:
    onnx.save(variant(small_model(batch), name), tmp_path / "model.onnx")
    assert built(rtx, tmp_path / "model.onnx", ("SM86", "SM89")) > 10_000


@pytest.mark.parametrize("name", [f"weights_{FP8}", f"static_{FP8}"])
def test_8_bit_floats_build_where_gpus_have_them(rtx: Any, tmp_path: Path, name: str) -> None:
    onnx.save(variant(small_model(), name), tmp_path / "model.onnx")
    assert built(rtx, tmp_path / "model.onnx", ("SM89", "SM120")) > 10_000


def test_formats_that_do_not_go_together_are_found(rtx: Any, tmp_path: Path) -> None:
    """A check that a graph without casts would fail."""
    model, _ = with_precision(small_model(), "fp16")
    for node in model.graph.node:
        if node.op_type == "Cast":
            node.op_type = "Identity"
            del node.attribute[:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(AssertionError):
        built(rtx, tmp_path / "model.onnx", ("SM86",))


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", ["fp32", "fp16", f"static_{INT8}"])
def test_graphs_with_post_processing_build(rtx: Any, tmp_path: Path, name: str, kind: Task) -> None:
    model = small_results_model(kind)
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    onnx.save(variant(model, name, [{"images": images}]), tmp_path / "model.onnx")
    assert built(rtx, tmp_path / "model.onnx", ("SM86", "SM89")) > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch", "ending"),
    [
        pytest.param("fp16", -1, None, marks=pytest.mark.prove),
        (f"static_{INT8}", 2, Ending("panoptic", Thresholds())),
    ],
)
def test_an_exported_model_builds(rtx: Any, tmp_path: Path, name: str, batch: int, ending: Ending | None) -> None:
    """All of OneFormer, as `export` writes it."""
    import jax
    from models.tiny import TINY

    from converters.onnx.trace import build_graph
    from oneformer_jax.models import oneformer

    rows = tuple(tuple(range(1000 * task, 1000 * task + TINY.task_seq_len)) for task in range(3))
    categories = Categories(metadata().categories.items[: TINY.num_classes])
    facts = {
        "categories": categories,
        "num_classes": TINY.num_classes,
        "num_queries": TINY.transformer.num_queries,
        "task_tokens": rows,
    }
    about = dataclasses.replace(metadata(batch), image_size=(64, 64), **facts)
    params = oneformer.init(TINY, jax.random.key(0))
    model = build_graph(params, TINY, about, opset=17, ending=ending)
    rng = np.random.default_rng(0)
    inputs = {
        "images": rng.normal(0, 1, (2, 3, 64, 64)).astype(np.float32),
        "task_tokens": np.array(rows[:2], np.float32),
    }
    if ending:
        inputs = {"images": rng.integers(0, 256, (2, 64, 64, 3), np.uint8)}
    onnx.save(variant(model, name, [inputs]), tmp_path / "model.onnx")
    assert built(rtx, tmp_path / "model.onnx", ("SM86", "SM89")) > 100_000
    found = delicate_nodes(Graph(model))
    assert found.keys() == set(REASONS) - {TASK if ending else RESULTS}  # the task of whole batches is a constant
    operators = {node.name: node.op_type for node in model.graph.node}
    kept = {operators[node] for names in found.values() for node in names}
    assert {"Softmax", "LayerNormalization", "Floor", "Where", "Less"} <= kept
    others = {operator for node, operator in operators.items() if not any(node in names for names in found.values())}
    assert not others & {"Softmax", "LayerNormalization", "Floor", "Where", "Less", "ReduceMean", "Exp"}
