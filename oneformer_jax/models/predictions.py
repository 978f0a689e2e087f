"""What the model returns: the contract between models, losses and post-processing.

Axes: b images, q queries, l predicted layers, k1 classes and no-object, h w mask features at stride 4 and their c
channels, d width of the queries; h3 w3, h4 w4, h5 w5 maps at strides 8, 16 and 32.
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from oneformer_jax.models.precision import wide_product


class Features(NamedTuple):
    """What `encode` computes from images alone, shared by all tasks.

    `mask_features` is the per-pixel embedding at stride 4; `multi_scale` are the pixel decoder's maps at strides
    32, 16 and 8, in the order in which the decoder layers read them.
    """

    mask_features: Float[Array, "b h w c"]
    multi_scale: tuple[Float[Array, "b h5 w5 d"], Float[Array, "b h4 w4 d"], Float[Array, "b h3 w3 d"]]


class Predictions(NamedTuple):
    """Raw logits of the last layer: `class_logits` (B, Q, K + 1), no-object last, `mask_logits` (B, Q, H/4, W/4)."""

    class_logits: Float[Array, "b q k1"]
    mask_logits: Float[Array, "b q h w"]


class LayerPredictions(NamedTuple):
    """Predictions of the initial queries and of every decoder layer, the last one being the model's output.

    Masks stay factored: the logits of layer l are `einsum("bqc,bhwc->bqhw", mask_embeddings[l], mask_features)`, so
    that losses evaluate only the masks they need. `object_queries` enter the contrastive loss.
    """

    class_logits: Float[Array, "l b q k1"]
    mask_embeddings: Float[Array, "l b q c"]
    mask_features: Float[Array, "b h w c"]
    object_queries: Float[Array, "b q d"]

    def final(self) -> Predictions:
        """The last layer's logits, masks computed."""
        masks = wide_product("bqc,bhwc->bqhw", self.mask_embeddings[-1], self.mask_features)
        return Predictions(self.class_logits[-1], masks)


class TrainingOutputs(NamedTuple):
    """All that the network hands to the objective: predictions of each layer, the text queries of each image, and the
    logarithm of the inverse temperature of their comparison."""

    layers: LayerPredictions
    text_queries: Float[Array, "b q d"]
    logit_scale: Float[Array, ""]
