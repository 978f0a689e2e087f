"""The published checkpoints of OneFormer.

Scores are those of the README of SHI-Labs/OneFormer (commit 4962ef6), at a single scale; sizes, queries and thresholds
those of its configurations. Those of NVIDIA's files are of the specs in tao-pytorch (`cv/oneformer/experiment_specs`).
"""

from typing import Any, NamedTuple

from converters.published import DINAT
from oneformer_jax.data.geometry import Size
from oneformer_jax.postprocess.results import Thresholds

SITE = "https://shi-labs.com/projects/oneformer"
NV_ONEFORMER = "https://huggingface.co/nvidia/NV-OneFormer/resolve/main"


class Files(NamedTuple):
    """Where a validation split lies: images, annotations, masks, and the classes."""

    images: str
    annotations: str
    panoptic: str
    label_map: str


class DataSet(NamedTuple):
    """A data set: the number of its classes, the size of a usual picture, how its files come about, and what names of
    published files say of the length of the training."""

    title: str
    classes: int
    picture: Size
    files: Files
    source: str
    schedule: str = ""


def _imported(folder: str) -> Files:
    return Files(
        f"{folder}/val/images", f"{folder}/val/annotations.json", f"{folder}/val/panoptic", f"{folder}/label_map.json"
    )


COCO, ADE = "data/coco", "data/ADEChallengeData2016"
DATA = {
    "coco": DataSet(
        "COCO",
        133,
        (480, 640),
        Files(
            f"{COCO}/val2017",
            f"{COCO}/annotations/panoptic_val2017.json",
            f"{COCO}/annotations/panoptic_val2017",
            f"{COCO}/annotations/panoptic_val2017.json",
        ),
        "val2017.zip and panoptic_annotations_trainval2017.zip of cocodataset.org, unpacked in data/coco.",
        "100ep",
    ),
    "ade20k": DataSet(
        "ADE20K",
        150,
        (512, 683),
        Files(
            f"{ADE}/images/validation",
            f"{ADE}/ade20k_panoptic_val.json",
            f"{ADE}/ade20k_panoptic_val",
            f"{ADE}/ade20k_panoptic_val.json",
        ),
        "the challenge of 2016 in data/ADEChallengeData2016, with panoptic annotations by\n"
        "# datasets/prepare_ade20k_pan_seg.py of facebookresearch/Mask2Former.",
        "160k",
    ),
    "cityscapes": DataSet(
        "Cityscapes",
        19,
        (1024, 2048),
        _imported("data/cityscapes"),
        "python cli.py import FOLDER data/cityscapes, where FOLDER holds gtFine and leftImg8bit.",
        "90k",
    ),
    "mapillary": DataSet(
        "Mapillary Vistas",
        65,
        (2448, 3264),
        _imported("data/vistas"),
        "python cli.py import FOLDER data/vistas --labels v1.2, where FOLDER is Mapillary Vistas.",
        "300k",
    ),
    "its": DataSet(
        "traffic (NVIDIA's)",
        9,
        (1080, 1920),
        Files("data/its/images", "data/its/annotations.json", "data/its/panoptic", "data/its/label_map.json"),
        "it is not public; your own in data/its, with its nine classes.",
    ),
}


class Backbone(NamedTuple):
    """A backbone: its name in a spec, and the keys of its section that differ from their defaults."""

    title: str
    name: str
    keys: dict[str, Any]


