"""Agreement between keys, and values that the spec allows but this project does not have."""

from collections.abc import Iterator, Mapping
from typing import Any

from oneformer_jax.app.spec.action_keys import Evaluate, Export, Inference
from oneformer_jax.app.spec.automl_keys import LOSS, Automl
from oneformer_jax.app.spec.dataset_keys import Dataset
from oneformer_jax.app.spec.field import expected, plain
from oneformer_jax.app.spec.model_keys import Model, OneFormer, SemSegHead
from oneformer_jax.app.spec.source import Problem, describe
from oneformer_jax.app.spec.spec import Spec
from oneformer_jax.app.spec.train_keys import Optim, Train
from oneformer_jax.app.spec.tree import leaves
from oneformer_jax.app.spec.validate_backbone import Finding, backbone_disagreements, layers_disagreement
from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.stored import LARGEST, TINIEST

HEAD = "model.sem_seg_head"
TRANSFORMER = "model.one_former"
TEXT = "model.text_encoder"
OPTIM = "train.optim"
GROUPS = 32  # of the pixel decoder's group norm
TEXT_HEAD_WIDTH = 64
LARGEST_RATE = 1e4
MOST_WORKERS = 1024
MOST_DEVICES = 1024  # of one machine
LARGEST_COUNT = 2**31 - 1  # what counts and sizes of arrays are computed in
LARGEST_EDGE = 2**15  # pixels of the short edge of a resized image
AUGMENTATION = "dataset.augmentation"
ALTERNATIVES = (
    (("train.optim.milestones",), ("train.optim.steps",), "when MultiStep decays"),
    (("train.validation_interval",), ("train.val_check_interval",), "how often to validate"),
    (
        (f"{AUGMENTATION}.train_min_size", f"{AUGMENTATION}.train_max_size"),
        ("dataset.min_scale", "dataset.max_scale"),
        "how large a training image is",
    ),
)
"""Two groups of keys that say the same thing, and what: those of one group alone may differ from their defaults."""


def disagreements(spec: Spec) -> list[Problem]:
    """All contradictions within a spec whose keys are fine one by one."""
    model, train = spec.model, spec.train
    found = [
        *_not_available(spec),
        *_magnitudes({leaf.path: plain(spec.value(leaf.path)) for leaf in leaves(Spec)}),
        *_widths(model),
        *backbone_disagreements(model.backbone),
        *_text(model, spec.dataset.max_seq_len),
        *_layers(model),
        *_points(model.one_former),
        *_data(spec.dataset),
        *_edges(spec.dataset),
        *_batch_sizes(spec.evaluate, spec.inference, spec.export),
        *_clipping(train),
        *_seed(train),
        *_updates(train.optim),
        *_said_twice(spec),
        *_ignored_class(model.sem_seg_head),
        *_devices({"train": train, "evaluate": spec.evaluate, "inference": spec.inference}),
        *_search(spec.automl, train.num_epochs),
        *_locations(spec),
    ]
    return [Problem(what, next(filter(None, map(spec.place, paths)), "")) for what, paths in found]


def oddities(spec: Spec) -> Iterator[str]:
    """What TAO accepts and does something else with than it seems to say: what happens, a line for each."""
    if spec.model.backbone.freeze_at < 0:
        yield f"model.backbone.freeze_at is {spec.model.backbone.freeze_at}: nothing is frozen, as with 0"
    smallest, largest = spec.dataset.augmentation.test_min_size, spec.dataset.augmentation.test_max_size
    if smallest > largest:
        yield (
            f"{AUGMENTATION}.test_min_size {smallest} exceeds {AUGMENTATION}.test_max_size {largest}: "
            f"the long side of every image becomes {largest} pixels"
        )


def _locations(spec: Spec) -> Iterator[Finding]:
    for leaf in leaves(Spec):
        if leaf.key.location and r"\x00" in repr(plain(spec.value(leaf.path))):
            yield f"{leaf.path}: contains the character NUL, which no path has", (leaf.path,)
        if leaf.path.rpartition(".")[2] == "results_dir" and is_address(str(spec.value(leaf.path))):
            yield f"{leaf.path}: is an address; results are written to a folder of this machine", (leaf.path,)


def _not_available(spec: Spec) -> Iterator[Finding]:
    for leaf in leaves(Spec):
        value = spec.value(leaf.path)
        if leaf.key.only and value not in leaf.key.only:
            why = f" ({leaf.key.note})" if leaf.key.note else ""
            found = f"{leaf.path}: {describe(plain(value))} is not available{why}; use {expected(leaf.field)}"
            yield found, (leaf.path,)


