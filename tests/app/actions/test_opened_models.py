"""The model of an evaluation or an inference: which keys name it, and how many images it is given at once."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
from small_graph import SIZE, small_model

from oneformer_jax.app.run import opened
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import counting_categories, open_model, usual_task
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.evaluation import evaluation_run, inference_run, model_choice
from oneformer_jax.app.settings.model_choice import stated
from oneformer_jax.app.spec import Spec
from oneformer_jax.checkpoints import read
from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.data.geometry import EvaluationPolicy, Letterbox
from oneformer_jax.errors import CheckpointError, EngineError, SpecError
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.exported import CPU, CUDA
from oneformer_jax.predict.metadata import KEY
from oneformer_jax.predict.predictor import load_model

SpecOf = Callable[..., Spec]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    console = Screen(record=True, file=StringIO(), width=300)
    return Run(tmp_path, StatusFile(tmp_path, "evaluate", console), console)


@pytest.fixture
def of_four(tmp_path: Path) -> Path:
    """An ONNX file that takes batches of four images alone."""
    onnx.save(small_model(batch=4), tmp_path / "four.onnx")
    return tmp_path / "four.onnx"


def test_an_exported_model_gets_batches_that_it_takes(spec_of: SpecOf, of_four: Path, run: Run) -> None:
    engine = f"evaluate.trt_engine={of_four}"
    model, batch_size = open_model(model_choice(spec_of(engine), "evaluate"), 1, run)
    assert (model.image_size, model.batch_sizes, batch_size) == ((SIZE, SIZE), (4, 4), 4)
    assert open_model(model_choice(spec_of(engine), "evaluate"), 16, run)[1] == 4
    assert open_model(model_choice(spec_of(engine, "evaluate.batch_size=3"), "evaluate"), 16, run)[1] == 3
    with pytest.raises(EngineError, match="takes at most 4 images at once, not 5"):
        open_model(model_choice(spec_of(engine, "evaluate.batch_size=5"), "evaluate"), 1, run)
    with pytest.raises(SpecError, match=r"evaluate.num_gpus: an engine runs on one device\n  -> set it to 1"):
        open_model(model_choice(spec_of(engine, "evaluate.num_gpus=2"), "evaluate"), 1, run)
    with pytest.raises(SpecError, match=r"evaluate.precision: an exported model has a precision of its own"):
        model_choice(spec_of(engine, "evaluate.precision=bf16"), "evaluate")


def test_an_engine_counts_before_a_checkpoint(spec_of: SpecOf, of_four: Path, run: Run) -> None:
    spec = spec_of(f"inference.trt_engine={of_four}", "inference.checkpoint=/runs/best")
    open_model(model_choice(spec, "inference"), 1, run)
    line, runs, *_ = map(json.loads, run.status.path.read_text().splitlines())
    assert runs["message"] == f"{of_four} runs with CPUExecutionProvider"
    assert line["verbosity"] == "WARNING"
    assert line["message"] == "inference.trt_engine and inference.checkpoint are both set: the engine is used"


def test_the_thresholds_of_the_model_count_but_for_those_that_the_spec_sets(
    spec_of: SpecOf, of_four: Path, run: Run
) -> None:
    """As those of weights that were converted, in an exported file."""
    model = onnx.load(of_four)
    (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
    published = {"object_mask_threshold": 0.8, "overlap_threshold": 0.8, "test_topk_per_image": 150}
    entry.value = json.dumps(json.loads(entry.value) | {"thresholds": published})
    onnx.save(model, of_four)
    assert load_model(of_four).thresholds == Thresholds(**published)

    keys = [f"evaluate.trt_engine={of_four}", "model.test.overlap_threshold=0.6"]
    for given, expected in ((keys[:1], Thresholds(0.8, 0.8, 150)), (keys, Thresholds(0.8, 0.6, 150))):
        found, _ = open_model(model_choice(spec_of(*given), "evaluate"), 1, run)
        assert found.thresholds == expected
    said = run.console.export_text()
    assert "thresholds: object_mask_threshold 0.8, overlap_threshold 0.8, test_topk_per_image 150\n" in said
    assert "thresholds: object_mask_threshold 0.8, overlap_threshold 0.6, test_topk_per_image 150\n" in said
    assert "overlap_threshold 0.8 before, 0.6 now: what the spec sets counts" in run.status.path.read_text()


KNOWN = Categories((Category(0, "cat", True, (1, 2, 3)), Category(1, "sky", False, (4, 5, 6))))
MAP = [{"id": 7, "name": "cat", "isthing": 0}, {"id": 2, "name": "sky", "color": [9, 9, 9]}]


def test_the_label_map_that_the_spec_names_gives_the_colours_things_and_ids_of_results(
    spec_of: SpecOf, tmp_path: Path, run: Run
) -> None:
    def counting(known: Categories, **maps: list) -> Categories:
        for name, content in maps.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        named = ", ".join(f"{name}: {tmp_path / name}.json" for name in maps)
        spec = spec_of(f"dataset.label_map={{{named}}}")
        return counting_categories(known, stated(spec), "model", run)

    expected = Categories((Category(7, "cat", False, (1, 2, 3)), Category(2, "sky", False, (9, 9, 9))))
    assert counting(KNOWN, coco_instances=MAP[::-1], coco_panoptic=MAP) == expected
    assert "'cat' is stuff in what it is used with, but a thing in the checkpoint" in run.status.path.read_text()
    assert counting(Categories.numbered(2), coco_panoptic=MAP).names == ("cat", "sky")
    with pytest.raises(CheckpointError, match=r"from 0 on are 'sky', 'cat' in what it is used with, but 'cat', 'sky'"):
        counting(KNOWN, coco_panoptic=MAP[::-1])
    with pytest.raises(CheckpointError, match=r"1 classes in what it is used with, 2 in the checkpoint"):
        counting(Categories.numbered(2), coco_panoptic=MAP[:1])
    elsewhere = spec_of("dataset.label_map=/elsewhere/map.json")
    assert counting_categories(KNOWN, stated(elsewhere), "model", run) is KNOWN
    assert "/elsewhere/map.json is not there: the classes of the model are used" in run.status.path.read_text()


@pytest.mark.parametrize(
    ("gpus", "has_cuda", "hint"),
    [(0, False, ""), (2, False, "pip install onnxruntime-gpu in"), (2, True, "it printed above which library of CUDA")],
)
def test_what_runs_an_onnx_file_is_said_and_a_gpu_that_is_not_used_warned_of(
    gpus: int, has_cuda: bool, hint: str, spec_of: SpecOf, of_four: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "nvidia_gpus", lambda: gpus)
    model = opened.load_model(of_four)
    monkeypatch.setattr(opened, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA] * has_cuda + [CPU])
    open_model(model_choice(spec_of(f"evaluate.trt_engine={of_four}"), "evaluate"), 1, run)
    lines = list(map(json.loads, run.status.path.read_text().splitlines()))
    assert lines[0]["message"] == f"{of_four} runs with CPUExecutionProvider"
    warnings = [line["message"] for line in lines if line["verbosity"] == "WARNING"]
    assert len(warnings) == bool(gpus)
    for warning in warnings:
        assert warning.startswith(f"this machine has a GPU, but ONNX Runtime uses the CPU: {hint}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.batch_size=1", "no value for evaluate.checkpoint"),
        ("evaluate.checkpoint=model.onnx", "evaluate.checkpoint: .*\n  -> name it in evaluate.trt_engine"),
        ("evaluate.trt_engine=runs/best", "evaluate.trt_engine: 'runs/best' is not the name of an exported model"),
    ],
)
def test_a_key_names_the_kind_of_model_that_it_is_for(spec_of: SpecOf, override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        model_choice(spec_of(override), "evaluate")


def test_without_a_checkpoint_that_of_the_training_is_used_and_none_is_said(
    spec_of: SpecOf, run: Run, tmp_path: Path
) -> None:
    choice = model_choice(spec_of(f"results_dir={tmp_path}"), "evaluate")
    assert (choice.path, choice.is_named) == (str(tmp_path), False)
    elsewhere = model_choice(spec_of("results_dir=/r", "train.results_dir=/t"), "inference")
    assert (elsewhere.path, elsewhere.is_named) == ("/t", False)
    with pytest.raises(
        SpecError, match=r"evaluate.checkpoint: no value, and .* has none .*: holds no checkpoint\n.*; or set"
    ):
        open_model(choice, 1, run)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "best").symlink_to("checkpoints/99")
    with pytest.raises(SpecError, match="best: names checkpoints/99, which is not a checkpoint"):
        open_model(choice, 1, run)


@pytest.mark.parametrize(
    ("chances", "task"),
    [
        ({"semantic": 1.0, "instance": 0.0, "panoptic": 0.0}, "semantic"),
        ({"semantic": 0.5, "instance": 0.5, "panoptic": 0.0}, "instance"),
        ({"semantic": 0.3, "instance": 0.3, "panoptic": 0.4}, "panoptic"),
        ({}, "panoptic"),
    ],
)
def test_the_usual_task_is_one_that_was_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chances: dict[str, float], task: str
) -> None:
    monkeypatch.setattr(read, "find_checkpoint", lambda path: Path(path))
    spec = {"dataset": {"task_prob_train": chances}} if chances else {}
    monkeypatch.setattr(read, "load_description", lambda _: SimpleNamespace(spec=spec))
    assert usual_task(str(tmp_path)) == task
    assert usual_task("model.onnx") == usual_task("hf://a/b") == "panoptic"


def test_images_are_scored_from_the_first_split_that_has_annotations(spec_of: SpecOf) -> None:
    keys = ["evaluate.checkpoint=/a", "dataset.val.annotations=/val.json", "dataset.val.batch_size=5"]
    run = evaluation_run(spec_of(*keys))
    assert (run.scoring.data.split, run.scoring.batch_size, run.model.batch_size) == ("val", 5, None)
    assert evaluation_run(spec_of(*keys, "dataset.test.annotations=/test.json")).scoring.data.split == "test"


def test_inference_sizes_images_as_evaluation_unless_told_otherwise(spec_of: SpecOf) -> None:
    keys = ["inference.checkpoint=/a", "dataset.test.images=/photos", "dataset.augmentation.test_min_size=320"]
    run = inference_run(spec_of(*keys))
    assert (run.images, run.images_key, run.image_size) == (("/photos",), "dataset.test.images", None)
    assert run.policy == EvaluationPolicy(320, 1333)
    assert inference_run(spec_of(*keys, "inference.image_size=[64,96]")).image_size == (96, 64)


def test_models_of_one_size_letterbox_a_picture(of_four: Path) -> None:
    model = load_model(of_four)
    assert model.policy == Letterbox((SIZE, SIZE))