SWIN, CONVNEXT, DINAT_NAME = "D2SwinTransformer", "D2ConvNeXt", "D2DiNAT"
BACKBONES = {
    "swin_t": Backbone(
        "Swin-T", SWIN, {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
    ),
    "swin_l": Backbone("Swin-L", SWIN, {}),
    "swin_l_window7": Backbone("Swin-L, windows of 7", SWIN, {"window_size": 7}),
    "convnext_l": Backbone("ConvNeXt-L", CONVNEXT, {}),
    "convnext_xl": Backbone("ConvNeXt-XL", CONVNEXT, {"dims": [256, 512, 1024, 2048]}),
    "dinat_l": Backbone("DiNAT-L", DINAT_NAME, {"kernel_size": 11}),
    "dinat_l_kernel7": Backbone("DiNAT-L, kernel 7", DINAT_NAME, {"kernel_size": 7}),
}

Scores = tuple[float | None, float | None, float | None]


class Entry(NamedTuple):
    """A file: its data set, its backbone, the short and long edge of evaluated pictures, thresholds, and PQ, AP and
    mIoU in percent.

    `address` is where it is, `hub` a repository of Hugging Face with the same weights, `version` its version on NGC
    where it is there alone. `keys` are more of the backbone's. `squeezed`: pictures are stretched to this square first,
    as TAO does; 0: they are not.
    """

    file: str
    data: str
    backbone: str
    queries: int
    edges: tuple[int, int]
    thresholds: Thresholds
    licence: str
    scores: Scores = (None, None, None)
    address: str = ""
    hub: str = ""
    keys: dict[str, Any] = {}  # noqa: RUF012 - never changed
    squeezed: int = 0
    version: str = ""

    @property
    def stem(self) -> str:
        """The name of its spec and its folder."""
        return self.version or self.file.removesuffix(".pth")

    @property
    def backbone_keys(self) -> dict[str, Any]:
        """Those of the backbone's section."""
        return BACKBONES[self.backbone].keys | self.keys


ON_HUB = {
    ("ade20k", "swin_l"): "shi-labs/oneformer_ade20k_swin_large",
    ("ade20k", "dinat_l"): "shi-labs/oneformer_ade20k_dinat_large",
    ("coco", "swin_l"): "shi-labs/oneformer_coco_swin_large",
    ("coco", "dinat_l"): "shi-labs/oneformer_coco_dinat_large",
    ("cityscapes", "swin_l"): "shi-labs/oneformer_cityscapes_swin_large",
    ("cityscapes", "dinat_l"): "shi-labs/oneformer_cityscapes_dinat_large",
}
"""Repositories of Hugging Face with the same weights as the file whose name begins with the number of queries."""
EDGES = {"coco": (800, 1333), "cityscapes": (1024, 2048), "mapillary": (2048, 2048)}


def _shi(data: str, before: str, backbone: str, *scores: float | None, queries: int = 250, short: int = 0) -> Entry:
    """One of SHI-Labs' files; `before` precedes the number of queries in its name, `short` is an edge on ADE20K."""
    file = f"{before}{queries}_16_{backbone}_oneformer_{data}_{DATA[data].schedule}.pth"
    hub = "" if before else ON_HUB.get((data, backbone), "")
    dilations = {"dilations": [list(stage) for stage in DINAT[file]]} if backbone == "dinat_l" else {}
    kernel7 = data == "cityscapes" and backbone == "dinat_l"
    pq, ap, miou = scores or (None, None, None)
    return Entry(
        file,
        data,
        "dinat_l_kernel7" if kernel7 else backbone,
        queries,
        (short, 4 * short) if short else EDGES[data],
        Thresholds(0.5 if data == "ade20k" else 0.8, 0.8, queries),
        "MIT" if hub else "MIT, of the repository",
        (pq, ap, miou),
        f"{SITE}/{data}/{file}",
        hub,
        dilations,
    )


def _tao(
    file: str, data: str, backbone: str, queries: int, thresholds: Thresholds, licence: str, **fields: Any
) -> Entry:
    """One of NVIDIA's; TAO stretches pictures to a square before it resizes them."""
    return Entry(file, data, backbone, queries, (800, 1333), thresholds, licence, squeezed=1024, **fields)


COCO_DILATIONS = DINAT["150_16_dinat_l_oneformer_coco_100ep.pth"]
RESEARCH = "NVIDIA License, not for commercial use"
ENTRIES = (
    _shi("coco", "", "swin_l", 57.9, 49.0, 67.4, queries=150),
    _shi("coco", "", "dinat_l", 58.0, 49.2, 68.1, queries=150),
    Entry(
        "150_16_swin_t_oneformer_ade20k_160k.pth",
        "ade20k",
        "swin_t",
        150,
        (512, 2048),
        Thresholds(0.5, 0.8, 150),
        "MIT",
        hub="shi-labs/oneformer_ade20k_swin_tiny",
    ),
    _shi("ade20k", "", "swin_l", 49.8, 35.9, 57.0, short=640),
    _shi("ade20k", "896x896_", "swin_l", 51.1, 37.6, 57.4, short=896),
    _shi("ade20k", "1280x1280_", "swin_l", 51.4, 37.8, 57.0, short=1280),
    _shi("ade20k", "", "convnext_l", 50.0, 36.2, 56.6, short=640),
    _shi("ade20k", "", "convnext_xl", 50.1, 36.3, 57.4, short=640),
    _shi("ade20k", "", "dinat_l", 50.5, 36.0, 58.3, short=640),
    _shi("ade20k", "896x896_", "dinat_l", 51.2, 36.8, 58.1, short=896),
    _shi("ade20k", "1280x1280_", "dinat_l", 51.5, 37.1, 58.3, short=1280),
    _shi("ade20k", "coco_pretrain_1280x1280_", "dinat_l", 53.4, 40.2, 58.4, short=1280, queries=150),
    _shi("cityscapes", "", "swin_l", 67.2, 45.6, 83.0),
    _shi("cityscapes", "", "convnext_l", 68.5, 46.5, 83.0),
    _shi("cityscapes", "mapillary_pretrain_", "convnext_l", 70.1, 48.7, 84.6),
    _shi("cityscapes", "", "dinat_l", 67.6, 45.6, 83.1),
    _shi("cityscapes", "", "convnext_xl", 68.4, 46.7, 83.6),
    _shi("cityscapes", "mapillary_pretrain_", "convnext_xl", 69.7, 48.9, 84.5),
    _shi("mapillary", "", "swin_l", 46.7, None, 62.9),
    _shi("mapillary", "", "convnext_l", 47.9, None, 63.2),
    _shi("mapillary", "", "dinat_l", 47.8, None, 64.0),
    _shi("mapillary", "mapillary_pretrain_", "convnext_l"),
    _shi("mapillary", "mapillary_pretrain_", "convnext_xl"),
    _tao(
        "oneformer_pretrained_commercial_dinat_its.pth",
        "its",
        "dinat_l_kernel7",
        150,
        Thresholds(0.4, 0.5, 100),
        "NVIDIA Open Model Agreement",
        address=f"{NV_ONEFORMER}/oneformer_pretrained_commercial_dinat_its.pth",
        keys={"dilations": [list(stage) for stage in COCO_DILATIONS], "attention": "zero_padded"},
    ),
    _tao(
        "its_miou=82.pth",
        "its",
        "swin_l_window7",
        150,
        Thresholds(0.8, 0.5, 100),
        "that of its card",
        version="oneformer_its_swinl_commercial_trainable_v1.0",
    ),
    _tao(
        "oneformer_pretrained_research.pth",
        "coco",
        "swin_l",
        150,
        Thresholds(0.8, 0.5, 100),
        RESEARCH,
        version="oneformer_coco_pretrained_research",
    ),
    _tao(
        "model_epoch_003_step_02528.pth",
        "ade20k",
        "swin_l",
        250,
        Thresholds(0.4, 0.5, 100),
        RESEARCH,
        version="oneformer_ade_pretrained_research_trainable_v1.0",
    ),
)