def _magnitudes(values: Mapping[str, Any]) -> Iterator[Finding]:
    for path, value in values.items():
        for number in value if isinstance(value, list) else [value]:
            what = ""
            if type(number) is int and abs(number) > LARGEST_COUNT and path != "train.seed":
                what = f"found {describe(number)}, expected at most {LARGEST_COUNT}"
            elif type(number) is float and number and not TINIEST <= abs(number) <= LARGEST:
                what = f"found {describe(number)}, expected 0 or a number that float32 holds, of "
                what += f"{TINIEST:.2g} to {LARGEST:.2g} without its sign"
            if what:
                yield f"{path}: {what}", (path,)
                break


def _layers(model: Model) -> Iterator[Finding]:
    counts = {
        f"{HEAD}.transformer_enc_layers": model.sem_seg_head.transformer_enc_layers,
        f"{TEXT}.num_layers": model.text_encoder.num_layers,
        f"{TEXT}.proj_num_layers": model.text_encoder.proj_num_layers,
    }
    counts |= {
        f"{TRANSFORMER}.{name}": getattr(model.one_former, name)
        for name in ("enc_layers", "dec_layers", "class_dec_layers")
    }
    for path, count in counts.items():
        yield from layers_disagreement(path, count)


def _points(former: OneFormer) -> Iterator[Finding]:
    drawn = former.train_num_points * former.oversample_ratio
    if drawn > LARGEST_COUNT:
        paths = (f"{TRANSFORMER}.train_num_points", f"{TRANSFORMER}.oversample_ratio")
        product = f"{paths[0]} {former.train_num_points} times {paths[1]} {former.oversample_ratio:g}"
        yield f"{product} points of each mask: give at most {LARGEST_COUNT}", paths


def _widths(model: Model) -> Iterator[Finding]:
    head, transformer = model.sem_seg_head, model.one_former
    if head.mask_dim != head.convs_dim:
        paths = (f"{HEAD}.mask_dim", f"{HEAD}.convs_dim")
        yield f"{paths[0]} is {head.mask_dim} but {paths[1]} is {head.convs_dim}: they must be equal", paths
    for path, width in ((f"{TRANSFORMER}.hidden_dim", transformer.hidden_dim), (f"{HEAD}.convs_dim", head.convs_dim)):
        if width % transformer.nheads:
            yield f"{path} {width} is not divisible by {TRANSFORMER}.nheads {transformer.nheads}", (path,)
        if width % 4:
            yield f"{path} {width} is not divisible by 4, as the position encoding needs", (path,)
    if head.convs_dim % GROUPS:
        path = f"{HEAD}.convs_dim"
        yield f"{path} {head.convs_dim} is not divisible by {GROUPS}, the groups of its normalisation", (path,)


