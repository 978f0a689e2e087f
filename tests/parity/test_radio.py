"""RADIO against transformers' own model, its weights under every name; and what only training does to positions."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.radio import RadioConfig as TheirConfig
from transformers.models.radio import RadioModel

from converters.files.read import Source
from converters.weights import Converted, convert
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import RadioConfig
from oneformer_jax.models.backbones.radio import NARROWEST, POSITIONS_DROPPED, SMALLEST, random_parts

HEADS = {"num_heads": 3}
MEAN, STD = (122.771, 116.746, 104.094), (68.5, 66.632, 70.323)


@pytest.fixture(scope="module")
def theirs() -> RadioModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "max_img_size": 96}
    model = RadioModel(TheirConfig(**sizes, num_cls_tokens=3, num_registers=2, layerscale_value=0.5)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def as_nvidia(state: dict[str, np.ndarray], scale: str, prefix: str = "radio_model.") -> dict[str, np.ndarray]:
    """The same weights by the names of C-RADIO: queries, keys and values are one array."""
    names = {
        r"embeddings\.patch_projection": "model.patch_generator.embedder",
        r"embeddings\.position_embedding": "model.patch_generator.pos_embed",
        r"embeddings\.cls_register_token": "model.patch_generator.cls_token.token",
        r"encoder\.layer": "model.blocks",
        r"attention\.o_proj": "attn.proj",
        r"layer_scale(\d)\.lambda1": rf"ls\1.{scale}",
    }
    found: dict[str, np.ndarray] = {}
    for name, array in state.items():
        if re.search("attention.[kv]_proj", name):
            continue
        if "q_proj" in name:
            array = np.concatenate([state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        for pattern, new in {**names, r"attention\.q_proj": "attn.qkv"}.items():
            name = re.sub(pattern, new, name)
        found[prefix + name] = array
    return found


def converted(state: dict[str, np.ndarray], **told: Any) -> Converted:
    return convert(Source("weights.pth", state, None), **told)


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param(lambda state: state, id="transformers"),
        pytest.param(lambda state: as_nvidia(state, "grandma"), id="C-RADIO"),
        pytest.param(
            lambda state: {
                f"module.{name.replace('model.', 'base_model.', 1)}": array
                for name, array in as_nvidia(state, "gamma", "").items()
            },
            id="NVlabs, wrapped",
        ),
    ],
)
def test_maps_are_those_of_transformers(rename: Any, theirs: RadioModel) -> None:
    found = converted(rename({name: x.numpy() for name, x in theirs.state_dict().items()}), backbone=HEADS)
    config = RadioConfig(48, 2, 3, 192, tokens=5, layer_scale=True, position_side=6, align_corners=False)
    assert (found.kind, found.config) == ("radio", config)
    assert found.report.absent == ("backbone/upsample", "backbone/upsample_norm")
    assert found.statistics is not None
    np.testing.assert_allclose(found.statistics, (MEAN, STD), atol=1e-3)
    params = found.params["backbone"] | {
        name: jax.tree.map(lambda x: jnp.zeros(x.shape), tree)
        for name, tree in template(config).items()
        if name not in found.params["backbone"]
    }
    for height, width in ((64, 128), (96, 96), (160, 128)):
        pixels = np.random.default_rng(height).random((1, height, width, 3), np.float32)
        with torch.no_grad():
            expected = theirs(torch.tensor(pixels.transpose(0, 3, 1, 2))).features.numpy()
        images = (255 * pixels - np.array(found.statistics[0])) / np.array(found.statistics[1])
        maps = jax.jit(lambda params, images: config.build().apply({"params": params}, images, deterministic=True))(
            params, images.astype(np.float32)
        )
        np.testing.assert_allclose(maps["res4"].reshape(expected.shape), expected, rtol=0, atol=3e-5)


def template(config: RadioConfig) -> dict[str, Any]:
    images = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(lambda: config.build().init(jax.random.key(0), images, deterministic=True))["params"]


def test_heads_are_told_and_never_guessed(theirs: RadioModel) -> None:
    state = {name: x.numpy() for name, x in theirs.state_dict().items()}
    with pytest.raises(CheckpointError, match="num_heads of this RADIO of 48 channels are not known"):
        converted(state)
    with pytest.raises(CheckpointError, match="num_heads of this RADIO of 48 channels are 5"):
        converted(state, backbone={"num_heads": 5})
    with pytest.raises(CheckpointError, match="depth is 3, the weights have 2"):
        converted(state, backbone=HEADS | {"depth": 3})
    named = Source("folder", state, {"model_type": "radio", "num_attention_heads": 3})
    assert convert(named).config.num_heads == 3
    with pytest.raises(CheckpointError, match="use_swiglu_ffn is True, expected False"):
        convert(Source("folder", state, {"model_type": "radio", "use_swiglu_ffn": True}))
    whole = theirs.config.to_dict()
    unknown = "not known in config.json, and taken to be without effect: added_later"
    assert convert(Source("folder", state, whole | {"added_later": 1})).report.notes.count(unknown) == 1
    assert unknown not in convert(Source("folder", state, whole)).report.notes
    with pytest.raises(CheckpointError, match="hidden_size is 49, expected 48"):
        convert(Source("folder", state, whole | {"hidden_size": 49}))


def test_parts_of_the_table_lie_in_it_and_have_many_sizes() -> None:
    """Each row of the weights is a mean of at most two neighbours; a linear table is read at evenly spaced places."""
    side, count = 9, 2000
    rows, columns = (np.asarray(x, np.float64) for x in random_parts(jax.random.key(0), (count, 4, 6), side))
    places = [x @ np.arange(side) / (side - 1) for x in (rows, columns)]
    for weights, along in zip((rows, columns), places, strict=True):
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert ((weights > 1e-6).sum(-1) <= 2).all()
        assert along.min() > -1e-5
        assert along.max() < 1 + 1e-5
        np.testing.assert_allclose(np.diff(along, 2), 0, atol=1e-5)
    height, width = (along[:, -1] - along[:, 0] for along in places)
    uncut = np.maximum(height, width) < 0.999
    stretch = np.sqrt(width / height)[uncut]
    assert NARROWEST - 1e-4 < stretch.min() < 0.8
    assert 1.25 < stretch.max() < 1 / NARROWEST + 1e-4
    scale = np.sqrt(width * height)[uncut]
    assert SMALLEST - 1e-4 < scale.min() < SMALLEST + 0.02
    assert scale.max() < 1


@pytest.mark.slow
def test_in_training_positions_depend_on_the_key_and_some_are_dropped() -> None:
    config = RadioConfig(8, 0, 1, 8, tokens=2, position_side=6, init="fan_in")
    images = jnp.zeros((400, 32, 64, 3))
    params = config.build().init(jax.random.key(0), images[:1], deterministic=True)

    def positions(key: int | None) -> np.ndarray:
        rngs = {} if key is None else {"dropout": jax.random.key(key)}
        maps = config.build().apply(params, images if key else images[:1], deterministic=key is None, rngs=rngs)
        return np.asarray(maps["res4"])

    first, again, other = positions(1), positions(1), positions(2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    dropped = (first == 0).all(axis=(1, 2, 3)).mean()
    assert dropped == pytest.approx(POSITIONS_DROPPED, abs=0.05)
    assert len(np.unique(first[:, 0, 0, 0])) > 300
    np.testing.assert_array_equal(positions(None), positions(None))
