"""Every spec and template in configs/ describes a model whose shapes fit, without computing anything."""

from pathlib import Path

import pytest
from forward_shapes import check_inference, check_training

from oneformer_jax.app.settings.evaluation import evaluation_policy
from oneformer_jax.app.settings.model import model_config
from oneformer_jax.app.spec import load_spec, unsupported_keys

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
PUBLISHED = sorted(FOLDER.glob("published/*.yaml"))
TEMPLATES = sorted(FOLDER.glob("skill/references/spec_template_*.yaml"))


DEFAULTS = FOLDER / "skill/references/spec_template_train.yaml"
LARGE = pytest.param(DEFAULTS, marks=pytest.mark.prove)  # `make test`: the small ones


@pytest.mark.slow
@pytest.mark.parametrize("path", [*CONFIGS, LARGE], ids=lambda path: path.stem)
def test_shapes(path: Path) -> None:
    spec = load_spec(path)
    assert unsupported_keys(spec) == []
    config = model_config(spec)
    assert config.transformer.num_queries == spec.model.one_former.num_object_queries
    assert config.num_classes == spec.model.sem_seg_head.num_classes
    check_training(config, spec.dataset.train.batch_size, spec.dataset.augmentation.train_crop_size)


@pytest.mark.prove  # `make test`: benchmarks/test_zoo.py, what they say
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_shapes_of_published_models_at_the_size_of_their_evaluation(path: Path) -> None:
    spec = load_spec(path)
    largest = spec.dataset.augmentation.test_min_size, spec.dataset.augmentation.test_max_size
    check_inference(model_config(spec), evaluation_policy(spec)(largest).padded)


@pytest.mark.slow
def test_every_template_has_the_model_of_the_one_whose_shapes_are_checked() -> None:
    for path in TEMPLATES:
        assert model_config(load_spec(path)) == model_config(load_spec(TEMPLATES[-1])), path.stem


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 3
    assert len(PUBLISHED) >= 20
    assert TEMPLATES[-1].stem == "spec_template_train"
    assert len(TEMPLATES) == 9
    assert {*FOLDER.rglob("*.yaml")} - {*CONFIGS, *PUBLISHED, *TEMPLATES} == {*FOLDER.glob("skill/**/*skill_info.yaml")}