def _text(model: Model, max_seq_len: int) -> Iterator[Finding]:
    text, transformer = model.text_encoder, model.one_former
    if text.n_ctx > 0 and text.width != transformer.hidden_dim:
        paths = (f"{TEXT}.width", f"{TRANSFORMER}.hidden_dim")
        what = f"{paths[0]} is {text.width} but {paths[1]} is {transformer.hidden_dim}: they must be equal"
        yield f"{what} while n_ctx > 0", paths
    if text.width % max(1, text.width // TEXT_HEAD_WIDTH):
        yield f"{TEXT}.width {text.width} does not divide into heads of {TEXT_HEAD_WIDTH}", (f"{TEXT}.width",)
    if transformer.num_object_queries <= text.n_ctx:
        paths = (f"{TRANSFORMER}.num_object_queries", f"{TEXT}.n_ctx")
        yield f"{paths[0]} is {transformer.num_object_queries}: it must exceed {paths[1]}, {text.n_ctx}", paths
    if text.context_length != max_seq_len:
        paths = (f"{TEXT}.context_length", "dataset.max_seq_len")
        yield f"{paths[0]} is {text.context_length} but {paths[1]} is {max_seq_len}: they must be equal", paths


def _data(data: Dataset) -> Iterator[Finding]:
    counts = {"dataset.workers": data.workers} | {
        f"dataset.{name}.num_workers": getattr(data, name).num_workers for name in ("train", "val", "test")
    }
    for path, count in counts.items():
        if count > MOST_WORKERS:
            yield f"{path} is {count}: each worker is a process, give at most {MOST_WORKERS}", (path,)
    if data.min_scale > data.max_scale:
        paths = ("dataset.min_scale", "dataset.max_scale")
        yield f"{paths[0]} {data.min_scale} exceeds {paths[1]} {data.max_scale}", paths
    for name, chances in (("task_prob_train", data.task_prob_train), ("task_prob_val", data.task_prob_val)):
        if chances.semantic + chances.instance + chances.panoptic <= 0:
            path = f"dataset.{name}"
            yield f"{path}: every task has probability 0, which is also that of a task that is not named", (path,)


def _edges(data: Dataset) -> Iterator[Finding]:
    augmentation, stretched = data.augmentation, data.image_size
    edges: dict[str, float] = {
        f"{AUGMENTATION}.train_min_size": max(augmentation.train_min_size, default=0),
        f"{AUGMENTATION}.test_min_size": min(augmentation.test_min_size, augmentation.test_max_size),
        "dataset.image_size": min(stretched) if isinstance(stretched, tuple) else stretched,
    }
    for path, edge in edges.items():
        if edge > LARGEST_EDGE:
            yield f"{path}: images whose short edge has {edge:.4g} pixels; give at most {LARGEST_EDGE}", (path,)
    edge = augmentation.train_crop_size[0] * data.max_scale
    if edge > LARGEST_EDGE:
        paths = ("dataset.max_scale", f"{AUGMENTATION}.train_crop_size")
        product = f"{paths[0]} {data.max_scale:g} times the {augmentation.train_crop_size[0]} pixels of {paths[1]}"
        yield f"{product} is a short edge of {edge:.4g} pixels; {LARGEST_EDGE} are the most", paths


def _batch_sizes(evaluate: Evaluate, inference: Inference, export: Export) -> Iterator[Finding]:
    for action, section in (("evaluate", evaluate), ("inference", inference)):
        if section.batch_size == 0:
            path = f"{action}.batch_size"
            yield f"{path} is 0: give 1 or more, or -1 for dataset.test.batch_size", (path,)
    if export.batch_size == 0:
        yield "export.batch_size is 0: give 1 or more, or -1 for any", ("export.batch_size",)


def _updates(optim: Optim) -> Iterator[Finding]:
    if optim.momentum == 1:
        yield f"{OPTIM}.momentum is 1, expected less: a mean that forgets nothing never begins", (f"{OPTIM}.momentum",)
    for key in ("lr", "backbone_multiplier", "query_multiplier"):
        path, value = f"{OPTIM}.{key}", getattr(optim, key)
        if value > LARGEST_RATE:
            yield f"{path} is {value:g}, expected up to {LARGEST_RATE:g}: no parameter survives it", (path,)


def _seed(train: Train) -> Iterator[Finding]:
    if train.seed >= 2**32:
        yield (
            f"train.seed is {train.seed}: it must be below 2^32, beyond which seeds repeat each other",
            ("train.seed",),
        )


def _clipping(train: Train) -> Iterator[Finding]:
    clip = train.clip_gradients
    if train.is_changed("clip_grad_norm") and (clip.is_changed("clip_value") or clip.is_changed("clip_type")):
        paths = ("train.clip_grad_norm", "train.clip_gradients")
        yield f"{paths[0]} {train.clip_grad_norm} and {paths[1]} both ask for clipping: change only one of them", paths


def _said_twice(spec: Spec) -> Iterator[Finding]:
    for *groups, purpose in ALTERNATIVES:
        first, second = ([path for path in group if spec.is_changed(path)] for group in groups)
        if first and second:
            found = f"{first[0]} and {second[0]} both determine {purpose}: change only one of them"
            yield found, (*first, *second)


def _ignored_class(head: SemSegHead) -> Iterator[Finding]:
    if head.is_changed("ignore_value") and 0 <= head.ignore_value < head.num_classes:
        path = f"{HEAD}.ignore_value"
        yield f"{path} {head.ignore_value} is the index of a class, and no class may be ignored", (path,)


def _devices(actions: Mapping[str, Train | Evaluate | Inference]) -> Iterator[Finding]:
    for action, section in actions.items():
        ids, paths = section.gpu_ids, (f"{action}.gpu_ids", f"{action}.num_gpus")
        if section.num_gpus > MOST_DEVICES:
            yield (
                f"{paths[1]} is {section.num_gpus}: it counts devices of one machine, at most {MOST_DEVICES}",
                paths[1:],
            )
        elif not ids or len(set(ids)) < len(ids):
            yield f"{paths[0]}: {list(ids)} must name at least one device, and no device twice", paths[:1]
        elif section.is_changed("gpu_ids") and section.num_gpus not in (1, len(ids)):
            yield f"{paths[0]} names {len(ids)} device(s), {paths[1]} is {section.num_gpus}: leave one out", paths


def _search(search: Automl, num_epochs: int) -> Iterator[Finding]:
    better = "minimize" if search.metric == LOSS else "maximize"
    if search.direction != better:
        paths = ("automl.direction", "automl.metric")
        yield f"{paths[0]} is {search.direction}, but {search.metric} is better {better}d: set {better}", paths
    if search.min_epochs > num_epochs and search.algorithm in ("hyperband", "asha"):
        paths = ("automl.min_epochs", "train.num_epochs")
        yield f"{paths[0]} is {search.min_epochs}, but a trial has {num_epochs} epochs", paths
