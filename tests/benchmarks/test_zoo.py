"""The page and the specs of published checkpoints are those of the table, which knows every file whose dilations are
known."""

import json
from pathlib import Path

import pytest

from benchmarks.zoo import costs, page, specs
from benchmarks.zoo.table import DATA, ENTRIES
from converters.published import DINAT
from oneformer_jax.app.settings.backbone_file import read_backbone_file
from oneformer_jax.app.settings.evaluation import evaluation_policy, thresholds
from oneformer_jax.app.settings.model import model_config
from oneformer_jax.app.spec import load_spec, unsupported_keys
from oneformer_jax.models.backbones import DinatConfig

BY_STEM = {entry.stem: entry for entry in ENTRIES}


def test_page_and_specs_are_generated() -> None:
    assert page.PAGE.read_text() == page.content()
    written = {path.stem: path.read_text() for path in specs.FOLDER.iterdir()}
    assert written == {stem: specs.content(entry) for stem, entry in BY_STEM.items()}


def test_specs_and_costs_are_those_of_the_table() -> None:
    stored = json.loads(costs.FILE.read_text())["costs"]
    assert stored.keys() == BY_STEM.keys()
    for stem, entry in BY_STEM.items():
        spec = load_spec(specs.spec_of(entry))
        assert unsupported_keys(spec) == []
        assert (thresholds(spec), spec.evaluate.checkpoint) == (entry.thresholds, f"weights/{stem}")
        config = model_config(spec)
        assert (config.transformer.num_queries, config.num_classes) == (entry.queries, DATA[entry.data].classes)
        assert f"_{entry.queries}_16_" in f"_{entry.file}" or entry.squeezed
        if isinstance(config.backbone, DinatConfig) and entry.file in DINAT:
            assert config.backbone.dilations == DINAT[entry.file]
            assert config.backbone.kernel_size == (7 if entry.data == "cityscapes" else 11)
        assert stored[stem]["size"] == list(evaluation_policy(spec)(DATA[entry.data].picture).padded)


def test_names_are_those_whose_dilations_are_known() -> None:
    published = {entry.file for entry in ENTRIES if entry.backbone.startswith("dinat") and not entry.squeezed}
    assert published == set(DINAT)


def test_a_file_of_unknown_dilations_is_converted_with_those_of_its_spec() -> None:
    (entry,) = (entry for entry in ENTRIES if "--backbone" in specs.conversion(entry))
    told = read_backbone_file(Path(specs.conversion(entry).rpartition(" ")[2]))
    assert set(told) == {"kernel_size", "dilations", "attention"}
    assert specs.conversion(BY_STEM["150_16_dinat_l_oneformer_coco_100ep"]).startswith("hf://shi-labs/")


@pytest.mark.prove  # `make test`: above
def test_costs_are_those_of_the_models() -> None:
    entry = BY_STEM["150_16_swin_t_oneformer_ade20k_160k"]
    stored = json.loads(costs.FILE.read_text())["costs"][entry.stem]
    found = costs.cost_of(entry.stem)
    assert found["gflop"] == pytest.approx(stored["gflop"], rel=1e-3)
    assert found["parameters_m"] == stored["parameters_m"]
