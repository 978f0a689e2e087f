"""The section `model.backbone.radio`, and the transformers that it names."""

from typing import Any, Literal, NamedTuple

from pydantic import NonNegativeInt, PositiveInt

from oneformer_jax.app.spec.field import Section, key, own_key

STAGES = ("res2", "res3", "res4", "res5")
PATCH = 16


class Variant(NamedTuple):
    """A vision transformer. `mlp_norm`: the hidden layer of each feed-forward is normalised."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_width: int
    layer_scale: bool = False
    mlp_norm: bool = False


BASE, LARGE, HUGE = Variant(768, 12, 12, 3072), Variant(1024, 24, 16, 4096), Variant(1280, 32, 16, 5120)
VARIANTS = {
    "vit_base_patch16_224": BASE,
    "vit_large_patch16_224": LARGE,
    "vit_huge_patch16_224": HUGE,
    "vit_base_patch16_reg4_dinov2": BASE._replace(layer_scale=True),
    "vit_large_patch16_reg4_dinov2": LARGE._replace(layer_scale=True),
    "vit_huge_patch16_reg4_dinov2": HUGE._replace(layer_scale=True),
    "vit_huge_patch16_224_mlpnorm": HUGE._replace(mlp_norm=True),
    "vit_so400m_patch16_224": Variant(1152, 27, 16, 4304),
}


def _of_variant(title: str, description: str) -> Any:
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
        "vit_base_patch16_224", "backbone", "The vision transformer, by timm's name.", only=tuple(VARIANTS)
    )
    embed_dim: PositiveInt | None = _of_variant("embed dim", "Channels of a token")
    depth: PositiveInt | None = _of_variant("depth", "Number of blocks")
    num_heads: PositiveInt | None = _of_variant("num heads", "Number of attention heads")
    mlp_width: PositiveInt | None = _of_variant("mlp width", "Hidden width of a block's MLP")
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
    init: Literal["original", "fan_in"] = own_key(
        "original",
        "initial weights",
        "Distribution of random weights. original: normal with standard deviation 0.02; fan_in: normal with 1 / "
        "sqrt(inputs), for narrow backbones without pretrained weights.",
    )
    out_features: tuple[str, ...] = key(
        STAGES,
        "out features",
        "Maps that the backbone outputs: res3, res4 and res5. There is no res2, which the default names.",
        only=(STAGES, STAGES[1:]),
    )
    use_checkpoint: bool = key(False, "use checkpoint", "Recompute activations in the backward pass to save memory.")

    @property
    def variant(self) -> Variant:
        """The transformer, with what is set beside its name."""
        named = {name: getattr(self, name) for name in ("embed_dim", "depth", "num_heads", "mlp_width")}
        return VARIANTS[self.backbone]._replace(**{name: value for name, value in named.items() if value is not None})

    @property
    def tokens(self) -> int:
        """Those in front of the patches."""
        registers = self.register_multiple and self.register_multiple - self.num_teacher % self.register_multiple
        return self.num_teacher + registers

    @property
    def fields(self) -> dict[str, object]:
        """Those of the backbone's configuration."""
        return self.variant._asdict() | {
            "tokens": self.tokens,
            "position_side": self.cpe_max_size // PATCH,
            "positions": "cropped" if self.resolution == (self.cpe_max_size,) * 2 else "resized",
            "align_corners": self.align_corners,
            "init": self.init,
            "use_checkpoint": self.use_checkpoint,
        }


KEYS_OF_FIELDS = {
    **{name: (name, "backbone") for name in ("embed_dim", "depth", "num_heads", "mlp_width")},
    **dict.fromkeys(("layer_scale", "mlp_norm"), ("backbone",)),
    "tokens": ("num_teacher", "register_multiple"),
    "position_side": ("cpe_max_size",),
    "positions": ("resolution", "cpe_max_size"),
    **{name: (name,) for name in ("align_corners", "init", "use_checkpoint")},
}
"""Field of the backbone's configuration -> the keys of the section that it follows from, the one to name first."""
