"""The section `dataset`: where the images lie, how they are augmented and which tasks are drawn."""

from functools import partial
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from oneformer_jax.app.spec.field import (
    Paths,
    Probability,
    SearchRange,
    Section,
    key,
    location_key,
    own_key,
    path_list,
    section,
)
from oneformer_jax.data import PIXEL_MEAN, PIXEL_STD
from oneformer_jax.data.datasets import Format, OnBad
from oneformer_jax.data.storage.addresses import PREPARED

Color = tuple[float, float, float]
"""R, G, B."""

_test_size = partial(
    key,
    minimum=32,
    maximum=float("inf"),
    automl=True,
    unsearched="it changes the size at which images are scored, so scores would not be comparable",
    tao="metrics are computed at this size",
)


class Split(Section):
    """`dataset.train`, `dataset.val`, `dataset.test`"""

    batch_size: int = key(1, "batch size", "Images per batch.", minimum=1, math_cond=">0", maximum=float("inf"))
    num_workers: int = key(
        1, "Number of workers", "Number of workers that load images.", minimum=0, maximum=float("inf")
    )
    images: Paths = location_key(
        "",
        "image root",
        "Folder, archive or address (URL) of the images, or tfds:// followed by a folder of prepared data; a list"
        " has one entry for each annotation file.",
    )
    annotations: Paths = location_key(
        "", "annotation root", "COCO panoptic or instances file (JSON), or a list of such files."
    )
    panoptic: Paths = location_key(
        "",
        "panoptic root",
        "Folder, archive or address (URL) of the panoptic PNGs; empty for COCO instances; a list as for images.",
    )
    names: tuple[str, ...] = own_key(
        (),
        "data set names",
        "Names of the data sets in the metrics when there are several; default: derived from their files.",
        tao="read, but not in the schema",
    )

    @property
    def has_data(self) -> bool:
        """Whether it says where annotated images are."""
        is_prepared = any(path.startswith(PREPARED) for path in path_list(self.images))
        return bool(self.annotations) or is_prepared or self.has_masks

    @property
    def has_masks(self) -> bool:
        """Whether there are images with masks of classes, which need no annotations."""
        return not self.annotations and any(path_list(self.images)) and any(path_list(self.panoptic))


class Augmentation(Section):
    """`dataset.augmentation`"""

    train_min_size: tuple[PositiveInt, ...] = key(
        (800,),
        "Train min size",
        "Short sides in pixels, one of which is drawn for each training image before the crop. Takes effect only "
        "when this key or train_max_size is changed, and then replaces min_scale and max_scale.",
        tao="ignored",
    )
    train_max_size: int = key(
        1333,
        "Train max size",
        "Largest long side in pixels of a training image before the crop. Takes effect together with train_min_size.",
        minimum=32,
        maximum=float("inf"),
        automl=True,
        search=SearchRange(800, 2048),
        unsearched="it takes effect only with train_min_size, and setting it changes how training images are scaled",
        tao="ignored",
    )
    train_crop_size: tuple[PositiveInt, PositiveInt] = key(
        (1024, 1024),
        "Train crop size",
        "Size of the training crop as [height, width] in pixels, rounded up to multiples of 32.",
    )
    test_min_size: int = _test_size(
        800,
        "Test min size",
        "Short side in pixels to which an image is resized for evaluation.",
        search=SearchRange(480, 1024),
    )
    test_max_size: int = _test_size(
        1333, "Test max size", "Largest long side in pixels of an image in evaluation.", search=SearchRange(1024, 2048)
    )
    test_geometry: Literal["auto", "short_edge", "square", "letterbox"] = own_key(
        "auto",
        "Test geometry",
        "How images are resized for evaluation. short_edge: the aspect ratio is kept; square: images are "
        "stretched to dataset.image_size first; letterbox: images are fitted into dataset.image_size, keeping "
        "their aspect ratio, as exported models do; auto: square if dataset.image_size is changed, otherwise "
        "short_edge.",
    )
    flip_prob: Probability = own_key(0.5, "flip probability", "Probability of a horizontal flip.")
    color_prob: Probability = own_key(1.0, "colour probability", "Probability of colour jitter.")
    rotation_prob: Probability = own_key(0.0, "rotation probability", "Probability of a small rotation.")
    blur_prob: Probability = own_key(0.0, "blur probability", "Probability of a Gaussian blur.")
    erasing_prob: Probability = own_key(0.0, "erasing probability", "Probability that a rectangle is erased.")
    crop_max_area: Probability = own_key(
        0.6, "crop max area", "A crop is drawn again if one segment covers more than this share of it."
    )


class TaskProbabilities(Section):
    """Probabilities of the tasks. They are normalised, and a task that is not named has probability 0."""

    semantic: NonNegativeFloat = key(0.0, "semantic", "Probability of the semantic task.")
    instance: NonNegativeFloat = key(0.0, "instance", "Probability of the instance task.")
    panoptic: NonNegativeFloat = location_key(0.0, "panoptic", "Probability of the panoptic task.")


