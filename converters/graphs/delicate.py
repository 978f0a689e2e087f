"""The nodes of a OneFormer graph that fewer bits would spoil, found by what they compute, with the reason."""

from collections.abc import Iterator

from onnx import NodeProto

from converters.graphs.graph import PRODUCTS, Graph

TASK = "task vector"  # raw token ids up to 49407, whose products exceed what float16 holds
NORMALISATION = "normalisation"
SOFTMAX = "softmax"
MASK = "masked attention"  # thresholds at zero, and the most negative float32 where attention is blocked
SAMPLING = "sampling coordinates"  # bfloat16 knows no position between 0.996 and 1
RESULTS = "post-processing"  # numbers of segments, and sums over all pixels

REASONS = (TASK, NORMALISATION, SOFTMAX, MASK, SAMPLING, RESULTS)

NORMS = ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "BatchNormalization", "RMSNormalization")
SUMS = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceMax", "ReduceLogSumExp")
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Neg")
LOGITS = "pred_logits"
LAYOUT = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Identity", "Cast", "Concat", "Slice", "Gather")
COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")


def delicate_nodes(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Reason -> names of the nodes that stay float32; a node stands at the first reason that holds."""
    found: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    finders = (_task, _normalisation, _softmax, _mask, _sampling, _results)
    for reason, finder in zip(REASONS, finders, strict=True):
        names = dict.fromkeys(node.name for node in finder(graph) if node.name not in seen)
        seen |= names.keys()
        found[reason] = tuple(names)
    return {reason: names for reason, names in found.items() if names}


def _task(graph: Graph) -> Iterator[NodeProto]:
    """What depends on the task and not on the image."""
    task, image = {"task_tokens"}, set(graph.inputs) - {"task_tokens"}
    for node in graph.nodes:
        if node.op_type == "Shape":
            continue  # the row of a graph's own task is repeated for as many images as there are
        for names in (task, image):
            if names & set(node.input):
                names |= set(node.output)
        if set(node.output) & task - image:
            yield node


def _normalisation(graph: Graph) -> Iterator[NodeProto]:
    """Norms, and means with the differences, squares and roots around them."""
    for node in graph.nodes:
        if node.op_type in NORMS:
            yield node
        elif node.op_type in ("ReduceMean", "ReduceSumSquare", "ReduceL2", "Sqrt"):
            yield node
            yield from (reader for reader in graph.before(node) if reader.op_type in ELEMENTWISE)
            yield from _onward(graph, node, (*ELEMENTWISE, *LAYOUT, *SUMS), until=("Div", "Mul"))


def _softmax(graph: Graph) -> Iterator[NodeProto]:
    """Softmax, whole or as exponentials, their sums and products with values, and the division by the sums."""
    for node in graph.nodes:
        if node.op_type in ("Softmax", "LogSoftmax", *SUMS):
            yield node
        elif node.op_type == "Exp":
            yield node
            yield from (before for before in graph.before(node) if before.op_type == "Sub")
            follow = (*SUMS, "MatMul", "Einsum", "Div", *LAYOUT)
            yield from _onward(graph, node, follow, until=("Div",))


def _mask(graph: Graph) -> Iterator[NodeProto]:
    """Thresholds, the products that they are taken of, and what is chosen by them."""
    for node in graph.nodes:
        if node.op_type in COMPARISONS:
            yield node
            yield from _back_to_product(graph, node)
        elif node.op_type == "Where":
            yield node


def _sampling(graph: Graph) -> Iterator[NodeProto]:
    """Coordinates from the layer on that predicts offsets, and what is made of them: samplers that take them, or the
    numbers of pixels and their coefficients."""
    for node in graph.nodes:
        if node.op_type == "GridSample":
            yield node
            yield from _back_to_product(graph, node, inputs=(1,))
        elif node.op_type == "GatherND" and node.input[1] not in graph.constants:
            yield from _back_to_product(graph, node, inputs=(1,))
            for product in graph.after(node):
                yield from _back_to_product(graph, product, inputs=(0,))


def _results(graph: Graph) -> Iterator[NodeProto]:
    """In a graph that returns results, what follows the last layers."""
    if LOGITS in {value.name for value in graph.model.graph.output}:
        return
    layered: set[str] = set()  # names of tensors that a layer needs
    for node in reversed(graph.nodes):
        is_layer = any("/" in name and name in graph.constants for name in node.input)
        if is_layer or layered & set(node.output):
            layered |= set(node.input)
        else:
            yield node


def _back_to_product(graph: Graph, node: NodeProto, inputs: tuple[int, ...] | None = None) -> Iterator[NodeProto]:
    """Everything that `node` (or some of its inputs) is computed from, as far as the nearest products."""
    open_nodes, seen = list(graph.before(node, inputs)), set()
    while open_nodes:
        current = open_nodes.pop()
        if current.name not in seen:
            seen.add(current.name)
            yield current
            if current.op_type not in (*PRODUCTS, *NORMS, "GridSample", "Resize"):
                open_nodes += graph.before(current)


def _onward(graph: Graph, node: NodeProto, follow: tuple[str, ...], until: tuple[str, ...]) -> Iterator[NodeProto]:
    """The readers of `node` and their readers of the kinds `follow`, up to and including those of the kinds `until`."""
    open_nodes, seen = list(graph.after(node)), set()
    while open_nodes:
        current = open_nodes.pop()
        if current.name not in seen and current.op_type in follow:
            seen.add(current.name)
            yield current
            if current.op_type not in until:
                open_nodes += graph.after(current)
