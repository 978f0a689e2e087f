"""What a model of this project computes of the inputs of a golden file."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from goldens import Golden, channels_last

from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params, decode, encode, encode_text
from oneformer_jax.models.predictions import Features, LayerPredictions


class Outputs(NamedTuple):
    """The maps of the backbone, the features, the predictions of every layer, and the features of the texts."""

    maps: dict[str, jax.Array]
    features: Features
    layers: LayerPredictions
    texts: jax.Array


def outputs_of(golden: Golden, params: Params, config: OneFormerConfig) -> Outputs:
    @jax.jit
    def run(params: Params, images: jax.Array, tasks: jax.Array) -> Outputs:
        maps = config.backbone.build().apply({"params": params["backbone"]}, images, deterministic=True)
        features = encode(params, images, config=config)
        table, prompts = jnp.asarray(golden.prompt_table), jnp.asarray(golden.prompts)
        texts = encode_text(params, table, prompts, config=config)
        return Outputs(maps, features, decode(params, features, tasks, config=config), texts)

    return run(params, channels_last(golden["in/image"]), golden["in/task_tokens"])


def close(actual: Any, expected: np.ndarray, tolerance: float) -> None:
    """Within an absolute tolerance."""
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=tolerance)
