"""Weights of ConvNeXt (ImageNet), Meta's, whose names the original OneFormer keeps."""

from converters.names.swin import classifier, output_norms
from converters.rules import Rule, conv, linear, norm


def convnext(prefix: str) -> list[Rule]:
    """Rules of all but a classifier."""
    block, target = f"{prefix}stages.{{stage}}.{{block}}", "backbone/stage{stage}_block{block}"
    steps = f"{prefix}downsample_layers"
    return [
        *conv(f"{steps}.0.0", "backbone/stem"),
        *norm(f"{steps}.0.1", "backbone/stem_norm"),
        *norm(f"{steps}.{{stage}}.0", "backbone/downsample{stage}_norm"),
        *conv(f"{steps}.{{stage}}.1", "backbone/downsample{stage}"),
        *conv(f"{block}.dwconv", f"{target}/depthwise"),
        *norm(f"{block}.norm", f"{target}/norm"),
        *linear(f"{block}.pwconv1", f"{target}/linear1"),
        *linear(f"{block}.pwconv2", f"{target}/linear2"),
        Rule(f"{block}.gamma", f"{target}/layer_scale"),
        *output_norms(prefix),
    ]


RULES = [*convnext(""), *classifier("norm", "head")]
