"""State dicts carried over to the parameters of a configuration that is known."""

from collections.abc import Mapping, Sequence

import numpy as np

from converters.names import huggingface, original
from converters.rules import Params, Report, Rule, carry_over
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import TRAINING_ONLY, shapes


def from_original(state: Mapping[str, np.ndarray], config: OneFormerConfig) -> tuple[Params, Report]:
    return _carried(state, original.rules_with(original.kind_of_backbone(state)), config)


def from_huggingface(state: Mapping[str, np.ndarray], config: OneFormerConfig) -> tuple[Params, Report]:
    """Names that Hugging Face published, or those of a running model."""
    published = huggingface.published_names(state)
    return _carried(published, huggingface.rules_with(huggingface.kind_of_backbone(published)), config)


def _carried(state: Mapping[str, np.ndarray], rules: Sequence[Rule], config: OneFormerConfig) -> tuple[Params, Report]:
    return carry_over(state, rules).fit(shapes(config), optional=TRAINING_ONLY)
