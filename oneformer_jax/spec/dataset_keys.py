"""The section `dataset`: where the images lie, how they are augmented and which tasks are drawn."""

from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from oneformer_jax.spec.field import Paths, Probability, Section, key, section

LISTS = "a list of data sets is not read yet; give one path"
Color = tuple[float, float, float]


def _is_one(value: Any) -> bool:
    return isinstance(value, str)


class Split(Section):
    """`dataset.train`, `dataset.val`, `dataset.test`"""

    batch_size: int = key(1, "batch size", "Images of a batch.", minimum=1, math_cond=">0", maximum=float("inf"))
    num_workers: int = key(1, "Number of workers", "Workers that load images.", minimum=0, maximum=float("inf"))
    images: Paths = key("", "image root", "Folder of the images.", honoured=_is_one, note=LISTS)
    annotations: Paths = key(
        "",
        "annotation root",
        "COCO panoptic annotation file (JSON).",
        honoured=_is_one,
        note=LISTS,
    )
    panoptic: Paths = key("", "panoptic root", "Folder of the panoptic PNGs.", honoured=_is_one, note=LISTS)
    names: tuple[str, ...] = key(
        (),
        "data set names",
        "Names of several data sets in the metrics.",
        extension=True,
        honoured=False,
        note=LISTS,
    )


class Augmentation(Section):
    """`dataset.augmentation`"""

    train_min_size: tuple[PositiveInt, ...] = key(
        (800,),
        "Train min size",
        "Short sides of a training image.",
        honoured=False,
        note="the scale follows min_scale, max_scale and train_crop_size, as in TAO",
    )
    train_max_size: int = key(
        1333,
        "Train max size",
        "Longest side of a training image.",
        minimum=32,
        maximum=float("inf"),
        automl=True,
        honoured=False,
        note="the scale follows min_scale, max_scale and train_crop_size, as in TAO",
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
    )
    test_max_size: int = key(
        1333,
        "Test max size",
        "Longest side of an evaluated image.",
        minimum=32,
        maximum=float("inf"),
        automl=True,
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
        "Folder of the calibration images.",
        honoured=False,
        note="quantize is not there yet",
    )


class Dataset(Section):
    """`dataset`"""

    train: Split = section(Split, "Training data.")
    val: Split = section(Split, "Validation data.")
    test: Split = section(Split, "Evaluation data.")
    workers: int = key(
        8,
        "workers",
        "Workers of all loaders.",
        minimum=1,
        maximum=float("inf"),
        honoured=False,
        note="each split has its num_workers",
    )
    pin_memory: bool = key(
        True,
        "pin_memory",
        "Page-locked host memory.",
        honoured=False,
        note="the runtime manages transfer buffers",
    )
    pixel_mean: Color = key((123.675, 116.28, 103.53), "input mean per pixel", "Mean of R, G, B on 0..255.")
    pixel_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = key(
        (58.395, 57.12, 57.375),
        "input std per pixel",
        "Standard deviation of R, G, B on 0..255.",
    )
    augmentation: Augmentation = section(Augmentation, "Image sizes and random changes.")
    contiguous_id: bool = key(
        True,
        "contiguous id",
        "Classes count categories in file order; false: category ids are 0..K-1 themselves.",
    )
    label_map: str = key("", "label map", "JSON list of categories: names, colours, things.")
    task_prob_train: TaskProbabilities = key(
        PUBLISHED_CHANCES,
        "task probabilities",
        "Chances of the tasks in training; a task not named has none.",
    )
    task_prob_val: TaskProbabilities = key(
        PUBLISHED_CHANCES,
        "task probabilities",
        "Chances of the tasks in validation.",
        honoured=False,
        note="validation scores each task that is switched on; nothing is drawn",
    )
    task_seq_len: PositiveInt = key(77, "task sequence length", "Tokens of the task text.")
    max_seq_len: PositiveInt = key(77, "maximum sequence length", "Tokens of a prompt.")
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = key(
        1024,
        "image size",
        "Side of the square, or [width, height], that an evaluated image is squeezed into.",
        honoured=False,
        note="evaluation keeps the aspect ratio (test_min_size, test_max_size)",
    )
    min_scale: PositiveFloat = key(0.1, "minimum scale", "Least scale of the training image, relative to the crop.")
    max_scale: PositiveFloat = key(2.0, "maximum scale", "Largest scale of the training image, relative to the crop.")
    cutmix_prob: Probability = key(
        0.0,
        "cutmix probability",
        "Chance of CutMix.",
        honoured=False,
        note="CutMix is not there yet",
    )
    quant_calibration_dataset: QuantCalibrationDataset = section(QuantCalibrationDataset, "Calibration data.")
