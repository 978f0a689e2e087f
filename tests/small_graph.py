"""A graph with the inputs, outputs and delicate parts of an exported OneFormer, small enough to run in milliseconds."""

import json
from dataclasses import replace

import numpy as np
import onnx
from onnx import compose, numpy_helper, parser

from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.predict.metadata import KEY, OUTPUTS, Metadata
from oneformer_jax.tasks import Task

SIZE, QUERIES, CLASSES, WIDTH = 32, 6, 7, 32
PIXELS = (SIZE // 4) ** 2
BLOCKED = float(np.finfo(np.float32).min)

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[BATCH,3,32,32] images, float[BATCH,77] task_tokens)
    => (float[BATCH,6,8] pred_logits, float[BATCH,6,8,8] pred_masks)
<float[32,3,4,4] patch, float[77,32] task_in, float[32,32] task_out, float[32] gain, float[32] shift,
 float[32,32] to_keys, float[32,32] to_values, float[32,2] to_offsets, float[32,8] to_classes, float[1,6,32] queries,
 float[1,64,1,2] centres, float[1,64,32] positions, float blocked, float zero, int64[1] one,
 int64[3] sequence_shape, int64[4] grid_shape, int64[3] pixel_shape, int64[4] mask_shape> {
    features = Conv <strides = [4, 4]> (images, patch)
    flat = Reshape (features, sequence_shape)
    rows = Transpose <perm = [0, 2, 1]> (flat)
    normed = LayerNormalization <axis = -1, epsilon = 1.0e-5> (rows, gain, shift)
    offsets = MatMul (normed, to_offsets)
    bounded = Tanh (offsets)
    grid_rows = Reshape (bounded, grid_shape)
    grid = Add (grid_rows, centres)
    sampled = GridSample <mode = "bilinear", padding_mode = "zeros", align_corners = 0> (features, grid)
    sampled_flat = Reshape (sampled, pixel_shape)
    memory = Transpose <perm = [0, 2, 1]> (sampled_flat)
    placed = Add (memory, positions)
    keys = MatMul (placed, to_keys)
    values = MatMul (memory, to_values)
    keys_t = Transpose <perm = [0, 2, 1]> (keys)
    task_hidden = MatMul (task_tokens, task_in)
    task_relu = Relu (task_hidden)
    task_wide = MatMul (task_relu, task_out)
    task_row = Unsqueeze (task_wide, one)
    task_norm = LayerNormalization <axis = -1, epsilon = 1.0e-5> (task_row, gain, shift)
    asked = Add (queries, task_norm)
    scores = MatMul (asked, keys_t)
    is_far = Less (scores, zero)
    masked = Where (is_far, blocked, scores)
    weights = Softmax <axis = -1> (masked)
    mixed = MatMul (weights, values)
    answers = Add (mixed, asked)
    pred_logits = MatMul (answers, to_classes)
    products = MatMul (answers, keys_t)
    pred_masks = Reshape (products, mask_shape)
}
"""


def small_model(batch: int = -1, seed: int = 0, categories: Categories | None = None) -> onnx.ModelProto:
    """Drawn weights; `batch` -1: any; other categories than its own must be as many."""
    model = parser.parse_model(TEXT.replace("BATCH", "N" if batch < 0 else str(batch)))
    rng = np.random.default_rng(seed)
    special = {
        "gain": np.ones(WIDTH),
        "shift": np.zeros(WIDTH),
        "centres": rng.uniform(-0.9, 0.9, (1, PIXELS, 1, 2)),
        "blocked": np.array(BLOCKED),
        "zero": np.array(0.0),
        "one": np.array([1], np.int64),
        "sequence_shape": np.array([0, WIDTH, PIXELS]),
        "grid_shape": np.array([-1, PIXELS, 1, 2]),
        "pixel_shape": np.array([-1, WIDTH, PIXELS]),
        "mask_shape": np.array([-1, QUERIES, SIZE // 4, SIZE // 4]),
    }
    drawn = {}
    for value in model.graph.value_info:
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        found = special.get(value.name)
        if found is None:
            found = rng.normal(0, (np.prod(shape[1:]) if value.name == "patch" else shape[-2]) ** -0.5, shape)
        is_int = value.type.tensor_type.elem_type == onnx.TensorProto.INT64
        drawn[value.name] = np.asarray(found, np.int64 if is_int else np.float32).reshape(shape)
    del model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in drawn.items())
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(metadata(batch, categories).to_json())
    onnx.checker.check_model(model, full_check=True)
    return model


BEFORE = """
<ir_version: 8, opset_import: ["" : 17]>
before (uint8[BATCH,32,32,3] images) => (float[BATCH,3,32,32] normal, float[BATCH,77] tokens)
<float[1,77] row, float[1,3,1,1] mean, float[1,3,1,1] scale, int64[1] first, int64[1] second, int64[1] width> {
    wide = Cast <to = 1> (images)
    upright = Transpose <perm = [0, 3, 1, 2]> (wide)
    centred = Sub (upright, mean)
    normal = Mul (centred, scale)
    whole = Shape (images)
    count = Slice (whole, first, second)
    shape = Concat <axis = 0> (count, width)
    tokens = Expand (row, shape)
}
"""


def small_results_model(kind: Task, batch: int = -1) -> onnx.ModelProto:
    """`small_model` from uint8 images to results, as a graph with post-processing."""
    from jax2onnx import to_onnx

    from converters.onnx.postprocess import finish

    about = replace(metadata(batch), postprocess=kind)
    size = "B" if batch < 0 else batch
    finished = to_onnx(
        finish(kind, about.is_thing, about.image_size, about.thresholds),
        [(size, QUERIES, CLASSES + 1), (size, QUERIES, SIZE // 4, SIZE // 4)],
        opset=17,
        input_names=list(OUTPUTS),
        output_names=list(about.outputs),
    )
    finished.ir_version = 8
    before = parser.parse_model(BEFORE.replace("BATCH", "N" if batch < 0 else str(batch)))
    constants = {
        "row": about.tokens_of(kind)[None],
        "mean": np.array(about.pixel_mean, np.float32).reshape(1, 3, 1, 1),
        "scale": 1 / np.array(about.pixel_std, np.float32).reshape(1, 3, 1, 1),
        "first": np.array([0]),
        "second": np.array([1]),
        "width": np.array([77]),
    }
    del before.graph.value_info[:]
    before.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    middle = compose.add_prefix(small_model(batch), "m/")
    del middle.metadata_props[:]
    pairs = list(zip(("normal", "tokens"), ("m/images", "m/task_tokens"), strict=True))
    model = compose.merge_models(before, middle, pairs)
    model = compose.merge_models(model, finished, [(f"m/{name}", name) for name in OUTPUTS])
    onnx.helper.set_model_props(model, {KEY: json.dumps(about.to_json())})
    onnx.checker.check_model(model, full_check=True)
    return model


def metadata(batch: int = -1, categories: Categories | None = None) -> Metadata:
    """Of `small_model`."""
    own = Categories(tuple(Category(i + 1, f"class {i}", i < 2, (30 * i, 0, 0)) for i in range(CLASSES)))
    categories = categories or own
    rows = tuple(tuple(map(int, row)) for row in task_tokens(0, 77))
    mean, std = (120.0, 110.0, 100.0), (60.0, 60.0, 60.0)
    return Metadata(categories, CLASSES, QUERIES, (SIZE, SIZE), batch, mean, std, 0, rows, "drawn weights")


def feeds(count: int = 3, batch: int = 2, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Inputs for `small_model`, each with another task."""
    rng = np.random.default_rng(seed)
    rows = task_tokens(0, 77).astype(np.float32)
    return [
        {
            "images": rng.normal(0, 1, (batch, 3, SIZE, SIZE)).astype(np.float32),
            "task_tokens": np.tile(rows[index % 3], (batch, 1)),
        }
        for index in range(count)
    ]
