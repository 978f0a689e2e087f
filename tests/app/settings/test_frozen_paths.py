"""The parameters that a path of `train.freeze` names, by TAO's names or by those of this project."""

import jax
import pytest

from oneformer_jax.app.settings.model import frozen_parameters
from oneformer_jax.errors import SpecError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.training.optimizer import parameter_names


@pytest.fixture(scope="module")
def shapes() -> dict:
    return oneformer.shapes(OneFormerConfig())


def below(shapes: dict, *prefixes: str) -> set[str]:
    return {name for name in jax.tree.leaves(parameter_names(shapes)) if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("path", "prefixes"),
    [
        ("backbone", ["backbone/"]),
        ("sem_seg_head", ["pixel_decoder/", "predictor/"]),
        ("sem_seg_head.pixel_decoder", ["pixel_decoder/"]),
        ("pixel_decoder", ["pixel_decoder/"]),
        ("backbone.layers.0", ["backbone/stage0_", "backbone/merging0/"]),
        ("backbone.patch_embed", ["backbone/patch_"]),
        ("sem_seg_head.predictor.query_embed", ["predictor/query_embed"]),
        ("text_encoder.transformer.resblocks.0.ln_1", ["text_encoder/layer_0/norm1/"]),
        ("criterion.logit_scale", ["logit_scale"]),
    ],
)
def test_a_path_names_all_below_it(shapes: dict, path: str, prefixes: list[str]) -> None:
    assert frozen_parameters(shapes, [path]) == below(shapes, *prefixes)


@pytest.mark.tao(42)
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("bakbone", ["'bakbone' is not a part", "did you mean backbone?", "sem_seg_head", "task_mlp"]),
        ("backbone.layer", ["did you mean backbone.layers?", "below backbone are", "patch_embed"]),
        ("back", ["'back' is not a part"]),
    ],
)
def test_an_unknown_path_is_answered_with_what_exists(shapes: dict, path: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        frozen_parameters(shapes, ["backbone", path])
    for word in words:
        assert word in str(caught.value)


def test_something_must_be_left_to_train(shapes: dict) -> None:
    with pytest.raises(SpecError, match="nothing is left to train"):
        frozen_parameters(shapes, list(shapes))
