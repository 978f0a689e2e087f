"""The section `model`: backbone, segmentation head, transformer, text encoder, and what a test run switches on."""

from functools import partial
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from oneformer_jax.app.spec.backbone_keys import Backbone
from oneformer_jax.app.spec.field import Probability, Section, key, section

LEVELS = ("res3", "res4", "res5")

TRAINED_WITH = "what the model was trained or converted with"
_task = partial(key, tao="ignored: each image is scored on a task drawn at random")


class SemSegHead(Section):
    """`model.sem_seg_head`"""

    name: str = key("OneFormerHead", "name", "The segmentation head.", only=("OneFormerHead",), tao="ignored")
    ignore_value: int = key(
        255,
        "ignore value",
        "Label of pixels that are ignored. Void pixels are kept apart from all classes and need no label, so the "
        "index of a class is refused.",
        tao="metrics ignore 255, whatever this key says",
    )
    loss_weight: NonNegativeFloat = key(
        1.0,
        "loss weight",
        "Weight of a separate semantic loss.",
        only=(1.0,),
        note="there is no such loss; the weights of the losses are in model.one_former",
        tao="ignored",
    )
    in_features: tuple[str, ...] = key(
        LEVELS,
        "in features",
        "Backbone stages that enter deformable attention.",
        only=(LEVELS,),
    )
    common_stride: int = key(4, "Common stride", "Stride of the mask features.", minimum=2, only=(4,))
    transformer_enc_layers: int = key(
        6,
        "Number of transformer encoder layers.",
        "Number of deformable-attention layers in the pixel decoder.",
        minimum=1,
        popular=True,
    )
    convs_dim: int = key(256, "conv layer dim.", "Channels of the pixel decoder.", minimum=1, popular=True)
    mask_dim: int = key(256, "mask head dim.", "Channels of the mask features.", minimum=1, popular=True)
    pixel_decoder_name: str = key(
        "MSDeformAttnPixelDecoder",
        "pixel decoder name",
        "The pixel decoder.",
        only=("MSDeformAttnPixelDecoder",),
    )
    deformable_transformer_encoder_in_features: tuple[str, ...] = key(
        LEVELS,
        "transformer encoder in_features",
        "Backbone stages that enter deformable attention.",
        only=(LEVELS,),
        tao="ignored: in_features is used",
    )
    norm: str = key("GN", "norm type", "Normalisation in the pixel decoder: group norm.", only=("GN",))
    num_classes: PositiveInt = key(133, "num classes", "Number of classes, not counting the no-object class.")


