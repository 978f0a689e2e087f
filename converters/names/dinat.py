"""Weights of DiNAT (ImageNet), SHI-Labs', whose names the original OneFormer and TAO keep."""

from converters.names.swin import classifier, output_norms
from converters.rules import Layout, Rule, conv, linear, norm


def dinat(prefix: str) -> list[Rule]:
    """Rules of all but a classifier."""
    level, target = f"{prefix}levels.{{stage}}", "backbone/stage{stage}_block{block}"
    block = f"{level}.blocks.{{block}}"
    return [
        *conv(f"{prefix}patch_embed.proj.{{i}}", "backbone/patch_embed{i}"),
        *norm(f"{prefix}patch_embed.norm", "backbone/patch_norm"),
        *norm(f"{block}.norm1", f"{target}/norm1"),
        Rule(f"{block}.attn.rpb", f"{target}/attention/relative_position_bias"),
        *linear(f"{block}.attn.qkv", f"{target}/attention/qkv"),
        *linear(f"{block}.attn.proj", f"{target}/attention/proj"),
        *norm(f"{block}.norm2", f"{target}/norm2"),
        *linear(f"{block}.mlp.fc1", f"{target}/linear1"),
        *linear(f"{block}.mlp.fc2", f"{target}/linear2"),
        Rule(f"{level}.downsample.reduction.weight", "backbone/downsample{stage}/kernel", Layout.CONV),
        *norm(f"{level}.downsample.norm", "backbone/downsample{stage}_norm"),
        *output_norms(prefix),
    ]


RULES = [*dinat(""), *classifier("norm", "head")]
