"""What the training objective is."""

from dataclasses import dataclass

import jax

from oneformer_jax.models.predictions import LayerPredictions


@dataclass(frozen=True)
class CriterionConfig:
    """Weights and sampling of the losses (Jain et al. 2023, section 3.4; Cheng et al. 2022, section 3.3).

    The three first weights are also those of the matching cost. `num_points` points stand for a mask: of
    `oversample_ratio * num_points` random ones the `importance_sample_ratio * num_points` most uncertain are kept and
    random ones complete them. Without `deep_supervision` only the last layer is matched and takes part in the loss.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    contrastive_weight: float = 0.5
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75
    deep_supervision: bool = True

    @property
    def num_oversampled(self) -> int:
        """Random points among which the uncertain ones are looked for."""
        return int(self.oversample_ratio * self.num_points)

    @property
    def num_uncertain(self) -> int:
        """Points kept for their uncertainty; `num_points - num_uncertain` more are random."""
        return int(self.importance_sample_ratio * self.num_points)

    def supervised(self, outputs: LayerPredictions) -> LayerPredictions:
        """The predictions that are matched and enter the loss."""
        if self.deep_supervision:
            return outputs
        last = jax.tree.map(lambda x: x[-1:], (outputs.class_logits, outputs.mask_embeddings))
        return outputs._replace(class_logits=last[0], mask_embeddings=last[1])
