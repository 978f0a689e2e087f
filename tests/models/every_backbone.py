"""The smallest configuration of every backbone but Swin, whose is in `tiny`."""

from oneformer_jax.models.backbones import BackboneConfig, ConvNeXtConfig, DinatConfig, RadioConfig

BACKBONES: dict[str, BackboneConfig] = {
    "convnext": ConvNeXtConfig(depths=(1, 1, 1, 1), dims=(8, 16, 16, 32), init="fan_in"),
    "dinat": DinatConfig(
        embed_dim=8,
        depths=(2, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
        kernel_size=3,
        dilations=((1, 3), (2,), (1,), (1,)),
        init="fan_in",
    ),
    "radio": RadioConfig(
        embed_dim=16, depth=2, num_heads=2, mlp_width=32, tokens=3, layer_scale=True, position_side=6, init="fan_in"
    ),
}
