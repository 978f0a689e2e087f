"""Keys of training: what each changes in the settings of the run, which of two counts, and what contradicts what."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from converters.rules import ConversionError
from converters.weights import Weights
from oneformer_jax.app.actions.train import start
from oneformer_jax.app.actions.train.report import early_endings
from oneformer_jax.app.actions.train.start import starting_point
from oneformer_jax.app.run import devices
from oneformer_jax.app.run.devices import join_processes, mesh_of, own_devices, refuse_different_specs
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings import evaluation as scoring
from oneformer_jax.app.settings.model import frozen_names, model_config
from oneformer_jax.app.settings.model_choice import device_choice
from oneformer_jax.app.settings.training import (
    optimizer_config,
    pipeline_settings,
    schedule_config,
    training_length,
    training_run,
)
from oneformer_jax.app.spec import Spec
from oneformer_jax.checkpoints import read as ckpt
from oneformer_jax.checkpoints.description import Description, Training
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.files import DatasetFiles
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.errors import CheckpointError, SpecError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.distributed import Processes, find_processes
from oneformer_jax.training.loop import LoopSettings
from oneformer_jax.training.optimizer import parameter_names
from oneformer_jax.training.sharding import make_mesh

SpecOf = Callable[..., Spec]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """10 pictures."""
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_shapes(folder, {"train": 10}, size=32, seed=3)
    train = folder / "train"
    return open_sources([Source(train / "annotations.json", train / "images", train / "panoptic")])


@pytest.mark.tao(1)
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"total_steps": 500, "steps_per_epoch": 10, "validate_every": 10, "checkpoint_every": 10}),
        (["dataset.train.batch_size=4"], {"steps_per_epoch": 3, "batch_size": 4, "images_per_step": 4}),
        (
            ["dataset.train.batch_size=2", "train.accumulate_grad_batches=3"],
            {"steps_per_epoch": 2, "images_per_step": 6},
        ),
        (["train.accumulate_grad_batches=2"], {"batches_per_step": 2, "total_steps": 250, "validate_every": 5}),
        (["train.iters_per_epoch=7"], {"steps_per_epoch": 7, "total_steps": 350}),
        (["train.num_epochs=3", "train.optim.max_iter=25"], {"total_steps": 25}),
        (["train.validation_interval=2"], {"validate_every": 20}),
        (["train.val_check_interval=0.3"], {"validate_every": 3}),
        (["train.val_check_interval=0.01"], {"validate_every": 1}),
        (["train.checkpoint_interval=4", "train.checkpoint_interval_unit=step"], {"checkpoint_every": 4}),
    ],
)
def test_length_and_intervals(
    spec_of: SpecOf, dataset: Dataset, overrides: list[str], expected: dict[str, int]
) -> None:
    spec = spec_of(*overrides)
    settings = training_length(spec.train).in_steps(dataset, spec.dataset.train.batch_size)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.tao(5)
@pytest.mark.parametrize(
    ("overrides", "drops"),
    [
        (["train.optim.steps=[30,60]"], (30, 60)),
        (["train.optim.milestones=[2,5]"], (20, 50)),
        (["train.optim.milestones=[2,5]", "train.accumulate_grad_batches=2"], (10, 25)),
    ],
)
def test_multi_step_decays_at_steps_or_milestones(
    spec_of: SpecOf, dataset: Dataset, overrides: list[str], drops: tuple[int, int]
) -> None:
    spec = spec_of("train.optim.lr_scheduler=MultiStep", "train.optim.warmup_iters=0", "train.optim.lr=1", *overrides)
    loop = training_length(spec.train).in_steps(dataset, 1)
    schedule = schedule_config(spec.train.optim).build(loop.total_steps, loop.steps_per_epoch)
    rates = [float(schedule(step)) for drop in drops for step in (drop - 1, drop)]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.tao(5, case="train.optim.monitor_name=val_loss")
@pytest.mark.tao(24, case="model.sem_seg_head.ignore_value=7")
@pytest.mark.tao(31, case="train.num_gpus=3")
@pytest.mark.tao(38, case="model.one_former.hidden_dim=128")
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.optim.steps=[3]", "train.optim.milestones=[1]"], "both determine when MultiStep decays"),
        (["train.validation_interval=2", "train.val_check_interval=0.5"], "both determine how often to validate"),
        (
            ["dataset.augmentation.train_min_size=[480]", "dataset.max_scale=1"],
            "both determine how large a training image is",
        ),
        (["train.gpu_ids=[1,2]", "train.num_gpus=3"], "train.gpu_ids names 2 device(s), train.num_gpus is 3"),
        (["evaluate.gpu_ids=[1,1]"], "no device twice"),
        (["evaluate.num_nodes=2"], "this action runs on one host"),
        (["train.optim.monitor_name=val_loss"], "neither schedule monitors a metric"),
        (["train.val_check_interval=1.5"], "<= 1"),
        (["model.sem_seg_head.loss_weight=2"], "there is no such loss"),
        (["model.sem_seg_head.ignore_value=7"], "7 is the index of a class"),
        (["model.test.detection_on=true"], "boxes are not scored"),
        (["model.backbone.swin.out_indices=[1,2,3]"], "all four stages"),
        (["model.backbone.freeze_at=6"], "<= 5"),
        (["model.backbone.freeze_at=-2"], ">= -1"),
        (["model.one_former.hidden_dim=128"], "model.text_encoder.width is 256 but model.one_former.hidden_dim is 128"),
    ],
)
def test_refused_with_a_reason(spec_of: SpecOf, overrides: list[str], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(*overrides)
    assert words in str(caught.value)


@pytest.mark.tao(24)
def test_void_may_have_any_label_but_that_of_a_class(spec_of: SpecOf) -> None:
    assert spec_of("model.sem_seg_head.ignore_value=65535").model.sem_seg_head.ignore_value == 65535
    assert spec_of("model.sem_seg_head.num_classes=300").model.sem_seg_head.ignore_value == 255  # the default


@pytest.mark.parametrize(
    ("overrides", "prefixes"),
    [
        ([], None),
        (["model.backbone.freeze_at=-1"], None),
        (["model.backbone.freeze_at=1"], ("backbone/patch_",)),
        (
            ["model.backbone.freeze_at=2"],
            tuple(f"backbone/{part}" for part in ("patch_", "stage0_", "merging0/", "norm0/")),
        ),
        (["model.backbone.freeze_at=5"], ("backbone/",)),
        (["train.freeze=[backbone.norm3,task_mlp]"], ("backbone/norm3/", "task_mlp/")),
        (["train.freeze=[task_mlp]", "model.backbone.freeze_at=1"], ("backbone/patch_", "task_mlp/")),
    ],
)
def test_frozen_parts(spec_of: SpecOf, overrides: list[str], prefixes: tuple[str, ...] | None) -> None:
    spec = spec_of(*overrides)
    model = model_config(spec)
    names = jax.tree.leaves(parameter_names(oneformer.shapes(model)))
    assert frozen_names(spec, model) == {name for name in names if name.startswith(prefixes or ("nothing",))}


@pytest.mark.slow
def test_an_optimizer_state_fits_the_frozen_parts_that_it_was_made_for(spec_of: SpecOf, tmp_path: Path) -> None:
    data = "dataset.train.annotations=a.json"
    spec, other = spec_of("train.freeze=[backbone]", data), spec_of("train.freeze=[]", data)
    description = Description(model_config(spec), Categories(()), (0.0,) * 3, (1.0,) * 3, spec.to_dict(), step=1)
    loop, run = LoopSettings(1, 1, 1, 1, 1), Run(tmp_path, StatusFile(tmp_path, "train", Screen()), Screen())
    now = replace(description, training=Training(1, 1, "mIoU", 0, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ckpt, "load_description", lambda _: description)
        with pytest.raises(CheckpointError, match=r"train.freeze was \['backbone'\], now it is \[\]"):
            starting_point(training_run(other, tmp_path), loop, now, tmp_path, make_mesh(1), run)
        found = starting_point(training_run(spec, tmp_path), loop, now, tmp_path, make_mesh(1), run)
    assert (found.step, found.training.images, found.training.epochs) == (1, 1, 1)
    assert (
        "step 1 does not say how many images it has seen: taken for 1, 1 a step as now"
        in (tmp_path / "status.json").read_text()
    )


@pytest.mark.slow
def test_why_weights_do_not_fit_is_told_before_random_ones_are_made(
    spec_of: SpecOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [f"model.backbone.swin.{name}=[1,1,1,1]" for name in ("depths", "num_heads")]
    small += ["model.backbone.swin.embed_dim=8", "model.text_encoder.num_layers=1", "dataset.train.annotations=a.json"]
    spec = spec_of(*small, "train.pretrained_model=there")
    config = model_config(spec)
    params = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), oneformer.shapes(config))
    params["pixel_decoder"] = {"another": params["pixel_decoder"]}
    monkeypatch.setattr(start, "read_weights", lambda location, **_: Weights(location, config, params))
    made = oneformer.init

    def shapes_only(config: OneFormerConfig, key: jax.Array) -> Params:
        return made(config, key) if isinstance(key, jax.core.Tracer) else pytest.fail("it makes random weights")

    monkeypatch.setattr(oneformer, "init", shapes_only)
    run = Run(tmp_path, StatusFile(tmp_path, "train", Screen()), Screen())
    now = Description(config, Categories(()), (0.0,) * 3, (1.0,) * 3, {}, training=Training(1, 1, "mIoU", 0, {}))
    with pytest.raises(ConversionError, match=r"pixel_decoder/another"):
        starting_point(training_run(spec, tmp_path), LoopSettings(1, 1, 1, 1, 1), now, None, make_mesh(1), run)


@pytest.mark.tao(31)
def test_devices(spec_of: SpecOf, tmp_path: Path) -> None:
    status = StatusFile(tmp_path, "train", Screen())
    assert mesh_of(device_choice(spec_of(), "train"), status).size == 1
    assert not status.path.exists()
    more_than_there_are = spec_of("train.num_gpus=64")  # as in TAO's templates
    few = mesh_of(device_choice(more_than_there_are, "train"), status)
    assert few.size < 64
    assert "train.num_gpus is 64, but only" in status.path.read_text()
    for action in ("train", "evaluate", "inference"):
        with pytest.raises(SpecError, match=rf"{action}\.gpu_ids: there is no device 64"):
            mesh_of(device_choice(spec_of(f"{action}.gpu_ids=[64]"), action), status)


@pytest.mark.tao(41, case="the contrastive loss is 0")
@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["dataset.train.batch_size=2"], None),
        (["train.optim.max_iter=9"], "max_iter ends the training after 9 of 500 steps"),
        (["train.optim.lr_scheduler=MultiStep"], "MultiStep never decays"),
        ([], "the contrastive loss is 0"),
        (["model.one_former.contrastive_weight=0"], None),
        (
            ["dataset.train.batch_size=2", "train.accumulate_grad_batches=3"],
            "of one batch, not the 6",
        ),
        (["train.optim.warmup_iters=500"], "the warm-up takes 500 steps, and there are 500: the learning rate"),
        (["dataset.train.batch_size=64"], "a step takes 64 images, and there are"),
    ],
)
def test_what_ends_early_or_never_happens_is_told(
    spec_of: SpecOf, dataset: Dataset, tmp_path: Path, overrides: list[str], told: str | None
) -> None:
    short = "train.optim.warmup_iters=0"
    settings = training_run(spec_of(short, *overrides, "dataset.train.annotations=a.json"), tmp_path)
    loop = settings.length.in_steps(dataset, settings.pipeline.batch_size)
    warnings = list(early_endings(settings, loop, len(dataset)))
    assert told in warnings[0] if told else not warnings


@pytest.mark.tao(3)
def test_pipeline_keys(spec_of: SpecOf, dataset: Dataset) -> None:
    def settings(*overrides: str):
        return pipeline_settings(spec_of(*overrides)).fitted(dataset)

    assert settings().num_workers == 1
    assert settings("dataset.workers=3").num_workers == 3
    assert settings("dataset.workers=3", "dataset.train.num_workers=2").num_workers == 2
    assert settings("dataset.cutmix_prob=0.5").cutmix_prob == 0.5
    assert settings("dataset.cutmix_prob=0.5").max_segments == 2 * settings().max_segments
    assert settings().augmentation.short_sizes == ()
    sized = settings("dataset.augmentation.train_min_size=[480,640]").augmentation
    assert (sized.short_sizes, sized.longest) == ((480, 640), 1333)
    sized = settings("dataset.augmentation.train_max_size=900").augmentation
    assert (sized.short_sizes, sized.longest) == ((800,), 900)


@pytest.mark.tao(10)
def test_evaluation_keys(spec_of: SpecOf, dataset: Dataset) -> None:
    def evaluator(*overrides: str):
        return scoring.scoring(spec_of(*overrides), DatasetFiles("val"), ("semantic",)).evaluator(dataset)

    assert evaluator().workers == 4
    assert evaluator("dataset.val.num_workers=2").workers == 2
    assert evaluator("dataset.workers=6").workers == 6
    assert evaluator("dataset.image_size=[640,480]").policy_name.startswith("square 640x480")
    on = ["model.test.instance_on=true"]
    assert scoring.validation_tasks(spec_of(*on)) == ("semantic", "instance")
    assert scoring.validation_tasks(spec_of(*on, "dataset.task_prob_val={instance: 1}")) == ("instance",)
    with pytest.raises(SpecError, match=r"every task that model\.test enables has probability 0"):
        scoring.validation_tasks(spec_of("dataset.task_prob_val={instance: 1}"))


@pytest.mark.tao(5)
def test_optimizer_keys(spec_of: SpecOf) -> None:
    spec = spec_of("train.optim.momentum=0.8", "train.optim.query_multiplier=2", "train.optim.backbone_multiplier=0.5")
    config = optimizer_config(spec.train)
    assert (config.momentum, config.query_multiplier, config.backbone_multiplier) == (0.8, 2.0, 0.5)


NODES = {"WORLD_SIZE": "2", "NODE_RANK": "1", "MASTER_ADDR": "head", "MASTER_PORT": "29500"}


@pytest.mark.tao(30)
@pytest.mark.parametrize(
    ("overrides", "processes", "words"),
    [
        (["train.num_nodes=2"], Processes(), "train.num_nodes: 2 nodes, but nothing says which the others are"),
        (["train.num_nodes=3"], find_processes(NODES), "train.num_nodes: 3 nodes, but WORLD_SIZE names 2"),
        (
            ["train.num_gpus=3"],
            Processes(4, 0, 2),
            "3 devices cannot be divided evenly among the 2 processes of a node",
        ),
    ],
)
def test_a_topology_that_is_not_there_is_refused(
    spec_of: SpecOf, overrides: list[str], processes: Processes, words: str
) -> None:
    spec = spec_of(*overrides)
    nodes = spec.train.num_nodes if spec.is_changed("train.num_nodes") else None
    with pytest.raises(SpecError) as caught:
        join_processes(nodes, device_choice(spec, "train"), processes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "processes", "environment", "expected"),
    [
        ([], Processes(2, 1, 2), {}, [0]),
        (["train.num_gpus=4", "train.num_nodes=2"], Processes(2, 1, 2), {}, [0, 1, 2, 3]),
        ([], Processes(2, 1, 2), NODES | {"NUM_GPU_PER_NODE": "3"}, [0, 1, 2]),
        (["train.num_gpus=3"], Processes(2, 1, 2), NODES | {"NUM_GPU_PER_NODE": "3"}, [0, 1, 2]),
        ([], Processes(2, 1, 2), {"NUM_GPU_PER_NODE": "3"}, [0]),  # it belongs to WORLD_SIZE
        (["train.gpu_ids=[2,5]"], Processes(2, 1, 2), {}, [2, 5]),
        ([], Processes(8, 5, 2, 1), {}, [1]),  # four processes a node
        (["train.num_gpus=8"], Processes(8, 5, 2, 1), {}, [2, 3]),
    ],
)
def test_a_process_has_its_part_of_the_devices_of_its_node(
    spec_of: SpecOf, overrides: list[str], processes: Processes, environment: dict[str, str], expected: list[int]
) -> None:
    assert own_devices(device_choice(spec_of(*overrides), "train"), processes, environment) == expected


@pytest.mark.parametrize("text", ["many", "2"])
def test_devices_of_a_node_are_what_both_say(spec_of: SpecOf, text: str) -> None:
    choice = device_choice(spec_of("train.num_gpus=4"), "train")
    with pytest.raises(SpecError, match=f"NUM_GPU_PER_NODE: found '{text}', but the spec names 4"):
        own_devices(choice, Processes(2, 1, 2), NODES | {"NUM_GPU_PER_NODE": text})


def test_processes_that_were_started_differently_are_refused(spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch) -> None:
    same, other = spec_of("train.seed=3"), spec_of("train.seed=4")
    for second in (same, other):
        monkeypatch.setattr(devices, "gather", lambda own, second=second: [own, second.to_dict()])
        if second is same:
            refuse_different_specs(same.to_dict())
        else:
            with pytest.raises(SpecError, match=r"train\.seed: process 0 has 3, process 1 has 4"):
                refuse_different_specs(same.to_dict())
