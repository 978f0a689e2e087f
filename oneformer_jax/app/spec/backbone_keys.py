"""The section `model.backbone`: which backbone there is, and a section for each."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from oneformer_jax.app.spec.field import Probability, Section, key, own_key, section
from oneformer_jax.app.spec.radio_keys import STAGES, Radio

STOCHASTIC_DEPTH = "Stochastic depth rate of the last block; it grows linearly from 0 at the first block."
RECOMPUTE = "Recompute activations in the backward pass to save memory."
SECTIONS = {"D2SwinTransformer": "swin", "D2DiNAT": "dinat", "D2ConvNeXt": "convnext", "D2RADIO": "radio"}
"""Name of a backbone -> its section, which is also its kind in `models.backbones`."""


def _initial() -> Any:
    text = "Distribution of random weights. original: normal with standard deviation 0.02; fan_in: normal with 1 / "
    return own_key(
        "original", "initial weights", text + "sqrt(inputs), for narrow backbones without pretrained weights."
    )


class Swin(Section):
    """`model.backbone.swin`"""

    embed_dim: PositiveInt = key(192, "embed dim", "Channels of the first stage; each later stage has twice as many.")
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = key(
        (2, 2, 18, 2),
        "depths",
        "Number of blocks in each stage.",
    )
    num_heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = key(
        (6, 12, 24, 48),
        "num heads",
        "Number of attention heads in each stage.",
    )
    window_size: PositiveInt = key(12, "window size", "Side of an attention window, in patches.")
    mlp_ratio: PositiveFloat = key(4.0, "mlp ratio", "Hidden width of a block's MLP relative to its channels.")
    init: Literal["original", "fan_in"] = _initial()
    qkv_bias: bool = key(True, "qkv bias", "Add a bias to queries, keys and values.")
    qk_scale: PositiveFloat | None = key(
        None, "qk scale", "Scale of attention logits; unset: head width ** -0.5.", tao="ignored"
    )
    attn_drop_rate: Probability = key(0.0, "attn drop rate", "Dropout rate of attention weights.")
    drop_rate: Probability = key(0.0, "drop rate", "Dropout rate of tokens and projections.")
    drop_path_rate: Probability = key(0.3, "drop path rate", STOCHASTIC_DEPTH)
    ape: bool = key(False, "ape", "Add a learned absolute position embedding.")
    patch_norm: bool = key(True, "patch norm", "Normalise after the patch embedding.")
    patch_size: PositiveInt = key(4, "patch size", "Side of a patch, in pixels.", only=(4,))
    pretrain_img_size: PositiveInt = key(
        384,
        "pretrained image size",
        "Side of the images in pretraining, in pixels; determines the size of the absolute position embedding.",
    )
    use_checkpoint: bool = key(False, "use checkpoint", RECOMPUTE)
    out_features: tuple[str, ...] = key(
        STAGES,
        "out features",
        "Stages that the backbone outputs: all four.",
        only=(STAGES,),
    )
    out_indices: tuple[NonNegativeInt, ...] = key(
        (0, 1, 2, 3),
        "out indices",
        "Indices of the stages that the backbone outputs.",
        only=((0, 1, 2, 3),),
        note="the pixel decoder reads all four stages",
        tao="ignored",
    )


class DiNAT(Section):
    """`model.backbone.dinat`, which TAO reads and does not publish."""

    embed_dim: PositiveInt = own_key(
        192, "embed dim", "Channels of the first stage; each later stage has twice as many."
    )
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = own_key(
        (3, 4, 18, 5), "depths", "Number of blocks in each stage."
    )
    num_heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = own_key(
        (6, 12, 24, 48), "num heads", "Number of attention heads in each stage."
    )
    kernel_size: PositiveInt = own_key(7, "kernel size", "Side of a neighbourhood, in pixels: an odd number.")
    dilations: tuple[tuple[PositiveInt, ...], ...] | None = own_key(
        None,
        "dilations",
        "Distance of a pixel's neighbours, for each block of each stage; unset: 1 for all. Weights do not hold them.",
    )
    attention: Literal["shifted_with_bias", "shifted", "zero_padded"] = own_key(
        "shifted_with_bias",
        "attention",
        "What pixels near a border attend to. shifted_with_bias: as many neighbours as all others, with a learned bias "
        "of logits, as SHI-Labs and Hugging Face; shifted: without the bias, as TAO with NATTEN 0.17; zero_padded: "
        "zeros beyond the border, and queries in another order, as TAO without NATTEN.",
        tao="depends on the NATTEN that is installed",
    )
    mlp_ratio: PositiveFloat = own_key(2.0, "mlp ratio", "Hidden width of a block's MLP relative to its channels.")
    drop_path_rate: Probability = own_key(0.3, "drop path rate", STOCHASTIC_DEPTH)
    init: Literal["original", "fan_in"] = _initial()
    use_checkpoint: bool = own_key(False, "use checkpoint", RECOMPUTE)
    out_features: tuple[str, ...] = own_key(
        STAGES, "out features", "Stages that the backbone outputs: all four.", only=(STAGES,)
    )
    out_indices: tuple[NonNegativeInt, ...] = own_key(
        (0, 1, 2, 3),
        "out indices",
        "Indices of the stages that the backbone outputs.",
        only=((0, 1, 2, 3),),
        note="the pixel decoder reads all four stages",
    )


class ConvNeXt(Section):
    """`model.backbone.convnext`"""

    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = own_key(
        (3, 3, 27, 3), "depths", "Number of blocks in each stage."
    )
    dims: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = own_key(
        (192, 384, 768, 1536), "dims", "Channels of each stage."
    )
    drop_path_rate: Probability = own_key(0.4, "drop path rate", STOCHASTIC_DEPTH)
    layer_scale_init_value: PositiveFloat = own_key(
        1.0, "layer scale", "What the scales of the blocks' outputs start from."
    )
    init: Literal["original", "fan_in"] = _initial()
    use_checkpoint: bool = own_key(False, "use checkpoint", RECOMPUTE)


class Backbone(Section):
    """`model.backbone`"""

    name: str = key("D2SwinTransformer", "name", "The backbone.", only=tuple(SECTIONS))
    freeze_at: Annotated[int, Field(ge=-1, le=5)] = key(
        0,
        "freeze at",
        "0 or -1: nothing is frozen; 1: the patch embedding is frozen; n: so are the first n - 1 stages, with their "
        "downsampling and output norm. A stage of RADIO is a quarter of its blocks; the last has the layers behind "
        "them.",
        tao="read only for D2RADIO",
    )
    swin: Swin = section(Swin, "Swin transformer.", "swin")
    dinat: DiNAT = section(DiNAT, "DiNAT.")
    convnext: ConvNeXt = section(ConvNeXt, "ConvNeXt.")
    radio: Radio = section(Radio, "RADIO, whose masks have stride 8.", "radio")
