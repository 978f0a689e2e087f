"""docs/model-zoo.md: the published checkpoints, how each is fetched and evaluated, and what it costs."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.command import RESULTS
from benchmarks.zoo.costs import FILE
from benchmarks.zoo.specs import conversion
from benchmarks.zoo.table import BACKBONES, DATA, ENTRIES, Entry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model-zoo.md"
TIMED = "inference-swin_l-640-b1-cpu"

PUBLISHED = """# Published checkpoints

Every checkpoint of OneFormer that SHI-Labs, Hugging Face and NVIDIA have published, as far as we know. `python -m
benchmarks.zoo page` generates this page, and `python -m benchmarks.zoo specs` the specs, from one table
([benchmarks/zoo/table.py](../benchmarks/zoo/table.py)).

## What is published

PQ, AP and mIoU are those that the README of [SHI-Labs/OneFormer](https://github.com/SHI-Labs/OneFormer) states for a
single scale, in percent; a dash: none is stated. No published file was at hand, so none was scored here. For Swin-T,
for the two ConvNeXt on Mapillary Vistas from which those on Cityscapes started, and for NVIDIA's files we know of no
published scores.

Edges are the short and the longest one of an evaluated picture. Thresholds are `object_mask_threshold`,
`overlap_threshold` and `test_topk_per_image` of `model.test`; a converted checkpoint of SHI-Labs or Hugging Face has
0.8, 0.8 and 150 until a spec says otherwise, as those below do. The licence MIT is stated on Hugging Face, and
elsewhere for the repository of the code.

NVIDIA's files are named as NGC listed them in July 2026, and were not opened: architecture, classes and thresholds are
those of the specs in NVIDIA's repository. All pictures are stretched to 1024x1024 there before they are resized. Which
attention its DiNAT was trained with is not published; without NATTEN, which TAO's containers do not name, it is
`zero_padded`.
"""
USED = """
## How to evaluate one

```
python cli.py convert WORDS                                  # fetches the file and converts it: the words are below
python cli.py evaluate --spec configs/published/SPEC.yaml    # of the same name
```

Each spec says at its top where its data comes from. Addresses need `pip install -e '.[remote]'`; what NGC has is
fetched before, by `ngc registry model download-version nvidia/tao/oneformer:VERSION`, or from
`oneformer_its_pretrained_commercial` for traffic. In Python `oneformer_jax.from_pretrained("shi-labs/NAME")` opens what
is on Hugging Face in one call.

All three scores are taken of the panoptic annotations. So are the published ones on COCO; on ADE20K and Cityscapes
their mIoU and AP are, and on Mapillary Vistas their mIoU is, of the annotations that these data sets have besides.

Weights of a DiNAT do not hold its dilations. Those of SHI-Labs' files are known by their exact names
([converters/published.py](../converters/published.py)) and those of Hugging Face's by their `config.json`; a file of
another name is refused until `--backbone` tells them. SHA-256 sums are not in that table: they could only be taken of
the files themselves.
"""
COSTS = """
## What they cost

Modelled, not measured: parameters of inference; operations of the matrix products and convolutions of one picture and
one task, of which a multiplication and an addition are two; and the memory that XLA plans for the compiled program on a
CPU, in float32, beside the picture's own post-processing: weights, input and logits, and working memory. The picture
has the usual size of its data set (ADE20K 512x683, COCO 480x640, Cityscapes 1024x2048, Mapillary 2448x3264, traffic
1080x1920), resized as its spec says and padded to multiples of 32. Those of DiNAT's attention are counted as they are
made, with all keys of a tile. `python -m benchmarks.zoo costs` computes all this; `oneformer inspect model --spec SPEC`
prints what a training step needs, too.

Seconds are modelled, too: operations at the {rate:.0f} GFLOP/s that Swin-L reaches at 640x640 on 2 cores of an EPYC.
Other backbones reach other rates. [benchmarks.md](benchmarks.md) has what was measured: Swin-L and Swin-T.
"""


def write() -> None:
    """Writes the page."""
    PAGE.write_text(content())


def content() -> str:
    """The page as Markdown."""
    return "\n".join([PUBLISHED, *_published(), USED, *_used(), COSTS.format(rate=_rate()), *_costs(), ""])


def _published() -> Iterator[str]:
    yield "| Data set | Backbone | File | Licence | Queries | Edges | Thresholds | PQ | AP | mIoU |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for entry in ENTRIES:
        scores = " | ".join("-" if score is None else f"{score:.1f}" for score in entry.scores)
        thresholds = " / ".join(map(str, vars(entry.thresholds).values()))
        edges = " / ".join(map(str, entry.edges))
        cells = (
            *(DATA[entry.data].title, BACKBONES[entry.backbone].title, _link(entry)),
            *(entry.licence, entry.queries, edges, thresholds, scores),
        )
        yield f"| {' | '.join(map(str, cells))} |"


def _link(entry: Entry) -> str:
    if entry.version:
        return f"NGC: `{entry.version}`, `{entry.file}`"
    address = entry.address or f"https://huggingface.co/{entry.hub}"
    return f"[{entry.file}]({address})"


def _used() -> Iterator[str]:
    yield "| Spec | Words of `convert` |"
    yield "| --- | --- |"
    for entry in ENTRIES:
        yield f"| [{entry.stem}](../configs/published/{entry.stem}.yaml) | `{conversion(entry)}` |"


def _rate() -> float:
    """GFLOP a second of Swin-L at 640x640, as measured."""
    measured: dict[str, Any] = json.loads((RESULTS / f"{TIMED}.json").read_text())
    rate: float = measured["model_gflop"] / statistics.median(measured["this_project"]["times_ms"]) * 1000
    return rate


def _costs() -> Iterator[str]:
    costs: dict[str, dict[str, Any]] = json.loads(FILE.read_text())["costs"]
    yield "| Checkpoint | Input | Parameters, M | GFLOP | Weights, MiB | All memory, MiB | Seconds on 2 cores |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for entry in ENTRIES:
        cost = costs[entry.stem]
        memory, gflop = cost["memory_mib"], cost["gflop"]
        cells = (
            *(f"`{entry.stem}`", "x".join(map(str, cost["size"])), cost["parameters_m"], f"{gflop:,.0f}"),
            *(memory["parameters"], f"{sum(memory.values()):,}", f"{gflop / _rate():.1f}"),
        )
        yield f"| {' | '.join(map(str, cells))} |"
