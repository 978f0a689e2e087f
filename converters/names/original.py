"""Weights of the original OneFormer (SHI-Labs, PyTorch on detectron2) and of NVIDIA TAO's.

TAO has the original's names, with the prefix `model.` in the files of its training.
"""

from collections.abc import Collection, Iterable, Mapping

from converters.names.convnext import convnext
from converters.names.dinat import dinat
from converters.names.radio import radio
from converters.names.swin import classifier, patch_merging, swin_stages
from converters.rules import Layout, Rule, conv, fused_attention, linear, norm, skip
from oneformer_jax.postprocess.results import Thresholds

BACKBONES: Mapping[str, list[Rule]] = {
    "swin": [
        *swin_stages("backbone.", Layout.MAP),
        *patch_merging("backbone.layers.{stage}.downsample", "backbone/merging{stage}"),
    ],
    "convnext": convnext("backbone."),
    "dinat": dinat("backbone."),
    "radio": radio("backbone."),
}
"""By the kinds of `models.backbones`."""

_PIXEL = "sem_seg_head.pixel_decoder"


def encoder_layer(source: str, names: tuple[str, str, str, str]) -> list[Rule]:
    """Rules of a layer of the pixel decoder; `names` are those of its first norm, linear layers and second norm."""
    target, (norm1, linear1, linear2, norm2) = "pixel_decoder/layer_{i}", names
    attention = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    return [
        *(rule for name in attention for rule in linear(f"{source}.self_attn.{name}", f"{target}/attention/{name}")),
        *norm(f"{source}.{norm1}", f"{target}/norm"),
        *linear(f"{source}.{linear1}", f"{target}/feed_forward/linear1"),
        *linear(f"{source}.{linear2}", f"{target}/feed_forward/linear2"),
        *norm(f"{source}.{norm2}", f"{target}/feed_forward/norm"),
    ]


PIXEL_DECODER = [
    *conv(f"{_PIXEL}.input_proj.{{i}}.0", "pixel_decoder/input_proj_{i}/conv"),
    *norm(f"{_PIXEL}.input_proj.{{i}}.1", "pixel_decoder/input_proj_{i}/norm"),
    Rule(f"{_PIXEL}.transformer.level_embed", "pixel_decoder/level_embed"),
    *encoder_layer(f"{_PIXEL}.transformer.encoder.layers.{{i}}", ("norm1", "linear1", "linear2", "norm2")),
    *conv(f"{_PIXEL}.mask_features", "pixel_decoder/mask_features"),
    *norm(f"{_PIXEL}.adapter_1.norm", "pixel_decoder/lateral/norm"),
    *conv(f"{_PIXEL}.adapter_1", "pixel_decoder/lateral/conv"),
    *norm(f"{_PIXEL}.layer_1.norm", "pixel_decoder/output/norm"),
    *conv(f"{_PIXEL}.layer_1", "pixel_decoder/output/conv"),
]

_CLASS, _OUR_CLASS = "sem_seg_head.predictor.class_transformer", "predictor/class_transformer"


def class_layer(source: str, target: str, norms: dict[str, str]) -> list[Rule]:
    """Rules of a DETR layer; `norms` are the names of its norms, with ours of what they belong to."""
    return [
        *fused_attention(f"{source}.self_attn", f"{target}self_attention/attention"),
        *fused_attention(f"{source}.multihead_attn", f"{target}cross_attention/attention"),
        *linear(f"{source}.linear1", f"{target}feed_forward/linear1"),
        *linear(f"{source}.linear2", f"{target}feed_forward/linear2"),
        *(rule for their, our in norms.items() for rule in norm(f"{source}.{their}", f"{target}{our}/norm")),
    ]


DECODER_NORMS = {"norm1": "self_attention", "norm2": "cross_attention", "norm3": "feed_forward"}
CLASS_TRANSFORMER = [
    *class_layer(
        f"{_CLASS}.encoder.layers.{{i}}",
        f"{_OUR_CLASS}/encoder_{{i}}_",
        {"norm1": "self_attention", "norm2": "feed_forward"},
    ),
    *norm(f"{_CLASS}.encoder.norm", f"{_OUR_CLASS}/encoder_norm"),
    *class_layer(f"{_CLASS}.decoder.layers.{{i}}", f"{_OUR_CLASS}/decoder_{{i}}_", DECODER_NORMS),
    *norm(f"{_CLASS}.decoder.norm", f"{_OUR_CLASS}/decoder_norm"),
]

