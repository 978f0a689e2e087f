"""Weights of timm's Swin transformers, in the names of its older and of its newer versions.

Older versions (0.4 to 0.6) keep Microsoft's names. Newer ones (assumed as of 0.9; no release is at hand in the tests)
put the patch merging at the start of the stage that it leads to instead of the end of the one before, call the
classifier `head.fc` and store neither attention masks nor position indices. Their feature maps are channels-last,
which no weight depends on, and both concatenate the four pixels of a merged patch in the same order.
"""

from collections.abc import Iterable

from converters.names import swin
from converters.rules import Layout, Rule

RULES = [
    *swin.swin_stages("", Layout.TOKENS),
    *(rule for i in range(3) for rule in swin.patch_merging(f"layers.{i + 1}.downsample", f"backbone/merging{i}")),
    *swin.classifier("norm", "head.fc"),
]


def is_newer(names: Iterable[str]) -> bool:
    """Whether names are those of a newer version: there the last stage starts with a patch merging."""
    return "layers.3.downsample.reduction.weight" in set(names)


def rules_for(names: Iterable[str]) -> list[Rule]:
    """The rules of the version that wrote these names."""
    return RULES if is_newer(names) else swin.RULES
