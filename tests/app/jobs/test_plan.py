"""What a job takes from where: command line, roots, parent, spec file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Bucket

from oneformer_jax.app.automl.policy import SKILL
from oneformer_jax.app.jobs.plan import Plan, Request, make_plan, resumed_spec
from oneformer_jax.app.jobs.workspace import Job, Workspace
from oneformer_jax.app.spec.source import yaml_text
from oneformer_jax.errors import OneFormerError

MODEL = ["evaluate.checkpoint=given"]


@pytest.fixture
def plan(workspace: Workspace) -> Callable[..., Plan]:
    def made(action: str, *overrides: str, **request: Any) -> Plan:
        return make_plan(Request(action, overrides=overrides, **request), workspace, Job(workspace.folder / "new-9"))

    return made


def test_shorthands_stand_for_keys(plan: Callable[..., Plan], root_of: Callable[..., str]) -> None:
    made = plan("train", "num_epochs=3", "+learning_rate=1e-3", datasets={"train_datasets": root_of("a")})
    assert made.spec["train"]["num_epochs"] == 3
    assert made.spec["train"]["optim"]["lr"] == 1e-3
    assert made.record.overrides == ["train.num_epochs=3", "+train.optim.lr=1e-3"]
    with pytest.raises(OneFormerError, match=r"num_epoch: unknown key\n.*did you mean train\.num_epochs"):
        plan("train", "num_epoch=3", datasets={"train_datasets": "nowhere"})


def test_the_command_line_beats_roots_and_roots_beat_the_spec_file(
    plan: Callable[..., Plan], root_of: Callable[..., str], tmp_path: Path
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "results_dir: /old\n"
        "dataset: {train: {images: /file, batch_size: 2}, val: {annotations: /file.json, images: '${results_dir}/i'}}\n"
        "train: {results_dir: /older}\n"
    )
    roots = {"train_datasets": root_of("a")}
    made = plan("train", "dataset.train.panoptic=", "dataset.label_map=/mine.json", datasets=roots, spec=spec)
    assert made.spec["dataset"]["train"] == {
        "images": f"{roots['train_datasets']}/images.tar.gz",
        "annotations": f"{roots['train_datasets']}/annotations.json",
        "batch_size": 2,
        "panoptic": "",
    }
    assert made.spec["dataset"]["label_map"] == "/mine.json"
    assert made.spec["dataset"]["val"] == {"annotations": "/file.json", "images": "${results_dir}/i"}
    assert "results_dir" not in made.spec["train"]
    assert made.spec["results_dir"].endswith("/new-9")


def test_a_child_takes_over_roots_and_keys_and_may_have_its_own(
    plan: Callable[..., Plan], root_of: Callable[..., str], job_of: Callable[..., Job]
) -> None:
    first, second = root_of("first"), root_of("second")
    before = plan(
        "train",
        "num_classes=7",
        "dataset.val.images=/pictures",
        datasets={"train_datasets": first, "eval_dataset": first},
    )
    parent = job_of(
        "train", "best/", datasets=before.record.datasets, given=yaml_text(before.given), lineage=["train-0"]
    )
    child = plan("evaluate", parent=parent.id)
    assert child.spec["model"]["sem_seg_head"]["num_classes"] == 7
    assert child.spec["dataset"]["val"]["images"] == "/pictures"
    assert child.spec["dataset"]["val"]["annotations"] == f"{first}/annotations.json"
    assert child.record.lineage == ["train-0", parent.id]
    other = plan("evaluate", parent=parent.id, datasets={"eval_dataset": second})
    assert other.spec["dataset"]["val"]["images"] == f"{second}/images.tar.gz"
    assert other.record.datasets == {"train_datasets": first, "eval_dataset": second}
    assert plan("inference", parent=parent.id).spec["inference"]["images_dir"] == f"{first}/images.tar.gz"
    photos = root_of("photos", "a.jpg", "b.png")
    seen = plan("inference", parent=parent.id, datasets={"inference_dataset": photos}).spec
    assert seen["inference"]["images_dir"] == seen["dataset"]["test"]["images"] == photos
    third = root_of("third", "images.zip")
    chosen = plan("inference", parent=parent.id, datasets={"inference_dataset": third})
    assert chosen.spec["inference"]["images_dir"] == chosen.spec["dataset"]["test"]["images"] == f"{third}/images.zip"
    calibrated = plan("quantize", parent=parent.id, datasets={"calibration_dataset": third})
    assert calibrated.spec["dataset"]["quant_calibration_dataset"]["images_dir"] == f"{third}/images.zip"


def test_keys_of_parent_and_child_are_checked_together(plan: Callable[..., Plan], job_of: Callable[..., Job]) -> None:
    parent = job_of("train", "best/", given="model: {text_encoder: {context_length: 60}}\n")
    assert plan("export", "dataset.max_seq_len=60", parent=parent.id)
    with pytest.raises(OneFormerError, match=r"command line: dataset\.max_seq_len=50.*context_length"):
        plan("export", "dataset.max_seq_len=50", parent=parent.id)


def test_what_a_data_set_lacks(plan: Callable[..., Plan], root_of: Callable[..., str]) -> None:
    instances = root_of("instances", "images.tar.gz", "annotations.json")
    made = plan("train", datasets={"train_datasets": instances})
    assert "panoptic" not in made.spec["dataset"]["train"]
    assert f"dataset.train.panoptic stays empty: no images_panoptic.tar.gz at {instances}" in made.record.notes
    bare = root_of("bare", "annotations.json", "photos.zip")
    with pytest.raises(
        OneFormerError, match=r"--train-dataset: .*bare: no images\.tar\.gz .* holds annotations\.json, photos"
    ):
        plan("train", datasets={"train_datasets": bare})
    assert plan("train", f"dataset.train.images={bare}/photos.zip", datasets={"train_datasets": bare})


def test_a_label_map_of_the_spec_holds_where_the_root_has_none(
    plan: Callable[..., Plan], root_of: Callable[..., str], tmp_path: Path
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("dataset: {label_map: /mine.json, train: {panoptic: /old}}\n")
    bare, whole = root_of("bare", "images.tar.gz", "annotations.json"), root_of("whole")
    made = plan("train", datasets={"train_datasets": bare}, spec=spec)
    assert made.spec["dataset"]["label_map"] == "/mine.json"
    assert "panoptic" not in made.spec["dataset"]["train"]  # which belongs to other pictures
    assert f"dataset.label_map stays as the spec says: no label_map.json at {bare}" in made.record.notes
    made = plan("train", datasets={"train_datasets": whole}, spec=spec)
    assert made.spec["dataset"]["label_map"] == f"{whole}/label_map.json"


def test_the_folder_around_the_splits_is_answered_with_the_one_that_is_meant(
    plan: Callable[..., Plan], root_of: Callable[..., str], tmp_path: Path
) -> None:
    train, val = root_of("all/train"), root_of("all/val")
    for option, source, split in (("train", "train_datasets", train), ("eval", "eval_dataset", val)):
        with pytest.raises(OneFormerError, match=f"name one split: --{option}-dataset {split}"):
            plan("train", datasets={"train_datasets": train, source: str(tmp_path / "all")})


def test_label_maps_by_format_as_far_as_they_are_there(plan: Callable[..., Plan], root_of: Callable[..., str]) -> None:
    images = ("images.tar.gz", "annotations.json")
    for files, expected in (
        (["label_map.json"], "{root}/label_map.json"),
        (["label_map_panoptic.json"], {"coco_panoptic": "{root}/label_map_panoptic.json"}),
        ([], None),
    ):
        root = root_of(f"root{len(files)}{''.join(files)}", *images, *files)
        made = plan("inference", "inference.checkpoint=c", datasets={"train_datasets": root, "eval_dataset": root})
        found = json.dumps(made.spec["dataset"].get("label_map")).replace(root, "{root}")
        assert json.loads(found) == expected


@pytest.mark.parametrize(
    ("action", "overrides", "message"),
    [
        (
            "train",
            [],
            r"job train has no dataset\.train\.annotations or dataset\.train\.images\n.*--train-dataset ROOT",
        ),
        ("evaluate", MODEL, r"no dataset\.test\.annotations or dataset\.val\.annotations\n.*--eval-dataset ROOT"),
        ("evaluate", ["dataset.val.annotations=a"], r"no evaluate\.checkpoint or evaluate\.trt_engine\n.*--parent JOB"),
        ("inference", ["inference.checkpoint=c"], r"no inference\.images_dir or .*\n.*--inference-dataset ROOT"),
        ("export", [], r"job export has no export\.checkpoint\n.*--parent JOB"),
        ("quantize", [], r"job quantize has no quantize\.model_path"),
        ("gen_trt_engine", [], r"job gen_trt_engine has no gen_trt_engine\.onnx_file"),
        ("export", ["results_dir=/x"], r"results_dir: a job writes to its own folder\n.*--workspace"),
        ("export", ["export.results_dir=/x"], r"export\.results_dir: a job writes to its own folder"),
        ("export", ["export.checkpoint"], r"export\.checkpoint: not an override"),
    ],
)
def test_what_an_action_cannot_do_without(
    action: str, overrides: list[str], message: str, plan: Callable[..., Plan]
) -> None:
    with pytest.raises(OneFormerError, match=message):
        plan(action, *overrides)


def test_a_policy_is_for_training(plan: Callable[..., Plan]) -> None:
    with pytest.raises(OneFormerError, match="--automl-policy is for training alone"):
        plan("export", "export.checkpoint=c", policy="off")


def test_an_onnx_file_is_quantized_by_the_backend_that_takes_it(
    plan: Callable[..., Plan], job_of: Callable[..., Job]
) -> None:
    checkpoint, exported = job_of("train", "best/"), job_of("export", "model.onnx")
    assert "backend" not in plan("quantize", parent=checkpoint.id).spec["quantize"]
    assert plan("quantize", parent=exported.id).spec["quantize"]["backend"] == "modelopt.onnx"
    assert plan("quantize", "quant_backend=torchao", parent=exported.id).spec["quantize"]["backend"] == "torchao"


def test_the_encryption_key_is_not_stored(plan: Callable[..., Plan], tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("encryption_key: from_file\n")
    for overrides, options, key in (
        (["encryption_key=typed"], {}, "typed"),
        (["++encryption_key=typed=too"], {}, "typed=too"),
        ([], {"spec": spec}, "from_file"),
    ):
        made = plan("export", "export.checkpoint=c", *overrides, **options)
        assert made.secrets == {"ONEFORMER_ENCRYPTION_KEY": key}
        assert key not in json.dumps([made.spec, made.given, vars(made.record)])


@pytest.mark.slow
def test_the_published_backbone_starts_a_swin_tiny_that_names_no_weights(
    plan: Callable[..., Plan], root_of: Callable[..., str], job_of: Callable[..., Job]
) -> None:
    tiny = "model.backbone.swin={embed_dim: 96, depths: [2, 2, 6, 2], num_heads: [3, 6, 12, 24], window_size: 7}"
    roots = {"train_datasets": root_of("a")}

    def backbone(*overrides: str, parent: str = "") -> object:
        return plan("train", *overrides, datasets=roots, parent=parent).spec["train"].get("pretrained_backbone")

    assert str(backbone(tiny, "num_epochs=1")).startswith("https://github.com/SwinTransformer/")
    assert backbone("num_epochs=1") is None
    assert backbone(tiny, "pretrained_backbone=") == ""
    assert backbone(tiny, "pretrained_backbone=mine.pth") == str(Path("mine.pth").absolute())
    assert backbone(tiny, "pretrained_model=mine.pth") is None
    assert backbone(tiny, parent=job_of("train", "best/").id) is None
    made = plan("train", datasets=roots)
    assert any("does not fit: embed_dim is 192, not 96" in note for note in made.record.notes)


def test_a_training_that_runs_again_goes_on_from_its_own_checkpoint(job_of: Callable[..., Job]) -> None:
    job = job_of("train")
    job.spec_path.write_text("train: {pretrained_model: /other, num_epochs: 3}\n")
    assert resumed_spec(job, job.read()) == {"train": {"pretrained_model": "/other", "num_epochs": 3}}
    for part in ("params", "description"):
        (job.folder / "train" / "latest" / part).mkdir(parents=True)
    resumed = resumed_spec(job, job.read())["train"]
    assert resumed == {
        "pretrained_model": "",
        "num_epochs": 3,
        "resume_training_checkpoint_path": str(job.folder / "train" / "latest"),
    }


def test_roots_at_s3_stay_addresses(plan: Callable[..., Plan], s3: Bucket) -> None:
    for name in ("images.tar.gz", "annotations.json"):
        s3.put(f"set/{name}", b"1")
    made = plan("train", datasets={"train_datasets": f"{s3.address}/set/"})
    assert made.spec["dataset"]["train"]["images"] == "s3://bucket/set/images.tar.gz"
    assert made.record.inputs["dataset.train.annotations"] == "s3://bucket/set/annotations.json"


@pytest.fixture
def skill(tmp_path: Path) -> Path:
    """A copy of the files that say what a search may vary."""
    return Path(shutil.copytree(SKILL, tmp_path / "skill"))


@pytest.mark.parametrize(
    ("policy", "written", "absent", "command", "told"),
    [
        (None, "", "", "automl", "AutoML (policy auto)"),
        ("auto", "off", "", "automl", "AutoML (policy auto)"),
        ("on", "", "", "automl", "AutoML (policy on)"),
        ("off", "on", "", "train", "AutoML is off: running a single training"),
        (None, "off", "", "train", "AutoML is off: running a single training"),
        (None, "", "schemas/train.schema.json", "train", "schemas/train.schema.json: running a single training"),
        (
            "on",
            "",
            "references/spec_template_train.yaml",
            "train",
            "spec_template_train.yaml: running a single training",
        ),
        (None, "", "references/skill_info.yaml", "train", "AutoML is not enabled in"),
    ],
)
def test_a_training_goes_through_automl_unless_that_is_off_or_cannot_run(
    policy: Any,
    written: str,
    absent: str,
    command: str,
    told: str,
    plan: Callable[..., Plan],
    root_of: Callable[..., str],
    skill: Path,
) -> None:
    roots = {"train_datasets": root_of("a"), "eval_dataset": root_of("b")}
    if absent:
        (skill / absent).unlink()
    overrides = [f"automl.skill_dir={skill}", *([f"automl_policy={written}"] if written else [])]
    record = plan("train", *overrides, datasets=roots, policy=policy).record
    assert (record.action, record.command) == ("train", command)
    assert told in record.notes[-1]


def test_without_data_to_score_trials_auto_trains_directly(
    plan: Callable[..., Plan], root_of: Callable[..., str]
) -> None:
    roots = {"train_datasets": root_of("a")}
    record = plan("train", datasets=roots).record
    assert record.command == "train"
    assert record.notes[-1] == "AutoML has no --eval-dataset to score trials by mIoU: running a single training"
    loss = ["automl.metric=train_loss", "automl.direction=minimize"]
    assert plan("train", *loss, datasets=roots).record.command == "automl"
    assert plan("train", datasets=roots, policy="on").record.command == "automl"  # which says what is missing