PUBLISHED_PROBABILITIES = TaskProbabilities(semantic=0.33, instance=0.66, panoptic=0.01)


class QuantCalibrationDataset(Section):
    """`dataset.quant_calibration_dataset`"""

    images_dir: str = location_key(
        "",
        "images directory",
        "Folder, archive or address (URL) of the images with which quantize calibrates static_ptq; all of them "
        "are used.",
        tao="only the first batch is used",
    )


class Dataset(Section):
    """`dataset`"""

    train: Split = section(Split, "Training data.")
    val: Split = section(Split, "Validation data.")
    test: Split = section(Split, "Evaluation data.")
    workers: int = key(
        8,
        "workers",
        "Number of workers for the splits whose num_workers is not changed. Takes effect only when changed.",
        minimum=1,
        maximum=float("inf"),
        tao="ignored",
    )
    pin_memory: bool = key(
        True,
        "pin_memory",
        "Page-locked host memory.",
        honoured=False,
        note="the runtime manages transfer buffers",
    )
    pixel_mean: Color = key(PIXEL_MEAN, "input mean per pixel", "Mean of R, G and B on the 0..255 scale.")
    pixel_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = key(
        PIXEL_STD,
        "input std per pixel",
        "Standard deviation of R, G and B on the 0..255 scale.",
    )
    augmentation: Augmentation = section(Augmentation, "Image sizes and random augmentation.")
    contiguous_id: bool = key(
        True,
        "contiguous id",
        "Number the classes by the position of their category in the file; false: the category ids, which must be"
        " 0..K-1, are the class indices.",
        tao="false shifts the names of 1-based ids and makes every class a thing",
    )
    on_bad_annotation: OnBad = own_key(
        "drop",
        "on bad annotation",
        "What becomes of annotations of an instance file from which nothing can be learned: those with a box and no "
        "mask, without a mask, and polygons of fewer than three points. drop: they are left out, with a count of each "
        "kind; refuse: the run stops before its first step.",
    )
    label_map: str | dict[Literal[Format, "*"], str] = location_key(
        "",
        "label map",
        "JSON file with a list of categories (names, colours, things), or a mapping with one file per annotation "
        "format and * for the others.",
    )

    @field_validator("label_map", mode="before")
    @classmethod
    def _by_format(cls, value: Any) -> Any:
        """TAO's page writes two files as one text, `coco_panoptic: "FOLDER/a.json; *: b.json"`: b is in FOLDER, too."""
        if not isinstance(value, dict):
            return value
        read: dict[Any, Any] = {}
        for name, files in value.items():
            first, *others = files.split(";") if isinstance(files, str) else [files]
            read[name] = first
            for other in others:
                pattern, colon, file = other.partition(":")
                if not colon or not file.strip():
                    raise ValueError(f"{other.strip()!r} after a semicolon, expected FORMAT: FILE")
                folder = first.rpartition("/")[0]
                read[pattern.strip()] = file.strip() if "/" in file or not folder else f"{folder}/{file.strip()}"
        return read

    task_prob_train: TaskProbabilities = key(
        PUBLISHED_PROBABILITIES,
        "task probabilities",
        "Probabilities of the tasks in training; a task that is not listed has probability 0.",
        tao="panoptic is ignored: it gets 1 minus the others",
    )
    task_prob_val: TaskProbabilities = key(
        PUBLISHED_PROBABILITIES,
        "task probabilities",
        "Tasks that are validated during training: those with a probability above 0 among the tasks that "
        "model.test enables. Every task is scored on every image; no task is drawn at random.",
        tao="panoptic is ignored: it gets 1 minus the others; the draws are not seeded",
    )
    task_seq_len: PositiveInt = key(77, "task sequence length", "Number of tokens of the task text.")
    max_seq_len: PositiveInt = key(77, "maximum sequence length", "Number of tokens of a prompt.")
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = key(
        1024,
        "image size",
        "Side of the square, or [width, height], to which images are stretched for evaluation before "
        "test_min_size and test_max_size apply. Takes effect only when changed; see augmentation.test_geometry.",
        tao="images are stretched to it for evaluation, losing their aspect ratio",
    )
    min_scale: PositiveFloat = key(0.1, "minimum scale", "Smallest scale of a training image relative to the crop.")
    max_scale: PositiveFloat = key(2.0, "maximum scale", "Largest scale of a training image relative to the crop.")
    cutmix_prob: Probability = key(
        0.0,
        "cutmix probability",
        "Probability of CutMix: a rectangle of a training image is replaced by that of another image, along with "
        "its segments and prompts.",
        tao="ignored: looked up under dataset.augmentation",
    )
    quant_calibration_dataset: QuantCalibrationDataset = section(QuantCalibrationDataset, "Calibration data.")
