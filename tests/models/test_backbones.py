"""Backbones that this package does not know: trained, saved, read back in another process, evaluated, trained on."""

import dataclasses
import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import TINY

from oneformer_jax import load_checkpoint
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import find_checkpoint, load_description
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models import oneformer
from oneformer_jax.models.backbones import BackboneConfig, SwinConfig, register_backbone
from oneformer_jax.models.config import OneFormerConfig

MY_BACKBONE = """
from dataclasses import dataclass

import flax.linen as nn

from oneformer_jax.models.backbones import BackboneConfig, register_backbone


@dataclass(frozen=True)
class MyConfig(BackboneConfig):
    widths: tuple[int, ...] = (4, 8, 8, 16)

    def build(self):
        return MyBackbone(self)


class MyBackbone(nn.Module):
    config: MyConfig

    @nn.compact
    def __call__(self, images, *, deterministic):
        features, x = {}, images
        for i, (width, stride) in enumerate(zip(self.config.widths, (4, 2, 2, 2))):
            x = nn.gelu(nn.Conv(width, (3, 3), strides=(stride, stride))(x))
            features[f"res{i + 2}"] = x
        return features


register_backbone("my", MyConfig)
"""

TRAIN = """
import dataclasses, sys
from pathlib import Path
import jax, jax.numpy as jnp, my_backbone
from test_step import CONFIG, step_of
from test_step import batch_of
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.drawn_shapes import CATEGORIES
from oneformer_jax.models import oneformer
from oneformer_jax.training.sharding import make_mesh, put_replicated
from oneformer_jax.training.step import TrainState

config = dataclasses.replace(CONFIG, num_classes=len(CATEGORIES), backbone=my_backbone.MyConfig((4, 8, 8, 8)))
step, optimizer = step_of(1, config)
params = oneformer.init(config, jax.random.key(1))
state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
state, scalars = step(put_replicated(state, make_mesh(1)), batch_of(2))
with Checkpoints(Path(sys.argv[1]), keep=1, monitor="PQ") as checkpoints:
    checkpoints.save(
        state.params, state.opt_state, Description(config, CATEGORIES, (120.0,) * 3, (60.0,) * 3, spec={}, step=1)
    )
"""

GO_ON = """
import dataclasses, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np, my_backbone
from test_step import batch_of, step_of
from oneformer_jax import load_model
from oneformer_jax.checkpoints import read
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.geometry import EvaluationPolicy
from oneformer_jax.evaluation.evaluator import Evaluator
from oneformer_jax.training.step import TrainState

run, data = map(Path, sys.argv[1:])
model = load_model(run)
dataset = open_sources([Source(data / "annotations.json", data / "images", data / "panoptic")])
policy = EvaluationPolicy(64, 64)
metrics = Evaluator(dataset, policy, policy.name, batch_size=2, tasks=("semantic",)).run(model.backend)
assert metrics.num_images == 2 and 0 <= metrics.scores["semantic"].overall["pixel_accuracy"] <= 1

step_dir = read.find_checkpoint(run)
description = read.load_description(step_dir)
assert description.model.backbone == my_backbone.MyConfig((4, 8, 8, 8))
like = description.shapes()
step, optimizer = step_of(1, description.model)
params = read.load_item(step_dir, "params", like)
opt_state = read.load_item(step_dir, "optimizer", jax.eval_shape(optimizer.init, like))
state, scalars = step(TrainState(jnp.asarray(1, jnp.int32), params, opt_state), batch_of(2))
assert int(state.step) == 2 and np.isfinite(float(scalars["loss"]))
"""


@pytest.mark.prove  # `make test`: below, without a training and in one process
def test_a_backbone_of_another_module_is_trained_saved_read_back_evaluated_and_trained_on(tmp_path: Path) -> None:
    (tmp_path / "my_backbone.py").write_text(MY_BACKBONE)
    write_drawn_shapes(tmp_path, {"val": 2}, size=64)
    run, tests = tmp_path / "run", Path(__file__).parents[1]
    path = (tmp_path, tests, tests / "training")
    python(TRAIN, run, path=path)
    python(GO_ON, run, tmp_path / "val", path=path)
    with pytest.raises(CheckpointError, match=r"kind 'my'; registered are .*swin"):
        load_description(find_checkpoint(run))  # in this process nobody has registered it


@pytest.mark.slow
def test_a_backbone_of_another_module_is_saved_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneformer_jax.models.backbones.registry._kinds", {"swin": SwinConfig})
    (tmp_path / "its_backbone.py").write_text(MY_BACKBONE)
    monkeypatch.syspath_prepend(tmp_path)
    config = dataclasses.replace(TINY, backbone=importlib.import_module("its_backbone").MyConfig((4, 8, 8, 8)))
    like = jax.eval_shape(partial(oneformer.init, config), jax.random.key(0))
    assert like["backbone"]["Conv_3"]["kernel"].shape == (3, 3, 8, 8)
    params = jax.tree.map(lambda leaf: np.random.default_rng(leaf.size).random(leaf.shape, np.float32), like)
    categories = Categories(tuple(Category(i, name, True, (i, i, i)) for i, name in enumerate("abc")))
    with Checkpoints(tmp_path / "run", keep=1, monitor="PQ") as checkpoints:
        checkpoints.save(params, None, Description(config, categories, (120.0,) * 3, (60.0,) * 3, spec={}, step=1))
    model = load_checkpoint(tmp_path / "run")
    assert model.description.model == config
    jax.tree.map(np.testing.assert_array_equal, model.params, params)


def python(script: str, *arguments: Path, path: tuple[Path, ...]) -> None:
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert result.returncode == 0, result.stderr


def test_json_names_the_kind() -> None:
    stored = TINY.to_json()
    assert stored["backbone"]["kind"] == "swin"
    assert not {"ops", "remat"} & set(stored)
    assert OneFormerConfig.from_json(stored) == TINY


def test_json_of_before_kinds_is_swin() -> None:
    stored = TINY.to_json()
    del stored["backbone"]["kind"]
    assert OneFormerConfig.from_json(stored) == TINY


def test_an_unknown_kind_says_how_to_register_it() -> None:
    stored = TINY.to_json() | {"backbone": {"kind": "my", "widths": [1, 2]}}
    with pytest.raises(
        CheckpointError, match=r"runs/7: .* kind 'my'; registered are .*swin\n.*register_backbone\(\"my\""
    ):
        OneFormerConfig.from_json(stored, where="runs/7")


def test_a_backbone_that_could_not_be_read_back_is_not_written() -> None:
    class Unregistered(SwinConfig):
        pass

    with pytest.raises(CheckpointError, match=r"Unregistered is not registered"):
        OneFormerConfig(backbone=Unregistered()).to_json()


def test_a_kind_is_registered_once() -> None:
    class Other(BackboneConfig):
        def build(self): ...

    register_backbone("swin", SwinConfig)  # the same again, as when a module is imported twice
    with pytest.raises(ValueError, match="'swin' of backbones is registered for SwinConfig"):
        register_backbone("swin", Other)
