"""How an action ends: exit code, message on the screen and last line of status.json, for every cause."""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import jax
import pytest
from typer.testing import CliRunner, Result

from oneformer_jax.app.cli.commands import app
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.failures import explained
from oneformer_jax.app.run.status import only_process_in
from oneformer_jax.app.settings import evaluation, training
from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.errors import DataError

KEY = "Top-Secret-Key"


def raising(error: BaseException) -> Callable[..., None]:
    def run(*_: object, **__: object) -> None:
        raise error

    return run


def out_of_device_memory() -> BaseException:
    return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore")


ENDINGS = {
    "done": (None, 0, "SUCCESS", "finished successfully."),
    "explained": (
        DataError("no image", where="a.json", hint="add one"),
        1,
        "FAILURE",
        "a.json: no image\n  -> add one",
    ),
    "memory": (MemoryError(), 1, "FAILURE", "out of memory\n  -> lower "),
    "device memory": (out_of_device_memory(), 1, "FAILURE", "out of memory: RESOURCE_EXHAUSTED: Out of memory while"),
    "disk full": (OSError(errno.ENOSPC, "No space left on device", "/d/f"), 1, "FAILURE", "/d/f: No space left"),
    "process lost": (
        jax.errors.JaxRuntimeError("FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer"),
        1,
        "FAILURE",
        "the connection to another process of the training was lost: FAILED_PRECONDITION",
    ),
    "key": (KeyError("iscrowd"), 1, "FAILURE", "KeyError: 'iscrowd'"),
    "assertion": (AssertionError("shapes"), 1, "FAILURE", "AssertionError: shapes"),
    "other error of jax": (jax.errors.JaxRuntimeError("INTERNAL: bug"), 1, "FAILURE", "JaxRuntimeError: INTERNAL: bug"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "FAILURE", "was interrupted (Ctrl-C)."),
    "SIGTERM": (SystemExit(143), 143, "FAILURE", "was interrupted (SIGTERM)."),
}
DEFECTS = ("key", "assertion", "other error of jax")


