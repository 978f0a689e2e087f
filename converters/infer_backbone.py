"""The architecture of a backbone, read from the names and shapes of its parameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, get_args

from converters.huggingface_config import Json, told
from converters.shapes import Shapes
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import BackboneConfig, ConvNeXtConfig, DinatConfig, RadioConfig, SwinConfig
from oneformer_jax.models.backbones.dinat import Attention
from oneformer_jax.models.backbones.radio import Positions
from oneformer_jax.models.backbones.registry import tuples

FREE = ("drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint", "layer_scale_init_value", "init")
"""Facts that no weight depends on."""
HEAD_WIDTH = 32
"""Of every published DiNAT."""
HEADS = {768: 12, 1024: 16, 1152: 16, 1280: 16}
"""Of the published transformers of RADIO, by their width."""


Facts = Mapping[str, Any]
"""What is told of a backbone besides its weights: fields of its configuration."""


@dataclass(frozen=True)
class Told:
    """`facts`, and who told them, for messages. What is not binding fills gaps alone. `notes`: what was made of it,
    sentences for people."""

    facts: Facts = field(default_factory=dict)
    by: str = ""
    is_binding: bool = True
    notes: list[str] = field(default_factory=list)

    def knowing(self, facts: Facts) -> "Told":
        """With what the names of the weights say, which only what is binding contradicts."""
        return replace(self, facts={**facts, **self.facts} if self.is_binding else {**self.facts, **facts})


def infer_backbone(shapes: Shapes, *, told: Told | None = None, hf_config: Json | None = None) -> BackboneConfig:
    """The backbone under `backbone` whose parameters (our names) have these shapes.

    What the shapes do not show is told by somebody or by Hugging Face's configuration, or else is our default, where
    the weights compute the same with any. Raises CheckpointError naming the parameter that is missing or does not fit,
    what has to be told, and what is told that does not fit.
    """
    told = told or Told()
    if "backbone/stem/kernel" in shapes:
        config: BackboneConfig = _infer_convnext(shapes)
    elif is_radio(shapes):
        config = infer_radio(shapes, told)
    elif "backbone/patch_embed0/kernel" in shapes:
        config = infer_dinat(shapes, told)
    else:
        config = infer_swin(shapes, hf_config=hf_config)
    return _checked(config, told, shapes.where) if told.is_binding else config


def _checked(config: BackboneConfig, told: Told, where: str) -> BackboneConfig:
    """`config` with what is told of training. Raises CheckpointError where something else is told than what it has."""
    assert is_dataclass(config)
    known = {fact.name: getattr(config, fact.name) for fact in fields(config)}
    free = {name: value for name, value in told.facts.items() if name in FREE and name in known}
    config = replace(config, **free)
    wrong = [
        f"{name} is {value!r:.60}, the weights have {known[name]!r:.60}"
        for name, value in told.facts.items()
        if name in known and name not in free and tuples(value) != known[name]
    ]
    if wrong:
        raise CheckpointError(f"{told.by} does not fit: {'; '.join(wrong)}", where=where)
    if unknown := sorted(told.facts.keys() - known.keys()):
        told.notes.append(f"not known in {told.by}, and taken to be without effect: {', '.join(unknown)}")
    return config


def _infer_convnext(shapes: Shapes) -> ConvNeXtConfig:
    return ConvNeXtConfig(
        depths=tuple(shapes.count(rf"backbone/stage{i}_block(\d+)/") for i in range(4)),
        dims=tuple(shapes.of(f"backbone/stage{i}_block0/layer_scale", 1)[0] for i in range(4)),
    )


def infer_dinat(shapes: Shapes, told: Told) -> DinatConfig:
    """The DiNAT under `backbone`. Its dilations are not in weights, and must be told; without bias tables neither is
    the size of a window. Which attention they were trained with is told, or follows from the bias tables; without them
    it is taken to be that of TAO's own code, and noted."""
    facts, where = told.facts, shapes.where
    embed_dim = shapes.of("backbone/patch_embed1/kernel", 4)[-1]
    depths = tuple(shapes.count(rf"backbone/stage{i}_block(\d+)/") for i in range(4))
    table = "backbone/stage{}_block0/attention/relative_position_bias"
    is_biased = table.format(0) in shapes
    missing = [] if "dilations" in facts else ["dilations"]
    if is_biased:
        tables = [shapes.of(table.format(i), 3) for i in range(4)]
        num_heads, kernel_size = tuple(heads for heads, _, _ in tables), (tables[0][1] + 1) // 2
    else:
        num_heads = tuples(facts.get("num_heads") or [max(1, embed_dim * 2**i // HEAD_WIDTH) for i in range(4)])
        kernel_size = facts.get("kernel_size", 0)
        missing += [] if kernel_size else ["kernel_size"]
    if missing:
        raise CheckpointError(
            f"the {' and the '.join(missing)} of this DiNAT, which weights do not hold, are not known",
            where=where,
            hint="convert takes a spec, or a file with the keys of model.backbone.dinat, as --backbone; a training "
            "takes them from its spec",
        )
    dilations = facts["dilations"]
    if dilations is not None and not _fits(dilations, depths):
        expected = ", ".join(map(str, depths))
        raise CheckpointError(
            f"dilations are {dilations!r:.100}, expected four lists of {expected} whole numbers from 1", where=where
        )
    attention: Attention = facts.get("attention") or ("shifted_with_bias" if is_biased else "zero_padded")
    if attention not in get_args(Attention) or is_biased != (attention == "shifted_with_bias"):
        fitting = "shifted_with_bias" if is_biased else "shifted or zero_padded"
        raise CheckpointError(f"attention is {attention!r:.60}, expected {fitting} of these weights", where=where)
    reason = "told" if facts.get("attention") else "they have bias tables" if is_biased else ONLY_TAO
    told.notes.append(f"attention of these weights: {attention} ({reason})")
    return DinatConfig(
        embed_dim=embed_dim,
        depths=depths,
        num_heads=num_heads,
        kernel_size=kernel_size,
        dilations=tuples(dilations),
        attention=attention,
        mlp_ratio=shapes.of("backbone/stage0_block0/linear1/kernel", 2)[-1] / embed_dim,
    )


ONLY_TAO = "as TAO's code computes it without NATTEN; where it had NATTEN 0.17, tell shifted"


def _fits(dilations: Any, depths: tuple[int, ...]) -> bool:
    is_nested = isinstance(dilations, list | tuple) and all(isinstance(stage, list | tuple) for stage in dilations)
    return (
        is_nested
        and tuple(map(len, dilations)) == depths
        and all(type(dilation) is int and dilation > 0 for stage in dilations for dilation in stage)
    )


def is_radio(shapes: Shapes) -> bool:
    """Whether the backbone is a RADIO."""
    return "backbone/patches/tokens" in shapes


def infer_radio(shapes: Shapes, told: Told) -> RadioConfig:
    """The RADIO under `backbone`. The number of heads is told, or follows from the width where published transformers
    have it. How the table of positions is resized is told."""
    facts, where = told.facts, shapes.where
    tokens, embed_dim = shapes.of("backbone/patches/tokens", 2)
    depth, heads = shapes.count(r"backbone/block(\d+)/"), facts.get("num_heads") or HEADS.get(embed_dim)
    if not isinstance(heads, int) or heads < 1 or embed_dim % heads:
        found = "are not known, and weights do not hold them" if heads is None else f"are {heads!r:.60}"
        raise CheckpointError(
            f"the num_heads of this RADIO of {embed_dim} channels {found}",
            where=where,
            hint="convert takes a spec, or a file with the keys of model.backbone.radio, as --backbone; a training "
            "takes them from its spec",
        )
    positions, align_corners = facts.get("positions", "resized"), facts.get("align_corners", True)
    if positions not in get_args(Positions) or not isinstance(align_corners, bool):
        raise CheckpointError(f"positions {positions!r:.60}, align_corners {align_corners!r:.60}", where=where)
    told.notes.append(f"positions of these weights: {positions}, align_corners {str(align_corners).lower()}")
    return RadioConfig(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=heads,
        mlp_width=shapes.of("backbone/block0/linear1/kernel", 2)[-1],
        tokens=tokens,
        layer_scale="backbone/block0/layer_scale1" in shapes,
        mlp_norm="backbone/block0/mlp_norm/scale" in shapes,
        position_side=shapes.of("backbone/patches/position_embed", 4)[1],
        positions=positions,
        align_corners=align_corners,
    )


def infer_swin(shapes: Shapes, *, hf_config: Json | None = None) -> SwinConfig:
    """The Swin transformer under `backbone` whose parameters (our names) have these shapes.

    What training drops is Hugging Face's (`huggingface_config.READ_OF_SWIN`), else our default. The image size of the
    pretraining matters only to an absolute position embedding; without one it is our default. Raises CheckpointError as
    `infer_backbone`.
    """
    hf, where = hf_config or {}, shapes.where
    patch_size, _, _, embed_dim = shapes.of("backbone/patch_embed/kernel", 4)
    depths = [shapes.count(rf"backbone/stage{i}_block(\d+)/") for i in range(4)]
    tables = [shapes.of(f"backbone/stage{i}_block0/attention/relative_position_bias", 2) for i in range(4)]
    ape = "backbone/absolute_pos_embed" in shapes
    width = shapes.of("backbone/stage0_block0/linear1/kernel", 2)[-1]
    ratio = told(hf, "mlp_ratio", width / embed_dim, where=where)
    return SwinConfig(
        embed_dim=embed_dim,
        depths=tuple(depths),
        num_heads=tuple(heads for _, heads in tables),
        window_size=(math.isqrt(tables[0][0]) + 1) // 2,
        patch_size=patch_size,
        mlp_ratio=ratio if int(ratio * embed_dim) == width else width / embed_dim,
        qkv_bias="backbone/stage0_block0/attention/qkv/bias" in shapes,
        drop_rate=told(hf, "hidden_dropout_prob", SwinConfig.drop_rate, where=where),
        attn_drop_rate=told(hf, "attention_probs_dropout_prob", SwinConfig.attn_drop_rate, where=where),
        drop_path_rate=told(hf, "drop_path_rate", SwinConfig.drop_path_rate, where=where),
        ape=ape,
        patch_norm="backbone/patch_norm/scale" in shapes,
        pretrain_img_size=(
            shapes.of("backbone/absolute_pos_embed", 4)[1] * patch_size if ape else SwinConfig.pretrain_img_size
        ),
    )
