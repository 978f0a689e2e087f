"""The section `model.backbone`: which backbone there is, and a section for each."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from oneformer_jax.app.spec.field import Probability, Section, key, own_key, section

STAGES = ("res2", "res3", "res4", "res5")
STOCHASTIC_DEPTH = "Stochastic depth rate of the last block; it grows linearly from 0 at the first block."
RECOMPUTE = "Recompute activations in the backward pass to save memory."
SECTIONS = {"D2SwinTransformer": "swin", "D2DiNAT": "dinat", "D2ConvNeXt": "convnext", "D2RADIO": "radio"}
"""Name of a backbone -> its section, which is also its kind in `models.backbones`."""


PATCH_OF_RADIO = 16  # pixels


class Transformer(NamedTuple):
    """A vision transformer of RADIO. `mlp_norm`: the hidden layer of each feed-forward is normalised."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_width: int
    layer_scale: bool = False
    mlp_norm: bool = False


BASE, LARGE, HUGE = Transformer(768, 12, 12, 3072), Transformer(1024, 24, 16, 4096), Transformer(1280, 32, 16, 5120)
TRANSFORMERS = {
    "vit_base_patch16_224": BASE,
    "vit_large_patch16_224": LARGE,
    "vit_huge_patch16_224": HUGE,
    "vit_base_patch16_reg4_dinov2": BASE._replace(layer_scale=True),
    "vit_large_patch16_reg4_dinov2": LARGE._replace(layer_scale=True),
    "vit_huge_patch16_reg4_dinov2": HUGE._replace(layer_scale=True),
    "vit_huge_patch16_224_mlpnorm": HUGE._replace(mlp_norm=True),
    "vit_so400m_patch16_224": Transformer(1152, 27, 16, 4304),
}


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


def _of_transformer(title: str, description: str) -> Any:
    return own_key(None, title, f"{description}; unset: as in the transformer `backbone`.")


class Radio(Section):
    """`model.backbone.radio`"""

    resolution: tuple[PositiveInt, PositiveInt] = key(
        (1024, 1024),
        "resolution",
        "Where both sides are cpe_max_size, smaller images get the top left part of the table of positions, not all of "
        "it resized. Nothing else depends on it.",
    )
    backbone: str = key(
        "vit_base_patch16_224", "backbone", "The vision transformer, by timm's name.", only=tuple(TRANSFORMERS)
    )
    embed_dim: PositiveInt | None = _of_transformer("embed dim", "Channels of a token")
    depth: PositiveInt | None = _of_transformer("depth", "Number of blocks")
    num_heads: PositiveInt | None = _of_transformer("num heads", "Number of attention heads")
    mlp_width: PositiveInt | None = _of_transformer("mlp width", "Hidden width of a block's MLP")
    summary_idxs: tuple[NonNegativeInt, ...] = key(
        (0, 1, 2),
        "summary idxs",
        "Which tokens RADIO's summary of an image is made of.",
        honoured=False,
        note="the summary is not computed, and no map depends on it",
        tao="without effect on the maps",
    )
    window_size: PositiveInt | None = key(
        None,
        "window size",
        "Side of an attention window. Every token attends to all.",
        only=(None,),
        note="attention in windows is not available: no published weights are made for it",
    )
    num_teacher: NonNegativeInt = key(
        4, "num teacher", "Number of teachers in pretraining, each of which has a token in front of the patches."
    )
    cpe_max_size: PositiveInt = key(
        2048, "cpe max size", "Side of the image that the table of positions is made for, in pixels."
    )
    register_multiple: NonNegativeInt = key(
        8,
        "register multiple",
        "Registers follow the tokens of the teachers, up to the next larger multiple of this; 0: none.",
    )
    align_corners: bool = own_key(
        True,
        "align corners",
        "How the table of positions is resized: true as in TAO, false as in RADIO itself. convert takes what its "
        "source was trained with.",
    )
    init: Literal["original", "fan_in"] = _initial()
    out_features: tuple[str, ...] = key(
        STAGES,
        "out features",
        "Maps that the backbone outputs: res3, res4 and res5. There is no res2, which the default names.",
        only=(STAGES, STAGES[1:]),
    )
    use_checkpoint: bool = key(False, "use checkpoint", RECOMPUTE)

    @property
    def transformer(self) -> Transformer:
        """The transformer, with what is set beside its name."""
        named = {name: getattr(self, name) for name in ("embed_dim", "depth", "num_heads", "mlp_width")}
        return TRANSFORMERS[self.backbone]._replace(
            **{name: value for name, value in named.items() if value is not None}
        )

    @property
    def tokens(self) -> int:
        """Those in front of the patches."""
        registers = self.register_multiple and self.register_multiple - self.num_teacher % self.register_multiple
        return self.num_teacher + registers

    @property
    def fields(self) -> dict[str, object]:
        """Those of the backbone's configuration."""
        return self.transformer._asdict() | {
            "tokens": self.tokens,
            "position_side": self.cpe_max_size // PATCH_OF_RADIO,
            "positions": "cropped" if self.resolution == (self.cpe_max_size,) * 2 else "resized",
            "align_corners": self.align_corners,
            "init": self.init,
            "use_checkpoint": self.use_checkpoint,
        }


KEYS_OF_RADIO = {
    **{name: (name, "backbone") for name in ("embed_dim", "depth", "num_heads", "mlp_width")},
    **dict.fromkeys(("layer_scale", "mlp_norm"), ("backbone",)),
    "tokens": ("num_teacher", "register_multiple"),
    "position_side": ("cpe_max_size",),
    "positions": ("resolution", "cpe_max_size"),
    **{name: (name,) for name in ("align_corners", "init", "use_checkpoint")},
}
"""Field of the backbone's configuration -> the keys of the section that it follows from, the one to name first."""


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
