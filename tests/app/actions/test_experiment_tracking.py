"""What goes to Weights & Biases, and that nothing does where nobody asked or nobody could."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from oneformer_jax.app.actions.train.report import TrainingProgress
from oneformer_jax.app.actions.train.wandb import init_arguments, wandb_writers
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.training import training_run
from oneformer_jax.app.spec import load_spec
from oneformer_jax.errors import install_hint
from oneformer_jax.training.logbook import Logbook
from oneformer_jax.training.run import TrainingRun

KEY = "Top-Secret-Key"


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


class FakeError(Exception):
    """In place of wandb.Error."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The arguments of each `wandb.init`, then what its run was told."""
    calls: list[dict] = []

    def init(**arguments: object) -> SimpleNamespace:
        calls.append(arguments)
        return SimpleNamespace(
            offline=False,
            url="https://wandb.example/run",
            log=lambda values, step: calls.append(values | {"step": step}),
            finish=lambda exit_code: calls.append({"exit_code": exit_code}),
        )

    module = ModuleType("wandb")
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    module.init, module.Error = init, FakeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


@pytest.fixture
def make_spec(tmp_path: Path):
    def make(text: str, enable: str = "wandb.enable=true") -> TrainingRun:
        path = tmp_path / "spec.yaml"
        path.write_text(f"results_dir: {tmp_path}\n{text}")
        overrides = ["dataset.train.annotations=a.json", *filter(None, [enable])]
        return training_run(load_spec(path, overrides), tmp_path)

    return make


def track(settings: TrainingRun) -> tuple[str, str]:
    """Writes one value, and returns what the screen and status.json show."""
    console = Screen(record=True, width=300)
    status = StatusFile(settings.folder, "train", console)
    with wandb_writers(settings, status, console) as writers:
        for writer in writers:
            writer.add_scalar("train/loss", 2.5, 7)
    return console.export_text(), status.path.read_text() if status.path.exists() else ""


