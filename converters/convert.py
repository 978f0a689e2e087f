"""Which of the known sources weights come from, and their conversion to parameters with an architecture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from converters.files.read import Source
from converters.infer_config import Shapes, infer_architecture, infer_swin
from converters.names import huggingface, shi_labs, swin, tao, timm
from converters.rules import Params, Report, Rule, StateDict, carry_over
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import TRAINING_ONLY, shapes

Kind = Literal["shi", "tao", "huggingface", "swin", "timm"]

HEADS = "sem_seg_head.predictor."
PATCHES = "patch_embed.proj.weight"


@dataclass(frozen=True)
class Converted:
    """Parameters with their architecture: a whole model, or a Swin backbone alone under the key `backbone`."""

    kind: Kind
    config: OneFormerConfig | SwinConfig
    params: Params
    report: Report


def identify(arrays: StateDict, *, where: str = "") -> Kind:
    """The source of a state dict, by its names.

    The original's names without a sign of TAO (`converters.names.tao.is_tao`) count as the original's: bare weights of
    TAO that lack the backbone's unused head cannot be distinguished from them. Raises CheckpointError with the first
    names where nothing fits.
    """
    if any(name.startswith("model.pixel_level_module.") for name in arrays):
        return "huggingface"
    if any(name.removeprefix(tao.PREFIX).startswith(HEADS) for name in arrays):
        return "tao" if tao.is_tao(arrays) else "shi"
    if PATCHES in arrays:
        return "timm" if timm.is_newer(arrays) else "swin"
    names = list(arrays)
    raise CheckpointError(
        f"weights from no known source: {len(names)} arrays, the first ones {', '.join(names[:8]) or '(none)'}",
        where=where,
        hint="known sources are OneFormer with a Swin backbone (SHI-Labs, NVIDIA TAO, Hugging Face) and Swin "
        "transformers (Microsoft, timm)",
    )


def convert(source: Source, kind: Kind | Literal["auto"] = "auto", num_heads: int | None = None) -> Converted:
    """Parameters and architecture of a source, of a kind that is recognised from its names unless it is given.

    `num_heads` are the attention heads of the decoders (see `infer_architecture`). Parts for training alone may be
    absent; a backbone lacks the norms of its stages' outputs. Raises CheckpointError where the architecture cannot be
    read and ConversionError for names that are missing or unexpected and shapes that do not fit.
    """
    where = source.location
    kind = identify(source.arrays, where=where) if kind == "auto" else kind
    arrays = huggingface.published_names(source.arrays) if kind == "huggingface" else source.arrays
    carried = carry_over(arrays, _rules_for(kind, arrays))
    found = Shapes(carried.shapes, where)
    config: OneFormerConfig | SwinConfig
    if kind in ("swin", "timm"):
        config = infer_swin(found)
    else:
        pad = tao.TASK_PAD_ID if kind == "tao" else 0
        config = infer_architecture(found, hf_config=source.config, num_heads=num_heads, task_pad_id=pad)
    optional = swin.OUTPUT_NORMS if isinstance(config, SwinConfig) else TRAINING_ONLY
    params, report = carried.fit(_template(config, where), optional=optional, where=where)
    return Converted(kind, config, params, report)


def _template(config: OneFormerConfig | SwinConfig, where: str) -> Params:
    try:
        if isinstance(config, SwinConfig):
            return swin.backbone_template(config)
        return shapes(config)
    except (TypeError, ValueError) as error:  # such as heads that do not divide a width
        message = f"no model has the architecture that the shapes imply: {str(error).splitlines()[0]}"
        raise CheckpointError(f"{message} ({config})", where=where) from error


def _rules_for(kind: Kind, names: Iterable[str]) -> Sequence[Rule]:
    match kind:
        case "shi":
            return shi_labs.RULES
        case "tao":
            return tao.rules_for(names)
        case "huggingface":
            return huggingface.RULES
        case "swin":
            return swin.RULES
        case "timm":
            return timm.rules_for(names)
