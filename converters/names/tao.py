"""Weights of OneFormer in NVIDIA TAO: the original's names, with a prefix in the files of its training."""

from collections.abc import Iterable
from dataclasses import replace

from converters.names import shi_labs
from converters.rules import Rule, skip

PREFIX = "model."
"""What PyTorch Lightning puts before every parameter of the network, but not of the criterion."""

TASK_PAD_ID = 49407
"""TAO pads task texts with the end token, and the task MLP of its weights has learnt that."""

_HEAD = [skip(f"backbone.head.{kind}", "of the classifier, unused") for kind in ("weight", "bias")]
RULES = [*shi_labs.RULES, *_HEAD]
PREFIXED_RULES = [
    rule if rule.source.startswith("criterion.") else replace(rule, source=PREFIX + rule.source) for rule in RULES
]


def is_tao(names: Iterable[str]) -> bool:
    """Whether names in the style of the original come from TAO: only there are the prefix and the backbone's head."""
    return any(name.startswith((PREFIX, "backbone.head.")) for name in names)


def rules_for(names: Iterable[str]) -> list[Rule]:
    """The rules of a file of the training (with the prefix) or of bare weights."""
    return PREFIXED_RULES if any(name.startswith(PREFIX) for name in names) else RULES
