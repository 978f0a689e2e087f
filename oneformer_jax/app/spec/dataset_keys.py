"""The section `dataset`: where the images lie, how they are augmented and which tasks are drawn."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from oneformer_jax.app.spec.field import Paths, Probability, SearchRange, Section, key, section
from oneformer_jax.data import PIXEL_MEAN, PIXEL_STD
from oneformer_jax.data.datasets import Format

Color = tuple[float, float, float]
"""What annotation files are written in, as their content tells."""
MEASURED = "it changes the size at which scores are taken, and so the scale itself"


class Split(Section):
    """`dataset.train`, `dataset.val`, `dataset.test`"""

    batch_size: int = key(1, "batch size", "Images of a batch.", minimum=1, math_cond=">0", maximum=float("inf"))
    num_workers: int = key(1, "Number of workers", "Workers that load images.", minimum=0, maximum=float("inf"))
    images: Paths = key(
        "",
        "image root",
        "Folder, archive or address of the images, or tfds:// and a folder of prepared data; a list: one for each "
        "annotation file.",
    )
    annotations: Paths = key("", "annotation root", "COCO panoptic or instances file (JSON), or a list of such files.")
    panoptic: Paths = key(
        "",
        "panoptic root",
        "Folder, archive or address of the panoptic PNGs, empty for COCO instances; a list: as images.",
    )
    names: tuple[str, ...] = key(
        (),
        "data set names",
        "Names of several data sets in the metrics; default: from their files.",
        extension=True,
        tao="read, but not in the schema",
    )


class Augmentation(Section):
    """`dataset.augmentation`"""

    train_min_size: tuple[PositiveInt, ...] = key(
        (800,),
        "Train min size",
        "Short sides, one of which a training image gets before the crop. Counts only when it or train_max_size is "
        "changed: then in place of min_scale and max_scale.",
        tao="ignored",
    )
    train_max_size: int = key(
        1333,
        "Train max size",
        "Longest side of a training image before the crop. Counts together with train_min_size.",
        minimum=32,
        maximum=float("inf"),
        automl=True,
        search=SearchRange(800, 2048),
        unsearched="it counts with train_min_size only, and setting it changes what a training image is scaled by",
        tao="ignored",
    )
    train_crop_size: tuple[PositiveInt, PositiveInt] = key(
        (1024, 1024),
        "Train crop size",
        "Training crop as [height, width], rounded up to multiples of 32.",
    )
    test_min_size: int = key(
        800,
        "Test min size",
        "Short side of an evaluated image.",
        minimum=32,
        maximum=float("inf"),
        automl=True,
        search=SearchRange(480, 1024),
        unsearched=MEASURED,
        tao="metrics are computed at this size",
    )
    test_max_size: int = key(
        1333,
        "Test max size",
        "Longest side of an evaluated image.",
        minimum=32,
        maximum=float("inf"),
        automl=True,
        search=SearchRange(1024, 2048),
        unsearched=MEASURED,
        tao="metrics are computed at this size",
    )
    test_geometry: Literal["auto", "short_edge", "square", "letterbox"] = key(
        "auto",
        "Test geometry",
        "short_edge: an evaluated image keeps its aspect ratio; square: it is squeezed into dataset.image_size first; "
        "letterbox: it is fitted into dataset.image_size, as exported models do; auto: square where dataset.image_size "
        "is changed.",
        extension=True,
    )
    flip_prob: Probability = key(0.5, "flip probability", "Chance of a horizontal flip.", extension=True)
    color_prob: Probability = key(
        1.0, "colour probability", "Chance that the colour jitter is applied.", extension=True
    )
    rotation_prob: Probability = key(0.0, "rotation probability", "Chance of a small rotation.", extension=True)
    blur_prob: Probability = key(0.0, "blur probability", "Chance of a Gaussian blur.", extension=True)
    erasing_prob: Probability = key(0.0, "erasing probability", "Chance of an erased rectangle.", extension=True)
    crop_max_area: Probability = key(
        0.6,
        "crop max area",
        "A crop is redrawn while one segment covers more than this share.",
        extension=True,
    )


class TaskProbabilities(Section):
    """Chances of the tasks; they are normalised, and a task that is not named has none."""

    semantic: NonNegativeFloat = key(0.0, "semantic", "Chance of the semantic task.")
    instance: NonNegativeFloat = key(0.0, "instance", "Chance of the instance task.")
    panoptic: NonNegativeFloat = key(0.0, "panoptic", "Chance of the panoptic task.")


PUBLISHED_CHANCES = TaskProbabilities(semantic=0.33, instance=0.66, panoptic=0.01)


class QuantCalibrationDataset(Section):
    """`dataset.quant_calibration_dataset`"""

    images_dir: str = key(
        "",
        "images directory",
        "Folder, archive or address of the images that quantize calibrates static_ptq with; all are read.",
        tao="the first batch alone",
    )


class Dataset(Section):
    """`dataset`"""

    train: Split = section(Split, "Training data.")
    val: Split = section(Split, "Validation data.")
    test: Split = section(Split, "Evaluation data.")
    workers: int = key(
        8,
        "workers",
        "Workers of the splits whose num_workers is not changed. Counts only when changed.",
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
    pixel_mean: Color = key(PIXEL_MEAN, "input mean per pixel", "Mean of R, G, B on 0..255.")
    pixel_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = key(
        PIXEL_STD,
        "input std per pixel",
        "Standard deviation of R, G, B on 0..255.",
    )
    augmentation: Augmentation = section(Augmentation, "Image sizes and random changes.")
    contiguous_id: bool = key(
        True,
        "contiguous id",
        "Classes count categories in file order; false: category ids are 0..K-1 themselves.",
        tao="false shifts the names of 1-based ids and makes every class a thing",
    )
    label_map: str | dict[Literal[Format, "*"], str] = key(
        "",
        "label map",
        "JSON list of categories: names, colours, things; a mapping: one for each format of annotations, * for others.",
    )
    task_prob_train: TaskProbabilities = key(
        PUBLISHED_CHANCES,
        "task probabilities",
        "Chances of the tasks in training; a task not named has none.",
        tao="panoptic is ignored: it gets what the others leave of 1",
    )
    task_prob_val: TaskProbabilities = key(
        PUBLISHED_CHANCES,
        "task probabilities",
        "Tasks that a training validates: those with a chance, of those that model.test switches on. Each is scored "
        "on every image, nothing is drawn.",
        tao="panoptic is ignored: it gets what the others leave of 1; draws are not seeded",
    )
    task_seq_len: PositiveInt = key(77, "task sequence length", "Tokens of the task text.")
    max_seq_len: PositiveInt = key(77, "maximum sequence length", "Tokens of a prompt.")
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = key(
        1024,
        "image size",
        "Side of the square, or [width, height], that an evaluated image is squeezed into before test_min_size and "
        "test_max_size. Counts only when changed; see augmentation.test_geometry.",
        tao="an evaluated image is squeezed into it, aspect ratio lost",
    )
    min_scale: PositiveFloat = key(0.1, "minimum scale", "Least scale of the training image, relative to the crop.")
    max_scale: PositiveFloat = key(2.0, "maximum scale", "Largest scale of the training image, relative to the crop.")
    cutmix_prob: Probability = key(
        0.0,
        "cutmix probability",
        "Chance that a rectangle of a training image is replaced by that of another, segments and prompts included.",
        tao="ignored: looked up under dataset.augmentation",
    )
    quant_calibration_dataset: QuantCalibrationDataset = section(QuantCalibrationDataset, "Calibration data.")
