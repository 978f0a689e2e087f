"""What the model returns: the contract between models, losses and post-processing.

Axes: b images, l layers, q queries, k1 classes and no-object, h w pixels at the finest stride of the backbone, which
mostly is 4 (h5 w5 ... at strides 32, 16, 8), c channels of a mask embedding, d channels of a query.
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from oneformer_jax.models.ops import contract


class Features(NamedTuple):
    """What `encode` computes from images alone, shared by all tasks.

    `mask_features` is the embedding of pixels at the finest stride; `multi_scale` are the pixel decoder's maps at
    strides 32, 16 and 8, in the order in which the decoder layers read them.
    """

    mask_features: Float[Array, "b h w c"]
    multi_scale: tuple[Float[Array, "b h5 w5 d"], Float[Array, "b h4 w4 d"], Float[Array, "b h3 w3 d"]]


class Predictions(NamedTuple):
    """Raw logits of the last layer: `class_logits` (B, Q, K + 1), no-object last, `mask_logits` (B, Q, h, w)."""

    class_logits: Float[Array, "b q k1"]
    mask_logits: Float[Array, "b q h w"]


class DecodedLayers(NamedTuple):
    """What the mask decoder predicts from the initial queries and after each of its layers, the last one being the
    model's output; `object_queries` are the initial queries."""

    class_logits: list[Float[Array, "b q k1"]]
    mask_embeddings: list[Float[Array, "b q c"]]
    object_queries: Float[Array, "b q d"]


class LayerPredictions(NamedTuple):
    """`DecodedLayers` as arrays, for the losses.

    Masks stay factored: those of layer l are `mask_logits(mask_embeddings[l], mask_features)`, so that losses evaluate
    only the masks they need. `object_queries` enter the contrastive loss.
    """

    class_logits: Float[Array, "l b q k1"]
    mask_embeddings: Float[Array, "l b q c"]
    mask_features: Float[Array, "b h w c"]
    object_queries: Float[Array, "b q d"]


class TrainingOutputs(NamedTuple):
    """All that the network hands to the objective: predictions of each layer, the text queries of each image, and the
    logarithm of the inverse temperature of their comparison."""

    layers: LayerPredictions
    text_queries: Float[Array, "b q d"]
    logit_scale: Float[Array, ""]


def mask_logits(mask_embeddings: Float[Array, "b q c"], features: Float[Array, "b h w c"]) -> Float[Array, "b q h w"]:
    """The product of every query's embedding with every pixel's features."""
    return contract("bqc,bhwc->bqhw", mask_embeddings, features)
