"""Bad input ends with one message that names the culprit, and exit code 1 (2 for usage), before any long work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def broken(workspace: Path, tmp_path: Path) -> Path:
    """A copy of the data to break."""
    shutil.copytree(workspace / "data", tmp_path / "data")
    return tmp_path / "data"


def paths_in(data: Path) -> list[str]:
    return [
        f"dataset.{split}.{key}={data / split / name}"
        for split in ("train", "val")
        for key, name in (("images", "images"), ("panoptic", "panoptic"), ("annotations", "annotations.json"))
    ]


def remove_first_image(data: Path) -> str:
    path = sorted((data / "train" / "images").iterdir())[0]
    path.unlink()
    return path.name


def remove_first_png(data: Path) -> str:
    path = sorted((data / "train" / "panoptic").iterdir())[0]
    path.unlink()
    return path.name


def remove_folder(data: Path) -> str:
    shutil.rmtree(data / "train" / "images")
    return str(data / "train" / "images")


def remove_annotations(data: Path) -> str:
    (data / "train" / "annotations.json").unlink()
    return str(data / "train" / "annotations.json")


def empty_data_set(data: Path) -> str:
    edit_json(data / "train" / "annotations.json", lambda content: content["annotations"].clear())
    return "empty"


def damage_image(data: Path) -> str:
    for path in (data / "train" / "images").iterdir():
        path.write_bytes(b"not an image")
    return "cannot be read"


def damage_json(data: Path) -> str:
    (data / "train" / "annotations.json").write_text('{"images": [')
    return "annotations.json"


@pytest.mark.parametrize(
    "damage",
    [
        remove_first_image,
        remove_first_png,
        remove_folder,
        remove_annotations,
        empty_data_set,
        damage_image,
        damage_json,
    ],
    ids=lambda damage: damage.__name__,
)
def test_bad_data(workspace: Path, broken: Path, command_line, tmp_path: Path, damage: Callable[[Path], str]) -> None:
    culprit = damage(broken)
    result = command_line("train", "-e", workspace / "spec.yaml", f"results_dir={tmp_path / 'out'}", *paths_in(broken))
    check_failure(result, tmp_path / "out" / "train", culprit)


@pytest.mark.parametrize(
    ("overrides", "culprit"),
    [
        (["model.sem_seg_head.num_classes=3"], "num_classes"),
        (["dataset.label_map=/nowhere/labels.json"], "/nowhere/labels.json"),
        (["dataset.train.annotations="], "dataset.train.annotations"),
        (["train.gpu_ids=[64]"], "train.gpu_ids"),
        (["train.resume_training_checkpoint_path=/nowhere"], "/nowhere"),
    ],
)
def test_bad_keys_that_need_the_files(
    workspace: Path, command_line, tmp_path: Path, overrides: list[str], culprit: str
) -> None:
    result = command_line("train", "-e", workspace / "spec.yaml", f"results_dir={tmp_path}", *overrides)
    check_failure(result, tmp_path / "train", culprit)


def check_failure(result, folder: Path, culprit: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    assert culprit in result.stderr.replace("\n", "")
    assert "Traceback" not in result.stderr
    last = json.loads((folder / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert not (folder / "latest").exists()


@pytest.mark.parametrize("action", ["train", "evaluate", "inference"])
def test_a_typo_in_the_spec(workspace: Path, command_line, tmp_path: Path, action: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text((workspace / "spec.yaml").read_text().replace("num_epochs", "num_epoch"))
    result = command_line(action, "-e", spec, f"results_dir={tmp_path / 'results'}")
    assert result.returncode == 1
    assert "train.num_epochs" in result.stderr
    assert "spec.yaml:" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["train"], ["trian", "-e", "x.yaml"], ["train", "--specs", "x.yaml"]])
def test_wrong_usage(command_line, arguments: list[str]) -> None:
    result = command_line(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_a_missing_checkpoint(workspace: Path, command_line, tmp_path: Path, action: str) -> None:
    arguments = [action, "-e", workspace / "spec.yaml", f"results_dir={tmp_path}"]
    unset = command_line(*arguments)
    assert unset.returncode == 1
    assert f"{action}.checkpoint" in unset.stderr
    missing = command_line(*arguments, f"{action}.checkpoint={tmp_path / 'nothing'}")
    check_failure(missing, tmp_path / action, "nothing")


@pytest.mark.tao(17)
def test_inference_without_images(workspace: Path, trained: Path, command_line, tmp_path: Path) -> None:
    result = command_line(
        "inference",
        "-e",
        workspace / "spec.yaml",
        f"results_dir={tmp_path}",
        f"inference.checkpoint={trained / 'train'}",
        f"inference.images_dir={tmp_path}",
    )
    check_failure(result, tmp_path / "inference", "no image")


@pytest.fixture
def copy_of_trained(trained: Path, tmp_path: Path) -> Path:
    """A results folder to break: its training is at step 6 and best at step 3 or 6."""
    return shutil.copytree(trained, tmp_path / "results", symlinks=True)


def sizes_below(folder: Path) -> dict[Path, int]:
    return {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*")}


def test_a_full_disk_leaves_the_checkpoints_that_are_there(
    workspace: Path, copy_of_trained: Path, command_line
) -> None:
    folder = copy_of_trained / "train"
    before = sizes_below(folder / "checkpoints" / "6")
    result = command_line(
        *("train", "-e", workspace / "spec.yaml", f"results_dir={copy_of_trained}", "train.num_epochs=3"),
        "dataset.val.annotations=",
        "dataset.val.panoptic=",
        # No file may grow beyond 20 KiB: the curves and the checkpoint do not fit, the lines of the logs do.
        before=("bash", "-c", 'ulimit -f 20 && exec "$@"', "bash"),
    )
    assert result.returncode == 1, result.stdout + result.stderr
    # TensorStore's threads may print a traceback of their own first, when the loop that they report to has ended.
    _, found, after = result.stderr.rpartition("checkpoint of step 9 could not be written: File too large\n")
    assert found
    assert after.startswith("  -> free disk space")
    assert "Traceback" not in after
    last = json.loads((folder / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert "could not be written" in last["message"]
    assert (folder / "latest").resolve().name == "6"
    assert sizes_below(folder / "checkpoints" / "6") == before


def test_a_damaged_newest_checkpoint_is_refused_with_what_to_do(
    workspace: Path, copy_of_trained: Path, command_line
) -> None:
    newest = copy_of_trained / "train" / "checkpoints" / "6"
    with (newest / "optimizer" / "_METADATA").open("r+") as file:
        file.truncate(20)
    arguments = ["train", "-e", workspace / "spec.yaml", f"results_dir={copy_of_trained}", "train.num_epochs=3"]
    result = command_line(*arguments)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{newest}/optimizer/_METADATA: a file of `optimizer` is not as it was written" in result.stderr
    assert "resumes from the one before if its folder is removed" in result.stderr
    assert "Traceback" not in result.stderr
    shutil.rmtree(newest)
    result = command_line(*arguments, "train.num_epochs=1")  # three steps, and so no training
    assert "is at step 3 of 3" in result.stdout, result.stdout + result.stderr


def test_a_run_neither_goes_on_nor_is_evaluated_with_its_classes_in_another_order(
    workspace: Path, trained: Path, command_line, tmp_path: Path
) -> None:
    """Both orders are named before anything is compiled, and the run stays as it was."""
    shutil.copytree(trained / "train", tmp_path / "train", symlinks=True)
    keys = [f"results_dir={tmp_path}", "dataset.label_map=", "train.num_epochs=3"]
    for split in ("train", "val"):
        content = json.loads((workspace / "data" / split / "annotations.json").read_text())
        content["categories"].reverse()
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        keys.append(f"dataset.{split}.annotations={tmp_path / split}.json")
    names = [f"'{category['name']}'" for category in content["categories"]]
    for action, key in (("train", ""), ("evaluate", f"evaluate.checkpoint={tmp_path / 'train'}")):
        result = command_line(action, "-e", workspace / "spec.yaml", *keys, *filter(None, [key]))
        assert result.returncode == 1, result.stdout + result.stderr
        told = " ".join(result.stderr.split())
        assert f"are {', '.join(names)} in what it is used with, but {', '.join(names[::-1])} in the checkpoint" in told
        assert "Traceback" not in told
    assert (tmp_path / "train" / "latest").resolve().name == "6"
