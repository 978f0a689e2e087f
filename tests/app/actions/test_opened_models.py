"""The model of an evaluation or an inference: which keys name it, and how many images it is given at once."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from rich.console import Console
from small_graph import SIZE, small_model

from oneformer_jax.app.run.opened import open_model
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.evaluation import evaluation_run, inference_run, model_choice
from oneformer_jax.app.spec import Spec
from oneformer_jax.data.geometry import EvaluationPolicy, Letterbox
from oneformer_jax.errors import EngineError, SpecError
from oneformer_jax.predict.predictor import load_model

SpecOf = Callable[..., Spec]


@pytest.fixture
def status(tmp_path: Path) -> StatusFile:
    return StatusFile(tmp_path, "evaluate", Console(quiet=True))


@pytest.fixture
def of_four(tmp_path: Path) -> Path:
    """An ONNX file that takes batches of four images alone."""
    onnx.save(small_model(batch=4), tmp_path / "four.onnx")
    return tmp_path / "four.onnx"


def test_an_exported_model_gets_batches_that_it_takes(spec_of: SpecOf, of_four: Path, status: StatusFile) -> None:
    engine = f"evaluate.trt_engine={of_four}"
    model, batch_size = open_model(model_choice(spec_of(engine), "evaluate"), 1, status)
    assert (model.image_size, model.batch_sizes, batch_size) == ((SIZE, SIZE), (4, 4), 4)
    assert open_model(model_choice(spec_of(engine), "evaluate"), 16, status)[1] == 4
    assert open_model(model_choice(spec_of(engine, "evaluate.batch_size=3"), "evaluate"), 16, status)[1] == 3
    with pytest.raises(EngineError, match="takes at most 4 images at once, not 5"):
        open_model(model_choice(spec_of(engine, "evaluate.batch_size=5"), "evaluate"), 1, status)
    with pytest.raises(SpecError, match=r"evaluate.num_gpus: an engine runs on one device\n  -> set it to 1"):
        open_model(model_choice(spec_of(engine, "evaluate.num_gpus=2"), "evaluate"), 1, status)


def test_an_engine_counts_before_a_checkpoint(spec_of: SpecOf, of_four: Path, status: StatusFile) -> None:
    spec = spec_of(f"inference.trt_engine={of_four}", "inference.checkpoint=/runs/best")
    open_model(model_choice(spec, "inference"), 1, status)
    (line,) = map(json.loads, status.path.read_text().splitlines())
    assert line["verbosity"] == "WARNING"
    assert line["message"] == "inference.trt_engine and inference.checkpoint are both set: the engine is used"


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
