"""Which model of its parent a job gets."""

import dataclasses
from collections.abc import Callable

import pytest

from oneformer_jax.app.jobs.inputs import parent_models
from oneformer_jax.app.jobs.workspace import Job, Workspace
from oneformer_jax.errors import CheckpointError

EVALUATE = ["evaluate.checkpoint", "evaluate.trt_engine"]


@pytest.mark.parametrize(
    ("action", "files", "keys", "taken"),
    [
        ("train", ["best/", "latest/"], EVALUATE, {"evaluate.checkpoint": "best"}),
        ("train", ["latest/"], EVALUATE, {"evaluate.checkpoint": "latest"}),
        ("train", ["best/"], ["export.checkpoint"], {"export.checkpoint": "best"}),
        ("export", ["model.onnx"], EVALUATE, {"evaluate.trt_engine": "model.onnx"}),
        ("export", ["model.onnx"], ["gen_trt_engine.onnx_file"], {"gen_trt_engine.onnx_file": "model.onnx"}),
        ("export", ["model.onnx"], ["quantize.model_path"], {"quantize.model_path": "model.onnx"}),
        ("quantize", ["quantized_model/latest/"], EVALUATE, {"evaluate.checkpoint": "quantized_model/latest"}),
        ("quantize", ["quantized_model.onnx"], EVALUATE, {"evaluate.trt_engine": "quantized_model.onnx"}),
        ("gen_trt_engine", ["model.engine", "model.json"], EVALUATE, {"evaluate.trt_engine": "model.engine"}),
        ("gen_trt_engine", ["model.plan"], ["inference.trt_engine"], {"inference.trt_engine": "model.plan"}),
    ],
)
def test_what_a_job_left_goes_to_the_key_that_takes_it(
    action: str,
    files: list[str],
    keys: list[str],
    taken: dict[str, str],
    workspace: Workspace,
    job_of: Callable[..., Job],
) -> None:
    parent = job_of(action, *files)
    found = parent_models(keys, parent, workspace)
    assert found == {key: str(parent.folder / action / name) for key, name in taken.items()}


def test_of_a_search_the_best_trial_counts(workspace: Workspace, job_of: Callable[..., Job]) -> None:
    parent = job_of("train", "best/", "results.json", command="automl")
    assert parent_models(EVALUATE, parent, workspace) == {"evaluate.checkpoint": str(parent.folder / "automl" / "best")}


def test_a_job_without_a_model_stands_for_the_one_that_it_used(
    workspace: Workspace, job_of: Callable[..., Job]
) -> None:
    training = job_of("train", "best/")
    evaluation = job_of("evaluate", "metrics.json", parent=training.id)
    pictures = job_of("inference", "a.jpg", parent=evaluation.id)
    assert parent_models(["export.checkpoint"], pictures, workspace) == {
        "export.checkpoint": str(training.folder / "train" / "best")
    }


def test_parents_that_lead_back_to_themselves(workspace: Workspace, job_of: Callable[..., Job]) -> None:
    job = job_of("evaluate", "metrics.json")
    job.write(dataclasses.replace(job.read(), parent=job.id, lineage=[job.id]))
    with pytest.raises(CheckpointError, match="the parents of job evaluate-1 lead back to job evaluate-1"):
        parent_models(["inference.checkpoint"], job, workspace)


def test_a_file_with_a_name_of_its_own(workspace: Workspace, job_of: Callable[..., Job], tmp_path) -> None:
    elsewhere = tmp_path / "mine.onnx"
    parent = job_of("export", "other.onnx", spec=f"export: {{onnx_file: {elsewhere}}}")
    with pytest.raises(CheckpointError, match=r"job export-1 left no ONNX file.*holds other\.onnx"):
        parent_models(["gen_trt_engine.onnx_file"], parent, workspace)
    elsewhere.touch()
    found = parent_models(["gen_trt_engine.onnx_file"], parent, workspace)
    assert found == {"gen_trt_engine.onnx_file": str(elsewhere)}


@pytest.mark.parametrize(
    ("action", "files", "record", "keys", "message"),
    [
        (
            "train",
            ["log.jsonl"],
            {},
            EVALUATE,
            "evaluate.checkpoint, evaluate.trt_engine: job train-1 left no checkpoint or TensorRT engine or ONNX file; "
            "its folder holds log.jsonl",
        ),
        (
            "train",
            [],
            {"status": "FAILURE", "message": "out of memory"},
            ["export.checkpoint"],
            "its folder is empty; it ended with FAILURE: out of memory",
        ),
        ("train", ["best/"], {}, ["gen_trt_engine.onnx_file"], "job train-1 left no ONNX file; its folder holds best"),
        ("quantize", ["a.onnx", "b.onnx"], {}, EVALUATE, "its folder holds a.onnx, b.onnx"),
        ("quantize", ["best/"], {}, ["gen_trt_engine.onnx_file"], "job quantize-1 left no ONNX file"),
        ("evaluate", ["metrics.json"], {}, EVALUATE, "job evaluate-1 left no checkpoint"),
    ],
)
def test_a_missing_model_is_told_with_what_is_there(
    action: str,
    files: list[str],
    record: dict,
    keys: list[str],
    message: str,
    workspace: Workspace,
    job_of: Callable[..., Job],
) -> None:
    parent = job_of(action, *files, **record)
    with pytest.raises(CheckpointError) as caught:
        parent_models(keys, parent, workspace)
    assert message in str(caught.value)
    assert str(parent.folder / action) in str(caught.value)
