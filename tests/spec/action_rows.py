"""Rows of `results_dir`, `wandb`, `evaluate` and `inference`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from key_rows import Changes, Observed, Refused, Rows, Shown, chosen_devices
from stopped_actions import evaluation, predictions, result_folder, starts_wandb, wandb

from oneformer_jax.actions.scoring import inference_geometry
from oneformer_jax.spec import Spec

HERE = ("results_dir=HERE",)
EVALUATED, INFERRED = ("evaluate.checkpoint=/a",), ("inference.checkpoint=/a",)


def evaluated(position: int) -> Observed:
    """An argument of the evaluator that `evaluate` makes."""
    return lambda spec: evaluation(spec).evaluator.call_args.args[position]


def engine_of(stopped: Callable[[Spec], Any]) -> Observed:
    """The engine that an action opens; None: it opens none."""

    def path(spec: Spec) -> str | None:
        opened = stopped(spec).open_model.call_args
        return opened and opened.args[0]

    return path


def folders_of_images(spec: Spec) -> set[str]:
    """Where `inference` reads images."""
    return {path.parent.parent.name for path in predictions(spec)._batches.call_args.args[1]}


WANDB: Rows = {
    "wandb.enable": Changes("false", starts_wandb, False),
    "wandb.project": Changes("mine", wandb("project"), "mine"),
    "wandb.entity": Changes("team", wandb("entity"), "team"),
    "wandb.group": Changes("mine", wandb("group"), "mine"),
    "wandb.tags": Changes("[a,b]", wandb("tags"), ["a", "b"]),
    "wandb.reinit": Changes("true", wandb("reinit"), "finish_previous"),
    "wandb.sync_tensorboard": Changes("true", wandb("sync_tensorboard"), True),
    "wandb.save_code": Changes("true", wandb("save_code"), True),
    "wandb.name": Changes("mine", wandb("name"), "mine"),
    "wandb.run_id": Changes("r12", wandb("id"), "r12"),
}

EVALUATE: Rows = {
    "evaluate.num_gpus": Changes("4", chosen_devices("evaluate"), 4),
    "evaluate.gpu_ids": Changes("[2,5]", chosen_devices("evaluate"), (2, 5)),
    "evaluate.num_nodes": Refused("2"),
    "evaluate.checkpoint": Changes(
        "/mine", lambda spec: evaluation(spec).load_model.call_args.args[0], Path("/mine"), beside=EVALUATED
    ),
    "evaluate.trt_engine": Changes("/m.onnx", engine_of(evaluation), "/m.onnx", beside=EVALUATED),
    "evaluate.results_dir": Changes("HERE/mine", result_folder("evaluate"), "mine", beside=HERE),
    "evaluate.batch_size": Changes("3", evaluated(3), 3, beside=EVALUATED),
    "evaluate.iou_per_class": Shown("e2e/test_actions.py::test_evaluate_runs_only_the_tasks_that_are_on"),
    "evaluate.task": Changes("panoptic", evaluated(4), ("panoptic",), beside=EVALUATED),
}

INFERENCE: Rows = {
    "inference.num_gpus": Changes("4", chosen_devices("inference"), 4),
    "inference.gpu_ids": Changes("[2,5]", chosen_devices("inference"), (2, 5)),
    "inference.num_nodes": Refused("2"),
    "inference.checkpoint": Changes(
        "/mine", lambda spec: predictions(spec).load_model.call_args.args[0], Path("/mine"), beside=INFERRED
    ),
    "inference.trt_engine": Changes("/m.onnx", engine_of(predictions), "/m.onnx", beside=INFERRED),
    "inference.results_dir": Changes("HERE/mine", result_folder("inference"), "mine", beside=HERE),
    "inference.batch_size": Changes("3", lambda spec: predictions(spec)._batches.call_args.args[2], 3, beside=INFERRED),
    "inference.mode": Changes(
        "panoptic", lambda spec: predictions(spec).ResultWriter.call_args.args[1], "panoptic", beside=INFERRED
    ),
    "inference.image_size": Changes("[64,96]", lambda spec: inference_geometry(spec, (480, 640)).padded, (96, 64)),
    "inference.images_dir": Changes("DATA/val/images", folders_of_images, {"val"}, beside=INFERRED),
}

RESULTS: Rows = {"results_dir": Changes("HERE/mine", result_folder("train"), "mine/train", beside=HERE)}

ROWS: tuple[Rows, ...] = (RESULTS, WANDB, EVALUATE, INFERENCE)
