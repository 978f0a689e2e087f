"""Agreement between the keys of the chosen backbone."""

from collections.abc import Iterator, Sequence

from oneformer_jax.app.spec.backbone_keys import PATCH_OF_RADIO, SECTIONS, TRANSFORMERS, Backbone, DiNAT, Radio, Swin
from oneformer_jax.app.spec.field import plain
from oneformer_jax.app.spec.source import describe

Finding = tuple[str, tuple[str, ...]]
"""What is wrong, and the keys involved."""

LARGEST_WINDOW = 128  # pixels a side
LARGEST_REACH = 4096  # pixels of a side of a neighbourhood, dilated
MOST_LAYERS = 200
LARGEST_TABLE = 16384  # pixels of a side of the image that it is made for
MOST_TOKENS = 1024  # in front of the patches


def backbone_disagreements(backbone: Backbone) -> Iterator[Finding]:
    """Contradictions in the section of the backbone that the name chooses, and blocks that are too many."""
    section = SECTIONS.get(backbone.name)
    if section == "swin":
        yield from _swin(backbone.swin)
        yield from _widths(f"model.backbone.{section}", backbone.swin.embed_dim, backbone.swin.num_heads)
    if section == "dinat":
        yield from _dinat(backbone.dinat)
        yield from _widths(f"model.backbone.{section}", backbone.dinat.embed_dim, backbone.dinat.num_heads)
    if section == "radio":
        yield from _radio(backbone.radio)
    elif section:
        yield from _blocks(f"model.backbone.{section}.depths", getattr(backbone, section).depths)


def layers_disagreement(path: str, count: int) -> Iterator[Finding]:
    """Where the number of layers at `path` is too large."""
    if count > MOST_LAYERS:
        yield f"{path}: {count} layers, each of which is compiled; give at most {MOST_LAYERS}", (path,)


def _blocks(path: str, depths: Sequence[int]) -> Iterator[Finding]:
    yield from layers_disagreement(path, sum(depths))


def _swin(swin: Swin) -> Iterator[Finding]:
    section = "model.backbone.swin"
    if swin.window_size > LARGEST_WINDOW:
        path = f"{section}.window_size"
        pairs = f"attention compares {swin.window_size}^4 pairs of pixels in each window"
        yield f"{path} is {swin.window_size}: {pairs}; give at most {LARGEST_WINDOW}", (path,)


def _dinat(dinat: DiNAT) -> Iterator[Finding]:
    section = "model.backbone.dinat"
    paths = (f"{section}.kernel_size", f"{section}.dilations", f"{section}.depths")
    if dinat.kernel_size % 2 == 0 or dinat.kernel_size < 3:
        yield f"{paths[0]} is {dinat.kernel_size}: give an odd number from 3", paths[:1]
    if dinat.dilations is None:
        return
    if tuple(map(len, dinat.dilations)) != dinat.depths:
        lists = f"four lists of {', '.join(map(str, dinat.depths))} numbers"
        yield f"{paths[1]}: found {describe(plain(dinat.dilations))}, expected {lists}, one for each block", paths[1:]
    largest = dinat.kernel_size * max((max(stage, default=1) for stage in dinat.dilations), default=1)
    if largest > LARGEST_REACH:
        yield f"{paths[1]}: neighbourhoods of {largest} pixels a side; {LARGEST_REACH} are the most", paths[:2]


def _radio(radio: Radio) -> Iterator[Finding]:
    section = "model.backbone.radio"
    if radio.backbone not in TRANSFORMERS:  # said of the key itself
        return
    transformer, size, side = radio.transformer, f"{section}.cpe_max_size", radio.cpe_max_size
    if transformer.embed_dim % transformer.num_heads or transformer.embed_dim % 2:
        paths = (f"{section}.embed_dim", f"{section}.num_heads")
        yield (
            f"{paths[0]}: {transformer.embed_dim} channels, expected a multiple of 2 and of {transformer.num_heads}",
            paths,
        )
    if side % PATCH_OF_RADIO or side > LARGEST_TABLE:
        yield f"{size} is {side}: give a multiple of {PATCH_OF_RADIO} up to {LARGEST_TABLE}", (size,)
    if not 0 < radio.tokens <= MOST_TOKENS:
        paths = (f"{section}.num_teacher", f"{section}.register_multiple")
        yield f"{paths[0]}: {radio.tokens} tokens in front of the patches, expected 1 to {MOST_TOKENS}", paths
    yield from layers_disagreement(f"{section}.depth", transformer.depth)


def _widths(section: str, embed_dim: int, num_heads: Sequence[int]) -> Iterator[Finding]:
    for stage, heads in enumerate(num_heads):
        width = embed_dim * 2**stage
        if width % heads:
            paths = (f"{section}.num_heads", f"{section}.embed_dim")
            yield f"{paths[0]}: stage {stage} has {width} channels, not divisible by {heads} heads", paths