@pytest.fixture(autouse=True)
def same_process() -> Iterator[None]:
    """What a command changes in its process is changed back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[..., None]], None]:
    """Puts a function in place of an action, which gets the spec for settings."""
    for module, name in ((training, "training_run"), (evaluation, "evaluation_run"), (evaluation, "inference_run")):
        monkeypatch.setattr(module, name, lambda spec, *_: spec)

    def replace(name: str, run: Callable[..., None]) -> None:
        module = ModuleType(name)
        setattr(module, name, run)
        place = {"train": "train.train", "convert": "model.convert"}.get(name, name)
        monkeypatch.setitem(sys.modules, f"oneformer_jax.app.actions.{place}", module)

    return replace


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(f"results_dir: {tmp_path}/results\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.tao(14, case="device memory")
@pytest.mark.tao(14, case="key")
@pytest.mark.tao(14, case="assertion")
@pytest.mark.tao(15, case="Ctrl-C")
@pytest.mark.tao(15, case="SIGTERM")
@pytest.mark.parametrize("action", ["train", "evaluate", "inference"])
@pytest.mark.parametrize("cause", ENDINGS)
def test_an_action_ends_with_its_exit_code_and_a_last_line(
    spec: Path, tmp_path: Path, pretend, action: str, cause: str
) -> None:
    error, code, state, message = ENDINGS[cause]
    pretend(action, raising(error) if error else lambda *_: None)
    result = run(action, "--spec", spec)
    assert result.exit_code == code
    first, *_, last = lines_of(tmp_path / "results" / action)
    assert (first["status"], first["message"]) == ("STARTED", f"Starting OneFormer {action}.")
    assert last["status"] == state
    assert message in last["message"]
    assert last["verbosity"] == ("INFO" if state == "SUCCESS" else "ERROR")
    if cause in DEFECTS:
        assert result.exception is error  # it leaves the process with its traceback
    elif code == 1:
        assert message.split("\n")[0] in result.stderr.replace("\n", "")
    if "memory" in cause:
        assert {"train": "dataset.train.batch_size", "evaluate": "evaluate.batch_size"}.get(action, "") in result.stderr
    assert (tmp_path / "results" / action / "experiment.yaml").is_file()


@pytest.mark.parametrize("cause", ENDINGS)
@pytest.mark.parametrize("command", [("convert", "in.pth", "out"), ("quickstart",)], ids=lambda command: command[0])
def test_commands_without_a_result_folder_end_with_the_same_codes(pretend, command: tuple, cause: str) -> None:
    error, code, *_ = ENDINGS[cause]
    pretend(command[0], raising(error) if error else lambda *_, **__: None)
    assert run(*command).exit_code == code


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["nothing"],
        ["train", "--specs", "x"],
        ["convert", "in"],
        ["convert", "in", "out", "--to", "tensorflow"],
        ["default_specs", "nothing"],
        ["schema"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_meant_is_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_ctrl_c_while_an_action_loads_counts_as_interrupted(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("train")
    module.__getattr__ = raising(KeyboardInterrupt())
    monkeypatch.setitem(sys.modules, "oneformer_jax.app.actions.train.train", module)
    assert run("train", "-e", spec).exit_code == 130


def test_a_status_line_that_cannot_be_written_does_not_hide_the_cause(spec: Path, tmp_path: Path, pretend) -> None:
    def fill_the_disk(_: object, run: Run) -> None:
        run.status.path.unlink()
        run.status.path.mkdir()
        raise DataError("the cause")

    pretend("train", fill_the_disk)
    result = run("train", "-e", spec)
    assert result.exit_code == 1
    assert "error: the cause" in result.stderr
    assert "FAILURE not written" in result.stdout


def test_a_second_process_is_refused_and_leaves_the_files_of_the_first(spec: Path, tmp_path: Path, pretend) -> None:
    pretend("train", lambda *_: None)
    folder = tmp_path / "results" / "train"
    folder.mkdir(parents=True)
    with only_process_in(folder):
        result = run("train", "-e", spec)
        refused = run("train", "-e", spec, "train.nothing=1")
    assert (result.exit_code, refused.exit_code) == (1, 1)
    assert f"in use by process {os.getpid()}" in result.stderr
    assert [path.name for path in folder.iterdir()] == [".lock"]


REFUSED = {
    "unknown key": ("results_dir: {out}\ntrain: {{num_epoch: 3}}\n", [], "train"),
    "own folder": ("train: {{num_epoch: 3, results_dir: {out}/train}}\n", [], "train"),
    "not YAML": ("results_dir: [", ["results_dir={out}"], "train"),
    "no mapping": ("- results_dir", ["results_dir={out}"], "train"),
    "bad override": ("results_dir: {out}", ["train.num_epochs=many"], "train"),
}


@pytest.mark.tao(14)
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_spec_is_a_failure_where_its_folder_can_be_told(tmp_path: Path, pretend, case: str) -> None:
    content, overrides, folder = REFUSED[case]
    out = tmp_path / "out"
    spec = tmp_path / "spec.yaml"
    spec.write_text(content.format(out=out))
    pretend("train", raising(AssertionError("must not run")))
    result = run("train", "-e", spec, *(text.format(out=out) for text in overrides))
    assert result.exit_code == 1
    started, failure = lines_of(out / folder)
    assert (started["status"], failure["status"]) == ("STARTED", "FAILURE")
    assert failure["message"] in result.stderr
    assert not (out / folder / "experiment.yaml").exists()


@pytest.mark.parametrize(
    "content", ["train: {num_epoch: 3}", "results_dir: ${nothing}/x", "results_dir: ???\na: 1", "["]
)
def test_a_refused_spec_without_a_folder_writes_nothing(tmp_path: Path, content: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = tmp_path / "spec.yaml"
    spec.write_text(content)
    assert run("train", "-e", spec).exit_code == 1
    assert list(tmp_path.iterdir()) == [spec]


@pytest.mark.parametrize("path", ["nothing.yaml", "."])
def test_a_spec_that_is_no_file(tmp_path: Path, path: str) -> None:
    result = run("train", "-e", tmp_path / path, f"results_dir={tmp_path}/out")
    assert result.exit_code == 1
    assert str(tmp_path / path) in result.stderr.replace("\n", "")
    assert lines_of(tmp_path / "out" / "train")[-1]["status"] == "FAILURE"


def test_a_spec_of_blank_values_is_one_of_defaults(tmp_path: Path, pretend) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"results_dir: {tmp_path}\nencryption_key:\nmodel:\ntrain:\n  seed: null\n  num_epochs: ???\n")
    seen = []
    pretend("train", lambda spec, *_: seen.append(spec))
    assert run("train", "-e", spec).exit_code == 0
    assert seen[0] == Spec(results_dir=str(tmp_path))


@pytest.mark.tao(32)
def test_the_encryption_key_is_told_to_be_ignored_and_never_stored(spec: Path, tmp_path: Path, pretend) -> None:
    pretend("train", lambda *_: None)
    result = run("train", "-e", spec, f"encryption_key={KEY}")
    assert result.exit_code == 0
    assert result.stdout.count("encryption_key is") == 1
    warnings = [line for line in lines_of(tmp_path / "results" / "train") if line["verbosity"] == "WARNING"]
    assert ["encryption_key" in line["message"] for line in warnings] == [True]
    for path in (tmp_path / "results").rglob("*"):
        assert path.is_dir() or KEY not in path.read_text()
    assert load_spec(tmp_path / "results" / "train" / "experiment.yaml").encryption_key == "<redacted>"


def test_keys_that_are_not_honoured_are_named_with_the_reason(spec: Path, tmp_path: Path, pretend) -> None:
    pretend("inference", lambda *_: None)
    run("inference", "-e", spec, "model_name=mask2former", "export.batch_size=4")
    (warning,) = (
        line["message"] for line in lines_of(tmp_path / "results" / "inference") if line["verbosity"] != "INFO"
    )
    assert warning.startswith("model_name is accepted but not honoured: ")


def test_what_stands_in_the_way_of_a_name_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    attempts = {
        "file": lambda: (tmp_path / "file").mkdir(),
        "folder": lambda: (tmp_path / "folder").open("a"),
        "folder ": lambda: (tmp_path / "file").replace(tmp_path / "folder"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(OSError, match=r"exists|directory") as raised:
            attempt()
        known = explained(raised.value)
        assert known is not None
        assert known.where == str(tmp_path / name.strip())
        assert known.hint.endswith("belongs: move it away, or name another place")
