"""The section `model`: backbone, segmentation head, transformer, text encoder, and what a test run switches on."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from oneformer_jax.app.spec.field import Probability, Section, key, section

LEVELS = ("res3", "res4", "res5")
STAGES = ("res2", "res3", "res4", "res5")
NO_RADIO = "the RADIO backbone is not available; model.backbone.name is D2SwinTransformer"


class Swin(Section):
    """`model.backbone.swin`"""

    embed_dim: PositiveInt = key(192, "embed dim", "Channels of the first stage; each stage doubles them.")
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = key(
        (2, 2, 18, 2),
        "depths",
        "Blocks of each stage.",
    )
    num_heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = key(
        (6, 12, 24, 48),
        "num heads",
        "Attention heads of each stage.",
    )
    window_size: PositiveInt = key(12, "window size", "Side of an attention window, in patches.")
    mlp_ratio: PositiveFloat = key(4.0, "mlp ratio", "Hidden width of a block's MLP over its channels.")
    init: Literal["original", "fan_in"] = key(
        "original",
        "initial weights",
        "original: normal, 0.02; fan_in: normal, 1 / sqrt(inputs), for narrow backbones without pretrained weights.",
        extension=True,
    )
    qkv_bias: bool = key(True, "qkv bias", "Give queries, keys and values a bias.")
    qk_scale: PositiveFloat | None = key(
        None, "qk scale", "Scale of attention logits; unset: head width ** -0.5.", tao="ignored"
    )
    attn_drop_rate: Probability = key(0.0, "attn drop rate", "Dropout of attention weights.")
    drop_rate: Probability = key(0.0, "drop rate", "Dropout of tokens and projections.")
    drop_path_rate: Probability = key(0.3, "drop path rate", "Stochastic depth of the last block; grows linearly.")
    ape: bool = key(False, "ape", "Add a learned absolute position embedding.")
    patch_norm: bool = key(True, "patch norm", "Normalise after the patch embedding.")
    patch_size: PositiveInt = key(4, "patch size", "Side of a patch in pixels.", only=(4,))
    pretrain_img_size: PositiveInt = key(
        384,
        "pretrained image size",
        "Image side of the pretraining; sizes the absolute position embedding.",
    )
    use_checkpoint: bool = key(False, "use checkpoint", "Recompute activations in the backward pass to save memory.")
    out_features: tuple[str, ...] = key(
        STAGES,
        "out features",
        "Stages that leave the backbone: all four.",
        only=(STAGES,),
    )
    out_indices: tuple[NonNegativeInt, ...] = key(
        (0, 1, 2, 3),
        "out indices",
        "Indices of the stages that leave the backbone.",
        only=((0, 1, 2, 3),),
        note="the pixel decoder reads all four stages",
        tao="ignored",
    )


class Radio(Section):
    """`model.backbone.radio`"""

    resolution: tuple[PositiveInt, ...] = key(
        (1024, 1024),
        "resolution",
        "Input size.",
        honoured=False,
        note=NO_RADIO,
    )
    backbone: str = key("vit_base_patch16_224", "backbone", "Vision transformer.", honoured=False, note=NO_RADIO)
    summary_idxs: tuple[NonNegativeInt, ...] = key(
        (0, 1, 2),
        "summary idxs",
        "Indices of the summary tokens.",
        honoured=False,
        note=NO_RADIO,
    )
    window_size: PositiveInt | None = key(None, "window size", "Attention window.", honoured=False, note=NO_RADIO)
    num_teacher: NonNegativeInt = key(4, "num teacher", "Teachers.", honoured=False, note=NO_RADIO)
    cpe_max_size: PositiveInt = key(
        2048,
        "cpe max size",
        "Largest size of the cropped position embedding.",
        honoured=False,
        note=NO_RADIO,
    )
    register_multiple: NonNegativeInt = key(
        8,
        "register multiple",
        "Register tokens are padded to a multiple.",
        honoured=False,
        note=NO_RADIO,
    )
    out_features: tuple[str, ...] = key(STAGES, "out features", "Output features.", honoured=False, note=NO_RADIO)
    use_checkpoint: bool = key(False, "use checkpoint", "Recompute activations.", honoured=False, note=NO_RADIO)


class Backbone(Section):
    """`model.backbone`"""

    name: str = key("D2SwinTransformer", "name", "The backbone.", only=("D2SwinTransformer",))
    freeze_at: Annotated[int, Field(ge=0, le=5)] = key(
        0,
        "freeze at",
        "1: the patch embedding is fixed; n: also the first n - 1 stages, with their merging and output norm.",
        tao="read for D2RADIO only",
    )
    swin: Swin = section(Swin, "Swin transformer.", "swin")
    radio: Radio = section(Radio, "RADIO, accepted for compatibility.", "radio")


class SemSegHead(Section):
    """`model.sem_seg_head`"""

    name: str = key("OneFormerHead", "name", "The segmentation head.", only=("OneFormerHead",), tao="ignored")
    ignore_value: int = key(
        255,
        "ignore value",
        "Label of pixels that count for nothing. Void is kept apart from all classes and needs no label; that of a "
        "class is refused.",
        tao="metrics leave out 255, whatever it is",
    )
    loss_weight: NonNegativeFloat = key(
        1.0,
        "loss weight",
        "Weight of a separate semantic loss.",
        only=(1.0,),
        note="there is no such loss; model.one_former has the weights of the losses",
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
        "Deformable attention layers of the pixel decoder.",
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
        "Stages that enter deformable attention.",
        only=(LEVELS,),
        tao="ignored: in_features counts",
    )
    norm: str = key("GN", "norm type", "Normalisation of the pixel decoder: group norm.", only=("GN",))
    num_classes: PositiveInt = key(133, "num classes", "Classes of the data, without the no-object class.")


class OneFormer(Section):
    """`model.one_former`"""

    hidden_dim: PositiveInt = key(256, "hidden dim", "Width of queries and decoder.")
    nheads: PositiveInt = key(8, "nheads", "Attention heads.")
    dim_feedforward: PositiveInt = key(
        2048,
        "dim feedforward",
        "Feed-forward width of the decoder (the pixel decoder's is 1024).",
    )
    enc_layers: NonNegativeInt = key(0, "enc layers", "Encoder layers of the class transformer.")
    dec_layers: PositiveInt = key(
        10,
        "dec layers",
        "Predictions: those of the initial queries and of dec_layers - 1 decoder layers.",
    )
    pre_norm: bool = key(False, "pre norm", "Normalise before each decoder sublayer instead of after it.")
    enforce_input_proj: bool = key(
        False,
        "enforce input proj",
        "Project pixel decoder outputs even where the widths agree.",
    )
    size_divisibility: PositiveInt = key(
        32, "size divisibility", "Images are padded to a multiple.", only=(32,), tao="ignored"
    )
    num_object_queries: PositiveInt = key(150, "num object queries", "Queries.")
    train_num_points: PositiveInt = key(12544, "train num points", "Points at which masks are compared in training.")
    oversample_ratio: Annotated[float, Field(ge=1.0)] = key(
        3.0,
        "oversample ratio",
        "Candidates for each uncertain point .",
    )
    importance_sample_ratio: Probability = key(
        0.75,
        "importance sample ratio",
        "Share of points taken where the mask is uncertain.",
    )
    mask_weight: NonNegativeFloat = key(5.0, "mask weight", "Weight of the mask cross-entropy, loss and matching.")
    dice_weight: NonNegativeFloat = key(5.0, "dice weight", "Weight of the dice loss, loss and matching.")
    class_weight: NonNegativeFloat = key(2.0, "class weight", "Weight of the classification, loss and matching.")
    no_object_weight: NonNegativeFloat = key(0.1, "no object weight", "Weight of the no-object class in its loss.")
    deep_supervision: bool = key(True, "deep supervision", "Train every prediction, not only the last.")
    dropout: Probability = key(0.1, "dropout", "Dropout of the class transformer.")
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
    class_dec_layers: PositiveInt = key(2, "class dec layers", "Decoder layers of the class transformer.")
    contrastive_weight: NonNegativeFloat = key(0.5, "contrastive weight", "Weight of the query-text loss.")
    contrastive_temperature: PositiveFloat = key(
        0.07,
        "contrastive temperature",
        "Initial temperature of the query-text loss; it is trained.",
    )
    use_task_norm: bool = key(True, "use task norm", "Normalise the task token and start the queries from it.")
    num_feature_levels: PositiveInt = key(
        3, "num feature levels", "Scales the decoder attends to.", only=(3,), tao="ignored"
    )


class TextEncoder(Section):
    """`model.text_encoder`"""

    context_length: PositiveInt = key(77, "context length", "Tokens of a prompt.")
    vocab_size: PositiveInt = key(49408, "vocab size", "Size of the vocabulary.")
    width: PositiveInt = key(256, "width", "Width of the text transformer.")
    num_layers: PositiveInt = key(6, "num layers", "Layers of the text transformer.")
    n_ctx: NonNegativeInt = key(16, "context length", "Learned context rows beside the prompts.")
    proj_num_layers: PositiveInt = key(2, "proj num layers", "Layers of the projection behind the text transformer.")


class Test(Section):
    """`model.test`; the three task switches are also accepted as `model.task_toggling.*`."""

    object_mask_threshold: Probability = key(
        0.4,
        "object mask threshold",
        "Least class probability of a segment in the panoptic result.",
    )
    overlap_threshold: Probability = key(
        0.5,
        "overlap threshold",
        "Least share of its mask that a panoptic segment keeps after overlaps.",
    )
    test_topk_per_image: PositiveInt = key(100, "top k per image", "Instances kept of an image.")
    semantic_on: bool = key(
        True,
        "semantic on",
        "Evaluate the semantic task.",
        tao="ignored: each image is scored for a task drawn at random",
    )
    instance_on: bool = key(
        False,
        "instance on",
        "Evaluate the instance task.",
        tao="ignored: each image is scored for a task drawn at random",
    )
    panoptic_on: bool = key(
        False,
        "panoptic on",
        "Evaluate the panoptic task.",
        tao="ignored: each image is scored for a task drawn at random",
    )
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
        note="whether a model is built for export is up to the action, which needs no switch",
    )
    test: Test = section(Test, "Post-processing and the tasks of an evaluation.", "Test configs")
