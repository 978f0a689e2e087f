"""Spec templates: every key of an action with the default that TAO publishes, and short ones for deployment."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from oneformer_jax.app.spec.field import Branch, Leaf, children
from oneformer_jax.app.spec.spec import Spec

ACTIONS = ("train", "evaluate", "inference", "export", "quantize", "gen_trt_engine")
# Every action's schema and template hold these too: quantize and evaluate read the settings of training.
SHARED_ACTIONS = ("train", "quantize")
MISSING = "???"  # to be filled in; a spec that still holds it counts as one without the key

SCORING = {
    "results_dir": "/results",
    "dataset.label_map": MISSING,
    "dataset.contiguous_id": True,
    "dataset.val.annotations": MISSING,
    "dataset.val.images": MISSING,
    "dataset.val.panoptic": MISSING,
    "dataset.val.batch_size": 1,
    "dataset.val.num_workers": 2,
    "dataset.test.images": MISSING,
    "dataset.test.batch_size": 1,
    "export.task": "semantic",
    "model.test.object_mask_threshold": 0.5,
    "model.test.overlap_threshold": 0.8,
    "model.sem_seg_head.norm": "GN",
    "model.sem_seg_head.num_classes": 133,
    "inference.trt_engine": MISSING,
    "evaluate.trt_engine": MISSING,
}
# The values of TAO's templates, which differ from the defaults here and there; paths are left to fill in.
DEPLOYMENT: Mapping[str, Mapping[str, Any]] = {
    "gen_trt_engine": {
        "results_dir": "/results",
        "gen_trt_engine.gpu_id": 0,
        "gen_trt_engine.onnx_file": MISSING,
        "gen_trt_engine.trt_engine": MISSING,
        "gen_trt_engine.batch_size": 1,
        "gen_trt_engine.verbose": True,
        "gen_trt_engine.tensorrt.data_type": "fp16",
        "gen_trt_engine.tensorrt.workspace_size": 8192,
        "gen_trt_engine.tensorrt.max_batch_size": 1,
        "gen_trt_engine.tensorrt.opt_batch_size": 1,
        "gen_trt_engine.tensorrt.min_batch_size": 1,
    },
    "evaluate": SCORING,
    "inference": SCORING,
}


def template(action: str = "") -> dict[str, Any]:
    """The keys of one action, or of all, with the values of TAO's template."""
    values = published_values(children(Spec), lambda leaf: leaf.template_default)
    return {name: value for name, value in values.items() if not action or belongs(name, action)}


def deployment_template(action: str) -> dict[str, Any]:
    """The few keys that building an engine, or running one, needs."""
    data: dict[str, Any] = {}
    for path, value in DEPLOYMENT[action].items():
        *parents, name = path.split(".")
        inner = data
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    return data


def belongs(name: str, action: str) -> bool:
    """Whether the section or key `name` at the top of a spec is part of what an action publishes."""
    return name not in ACTIONS or name == action or name in SHARED_ACTIONS


def published_values(nodes: Iterable[Leaf | Branch], value: Callable[[Leaf], Any]) -> dict[str, Any]:
    """`value` of every key that TAO publishes, nested by section, without the keys for which it is None."""
    found = {
        node.name: value(node) if isinstance(node, Leaf) else published_values(node.children(), value)
        for node in nodes
        if not node.extension
    }
    return {name: element for name, element in found.items() if element is not None}