class OneFormer(Section):
    """`model.one_former`"""

    hidden_dim: PositiveInt = key(256, "hidden dim", "Width of the queries and the decoder.")
    nheads: PositiveInt = key(8, "nheads", "Number of attention heads.")
    dim_feedforward: PositiveInt = key(
        2048,
        "dim feedforward",
        "Feed-forward width of the decoder (the pixel decoder's is 1024).",
    )
    enc_layers: NonNegativeInt = key(0, "enc layers", "Number of encoder layers in the class transformer.")
    dec_layers: PositiveInt = key(
        10,
        "dec layers",
        "Number of predictions: one from the initial queries and one from each of dec_layers - 1 decoder layers.",
    )
    pre_norm: bool = key(False, "pre norm", "Normalise before each sublayer of the decoder instead of after it.")
    enforce_input_proj: bool = key(
        False,
        "enforce input proj",
        "Project the outputs of the pixel decoder even if the widths are equal.",
    )
    size_divisibility: PositiveInt = key(
        32, "size divisibility", "Images are padded to a multiple of this size.", only=(32,), tao="ignored"
    )
    num_object_queries: PositiveInt = key(150, "num object queries", "Number of object queries.")
    train_num_points: PositiveInt = key(
        12544, "train num points", "Number of points at which masks are compared in training."
    )
    oversample_ratio: Annotated[float, Field(ge=1.0)] = key(
        3.0,
        "oversample ratio",
        "Number of random candidates per sampled point, from which the most uncertain ones are taken.",
    )
    importance_sample_ratio: Probability = key(
        0.75,
        "importance sample ratio",
        "Share of the sampled points that are taken where the mask is most uncertain; the others are uniformly random.",
    )
    mask_weight: NonNegativeFloat = key(5.0, "mask weight", "Weight of the mask cross-entropy in loss and matching.")
    dice_weight: NonNegativeFloat = key(5.0, "dice weight", "Weight of the dice loss in loss and matching.")
    class_weight: NonNegativeFloat = key(2.0, "class weight", "Weight of the classification in loss and matching.")
    no_object_weight: NonNegativeFloat = key(
        0.1, "no object weight", "Weight of the no-object class in the classification loss."
    )
    deep_supervision: bool = key(
        True, "deep supervision", "Apply the losses to the predictions of all layers, not only the last one."
    )
    dropout: Probability = key(0.1, "dropout", "Dropout rate of the class transformer.")
    transformer_decoder_name: str = key(
        "ContrastiveMultiScaleMaskedTransformerDecoder",
        "transformer decoder name",
        "The decoder.",
        only=("ContrastiveMultiScaleMaskedTransformerDecoder",),
    )
    transformer_in_feature: str = key(
        "multi_scale_pixel_decoder",
        "transformer in feature",
        "What the decoder attends to.",
        only=("multi_scale_pixel_decoder",),
    )
    class_dec_layers: PositiveInt = key(2, "class dec layers", "Number of decoder layers in the class transformer.")
    contrastive_weight: NonNegativeFloat = key(0.5, "contrastive weight", "Weight of the query-text contrastive loss.")
    contrastive_temperature: PositiveFloat = key(
        0.07,
        "contrastive temperature",
        "Initial temperature of the query-text contrastive loss; it is trained.",
    )
    use_task_norm: bool = key(True, "use task norm", "Normalise the task token and initialise the queries from it.")
    num_feature_levels: PositiveInt = key(
        3, "num feature levels", "Number of scales that the decoder attends to.", only=(3,), tao="ignored"
    )


class TextEncoder(Section):
    """`model.text_encoder`"""

    context_length: PositiveInt = key(77, "context length", "Number of tokens of a prompt.")
    vocab_size: PositiveInt = key(49408, "vocab size", "Size of the vocabulary.")
    width: PositiveInt = key(256, "width", "Width of the text transformer.")
    num_layers: PositiveInt = key(6, "num layers", "Number of layers in the text transformer.")
    n_ctx: NonNegativeInt = key(
        16, "context length", "Number of learned context vectors appended to the encoded prompts of an image."
    )
    proj_num_layers: PositiveInt = key(
        2, "proj num layers", "Number of layers in the projection after the text transformer."
    )


class Test(Section):
    """`model.test`; the three task switches are also accepted as `model.task_toggling.*`."""

    object_mask_threshold: Probability = key(
        0.4,
        "object mask threshold",
        "Smallest class probability of a segment in the panoptic result.",
        unset=TRAINED_WITH,
    )
    overlap_threshold: Probability = key(
        0.5,
        "overlap threshold",
        "Smallest share of its mask that a panoptic segment must keep after overlaps are resolved.",
        unset=TRAINED_WITH,
    )
    test_topk_per_image: PositiveInt = key(
        100, "top k per image", "Largest number of instances kept per image.", unset=TRAINED_WITH
    )
    semantic_on: bool = _task(True, "semantic on", "Evaluate the semantic task.")
    instance_on: bool = _task(False, "instance on", "Evaluate the instance task.")
    panoptic_on: bool = _task(False, "panoptic on", "Evaluate the panoptic task.")
    detection_on: bool = key(
        False,
        "detect on",
        "Evaluate boxes.",
        only=(False,),
        note="boxes are not scored; instance_on scores masks",
        tao="ignored",
    )


class Model(Section):
    """`model`"""

    sem_seg_head: SemSegHead = section(SemSegHead, "Pixel decoder and classes.", "sem seg head")
    one_former: OneFormer = section(OneFormer, "Queries, decoder and loss weights.", "oneformer")
    text_encoder: TextEncoder = section(TextEncoder, "Text branch, used in training only.", "text encoder")
    backbone: Backbone = section(Backbone, "Backbone.", "backbone")
    export: bool = key(
        False,
        "export",
        "Accepted for compatibility.",
        honoured=False,
        note="the action determines whether a model is built for export",
    )
    test: Test = section(Test, "Post-processing, and the tasks to evaluate.", "Test configs")
