"""A model as an ONNX graph: traced by jax2onnx, simplified, its weights under the names of their parameters.

While jax2onnx traces, it replaces functions of `jax.numpy` and Flax for the whole process: what other threads compute
with JAX meanwhile may fail. Nothing here adds to that.
"""

import dataclasses
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxslim
from flax.traverse_util import flatten_dict
from jax2onnx import to_onnx
from onnx import numpy_helper

from converters.onnx.operators import layer_norms_as_nodes, operations
from converters.onnx.postprocess import finish
from converters.onnx.settings import Ending, Sampling
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params, Predictions, normalise
from oneformer_jax.predict.metadata import ANY_BATCH, INPUTS, KEY, OUTPUTS, RESULTS, Metadata

ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Where"}
TO_THE_END = np.iinfo(np.int64).max

Shape = tuple[int | str, ...]


def logits(params: Params, images: jax.Array, task_tokens: jax.Array, *, config: OneFormerConfig) -> Predictions:
    """What a graph without post-processing computes of images (B, 3, H, W), normalised, and task tokens (B, T), padded
    with any id."""
    features = oneformer.encode(params, images.transpose(0, 2, 3, 1), config=config)
    return oneformer.predict(params, features, _padded_as_trained(task_tokens, config.task_pad_id), config=config)


def _padded_as_trained(tokens: jax.Array, pad_id: int) -> jax.Array:
    """Task tokens (B, T) with the model's pad id behind the end token, which has the largest of all ids.

    The original pads with 0, TAO and its deployment tool with the id of the end token itself, and all ids are the input
    of the task MLP.
    """
    place = np.arange(tokens.shape[1], dtype=np.int32)[None]
    end = jnp.argmax(tokens, axis=1, keepdims=True).astype(jnp.int32)
    return jnp.where(place > end, np.float32(pad_id), tokens)


def results(
    params: Params, images: jax.Array, *, config: OneFormerConfig, metadata: Metadata, ending: Ending
) -> tuple[jax.Array, ...]:
    """What a graph with post-processing computes of uint8 images (B, H, W, 3)."""
    pixels = normalise(images, metadata.pixel_mean, metadata.pixel_std)
    tokens = jnp.broadcast_to(metadata.tokens_of(ending.task)[None], (images.shape[0], config.task_seq_len))
    features = oneformer.encode(params, pixels, config=config)
    finished = finish(ending.postprocess, metadata.is_thing, metadata.image_size, ending.thresholds)
    return finished(*oneformer.predict(params, features, tokens, config=config))


def build_graph(
    params: Any,
    config: OneFormerConfig,
    metadata: Metadata,
    *,
    opset: int,
    ending: Ending | None = None,
    sampling: Sampling = "gather",
) -> onnx.ModelProto:
    """Images (B, 3, H, W), normalised, and task tokens (B, T) to class and mask logits, all float32.

    `metadata` says the size and the batch (-1: any) and goes into the file. With an `ending`, uint8 images (B, H, W, 3)
    to the results that it says.
    """
    params = {part: tree for part, tree in params.items() if part not in oneformer.TRAINING_ONLY}
    # Recomputation is for training and would be a jitted call in the graph.
    config = dataclasses.replace(config, backbone=config.backbone.for_inference(), ops=operations(sampling))
    height, width = metadata.image_size
    batch = "B" if metadata.batch_size == ANY_BATCH else metadata.batch_size

    function: Any
    inputs: list[Any]
    outputs: tuple[str, ...]
    if ending is None:
        function, outputs = partial(logits, params, config=config), OUTPUTS
        inputs = [(batch, 3, height, width), (batch, config.task_seq_len)]
    else:
        function = partial(results, params, config=config, metadata=metadata, ending=ending)
        inputs, outputs = [jax.ShapeDtypeStruct((batch, height, width, 3), jnp.uint8)], RESULTS[ending.postprocess]
    # jax2onnx's own convolutions add biases of rank 1.
    with jax.numpy_rank_promotion("allow"), layer_norms_as_nodes(), _without_warnings_of_types():
        traced = to_onnx(
            function,
            inputs,
            model_name="oneformer",
            opset=opset,
            input_names=list(INPUTS[: len(inputs)]),
            output_names=list(outputs),
        )
    named = {"/".join(path): np.asarray(array) for path, array in flatten_dict(params).items()}
    if ending is not None:
        named[INPUTS[1]] = metadata.tokens_of(ending.task)[None]
    return _finished(traced, named, metadata)


