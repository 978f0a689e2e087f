"""Every golden file of the three PyTorch code bases, converted by its names alone, gives its own recorded outputs.

Tolerances are those of golden/README.md: features 5e-5, class logits 3e-4, masks 1e-3.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_outputs import Outputs, close, outputs_of
from goldens import Golden, channels_last, load_golden

from converters.files.read import Source
from converters.names import huggingface, original
from converters.rules import Rule, from_params
from converters.weights import Converted, convert
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.layers import MLP
from oneformer_jax.models.oneformer import encode, predict
from oneformer_jax.models.predictions import Predictions

pytestmark = [pytest.mark.slow, pytest.mark.again]

FEATURES, LOGITS, MASKS = 5e-5, 3e-4, 1e-3
SWIN = original.rules_with("swin")
RULES = {"shi": SWIN, "tao": [*SWIN, *original.HEAD_OF_TAO], "hf": huggingface.rules_with("swin")}


@pytest.fixture(scope="module", params=["shi", "tao", "hf"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def golden(name: str, shared: Path) -> Golden:
    return load_golden(shared / f"reference/golden/{name}_tiny_dev.npz")


@pytest.fixture(scope="module")
def converted(golden: Golden) -> Converted:
    source = Source("golden", golden.state, golden.meta.get("hf_config"))
    return convert(source)


@pytest.fixture(scope="module")
def config(converted: Converted) -> OneFormerConfig:
    assert isinstance(converted.config, OneFormerConfig)
    return converted.config


@pytest.fixture(scope="module")
def outputs(golden: Golden, converted: Converted, config: OneFormerConfig) -> Outputs:
    return outputs_of(golden, converted.params, config)


def test_the_source_and_the_architecture(name: str, golden: Golden, converted: Converted) -> None:
    assert converted.kind == {"shi": "shi", "tao": "tao", "hf": "huggingface"}[name]
    truth = golden.config
    if name == "hf":  # its configuration also tells what training drops
        assert converted.config == truth
        return
    expected = dataclasses.replace(
        truth,
        backbone=dataclasses.replace(truth.backbone, drop_path_rate=0.3),
        pixel_decoder=dataclasses.replace(truth.pixel_decoder, dropout=0.1),
        transformer=dataclasses.replace(truth.transformer, dropout=0.1),
        task_pad_id=49407 if name == "tao" else 0,
    )
    assert converted.config == expected


def test_task_tokens_are_padded_with_the_pad_id_of_the_architecture(golden: Golden, config: OneFormerConfig) -> None:
    assert set(golden["in/task_tokens"][:, -1].tolist()) == {config.task_pad_id}


def test_task_vector(golden: Golden, converted: Converted, config: OneFormerConfig) -> None:
    hidden = config.transformer.hidden_dim
    tokens = jnp.asarray(golden["in/task_tokens"], jnp.float32)
    task = MLP(hidden, hidden, 2).apply({"params": converted.params["task_mlp"]}, tokens)
    expected = golden["out/task_embedding"]
    assert np.abs(np.asarray(task) - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("stage", range(4))
def test_backbone(stage: int, name: str, golden: Golden, outputs: Outputs) -> None:
    key = f"stage{stage + 1}" if name == "hf" else f"res{stage + 2}"
    close(outputs[0][f"res{stage + 2}"], channels_last(golden[f"out/backbone/{key}"]), FEATURES)


def test_pixel_decoder(golden: Golden, outputs: Outputs) -> None:
    close(outputs[1].mask_features, channels_last(golden["out/pixel_decoder/mask_features"]), FEATURES)
    for i, level in enumerate(outputs[1].multi_scale):
        close(level, channels_last(golden[f"out/pixel_decoder/ms{i}"]), FEATURES)


def test_object_queries(golden: Golden, outputs: Outputs) -> None:
    queries = golden["out/contrastive_logits"]
    close(outputs[2].object_queries, queries, FEATURES)


@pytest.mark.parametrize(("layer", "prefix"), [(0, "out/aux0/"), (1, "out/aux1/"), (2, "out/aux2/"), (3, "out/")])
def test_predictions(layer: int, prefix: str, golden: Golden, outputs: Outputs) -> None:
    predictions = outputs[2]
    masks = jnp.einsum("bqc,bhwc->bqhw", predictions.mask_embeddings[layer], predictions.mask_features)
    close(predictions.class_logits[layer], golden[f"{prefix}pred_logits"], LOGITS)
    close(masks, golden[f"{prefix}pred_masks"], MASKS)


def test_texts(name: str, golden: Golden, outputs: Outputs) -> None:
    """Hugging Face builds a causal mask and never applies it: its texts count with the mask applied."""
    close(outputs[3], golden["out/texts_causal_patched" if name == "hf" else "out/texts"], FEATURES)


@pytest.mark.tao(35)
def test_the_padding_of_the_task_matters(shared: Path) -> None:
    """TAO's weights with tokens padded as the original pads them: its file records these outputs too."""
    golden = load_golden(shared / "reference/golden/tao_tiny_dev.npz")
    converted = convert(Source("tao", golden.state, None))
    assert np.abs(golden["out/pred_logits"] - golden["out_taskpad0/pred_logits"]).max() > 1
    tokens = golden["in/task_tokens"]
    padded_with_zeros = np.where(np.cumsum(tokens == original.TASK_PAD_ID, axis=1) > 1, 0, tokens)

    @jax.jit
    def predicted(params: dict[str, Any], images: jax.Array, tasks: jax.Array) -> Predictions:
        return predict(params, encode(params, images, config=golden.config), tasks, config=golden.config)

    predictions = predicted(converted.params, channels_last(golden["in/image"]), padded_with_zeros)
    close(predictions.class_logits, golden["out_taskpad0/pred_logits"], LOGITS)
    close(predictions.mask_logits, golden["out_taskpad0/pred_masks"], MASKS)


def test_the_parameters_go_back_to_the_very_same_state_dict(name: str, golden: Golden, converted: Converted) -> None:
    rules: list[Rule] = RULES[name]
    state = from_params(converted.params, rules)
    assert set(state) == set(converted.report.matched) == set(golden.state) - set(converted.report.skipped)
    for key, array in state.items():
        np.testing.assert_array_equal(array, golden.state[key], err_msg=key)


@pytest.mark.tao(20)
def test_a_file_of_taos_training_holds_the_same(shared: Path) -> None:
    bare = load_golden(shared / "reference/golden/tao_tiny_dev.npz")
    criterion = {key.removeprefix("sd_pl/"): x for key, x in bare.arrays.items() if key.startswith("sd_pl/")}
    prefixed = {f"model.{key}": x for key, x in bare.state.items()}
    lightning = convert(Source("lightning", prefixed | criterion, None))
    alone = convert(Source("bare", bare.state, None))
    assert lightning.kind == alone.kind == "tao"
    assert lightning.config == alone.config
    assert lightning.params.pop("logit_scale") == criterion["criterion.logit_scale"]
    jax.tree.map(np.testing.assert_array_equal, lightning.params, alone.params)
