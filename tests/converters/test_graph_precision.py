"""Number formats of a graph: what stays float32, and that the results stay what they were."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from small_graph import feeds, small_model

from converters.graphs.delicate import MASK, NORMALISATION, SAMPLING, SOFTMAX, TASK, delicate_nodes
from converters.graphs.graph import Graph
from converters.graphs.precision import CHOSEN, RANGE, with_precision
from oneformer_jax.errors import EngineError, SpecError


def outputs(model: onnx.ModelProto) -> list[list[np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [session.run(None, feed) for feed in feeds()]


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of all tensors. A node whose inputs do not go together fails; ONNX itself has no convolution in
    bfloat16 before operator set 22, TensorRT's parser has."""
    is_bfloat16 = any(tensor.data_type == TensorProto.BFLOAT16 for tensor in model.graph.initializer)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=not is_bfloat16).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}


def operators(graph: Graph, names: tuple[str, ...]) -> list[str]:
    return sorted(node.op_type for node in graph.nodes if node.name in names)


def test_delicate_nodes_are_found_by_what_they_compute() -> None:
    graph = Graph(small_model())
    found = delicate_nodes(graph)
    assert {reason: operators(graph, names) for reason, names in found.items()} == {
        TASK: ["Add", "LayerNormalization", "MatMul", "MatMul", "Relu", "Unsqueeze"],
        NORMALISATION: ["LayerNormalization"],
        SOFTMAX: ["Softmax"],
        MASK: ["Less", "MatMul", "Where"],
        SAMPLING: ["Add", "GridSample", "MatMul", "Reshape", "Tanh"],
    }
    assert len(sum(found.values(), ())) == len(set(sum(found.values(), ())))


def test_norms_and_softmax_in_parts_are_found_too() -> None:
    """The forms that a tracer writes where it does not know the operator."""
    steps = [
        ("ReduceMean", ["x"], "mean"), ("Sub", ["x", "mean"], "centred"), ("Mul", ["centred", "centred"], "squares"),
        ("ReduceMean", ["squares"], "variance"), ("Sqrt", ["variance"], "deviation"),
        ("Div", ["centred", "deviation"], "normed"), ("MatMul", ["normed", "w"], "logits"),
        ("ReduceMax", ["logits"], "peak"), ("Sub", ["logits", "peak"], "shifted"), ("Exp", ["shifted"], "weights"),
        ("ReduceSum", ["weights"], "total"), ("MatMul", ["weights", "w"], "sums"), ("Div", ["sums", "total"], "mixed"),
        ("MatMul", ["mixed", "w"], "y"),
    ]  # fmt: skip
    nodes = [helper.make_node(operator, inputs, [output], name=output) for operator, inputs, output in steps]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy")
    weight = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = Graph(helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weight])))
    found = delicate_nodes(graph)
    assert set(found[NORMALISATION]) == {"mean", "centred", "squares", "variance", "deviation", "normed"}
    assert set(found[SOFTMAX]) == {"peak", "shifted", "weights", "total", "sums", "mixed"}


@pytest.mark.parametrize(("name", "element"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_products_change_and_delicate_parts_do_not(name: str, element: int) -> None:
    model, kept = with_precision(small_model(), name)
    found = types(model)
    assert found["keys"] == found["values"] == found["features"] == element
    for tensor in ("task_norm", "normed", "weights", "masked", "scores", "offsets", "grid", "sampled"):
        assert found[tensor] == TensorProto.FLOAT, tensor
    assert found["pred_logits"] == found["pred_masks"] == TensorProto.FLOAT
    assert kept.keys() == {TASK, NORMALISATION, SOFTMAX, MASK, SAMPLING}


def test_float16_gives_nearly_the_same_results() -> None:
    model = small_model()
    assert max(map(np.abs, (feeds()[0]["task_tokens"],)), key=np.max).max() > 2**15  # beyond a product in float16
    for ours, theirs in zip(outputs(with_precision(model, "fp16")[0]), outputs(model), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == np.float32
            assert np.isfinite(a).all()
            np.testing.assert_allclose(a, b, atol=0.02 * np.abs(b).max())


def test_float32_and_choices_for_everything_change_nothing() -> None:
    model = small_model()
    for same, kept in (with_precision(model, "fp32"), with_precision(model, "fp16", ["*:fp32"])):
        assert len(same.graph.node) == len(model.graph.node)
        assert CHOSEN in kept or not kept
        for ours, theirs in zip(outputs(same), outputs(model), strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


def test_choices_win_and_later_ones_over_earlier() -> None:
    model, kept = with_precision(small_model(), "fp16", ["Softmax:fp16", "Conv:bf16", "*:FP16", "GridSample*:fp32"])
    found = types(model)
    assert found["weights"] == found["features"] == TensorProto.FLOAT16
    assert found["sampled"] == TensorProto.FLOAT
    assert SOFTMAX not in kept
    assert len(kept[CHOSEN]) == 1
    assert types(with_precision(small_model(), "fp32", ["Conv:bf16"])[0])["features"] == TensorProto.BFLOAT16


def test_constants_that_float16_does_not_hold_keep_their_node_in_float32() -> None:
    model, kept = with_precision(small_model(), "fp16", ["Where:fp16"])
    assert [name.partition("_")[0] for name in kept[RANGE]] == ["Where"]
    assert np.isfinite(outputs(model)[0][0]).all()


@pytest.mark.parametrize("choice", ["Conv", ":fp16", "Conv:int8", "conv:fp16", "nothing:fp32"])
def test_choices_that_say_nothing_are_refused(choice: str) -> None:
    with pytest.raises(SpecError, match="layers_precision"):
        with_precision(small_model(), "fp16", [choice])


def test_a_nested_graph_is_refused() -> None:
    branch = helper.make_graph([], "branch", [], [])
    model = small_model()
    model.graph.node.append(helper.make_node("If", ["zero"], ["y"], then_branch=branch, else_branch=branch))
    with pytest.raises(EngineError, match="has a nested graph"):
        with_precision(model, "fp16")