@contextmanager
def _without_warnings_of_types() -> Iterator[None]:
    """onnx_ir warns of every shape tensor that it has no type; shapes are inferred again."""
    log = logging.getLogger("onnx_ir.serde")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _finished(traced: onnx.ModelProto, named: dict[str, np.ndarray], metadata: Metadata) -> onnx.ModelProto:
    _fix_shapes(traced.graph)
    model = onnxslim.slim(traced)
    _store_once(model.graph)
    _name_layers(model.graph, named)
    model.producer_name = KEY
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: json.dumps(metadata.to_json())})
    return model


def _fix_shapes(graph: onnx.GraphProto) -> None:
    """Replaces what only computes with the batch size by what does not need it.

    Reshapes get constants with -1 for the batch, slices run to the end of its axis, and operands that the next node
    broadcasts anyway are not expanded before.
    """
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers: dict[str, onnx.NodeProto] = {}
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        makers |= dict.fromkeys(node.output, node)
        for name in node.input:
            users[name].append(node)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    shapes |= {name: value.shape for name, value in constants.items()}

    def store(name: str, values: list[int]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    for node in graph.node:
        result = shapes.get(node.output[0])
        match node.op_type:
            case "Reshape" if node.input[1] not in constants and result:
                target = [size if isinstance(size, int) else -1 for size in result]
                if target.count(-1) == 1:
                    node.input[1] = store(f"{node.output[0]}_shape", target)
            case "Slice" if node.input[2] not in constants and makers[node.input[2]].op_type == "Concat":
                ends = [constants.get(name) for name in makers[node.input[2]].input]
                values = [TO_THE_END if end is None else int(end.item()) for end in ends]
                node.input[2] = store(f"{node.output[0]}_ends", values)
            case "Expand" if result and users[node.output[0]]:
                if all(_broadcasts(user, node.output[0], result, shapes) for user in users[node.output[0]]):
                    for user in users[node.output[0]]:
                        user.input[:] = [node.input[0] if x == node.output[0] else x for x in user.input]


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(size.dim_value if size.HasField("dim_value") else size.dim_param or "?" for size in kind.shape.dim)


def _broadcasts(user: onnx.NodeProto, name: str, shape: Shape, shapes: dict[str, Shape | None]) -> bool:
    """Whether `user` broadcasts its input `name` to `shape`, because another of its inputs has that shape."""
    return user.op_type in ELEMENTWISE and any(shapes.get(other) == shape for other in user.input if other != name)


def _store_once(graph: onnx.GraphProto) -> None:
    """Keeps one of several equal constants, among them those that stand in `Constant` nodes."""
    for index in reversed(range(len(graph.node))):
        if (node := graph.node[index]).op_type == "Constant":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            del graph.node[index]
    kept: dict[str, str] = {}
    first: dict[str, str] = {}
    for tensor in graph.initializer:
        kept[tensor.name] = first.setdefault(_digest(numpy_helper.to_array(tensor)), tensor.name)
    for index in reversed(range(len(graph.initializer))):  # by index: `remove` compares whole tensors
        if kept[graph.initializer[index].name] != graph.initializer[index].name:
            del graph.initializer[index]
    for node in graph.node:
        node.input[:] = [kept.get(name, name) for name in node.input]


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()


def _name_layers(graph: onnx.GraphProto, params: dict[str, np.ndarray]) -> None:
    """Constants get the names in `params`, weights the slash-joined ones of their parameters; nodes that use one, and
    their results, its module's.

    This makes layers recognisable in the file: `backbone/stage0_block0/linear1/MatMul`. A node without weights is named
    after the module that its first such input comes from. Kernels of convolutions are known although ONNX orders their
    axes otherwise; what several modules share has no module's name.
    """
    paths: dict[str, set[str]] = defaultdict(set)
    for path, array in params.items():
        for stored in (array, array.transpose(3, 2, 0, 1)) if array.ndim == 4 else (array,):
            paths[_digest(np.ascontiguousarray(stored))].add(path)
    names: dict[str, str] = {}
    weights: set[str] = set()
    for tensor in graph.initializer:
        owners = paths[_digest(numpy_helper.to_array(tensor))]
        weights |= owners if len(owners) == 1 else set()
        name = owners.pop() if len(owners) == 1 else f"constant_{len(names)}"
        names[tensor.name] = tensor.name = name
    fixed = {value.name for value in (*graph.input, *graph.output)}
    used: dict[str, int] = {}
    for node in graph.node:
        inputs = sorted((names.get(name, name) for name in node.input), key=lambda name: name not in weights)
        modules = [name.rpartition("/")[0] for name in inputs if "/" in name]
        name = "/".join([*modules[:1], node.op_type])
        used[name] = used.get(name, 0) + 1
        node.name = name if used[name] == 1 and modules else f"{name}_{used[name]}"
        for position, output in enumerate(node.output):
            if output and output not in fixed:
                names[output] = node.name if position == 0 else f"{node.name}:{position}"
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.value_info[:]
