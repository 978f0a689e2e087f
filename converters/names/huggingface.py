"""Weights of Hugging Face's OneFormer (`OneFormerForUniversalSegmentation`) and Swin transformers (`Swin...`)."""

from collections.abc import Iterable, Mapping

from converters.names.original import DECODER_NORMS, class_layer, encoder_layer, text_encoder
from converters.names.swin import MASKED, classifier, patch_merging
from converters.rules import Layout, Rule, StateDict, conv, fused_attention, linear, norm, skip

# Version 5 renames the backbone while it runs; files keep the names of version 4.
_RUNTIME = "model.pixel_level_module.encoder.swin."
_RUNTIME_TO_PUBLISHED = [
    ("attention.relative_position_bias.", "attention.self."),
    ("attention.q_proj.", "attention.self.query."),
    ("attention.k_proj.", "attention.self.key."),
    ("attention.v_proj.", "attention.self.value."),
    ("attention.o_proj.", "attention.output.dense."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
]

_SWIN = _DINAT = "model.pixel_level_module.encoder"
_BLOCK, _OUR_BLOCK = f"{_SWIN}.encoder.layers.{{stage}}.blocks.{{block}}", "backbone/stage{stage}_block{block}"
_OUTPUT_NORMS = [
    rule for i in range(4) for rule in norm(f"{_SWIN}.hidden_states_norms.stage{i + 1}", f"backbone/norm{i}")
]


def _block(source: str) -> list[Rule]:
    """What blocks of both backbones have under the same names."""
    return [
        *norm(f"{source}.layernorm_before", f"{_OUR_BLOCK}/norm1"),
        *linear(f"{source}.attention.self.query", f"{_OUR_BLOCK}/attention/qkv", part=(0, 3)),
        *linear(f"{source}.attention.self.key", f"{_OUR_BLOCK}/attention/qkv", part=(1, 3)),
        *linear(f"{source}.attention.self.value", f"{_OUR_BLOCK}/attention/qkv", part=(2, 3)),
        *linear(f"{source}.attention.output.dense", f"{_OUR_BLOCK}/attention/proj"),
        *norm(f"{source}.layernorm_after", f"{_OUR_BLOCK}/norm2"),
        *linear(f"{source}.intermediate.dense", f"{_OUR_BLOCK}/linear1"),
        *linear(f"{source}.output.dense", f"{_OUR_BLOCK}/linear2"),
    ]


SWIN = [
    *conv(f"{_SWIN}.embeddings.patch_embeddings.projection", "backbone/patch_embed"),
    *norm(f"{_SWIN}.embeddings.norm", "backbone/patch_norm"),
    *_block(_BLOCK),
    Rule(f"{_BLOCK}.attention.self.relative_position_bias_table", f"{_OUR_BLOCK}/attention/relative_position_bias"),
    skip(f"{_BLOCK}.attention.self.relative_position_index", "follows from the window size"),
    *patch_merging(f"{_SWIN}.encoder.layers.{{stage}}.downsample", "backbone/merging{stage}"),
    *_OUTPUT_NORMS,
    *classifier(f"{_SWIN}.layernorm", f"{_SWIN}.classifier"),
    *(skip(f"{_SWIN}.{name}", MASKED) for name in ("embeddings.mask_token", "decoder.0.weight", "decoder.0.bias")),
]

_LEVEL = f"{_DINAT}.encoder.levels.{{stage}}"
DINAT = [
    *conv(f"{_DINAT}.embeddings.patch_embeddings.projection.{{i}}", "backbone/patch_embed{i}"),
    *norm(f"{_DINAT}.embeddings.norm", "backbone/patch_norm"),
    *_block(f"{_LEVEL}.layers.{{block}}"),
    Rule(f"{_LEVEL}.layers.{{block}}.attention.self.rpb", f"{_OUR_BLOCK}/attention/relative_position_bias"),
    Rule(f"{_LEVEL}.downsample.reduction.weight", "backbone/downsample{stage}/kernel", Layout.CONV),
    *norm(f"{_LEVEL}.downsample.norm", "backbone/downsample{stage}_norm"),
    *_OUTPUT_NORMS,
]

BACKBONES: Mapping[str, list[Rule]] = {"swin": SWIN, "dinat": DINAT}
"""By the kinds of `models.backbones`."""

_PIXEL = "model.pixel_level_module.decoder"
PIXEL_DECODER = [
    *conv(f"{_PIXEL}.input_projections.{{i}}.0", "pixel_decoder/input_proj_{i}/conv"),
    *norm(f"{_PIXEL}.input_projections.{{i}}.1", "pixel_decoder/input_proj_{i}/norm"),
    Rule(f"{_PIXEL}.level_embed", "pixel_decoder/level_embed"),
    *encoder_layer(f"{_PIXEL}.encoder.layers.{{i}}", ("self_attn_layer_norm", "fc1", "fc2", "final_layer_norm")),
    *conv(f"{_PIXEL}.mask_projection", "pixel_decoder/mask_features"),
    *conv(f"{_PIXEL}.adapter_1.0", "pixel_decoder/lateral/conv"),
    *norm(f"{_PIXEL}.adapter_1.1", "pixel_decoder/lateral/norm"),
    *conv(f"{_PIXEL}.layer_1.0", "pixel_decoder/output/conv"),
    *norm(f"{_PIXEL}.layer_1.1", "pixel_decoder/output/norm"),
]

_DECODER = "model.transformer_module.decoder"
_QUERY, _OUR_QUERY = f"{_DECODER}.query_transformer.decoder", "predictor/class_transformer/decoder"
_LAYER, _OUR_LAYER = f"{_DECODER}.layers.{{i}}", "predictor/layer_{i}"
PREDICTOR = [
    *class_layer(f"{_QUERY}.layers.{{i}}", f"{_OUR_QUERY}_{{i}}_", DECODER_NORMS),
    *norm(f"{_QUERY}.norm", f"{_OUR_QUERY}_norm"),
    *fused_attention(f"{_LAYER}.cross_attn.multihead_attn", f"{_OUR_LAYER}/cross_attention/attention"),
    *norm(f"{_LAYER}.cross_attn.norm", f"{_OUR_LAYER}/cross_attention/norm"),
    *linear(f"{_LAYER}.self_attn.self_attn.q_proj", f"{_OUR_LAYER}/self_attention/attention/in_proj", part=(0, 3)),
    *linear(f"{_LAYER}.self_attn.self_attn.k_proj", f"{_OUR_LAYER}/self_attention/attention/in_proj", part=(1, 3)),
    *linear(f"{_LAYER}.self_attn.self_attn.v_proj", f"{_OUR_LAYER}/self_attention/attention/in_proj", part=(2, 3)),
    *linear(f"{_LAYER}.self_attn.self_attn.out_proj", f"{_OUR_LAYER}/self_attention/attention/out_proj"),
    *norm(f"{_LAYER}.self_attn.norm", f"{_OUR_LAYER}/self_attention/norm"),
    *linear(f"{_LAYER}.ffn.linear1", f"{_OUR_LAYER}/feed_forward/linear1"),
    *linear(f"{_LAYER}.ffn.linear2", f"{_OUR_LAYER}/feed_forward/linear2"),
    *norm(f"{_LAYER}.ffn.norm", f"{_OUR_LAYER}/feed_forward/norm"),
    *norm(f"{_DECODER}.decoder_norm", "predictor/decoder_norm"),
    *conv(f"{_DECODER}.query_input_projection", "predictor/class_input_proj"),
    *linear(f"{_DECODER}.class_embed", "predictor/class_embed"),
    *linear(f"{_DECODER}.mask_embed.layers.{{i}}.0", "predictor/mask_embed/layer_{i}"),
    Rule("model.transformer_module.queries_embedder.weight", "predictor/query_embed"),
    Rule("model.transformer_module.level_embed.weight", "predictor/level_embed"),
]

_TEXT_LAYER = ("self_attn", "layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2")
TASK_AND_TEXT = [
    *linear("model.task_encoder.task_mlp.layers.{i}.0", "task_mlp/layer_{i}"),
    *text_encoder("model.text_mapper.", "transformer.layers.{i}", _TEXT_LAYER),
    *linear("model.text_mapper.text_projector.layers.{i}.0", "text_projector/layer_{i}"),
]


def rules_with(backbone: str) -> list[Rule]:
    """Rules of a model with a backbone of this kind."""
    return [*BACKBONES[backbone], *PIXEL_DECODER, *PREDICTOR, *TASK_AND_TEXT]


def kind_of_backbone(names: Iterable[str]) -> str:
    """That of a model, or of a backbone alone, by its names."""
    return "dinat" if any(name.startswith(f"{_DINAT}.encoder.levels.") for name in names) else "swin"


def published_name(name: str) -> str:
    """The name that version 4 published for a parameter of any version."""
    if not name.startswith(_RUNTIME):
        return name
    rest = name.removeprefix(_RUNTIME)
    for runtime, published in _RUNTIME_TO_PUBLISHED:
        rest = rest.replace(runtime, published)
    return f"{_SWIN}.{rest}"


def published_names(state: StateDict) -> StateDict:
    """A state dict of any version under the names that version 4 published."""
    return {published_name(name): array for name, array in state.items()}


def published_backbone(state: StateDict) -> StateDict:
    """A state dict of a Swin transformer of any version under the names that it has in a published OneFormer."""
    return published_names({f"{_RUNTIME}{name.removeprefix('swin.')}": array for name, array in state.items()})