_DECODER, _OURS = "sem_seg_head.predictor", "predictor/layer_{i}"
PREDICTOR = [
    *CLASS_TRANSFORMER,
    *fused_attention(
        f"{_DECODER}.transformer_self_attention_layers.{{i}}.self_attn", f"{_OURS}/self_attention/attention"
    ),
    *norm(f"{_DECODER}.transformer_self_attention_layers.{{i}}.norm", f"{_OURS}/self_attention/norm"),
    *fused_attention(
        f"{_DECODER}.transformer_cross_attention_layers.{{i}}.multihead_attn", f"{_OURS}/cross_attention/attention"
    ),
    *norm(f"{_DECODER}.transformer_cross_attention_layers.{{i}}.norm", f"{_OURS}/cross_attention/norm"),
    *linear(f"{_DECODER}.transformer_ffn_layers.{{i}}.linear1", f"{_OURS}/feed_forward/linear1"),
    *linear(f"{_DECODER}.transformer_ffn_layers.{{i}}.linear2", f"{_OURS}/feed_forward/linear2"),
    *norm(f"{_DECODER}.transformer_ffn_layers.{{i}}.norm", f"{_OURS}/feed_forward/norm"),
    *norm(f"{_DECODER}.decoder_norm", "predictor/decoder_norm"),
    Rule(f"{_DECODER}.query_embed.weight", "predictor/query_embed"),
    Rule(f"{_DECODER}.level_embed.weight", "predictor/level_embed"),
    *conv(f"{_DECODER}.input_proj.{{i}}", "predictor/input_proj_{i}"),
    *conv(f"{_DECODER}.class_input_proj", "predictor/class_input_proj"),
    *linear(f"{_DECODER}.class_embed", "predictor/class_embed"),
    *linear(f"{_DECODER}.mask_embed.layers.{{i}}", "predictor/mask_embed/layer_{i}"),
]


def text_encoder(prefix: str, layer: str, names: tuple[str, str, str, str, str]) -> list[Rule]:
    """Rules of the text encoder, its context and the criterion; `names` are those of a layer's attention, first norm,
    linear layers and second norm."""
    source, target = f"{prefix}text_encoder.{layer}", "text_encoder/layer_{i}"
    attention, norm1, linear1, linear2, norm2 = names
    return [
        Rule(f"{prefix}text_encoder.token_embedding.weight", "text_encoder/token_embedding"),
        Rule(f"{prefix}text_encoder.positional_embedding", "text_encoder/positional_embedding"),
        *fused_attention(f"{source}.{attention}", f"{target}/attention"),
        *norm(f"{source}.{norm1}", f"{target}/norm1"),
        *linear(f"{source}.{linear1}", f"{target}/linear1"),
        *linear(f"{source}.{linear2}", f"{target}/linear2"),
        *norm(f"{source}.{norm2}", f"{target}/norm2"),
        *norm(f"{prefix}text_encoder.ln_final", "text_encoder/norm"),
        Rule(f"{prefix}prompt_ctx.weight", "prompt_ctx"),
        Rule("criterion.logit_scale", "logit_scale"),
        skip("criterion.empty_weight", "follows from the number of classes and the no-object weight"),
    ]


TASK_AND_TEXT = [
    *linear("task_mlp.layers.{i}", "task_mlp/layer_{i}"),
    *text_encoder("", "transformer.resblocks.{i}", ("attn", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2")),
    *linear("text_projector.layers.{i}", "text_projector/layer_{i}"),
]

HEAD_OF_TAO = classifier("backbone.head")


def rules_with(backbone: str) -> list[Rule]:
    """Rules of a model with a backbone of this kind, or of all but a backbone that is not of `BACKBONES`."""
    return [*BACKBONES.get(backbone, ()), *PIXEL_DECODER, *PREDICTOR, *TASK_AND_TEXT]


THRESHOLDS = Thresholds(0.8, 0.8, 150)
"""With which the original's results on COCO were published; docs/model-zoo.md has those of other data sets."""

TASK_PAD_ID = 49407
"""TAO pads task texts with the end token, and the task MLP of its weights has learnt that."""


def kind_of_backbone(names: Iterable[str]) -> str:
    """That of a model by its names."""
    signs = {
        "backbone.downsample_layers.": "convnext",
        "backbone.patch_embed.proj.0.": "dinat",
        "backbone.radio.": "radio",
    }
    return next((kind for name in names for sign, kind in signs.items() if name.startswith(sign)), "swin")


def is_tao(names: Collection[str], prefix: str = "") -> bool:
    """Whether names in the style of the original come from TAO: only there are the prefix `model.`, of PyTorch
    Lightning, the backbone's head, RADIO, and a DiNAT without bias tables."""
    if "model" in prefix.split(".") or any(name.startswith("backbone.head.") for name in names):
        return True
    kind = kind_of_backbone(names)
    return kind == "radio" or (kind == "dinat" and not any(name.endswith(".attn.rpb") for name in names))
