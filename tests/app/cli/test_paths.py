"""Paths on the command line."""

import ast
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from oneformer_jax.app.cli import commands, job_commands


@pytest.mark.parametrize("module", [commands, job_commands], ids=lambda module: module.__name__)
def test_every_path_knows_the_home_folder(module: object) -> None:
    """Shells leave the ~ of --option=~/file alone."""
    tree = ast.parse(Path(module.__file__).read_text())
    options = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node).startswith("Annotated[Path")
    ]
    assert len(options) >= 2
    assert [option for option in options if "parser=path" not in option] == []


def test_an_address_is_no_path() -> None:
    assert CliRunner().invoke(commands.app, ["schema", "-o", "https://u:secret@h/x"]).exit_code == 2
    told = CliRunner().invoke(commands.app, ["schema", "-o", "https://u:secret@h/x"]).output
    assert "is an address" in told
    assert "secret" not in told


@pytest.mark.slow
def test_a_folder_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    get_command(commands.app).main(["schema", "--output=~/out"], standalone_mode=False)
    assert (tmp_path / "out").is_dir()
