"""Which code base a state dict comes from, and its bare names: training tools put others before them.

Lightning adds `model.`, DistributedDataParallel `module.`, torch.compile `_orig_mod.`; a backbone may lie under
`backbone.` or `encoder.` of a larger model. What stands before the names that only one code base has is left out.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from converters.names import convnext, dinat, huggingface, original, radio, swin
from converters.rules import Rule, StateDict
from oneformer_jax.errors import CheckpointError

Kind = Literal["shi", "tao", "huggingface", "swin", "timm", "convnext", "dinat", "radio"]

# A name that only these have, after any prefix; the first that is found decides, for a model contains a backbone.
_SIGNS: list[tuple[str, tuple[Kind, ...], bool]] = [
    (r"(.*?)model\.pixel_level_module\..*", ("huggingface",), False),
    (r"(.*?)sem_seg_head\.predictor\..*", ("shi", "tao"), False),
    (r"(.*?)(?:swin\.)?embeddings\.patch_embeddings\.projection\.weight", ("huggingface",), True),
    (r"(.*?)radio\.radio\.model\.patch_generator\.embedder\.weight", ("radio",), True),
    (r"(.*?)patch_generator\.embedder\.weight", ("radio",), True),
    (r"(.*?)embeddings\.patch_projection\.weight", ("radio",), True),
    (r"(.*?)downsample_layers\.0\.0\.weight", ("convnext",), True),
    (r"(.*?)patch_embed\.proj\.0\.weight", ("dinat",), True),
    (r"(.*?)patch_embed\.proj\.weight", ("swin", "timm"), True),
]
_OF_ONE: dict[Kind, list[Rule]] = {"convnext": convnext.RULES, "dinat": dinat.RULES, "radio": radio.RULES}
"""Rules of backbones alone of one kind."""


@dataclass(frozen=True)
class Recognised:
    """A state dict in the bare names of its kind, a whole model or a backbone alone.

    `prefix` was before them; `skipped` are arrays of a larger model around a backbone, with the reason.
    """

    kind: Kind
    arrays: StateDict
    is_backbone: bool
    prefix: str = ""
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def rules(self) -> list[Rule]:
        """The rules for `arrays`."""
        if self.kind == "huggingface":
            kind = huggingface.kind_of_backbone(self.arrays)
            return huggingface.BACKBONES[kind] if self.is_backbone else huggingface.rules_with(kind)
        if self.kind in _OF_ONE:
            return _OF_ONE[self.kind]
        if self.is_backbone:
            return swin.NEWER_TIMM_RULES if swin.is_newer_timm(self.arrays) else swin.RULES
        rules = original.rules_with(original.kind_of_backbone(self.arrays))
        return [*rules, *original.HEAD_OF_TAO] if self.kind == "tao" else rules


def recognise(arrays: StateDict, kind: Kind | Literal["auto"] = "auto", *, where: str = "") -> Recognised:
    """The source of a state dict, by its names, and its arrays by their bare names.

    The original's names without a sign of TAO (`names.original.is_tao`) count as the original's: bare weights of TAO
    that lack the backbone's unused head cannot be distinguished from them, and `kind` must say so. Raises
    CheckpointError: nothing fits (with the first names), several models, names that are not of `kind`.
    """
    found = [(_prefixes(arrays, pattern), kinds, is_backbone) for pattern, kinds, is_backbone in _SIGNS]
    prefixes, kinds, is_backbone = next((sign for sign in found if sign[0]), ([], (), False))
    if not prefixes:
        names = list(arrays)
        raise CheckpointError(
            f"weights from no known source: {len(names)} arrays, the first ones {', '.join(names[:8]) or '(none)'}",
            where=where,
            hint="known sources are OneFormer with a backbone Swin, DiNAT (SHI-Labs, NVIDIA TAO, Hugging Face), "
            "ConvNeXt (SHI-Labs) or RADIO (NVIDIA TAO), and backbones alone: Swin (Microsoft, timm, Hugging Face), "
            "DiNAT (SHI-Labs), ConvNeXt (Meta) and RADIO (NVIDIA, transformers)",
        )
    if len(prefixes) > 1:
        raise CheckpointError(
            f"several models, whose names begin with {' and '.join(prefix or '(nothing)' for prefix in prefixes[:4])}",
            where=where,
            hint="save the state dict of one of them alone",
        )
    prefix = prefixes[0]
    inside = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    outside = {} if is_backbone else {name: array for name, array in arrays.items() if name not in inside}
    bare = {name.removeprefix(prefix): array for name, array in inside.items()}
    clashes = {prefix + name: inside[prefix + name] for name in outside if name in bare}  # these stay, as unexpected
    own = _of(kinds, bare, prefix)
    if kind not in ("auto", *kinds):
        raise CheckpointError(f"the names are those of {own}, not of {kind}", where=where, hint="leave out --kind")
    named: StateDict = bare | outside | clashes
    if kinds == ("huggingface",):
        named = huggingface.published_backbone(named) if is_backbone else huggingface.published_names(named)
    return Recognised(
        own if kind == "auto" else kind,
        named,
        is_backbone,
        prefix,
        {name: f"not under {prefix}" for name in arrays if is_backbone and name not in inside},
    )


def _prefixes(arrays: StateDict, pattern: str) -> list[str]:
    return sorted({match[1] for name in arrays if (match := re.fullmatch(pattern, name))})


def _of(kinds: tuple[Kind, ...], bare: StateDict, prefix: str) -> Kind:
    if "tao" in kinds:
        return "tao" if original.is_tao(bare, prefix) else "shi"
    if "timm" in kinds:
        return "timm" if swin.is_newer_timm(bare) else "swin"
    return kinds[0]
