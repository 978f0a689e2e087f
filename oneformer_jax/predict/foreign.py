"""ONNX files that NVIDIA TAO exported: the graph says the sizes, a spec the classes, and the rest is what TAO does."""

from typing import Any

from oneformer_jax.data import PIXEL_MEAN, PIXEL_STD
from oneformer_jax.data.datasets.categories import load_label_map
from oneformer_jax.data.storage.cache import local_file
from oneformer_jax.data.task_text import END, task_tokens
from oneformer_jax.errors import EngineError
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.metadata import ANY_BATCH, INPUTS, OUTPUTS, Metadata
from oneformer_jax.predict.runs import Stated


def foreign_metadata(stated: Stated, session: Any, where: str) -> Metadata:
    """Of a session of ONNX Runtime whose file holds none.

    Classes are those of the first label map, mean and deviation those that are stated, or ImageNet's. Task tokens are
    padded with the end token, as TAO pads them. Raises EngineError: other inputs and outputs than TAO's; DataError: a
    label map that cannot be read.
    """
    shapes = {node.name: node.shape for node in (*session.get_inputs(), *session.get_outputs())}
    if set(shapes) != {*INPUTS, *OUTPUTS}:
        what = f"its inputs and outputs are {', '.join(shapes)}, not {', '.join(INPUTS + OUTPUTS)}"
        raise EngineError(f"not a OneFormer that TAO exported: {what}", where=where)
    (batch, _, height, width), (_, length) = (shapes[name] for name in INPUTS)
    _, queries, classes = shapes[OUTPUTS[0]]
    rows = shapes[OUTPUTS[1]][-2]
    sizes = height, width, length, queries, classes
    if not all(isinstance(size, int) for size in sizes):
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise EngineError(f"its sizes are not fixed: {found}", where=where)
    path = local_file(stated.label_maps[0], what="dataset.label_map", suffix=".json")
    categories = load_label_map(path, contiguous_id=stated.contiguous_id)
    if len(categories) > classes - 1:
        what = f"the label map has {len(categories)} classes, but the model only {classes - 1}"
        raise EngineError(what, where=where, hint="give the label map that it was trained with")
    mean, deviation = stated.statistics or (PIXEL_MEAN, PIXEL_STD)
    return Metadata(
        categories,
        num_classes=classes - 1,
        num_queries=queries,
        image_size=(height, width),
        batch_size=batch if isinstance(batch, int) else ANY_BATCH,
        pixel_mean=mean,
        pixel_std=deviation,
        task_pad_id=END,
        task_tokens=tuple(map(tuple, task_tokens(END, length).tolist())),
        checkpoint="exported by TAO",
        thresholds=Thresholds(**dict(stated.thresholds)),  # type: ignore[arg-type]
        mask_stride=8 if rows == height // 8 else 4,
    )
