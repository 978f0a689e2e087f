"""Which part of the model an operation belongs to, by the path that JAX gave it."""

import re

# The first that is found in a path counts.
AREAS = (
    (r"stage\d+_block\d+/attention", "Swin: attention"),
    (r"stage\d+_block\d+/(linear|mul|erf|gelu)", "Swin: MLP"),
    (r"stage\d+_block\d+|SwinBlock", "Swin: windows, norms, residuals"),
    (r"\bSwin\b", "Swin: patches, merging, norms"),
    (r"PixelDecoder/layer_\d+/attention/.*(while|gather|scatter|pallas_call)", "deformable attention: samples"),
    (r"PixelDecoder/layer_\d+/attention", "deformable attention: projections, coordinates"),
    (r"PixelDecoder/layer_\d+", "pixel decoder: layers, rest"),
    (r"\bPixelDecoder\b", "pixel decoder: maps"),
    (r"class_transformer/\w+_cross_attention", "class transformer: cross-attention"),
    (r"class_transformer", "class transformer: rest"),
    (r"MaskDecoder/layer_\d+/cross_attention", "mask decoder: masked cross-attention"),
    (r"MaskDecoder/layer_\d+", "mask decoder: layers, rest"),
    (r"\bMaskDecoder\b", "mask decoder: heads and masks"),
    (r"TextEncoder", "text"),
    (r"\bof_device\b", "post-processing"),
    (r"while/body", "loops of matching and losses"),
)
TRANSFORMED = re.compile(r"\b(jit|jvp|transpose|checkpoint|remat\d?|rematted_computation)\(|\)|\(")
# Of what is computed once more, `checkpoint/rematted_computation/layer_0.<lambda>/layer_0`; its module is named twice.
RECOMPUTED = re.compile(r"/(checkpoint|rematted_computation|\w+\.<lambda>)(?=/)")
TWICE = re.compile(r"\b(\w+)/\1(?=/)")
ATTENTION = re.compile("attention")


def area_of(scope: str) -> str:
    """A name for people, with a ' where it is of the derivative."""
    path = RECOMPUTED.sub("", re.sub(r"/+", "/", TRANSFORMED.sub("/", scope)))
    path = TWICE.sub(r"\1", path)
    name = next((name for pattern, name in AREAS if re.search(pattern, path)), "other")
    return name + (" '" if "transpose(" in scope else "")
