"""Weights of Swin transformers (ImageNet), Microsoft's and timm's, and the table of names that other sources share.

Older versions of timm (0.4 to 0.6) keep Microsoft's names. Newer ones (assumed as of 0.9; no release is at hand in the
tests) put the patch merging at the start of the stage that it leads to instead of the end of the one before, call the
classifier `head.fc` and store neither attention masks nor position indices. Their feature maps are channels-last,
which no weight depends on, and both concatenate the four pixels of a merged patch in the same order.
"""

from collections.abc import Iterable

from converters.rules import Layout, Rule, conv, linear, norm, skip

OUTPUT_NORMS = tuple(f"backbone/norm{i}" for i in range(4))
"""The norm of each stage's output: a classifier has none, so its weights leave them absent."""


MASKED = "of a pretraining with masked images"


def swin_stages(prefix: str, positions: Layout) -> list[Rule]:
    """Rules of all but the patch merging: the sources differ in which stage that belongs to.

    The absolute position embedding is a map (`Layout.MAP`) in detection code and a row of tokens in classifiers.
    """
    block, target = f"{prefix}layers.{{stage}}.blocks.{{block}}", "backbone/stage{stage}_block{block}"
    return [
        *conv(f"{prefix}patch_embed.proj", "backbone/patch_embed"),
        *norm(f"{prefix}patch_embed.norm", "backbone/patch_norm"),
        Rule(f"{prefix}absolute_pos_embed", "backbone/absolute_pos_embed", positions),
        *norm(f"{block}.norm1", f"{target}/norm1"),
        Rule(f"{block}.attn.relative_position_bias_table", f"{target}/attention/relative_position_bias"),
        skip(f"{block}.attn.relative_position_index", "follows from the window size"),
        skip(f"{block}.attn_mask", "follows from the image size"),
        *linear(f"{block}.attn.qkv", f"{target}/attention/qkv"),
        *linear(f"{block}.attn.proj", f"{target}/attention/proj"),
        *norm(f"{block}.norm2", f"{target}/norm2"),
        *linear(f"{block}.mlp.fc1", f"{target}/linear1"),
        *linear(f"{block}.mlp.fc2", f"{target}/linear2"),
        *output_norms(prefix),
        skip(f"{prefix}mask_token", MASKED),
    ]


def output_norms(prefix: str) -> list[Rule]:
    """Rules of `OUTPUT_NORMS`."""
    return norm(f"{prefix}norm{{stage}}", "backbone/norm{stage}")


def patch_merging(source: str, target: str) -> list[Rule]:
    """Rules of one patch merging layer."""
    return [*norm(f"{source}.norm", f"{target}/norm"), *linear(f"{source}.reduction", f"{target}/reduction")]


def classifier(*names: str) -> list[Rule]:
    """Rules that skip a classifier: linear layers or norms by their names."""
    return [skip(f"{name}.{kind}", "of the classifier, unused") for name in names for kind in ("weight", "bias")]


RULES = [
    *swin_stages("", Layout.TOKENS),
    *patch_merging("layers.{stage}.downsample", "backbone/merging{stage}"),
    *classifier("norm", "head"),
]
NEWER_TIMM_RULES = [
    *swin_stages("", Layout.TOKENS),
    *(rule for i in range(3) for rule in patch_merging(f"layers.{i + 1}.downsample", f"backbone/merging{i}")),
    *classifier("norm", "head.fc"),
]


def is_newer_timm(names: Iterable[str]) -> bool:
    """Whether names are those of a newer version of timm: there the last stage starts with a patch merging."""
    return "layers.3.downsample.reduction.weight" in set(names)
