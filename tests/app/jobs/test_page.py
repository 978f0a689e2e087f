"""Every row of the page's tables fills its key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_rows import DATA, DEVICES, FUNCTIONS, PRETRAINED_BACKBONE, rows_of

from oneformer_jax.app.jobs.plan import Request, make_plan
from oneformer_jax.app.jobs.workspace import Job, Workspace
from oneformer_jax.app.spec import Spec

# What an action needs besides the row under test.
GIVEN = {
    "train": [],
    "evaluate": ["evaluate.checkpoint=given"],
    "inference": ["inference.checkpoint=given"],
    "export": ["export.checkpoint=given"],
    "quantize": ["quantize.model_path=given"],
    "gen_trt_engine": ["gen_trt_engine.onnx_file=given"],
}
# The job before it that left what a key takes.
PARENTS: dict[str, tuple[str, ...]] = {
    "checkpoint": ("train", "best/", "latest/"),
    "model_path": ("train", "best/"),
    "pretrained_model": ("train", "best/"),
    "trt_engine": ("gen_trt_engine", "model.engine"),
    "onnx_file": ("export", "model.onnx"),
}
SWIN_TINY = "model.backbone.swin={embed_dim: 96, depths: [2, 2, 6, 2], num_heads: [3, 6, 12, 24], window_size: 7}"


def at(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = data.get(name, {})
    return data


@pytest.fixture
def spec_of(workspace: Workspace) -> Callable[..., dict[str, Any]]:
    """The spec of a new job."""

    def planned(action: str, *overrides: str, **request: Any) -> dict[str, Any]:
        job = Job(workspace.folder / f"{action}-9")
        return make_plan(Request(action, overrides=overrides, **request), workspace, job).spec

    return planned


def test_the_rows_are_those_of_the_page(shared: Path) -> None:
    data, functions, devices = rows_of((shared / "reference" / "tao-train-oneformer.txt").read_text())
    assert set(DATA) == data
    assert set(FUNCTIONS) == functions
    assert {(key, str(list(value) if isinstance(value, tuple) else value)) for key, value in DEVICES} == devices
    assert (len(data), len(functions), len(devices)) == (35, 24, 3)


@pytest.mark.parametrize(("action", "key", "source", "file"), DATA)
def test_a_data_key_is_a_file_of_its_data_set(
    action: str, key: str, source: str, file: str, root_of: Callable[..., str], spec_of: Callable[..., Any]
) -> None:
    roots = {"train_datasets": root_of("training"), "eval_dataset": root_of("validation")}
    value = at(spec_of(action, *GIVEN[action], datasets=roots), key)
    if ":" in file:
        by_format = dict(part.split(": ") for part in file.split("; "))
        assert value == {name: f"{roots[source]}/{path}" for name, path in by_format.items()}
    else:
        assert value == f"{roots[source]}/{file}"


@pytest.mark.parametrize(("action", "key", "function"), FUNCTIONS)
def test_an_inferred_key_has_the_value_of_its_function(
    action: str,
    key: str,
    function: str,
    workspace: Workspace,
    root_of: Callable[..., str],
    job_of: Callable[..., Job],
    spec_of: Callable[..., Any],
) -> None:
    roots = {"train_datasets": root_of("training"), "eval_dataset": root_of("validation")}
    folder = workspace.folder / f"{action}-9"
    if function == "parent_model":
        parent = job_of(*PARENTS[key.rpartition(".")[2]])
        left = PARENTS[key.rpartition(".")[2]][1].rstrip("/")
        assert at(spec_of(action, datasets=roots, parent=parent.id), key) == str(
            parent.folder / parent_action(parent) / left
        )
    elif function == "key":
        assert at(spec_of(action, *GIVEN[action], "encryption_key=secret", datasets=roots), key).startswith("${oc.env:")
        assert at(spec_of(action, *GIVEN[action], datasets=roots), key) == {}
    elif function == "link":
        assert at(spec_of(action, SWIN_TINY, datasets=roots), key) == PRETRAINED_BACKBONE
    elif function == "ptm_if_no_resume_model":
        parent = job_of("train", "best/")
        assert at(spec_of(action, datasets=roots, parent=parent.id), key) == str(parent.folder / "train" / "best")
        for part in ("params", "description"):
            (folder / "train" / "latest" / part).mkdir(parents=True)
        assert at(spec_of(action, datasets=roots, parent=parent.id), key) == {}
    elif function == "resume_model":
        assert at(spec_of(action, datasets=roots), key) == {}
        for part in ("params", "description"):
            (folder / "train" / "latest" / part).mkdir(parents=True)
        assert at(spec_of(action, datasets=roots), key) == str(folder / "train" / "latest")
    else:
        place = {
            "output_dir": folder,
            "create_onnx_file": folder / "export" / "model.onnx",
            "create_engine_file": folder / "gen_trt_engine" / "model.engine",
        }
        assert at(spec_of(action, *GIVEN[action], datasets=roots), key) == str(place[function])


def parent_action(job: Job) -> str:
    return job.read().action


@pytest.mark.parametrize(("key", "value"), DEVICES)
def test_a_device_key_has_the_default_of_the_page(key: str, value: object) -> None:
    assert Spec().value(key) == value
