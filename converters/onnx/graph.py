"""A model as an ONNX graph: traced by jax2onnx, simplified, its weights under the names of their parameters."""

from typing import Any

import jax
import onnx
from jax2onnx import to_onnx

from converters.onnx.operators import substituted
from oneformer_jax.deploy.metadata import ANY_BATCH, INPUTS, OUTPUTS, Metadata
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig

OPSETS = range(17, 24)
"""Those in which the graph is written: LayerNormalization begins with 17."""


def build_graph(params: Any, config: OneFormerConfig, metadata: Metadata, *, opset: int) -> onnx.ModelProto:
    """Images (B, 3, H, W), normalised, and task tokens (B, T) to class and mask logits, all float32.

    `metadata` says the size and the batch (-1: any) and goes into the file.
    """
    params = {part: tree for part, tree in params.items() if part not in oneformer.TRAINING_ONLY}
    config = _for_inference(config)
    height, width = metadata.image_size
    batch = "B" if metadata.batch_size == ANY_BATCH else metadata.batch_size

    def forward(images: jax.Array, task_tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        with substituted():
            features = oneformer.encode(params, images.transpose(0, 2, 3, 1), config=config)
            predictions = oneformer.decode(params, features, task_tokens, config=config).final()
        return predictions.class_logits, predictions.mask_logits

    traced = to_onnx(
        forward,
        [(batch, 3, height, width), (batch, config.task_seq_len)],
        model_name="oneformer",
        opset=opset,
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
    )
    return _finished(traced, params, metadata)


def _for_inference(config: OneFormerConfig) -> OneFormerConfig:
    """Without recomputation, which is for training and would be a jitted call in the graph."""
    if not isinstance(config.backbone, SwinConfig):
        return config
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, use_checkpoint=False))


def _finished(traced: onnx.ModelProto, params: Any, metadata: Metadata) -> onnx.ModelProto:
    model = onnxslim.slim(traced)
    _store_once(model.graph)
    _name(model.graph, {"/".join(path): np.asarray(array) for path, array in flatten_dict(params).items()})
    model.producer_name = KEY
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: json.dumps(metadata.to_json())})
    return model


def _store_once(graph: onnx.GraphProto) -> None:
    """Keeps one of several equal constants, among them those that stand in `Constant` nodes."""
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)
    kept: dict[str, str] = {}
    first: dict[str, str] = {}
    duplicates = []
    for tensor in graph.initializer:
        name = first.setdefault(_digest(numpy_helper.to_array(tensor)), tensor.name)
        kept[tensor.name] = name
        if name != tensor.name:
            duplicates.append(tensor)
    for tensor in duplicates:
        graph.initializer.remove(tensor)
    for node in graph.node:
        node.input[:] = [kept.get(name, name) for name in node.input]


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()


def _name(graph: onnx.GraphProto, params: dict[str, np.ndarray]) -> None:
    """Weights get the slash-joined names of their parameters; nodes that use one, and their results, its module's.

    Layers can so be told in the file: `backbone/stage0_block0/linear1/MatMul`. Kernels of convolutions are known
    although ONNX orders their axes otherwise.
    """
    paths: dict[str, str] = {}
    for path, array in params.items():
        for stored in (array, array.transpose(3, 2, 0, 1)) if array.ndim == 4 else (array,):
            paths.setdefault(_digest(np.ascontiguousarray(stored)), path)
    names: dict[str, str] = {}
    for tensor in graph.initializer:
        name = paths.get(_digest(numpy_helper.to_array(tensor)), f"constant_{len(names)}")
        names[tensor.name] = tensor.name = name
    fixed = {value.name for value in (*graph.input, *graph.output)}
    used: dict[str, int] = {}
    for node in graph.node:
        modules = [names[name].rpartition("/")[0] for name in node.input if "/" in names.get(name, "")]
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