@pytest.mark.tao(39)
@pytest.mark.parametrize("enable", ["enable: false", "enable: true"])
def test_nothing_is_imported_when_disabled(
    enable: str, make_spec, tmp_path: Path, fake: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    if "true" in enable:
        monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setitem(sys.modules, "wandb", None)  # its import would fail
    assert track(make_spec(f"wandb: {{{enable}}}", "")) == ("", "")


@pytest.mark.parametrize("text", ["", "wandb: {project: mine}", "wandb: {enable: false, name: a}"])
def test_nothing_is_sent_where_the_spec_does_not_switch_it_on(
    make_spec, fake: list, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)  # whoever is logged in
    assert track(make_spec(text, "")) == ("", "")
    assert not fake


def test_no_account_is_told_and_training_goes_on(make_spec, tmp_path: Path, fake: list) -> None:
    screen, status = track(make_spec(""))
    assert "nothing is sent to Weights & Biases: no account is configured" in screen
    assert '"WARNING"' in status
    assert not fake


def test_a_missing_package_is_told_with_what_to_install(
    make_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    screen, _ = track(make_spec("wandb: {project: mine}"))
    assert install_hint("wandb") in screen


def test_a_run_that_cannot_start_does_not_end_the_training(
    make_spec, tmp_path: Path, fake: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)

    def refuse(**_: object) -> None:
        raise FakeError("no connection")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    assert "nothing is sent to Weights & Biases: no connection" in track(make_spec("wandb: {name: a}"))[0]


@pytest.mark.parametrize(
    ("netrc", "server", "known"),
    [
        ("machine api.wandb.ai\n  login user\n  password x\n", "", True),
        ("machine github.com login user password x\n", "", False),
        ("machine wandb.mine.org login user password x\n", "https://wandb.mine.org", True),
        ("machine api.wandb.ai login user password x\n", "https://wandb.mine.org", False),
    ],
)
def test_an_account_in_the_netrc_file(
    make_spec, tmp_path: Path, fake: list, monkeypatch: pytest.MonkeyPatch, netrc: str, server: str, known: bool
) -> None:
    (tmp_path / "netrc").write_text(netrc)
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    track(make_spec(""))
    assert bool(fake) == known


def test_values_go_to_the_run_which_learns_how_it_ended(
    make_spec, tmp_path: Path, fake: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    screen, _ = track(make_spec(""))
    assert screen == "wandb: https://wandb.example/run\n"
    assert fake[0]["dir"] == tmp_path
    assert fake[1:] == [{"train/loss": 2.5, "step": 7}, {"exit_code": 0}]
    status = StatusFile(tmp_path, "train", Screen(quiet=True))
    with pytest.raises(KeyError), wandb_writers(make_spec(""), status, Screen(quiet=True)):
        raise KeyError
    assert fake[-1] == {"exit_code": 1}


@pytest.mark.tao(39, case="reinit: true")
@pytest.mark.tao(39, case="sync_tensorboard: true")
@pytest.mark.tao(39, case="save_code: true")
@pytest.mark.parametrize(
    ("section", "argument", "value"),
    [
        ("", "project", "TAO Toolkit"),
        ("", "tags", ["tao-toolkit"]),
        ("", "entity", None),
        ("", "resume", None),
        ("", "reinit", "default"),
        ("project: p", "project", "p"),
        ("entity: team", "entity", "team"),
        ("group: g", "group", "g"),
        ("tags: [a, b]", "tags", ["a", "b"]),
        ("name: mine", "name", "mine"),
        ("run_id: 12", "id", "12"),
        ("run_id: 12", "resume", "allow"),
        ("reinit: true", "reinit", "finish_previous"),
        ("sync_tensorboard: true", "sync_tensorboard", True),
        ("save_code: true", "save_code", True),
    ],
)
def test_each_key_reaches_wandb(make_spec, section: str, argument: str, value: object) -> None:
    settings = make_spec(f"wandb: {{{section}}}")
    assert init_arguments(settings.tracking, settings.spec)[argument] == value


def test_curves_are_not_sent_twice_when_tensorboard_is_mirrored(
    make_spec, tmp_path: Path, fake: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    track(make_spec("wandb: {sync_tensorboard: true}"))
    assert fake[1:] == [{"exit_code": 0}]


@pytest.mark.tao(32)
def test_the_configuration_holds_no_secret(make_spec) -> None:
    address = "https://user:word@host/x.tgz?sig=abc"
    settings = make_spec(f"encryption_key: {KEY}\ndataset: {{label_map: '{address}', val: {{names: [a@b]}}}}\n")
    config = init_arguments(settings.tracking, settings.spec)["config"]
    assert "encryption_key" not in config
    assert config["dataset"]["label_map"] == "https://<redacted>@host/x.tgz?<redacted>"
    assert config["dataset"]["val"]["names"] == ["a@b"]
    assert config["train"] == settings.spec["train"]


@pytest.mark.slow
def test_an_offline_run_of_the_real_package(
    make_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "argv", ["cli.py", "train", f"encryption_key={KEY}"])
    console = Screen(width=300)
    status = StatusFile(tmp_path, "train", console)
    text = f"encryption_key: {KEY}\nwandb: {{run_id: myrun, project: my project}}"
    with wandb_writers(make_spec(text), status, console) as writers:
        progress = TrainingProgress(console, total_steps=1, start_step=0)
        logbook = Logbook(tmp_path, start_step=0, reporter=progress, writers=writers)
        logbook.train(1, {"loss": 0.12345, "lr": 0.1}, 3.0)
        logbook.validation(1, {"mIoU": 0.6789})
        logbook.close()
    wandb.teardown()
    (folder,) = tmp_path.glob("wandb/offline-run-*-myrun")
    assert f"wandb sync {folder}" in capfd.readouterr().out
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for text in ("my project", "train/loss", "0.12345", "validation/mIoU", "0.6789", "weight_decay"):
        assert text.encode() in written
    assert KEY.encode() not in written


def test_a_server_whose_address_is_none_is_a_warning(make_spec, fake: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://[::1")
    screen, _ = track(make_spec("wandb: {project: mine}"))
    assert "WANDB_BASE_URL is not a valid address" in " ".join(screen.split())
    assert fake == []
