"""What a model is: frozen, hashable dataclasses that hold every architectural choice and nothing of a run.

Defaults are those of the published Swin-L configuration. A checkpoint stores one `OneFormerConfig` as JSON.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jax.sharding import Mesh

from oneformer_jax.models.backbones import BackboneConfig, SwinConfig, backbone_from_json, backbone_to_json
from oneformer_jax.models.backbones.registry import known_fields, place
from oneformer_jax.models.gpu.formulation import ops_of_gpus
from oneformer_jax.models.ops import CPU, Ops
from oneformer_jax.models.remat import Remat


@dataclass(frozen=True)
class PixelDecoderConfig:
    """Multi-scale deformable-attention pixel decoder (Cheng et al. 2022, section 3.2; Zhu et al. 2021)."""

    conv_dim: int = 256
    mask_dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    num_points: int = 4
    dim_feedforward: int = 1024
    dropout: float = 0.1


@dataclass(frozen=True)
class TransformerConfig:
    """Task-conditioned queries and masked-attention decoder (Jain et al. 2023, section 3.2).

    `dec_layers` counts predictions: the initial queries and `dec_layers - 1` decoder layers.
    """

    hidden_dim: int = 256
    num_queries: int = 150
    num_heads: int = 8
    dim_feedforward: int = 2048
    dec_layers: int = 10
    class_dec_layers: int = 2
    enc_layers: int = 0
    dropout: float = 0.1
    pre_norm: bool = False
    enforce_input_proj: bool = False
    use_task_norm: bool = True


@dataclass(frozen=True)
class TextEncoderConfig:
    """Text transformer of the query-text contrastive loss (Jain et al. 2023, section 3.3). Used in training only."""

    width: int = 256
    num_layers: int = 6
    vocab_size: int = 49408
    context_length: int = 77
    n_ctx: int = 16
    proj_num_layers: int = 2


PARTS = {"pixel_decoder": PixelDecoderConfig, "transformer": TransformerConfig, "text_encoder": TextEncoderConfig}


@dataclass(frozen=True)
class OneFormerConfig:
    """The whole model. `task_seq_len` is the length of the task token rows that enter the task MLP as raw ids;
    `task_pad_id` is the id they are padded with: it belongs to the weights (0 in the original, 49407 in TAO).

    `ops` is how the operations of `models.ops` are computed: the choice of a platform (`on`) or an exporter; `remat` is
    what is kept for a backward pass (`models.remat`): the choice of a training, or of the platform where it is "auto".
    Neither is of the architecture, so JSON lacks both.
    """

    num_classes: int = 133
    backbone: BackboneConfig = field(default_factory=SwinConfig)
    pixel_decoder: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    task_seq_len: int = 77
    task_pad_id: int = 0
    ops: Ops = field(default=CPU, repr=False)
    remat: Remat = field(default="none", repr=False)

    def on(self, mesh: Mesh) -> "OneFormerConfig":
        """The same model, computed as is fast on the devices of `mesh`, unless other `ops` were chosen before."""
        is_for_gpus = mesh.devices.flat[0].platform != "cpu"
        config = replace(self, ops=ops_of_gpus(mesh)) if is_for_gpus and self.ops == CPU else self
        return replace(config, remat="light" if is_for_gpus else "none") if self.remat == "auto" else config

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as a checkpoint stores them."""
        fields = {name: value for name, value in vars(self).items() if name not in ("ops", "remat")}
        parts = {name: dataclasses.asdict(fields[name]) for name in PARTS}
        return fields | parts | {"backbone": backbone_to_json(self.backbone)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str = "") -> "OneFormerConfig":
        """The inverse of `to_json`; `where` names the source in errors.

        Raises CheckpointError: a kind of backbone that is not registered, a field that is unknown or of another type.
        """
        found = known_fields(cls, data, where=where)
        parts = {
            name: part(**known_fields(part, data[name], where=place(where, name)))
            for name, part in PARTS.items()
            if name in data
        }
        if "backbone" in data:
            parts["backbone"] = backbone_from_json(data["backbone"], where=where)
        return cls(**found | parts)
