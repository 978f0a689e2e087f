"""Rows of `results_dir`, `evaluate` and `inference`."""

from operator import attrgetter
from pathlib import Path

from key_rows import Changes, Observed, Refused, Rows, Shown, result_folder

from oneformer_jax.app.settings.deployment import export_run
from oneformer_jax.app.settings.evaluation import evaluation_run, inference_run
from oneformer_jax.app.spec import Spec

HERE = ("results_dir=HERE",)
EVALUATED, INFERRED = ("evaluate.checkpoint=/a",), ("inference.checkpoint=/a",)


def evaluated(field: str) -> Observed:
    """A field of what `evaluate` is to do."""
    return lambda spec: attrgetter(field)(evaluation_run(spec))


def inferred(field: str) -> Observed:
    """A field of what `inference` is to do."""
    return lambda spec: attrgetter(field)(inference_run(spec))


def folders_of_images(spec: Spec) -> list[str]:
    """Where `inference` reads images."""
    return [Path(folder).parent.name for folder in inference_run(spec).images]


EVALUATE: Rows = {
    "evaluate.num_gpus": Changes("4", evaluated("model.devices.count"), 4, beside=EVALUATED),
    "evaluate.gpu_ids": Changes("[2,5]", evaluated("model.devices.indices"), (2, 5), beside=EVALUATED),
    "evaluate.num_nodes": Refused("2"),
    "evaluate.checkpoint": Changes("/mine", evaluated("model.path"), "/mine", beside=EVALUATED),
    "evaluate.trt_engine": Changes("/m.onnx", evaluated("model.path"), "/m.onnx", beside=EVALUATED),
    "evaluate.results_dir": Changes("HERE/mine", result_folder("evaluate"), "mine", beside=HERE),
    "evaluate.batch_size": Changes("3", evaluated("model.batch_size"), 3, beside=EVALUATED),
    "evaluate.precision": Changes("bf16", evaluated("model.precision"), "bf16-mixed", beside=EVALUATED),
    "evaluate.iou_per_class": Shown("e2e/test_actions.py::test_evaluate_runs_only_the_tasks_that_are_on"),
    "evaluate.task": Changes("panoptic", evaluated("scoring.tasks"), ("panoptic",), beside=EVALUATED),
}

INFERENCE: Rows = {
    "inference.num_gpus": Changes("4", inferred("model.devices.count"), 4, beside=INFERRED),
    "inference.gpu_ids": Changes("[2,5]", inferred("model.devices.indices"), (2, 5), beside=INFERRED),
    "inference.num_nodes": Refused("2"),
    "inference.checkpoint": Changes("/mine", inferred("model.path"), "/mine", beside=INFERRED),
    "inference.trt_engine": Changes("/m.onnx", inferred("model.path"), "/m.onnx", beside=INFERRED),
    "inference.results_dir": Changes("HERE/mine", result_folder("inference"), "mine", beside=HERE),
    "inference.batch_size": Changes("3", inferred("model.batch_size"), 3, beside=INFERRED),
    "inference.precision": Changes("16", inferred("model.precision"), "16-mixed", beside=INFERRED),
    "inference.mode": Changes("panoptic", inferred("task"), "panoptic", beside=INFERRED),
    "inference.image_size": Changes("[64,96]", inferred("image_size"), (96, 64), beside=INFERRED),
    "inference.images_dir": Changes("DATA/val/images", folders_of_images, ["val"], beside=INFERRED),
}

E2E = "e2e/test_export.py::"
EXPORTED = ("export.checkpoint=/a",)


def exported(field: str) -> Observed:
    """A field of the settings of an export."""
    return lambda spec: attrgetter(field)(export_run(spec))


EXPORT: Rows = {
    "export.results_dir": Changes("HERE/mine", result_folder("export"), "mine", beside=HERE),
    "export.gpu_id": Changes("3", exported("device"), 3, beside=EXPORTED),
    "export.checkpoint": Changes("/mine", exported("checkpoint"), Path("/mine"), beside=EXPORTED),
    "export.onnx_file": Changes("/mine.onnx", exported("path"), Path("/mine.onnx"), beside=EXPORTED),
    "export.on_cpu": Changes("true", exported("device"), None, beside=EXPORTED),
    "export.input_channel": Refused("4"),
    "export.input_width": Changes("96", exported("image_size"), (640, 96), beside=EXPORTED),
    "export.input_height": Changes("96", exported("image_size"), (96, 640), beside=EXPORTED),
    "export.opset_version": Changes("20", exported("opset"), 20, beside=EXPORTED),
    "export.deformable_attention": Changes("grid_sample", exported("sampling"), "grid_sample", beside=EXPORTED),
    "export.batch_size": Changes("4", exported("batch_size"), 4, beside=EXPORTED),
    "export.include_postprocess": Changes("instance", exported("postprocess"), "instance", beside=EXPORTED),
    "export.task": Changes(
        "panoptic",
        exported("ending.task"),
        "panoptic",
        beside=(*EXPORTED, "export.include_postprocess=semantic"),
    ),
    "export.verbose": Changes("true", exported("verbose"), True, beside=EXPORTED),
    "export.triton_dir": Changes("/mine", exported("triton"), Path("/mine"), beside=EXPORTED),
    "export.overwrite": Changes("true", exported("overwrite"), True, beside=EXPORTED),
}

RESULTS: Rows = {"results_dir": Changes("HERE/mine", result_folder("train"), "mine/train", beside=HERE)}

ROWS: tuple[Rows, ...] = (RESULTS, EVALUATE, INFERENCE, EXPORT)
