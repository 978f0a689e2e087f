"""Weights of RADIO: NVIDIA's and NVlabs' C-RADIO, transformers', and TAO's, which has their names and an adapter.

NVIDIA's layer scales are called `grandma`. TAO resizes the table of positions otherwise than all others do.
"""

from collections.abc import Iterable

import numpy as np

from converters.names.swin import OUTPUT_NORMS
from converters.rules import Layout, Rule, StateDict, linear, norm, skip

ADAPTER = ("backbone/upsample", "backbone/upsample_norm")
ADDED_TO_BACKBONES = (*OUTPUT_NORMS, *ADAPTER)
"""What OneFormer adds to a backbone: weights of the backbone alone leave it absent."""

IN_TAO = "radio.radio.model."
_VIDEO = "of videos, unused"
_CONDITIONER = "input_conditioner.norm_"
_BLOCK = "backbone/block{block}"


def _block(source: str, scale: str) -> list[Rule]:
    """What blocks have under the same names; `scale` is that of a layer scale, with a place for its number."""
    return [
        *norm(f"{source}.norm1", f"{_BLOCK}/norm1"),
        *(Rule(f"{source}.{scale % i}", f"{_BLOCK}/layer_scale{i}") for i in (1, 2)),
        *norm(f"{source}.norm2", f"{_BLOCK}/norm2"),
        *linear(f"{source}.mlp.fc1", f"{_BLOCK}/linear1"),
        *norm(f"{source}.mlp.norm", f"{_BLOCK}/mlp_norm"),
        *linear(f"{source}.mlp.fc2", f"{_BLOCK}/linear2"),
    ]


def _patches(embedder: str, positions: str, tokens: str) -> list[Rule]:
    return [
        Rule(f"{embedder}.weight", "backbone/patches/embedder/kernel", Layout.LINEAR),
        Rule(positions, "backbone/patches/position_embed", Layout.TOKENS),
        Rule(tokens, "backbone/patches/tokens"),
    ]


def _transformer(prefix: str, scale: str) -> list[Rule]:
    """Rules of the transformer by NVIDIA's names."""
    patches, block = f"{prefix}patch_generator", f"{prefix}blocks.{{block}}"
    return [
        *_patches(f"{patches}.embedder", f"{patches}.pos_embed", f"{patches}.cls_token.token"),
        *_block(block, scale),
        *linear(f"{block}.attn.qkv", f"{_BLOCK}/attention/qkv"),
        *linear(f"{block}.attn.proj", f"{_BLOCK}/attention/proj"),
    ]


def radio(prefix: str) -> list[Rule]:
    """Rules of TAO's backbone."""
    return [
        *_transformer(f"{prefix}{IN_TAO}", "ls%d.gamma"),
        Rule(f"{prefix}upsample_proj.0.weight", "backbone/upsample/kernel", Layout.TRANSPOSED_CONV),
        Rule(f"{prefix}upsample_proj.0.bias", "backbone/upsample/bias"),
        *norm(f"{prefix}upsample_proj.1", "backbone/upsample_norm"),
    ]


OF_TRANSFORMERS = "layer_scale%d.lambda1"  # in its files, too, among NVIDIA's names
_LAYER = "encoder.layer.{block}"
TRANSFORMERS = [
    *_patches("embeddings.patch_projection", "embeddings.position_embedding", "embeddings.cls_register_token"),
    *_block(_LAYER, OF_TRANSFORMERS),
    *(
        rule
        for i, name in enumerate(("q_proj", "k_proj", "v_proj"))
        for rule in linear(f"{_LAYER}.attention.{name}", f"{_BLOCK}/attention/qkv", part=(i, 3))
    ),
    *linear(f"{_LAYER}.attention.o_proj", f"{_BLOCK}/attention/proj"),
]

RULES = [
    *radio(""),
    *_transformer("", "ls%d.gamma"),
    *_transformer("", "ls%d.grandma"),
    *_transformer("", OF_TRANSFORMERS),
    *TRANSFORMERS,
    *(skip(f"{_CONDITIONER}{name}", "of the pixels, noted") for name in ("mean", "std")),
    skip("summary_idxs", "of the summary, unused"),
    skip("patch_generator.video_embedder.weight", _VIDEO),
    skip("embeddings.video_patch_projection.weight", _VIDEO),
]
"""Of a backbone alone, by whichever names."""


def is_tao(names: Iterable[str]) -> bool:
    """Whether the names are TAO's, of a model or a backbone."""
    return any(f"{IN_TAO}patch_generator." in name for name in names)


OfColours = tuple[float, float, float]


def statistics_of(state: StateDict) -> tuple[OfColours, OfColours] | None:
    """Mean and deviation of the pixels that the weights were trained with, on 0..255; None where they hold none."""
    found = {name.rpartition(_CONDITIONER)[2]: array for name, array in state.items() if _CONDITIONER in name}
    if not {"mean", "std"} <= found.keys() or found["mean"].size != 3 or found["std"].size != 3:
        return None
    (r, g, b), (s, t, u) = ((255 * found[name].astype(np.float64)).ravel().tolist() for name in ("mean", "std"))
    return (r, g, b), (s, t, u)
