"""The files that describe this project to TAO's tools: schemas, spec templates, skill information, deployment.

TAO deploys with another tool, so its bundle describes building and running engines a second time, for that tool alone.
"""

import json
import re
from typing import Any

from oneformer_jax.app.spec.published.schema import (
    ACTIONS,
    DEPLOYMENT,
    deployment_template,
    manifest,
    schema,
    template,
)
from oneformer_jax.app.spec.published.skill import PARAMETERS, SHORTHANDS, action_info, skill_info, sources
from oneformer_jax.app.spec.source import yaml_text

_DATA = ("dataset.val.annotations", "dataset.val.images", "dataset.val.panoptic")
DEPLOYMENT_INPUTS = {
    "gen_trt_engine": ("gen_trt_engine.onnx_file",),
    "evaluate": ("evaluate.trt_engine", "dataset.label_map", *_DATA, "dataset.test.images"),
    "inference": ("inference.trt_engine", "dataset.test.images", "dataset.label_map"),
}
_SHORTHANDS = (
    *("trt_data_type", "trt_engine", "val_batch_size", "test_batch_size", "num_classes", "contiguous_id"),
    *("export_task", "trt_min_batch_size", "trt_opt_batch_size", "trt_max_batch_size"),
)
_NOTES = [
    "Build the engine on the machine and the GPU that will run it.",
    "Keep the JSON file that gen_trt_engine writes beside the engine: it holds classes, size and task tokens.",
    "Classes, image size and thresholds come from the engine; no key of the model needs to be repeated.",
]

GUIDE = """# Deploying OneFormer: TensorRT engines

Three actions run without JAX. They need `pip install -e '.[tensorrt]'` (TensorRT 10 or 11) on the machine and the GPU
that will run the engine; an ONNX file alone needs `pip install -e '.[deploy]'` and no GPU.

- `gen_trt_engine` takes an ONNX file (`gen_trt_engine.onnx_file`, written by `export`) and writes an engine
  (`gen_trt_engine.trt_engine`) with a JSON file beside it. Template: `spec_template_deploy_gen_trt_engine.yaml`.
- `evaluate` takes an engine (`evaluate.trt_engine`) and `dataset.val`, and writes PQ, AP and mIoU to `metrics.json`.
  Template: `spec_template_deploy_evaluate.yaml`.
- `inference` takes an engine (`inference.trt_engine`) and pictures (`inference.images_dir`, else
  `dataset.test.images`), and writes overlays and raw results. Template: `spec_template_deploy_inference.yaml`.

```
oneformer export         -e spec.yaml export.checkpoint=runs/my_run/train export.onnx_file=model.onnx
oneformer gen_trt_engine -e spec.yaml gen_trt_engine.onnx_file=model.onnx gen_trt_engine.trt_engine=model.engine
oneformer evaluate       -e spec.yaml evaluate.trt_engine=model.engine
oneformer inference      -e spec.yaml inference.trt_engine=model.engine inference.images_dir=photos
```

## What to know

- An engine of another GPU or another version of TensorRT is refused.
- Keep `model.engine.json` beside `model.engine`. It holds classes, image size and task tokens, so
  `model.sem_seg_head.num_classes` need not be repeated.
- `evaluate.trt_engine` and `inference.trt_engine` take an ONNX file as well.
- `gen_trt_engine.tensorrt.data_type` is fp32, fp16, bf16, int8 or fp8. int8 and fp8 need pictures in
  `gen_trt_engine.tensorrt.calibration.cal_image_dir`, or for int8 an ONNX file that `quantize` wrote.
- `min_batch_size`, `opt_batch_size` and `max_batch_size` are the engine's profile: more images at once are refused.
- A build that fails ends with exit code 1 and FAILURE in `status.json`; no engine is left behind.
- An export with `export.include_postprocess` is for programs of your own; `evaluate` and `inference` refuse it.
"""


def bundle() -> dict[str, str]:
    """The text of every file, by its path below the folder."""
    return {
        **{f"schemas/{action}.schema.json": _json(schema(action)) for action in ACTIONS},
        "schemas/manifest.json": _json(manifest()),
        **{f"references/spec_template_{action}.yaml": yaml_text(template(action)) for action in ACTIONS},
        **{f"references/spec_template_deploy_{name}.yaml": yaml_text(deployment_template(name)) for name in DEPLOYMENT},
        "references/skill_info.yaml": yaml_text(skill_info()),
        "references/tao-deploy-oneformer.skill_info.yaml": yaml_text(deployment_info()),
        "references/tao-deploy-oneformer.md": GUIDE,
    }


def deployment_info() -> dict[str, Any]:
    """The actions of deployment, as plain YAML data."""
    actions = {action: action_info(action, keys, optional=()) for action, keys in DEPLOYMENT_INPUTS.items()}
    data = {action: sources(action, keys) for action, keys in DEPLOYMENT_INPUTS.items()}
    return {
        "name": "oneformer-jax-deploy",
        "type": "model",
        "network_arch": "oneformer",
        "container_image": "oneformer_jax",
        "data_format": "coco_panoptic",
        "actions": actions,
        "data_sources": {action: keys for action, keys in data.items() if keys},
        "spec_params": {action: _parameters(action) for action in DEPLOYMENT_INPUTS},
        "spec_shorthand_keys": {name: SHORTHANDS[name] for name in _SHORTHANDS}
        | {"batch_size": "dataset.val.batch_size"},
        "description": "OneFormer as a TensorRT engine: built, scored, and run on pictures",
        "spec_templates": {action: f"spec_template_deploy_{action}.yaml" for action in DEPLOYMENT},
        "notes": _NOTES,
    }


def _parameters(action: str) -> dict[str, str]:
    own = {key: value for key, value in PARAMETERS[action].items() if not key.endswith(".checkpoint")}
    return {"encryption_key": "key", "results_dir": "output_dir"} | own


def _json(data: dict[str, Any]) -> str:
    """Strict JSON, keys sorted as in the published files. It has no word for infinity, but a number that reads as it:
    for TAO's search "no upper bound" and a bound that is not there are different ranges."""
    return re.sub(r"(?m): Infinity(,?)$", r": 1e999\1", json.dumps(data, indent=2, sort_keys=True)) + "\n"
