"""What a checkpoint holds besides its arrays, as JSON."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from oneformer_jax.checkpoints.quantized import quantized_shapes
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import EvaluationPolicy, Policy, policy_from_json
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.postprocess.results import Thresholds


@dataclass(frozen=True)
class Description:
    """Everything besides arrays that a checkpoint holds: nothing of the training spec must be repeated to use it.

    `absent` names the top-level parts of the model that it lacks: those for training alone, where its source had none,
    or all but the backbone. `quantized` names the layers whose kernels are stored in 8 bits, with the format. `policy`
    and `thresholds` are those of the evaluation; checkpoints of before 0.2 hold none and get the defaults.
    """

    model: OneFormerConfig
    categories: Categories
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    spec: dict[str, Any]
    step: int = 0
    epoch: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    absent: tuple[str, ...] = ()
    quantized: dict[str, str] = dataclasses.field(default_factory=dict)
    policy: Policy = dataclasses.field(default_factory=EvaluationPolicy)
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)

    def to_json(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {
            "model": self.model.to_json(),
            "categories": self.categories.to_json(),
            "policy": vars(self.policy),
            "thresholds": vars(self.thresholds),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], *, where: str = "") -> "Description":
        """The inverse of `to_json`; `where` names the checkpoint. Raises CheckpointError for an unknown backbone."""
        return cls(
            **data
            | {
                "model": OneFormerConfig.from_json(data["model"], where=where),
                "categories": Categories.from_json(data["categories"]),
                "pixel_mean": tuple(data["pixel_mean"]),
                "pixel_std": tuple(data["pixel_std"]),
                "absent": tuple(data.get("absent", ())),
                "policy": policy_from_json(data["policy"]) if "policy" in data else EvaluationPolicy(),
                "thresholds": Thresholds(**data.get("thresholds", {})),
            }
        )

    def shapes(self) -> Params:
        """Shapes and dtypes of the arrays that the checkpoint holds: those of the parts that are not `absent`."""
        held = {part: shape for part, shape in oneformer.shapes(self.model).items() if part not in self.absent}
        return quantized_shapes(held, self.quantized)
