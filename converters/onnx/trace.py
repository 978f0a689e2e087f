"""A model as an ONNX graph: traced by jax2onnx, simplified, its weights under the names of their parameters.

While jax2onnx traces, it replaces functions of `jax.numpy` and Flax for the whole process: what other threads compute
with JAX meanwhile may fail. Nothing here adds to that.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxslim
from flax.traverse_util import flatten_dict
from jax2onnx import to_onnx

from converters.onnx import postprocess, simplify
from converters.onnx.operators import ONNX, layer_norms_as_nodes
from converters.onnx.settings import Ending
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import normalise
from oneformer_jax.predict.metadata import ANY_BATCH, INPUTS, KEY, OUTPUTS, Metadata


def build_graph(
    params: Any, config: OneFormerConfig, metadata: Metadata, *, opset: int, ending: Ending | None = None
) -> onnx.ModelProto:
    """Images (B, 3, H, W), normalised, and task tokens (B, T) to class and mask logits, all float32.

    `metadata` says the size and the batch (-1: any) and goes into the file. Where it says `postprocess`, uint8 images
    (B, H, W, 3) to the results of that, with the `ending`.
    """
    params = {part: tree for part, tree in params.items() if part not in oneformer.TRAINING_ONLY}
    # Recomputation is for training and would be a jitted call in the graph.
    config = dataclasses.replace(config, backbone=config.backbone.for_inference(), ops=ONNX)
    height, width = metadata.image_size
    batch = "B" if metadata.batch_size == ANY_BATCH else metadata.batch_size

    def forward(images: jax.Array, task_tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = oneformer.encode(params, images.transpose(0, 2, 3, 1), config=config)
        class_logits, mask_logits = oneformer.predict(params, features, task_tokens, config=config)
        return class_logits, mask_logits

    def finished(images: jax.Array) -> tuple[jax.Array, ...]:
        assert ending is not None
        assert metadata.postprocess != "none"
        finish = postprocess.finish(metadata.postprocess, metadata.is_thing, metadata.image_size, ending.thresholds)
        normalised = normalise(images, metadata.pixel_mean, metadata.pixel_std)
        tokens = jnp.broadcast_to(metadata.tokens_of(ending.task)[None], (images.shape[0], config.task_seq_len))
        features = oneformer.encode(params, normalised, config=config)
        return finish(*oneformer.predict(params, features, tokens, config=config))

    function: Any = forward
    inputs: list[Any] = [(batch, 3, height, width), (batch, config.task_seq_len)]
    names: tuple[tuple[str, ...], tuple[str, ...]] = (INPUTS, OUTPUTS)
    if metadata.postprocess != "none":
        function, inputs = finished, [jax.ShapeDtypeStruct((batch, height, width, 3), jnp.uint8)]
        names = INPUTS[:1], postprocess.OUTPUTS[metadata.postprocess]
    # jax2onnx's own convolutions add biases of rank 1.
    with jax.numpy_rank_promotion("allow"), layer_norms_as_nodes(), _without_warnings_of_types():
        traced = to_onnx(
            function,
            inputs,
            model_name="oneformer",
            opset=opset,
            input_names=list(names[0]),
            output_names=list(names[1]),
        )
    return _finished(traced, params, metadata)


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


def _finished(traced: onnx.ModelProto, params: Any, metadata: Metadata) -> onnx.ModelProto:
    simplify.fix_shapes(traced.graph)
    model = onnxslim.slim(traced)
    simplify.store_once(model.graph)
    arrays = {"/".join(path): np.asarray(array) for path, array in flatten_dict(params).items()}
    simplify.name_layers(model.graph, arrays)
    model.producer_name = KEY
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: json.dumps(metadata.to_json())})
    return model
