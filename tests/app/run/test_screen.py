"""What is printed is what was given, whatever a class, a file or a key is called."""

import ast
import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from oneformer_jax.app.actions.evaluate import metrics_table
from oneformer_jax.app.run.screen import Screen, told, words
from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.evaluation.metrics import Scores

APP = Path(__file__).resolve().parents[3] / "oneformer_jax" / "app"
ODD = ["disk[/foo]", "sign [stop]", "[red]brick[/red]", ":smile:", r"a\[b]", "[link=http://x]y[/link]", "[/]"]


def printed(*objects: object, width: int = 400) -> str:
    out = io.StringIO()
    Screen(file=out, width=width, force_terminal=False).print(*objects)
    return out.getvalue()


def in_a_table(text: str) -> Table:
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    return table


@pytest.mark.parametrize("text", ODD)
def test_lines_and_tables_show_text_as_it_is(text: str) -> None:
    assert printed(text) == text + "\n"
    assert printed(in_a_table(text)).count(text) == 4


@given(st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=30))
def test_any_line_is_shown_as_it_is(text: str) -> None:
    assert printed(text) == text + "\n"


def test_a_long_path_stays_in_one_line() -> None:
    path = "/".join(["folder [1] with spaces"] * 40)
    assert printed(f"metrics: {path}", width=80) == f"metrics: {path}\n"


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\x1b]0;title\x07b", "a\x9b2Jb", "a\x7fb", "a\x00b"])
def test_a_terminal_is_never_told_what_a_name_says(text: str) -> None:
    for shown in (printed(text), printed(in_a_table(text))):
        assert "a" in shown
        assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("text", ODD)
def test_scores_of_any_class_can_be_shown(text: str) -> None:
    scores = Scores({"mIoU": 0.5, "pixel_accuracy": 0.5}, {"IoU": np.array([0.5])})
    assert text in printed(metrics_table(Metrics((text,), 1, "short edge", {"semantic": scores})))


def test_a_bar_shows_any_description() -> None:
    task = type("Task", (), {"description": "fetching disk[/foo]"})
    assert str(words("{task.description}").render(task)) == "fetching disk[/foo]"  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_that_the_screen_has_no_letters_for_is_shown_by_number(encoding: str) -> None:
    code = "from oneformer_jax.app.run.screen import standard_output as s; s().print('é \\udcff')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
        cwd=APP.parents[1],
    )
    assert result.stdout.decode().strip() == ("é \\udcff" if encoding == "utf-8" else "\\xe9 \\udcff")


def test_one_file_prints() -> None:
    """Nobody else makes what would read text as markup."""
    refused = {"Console", "TextColumn", "from_markup", "render_markup", "escape"}
    for path in APP.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
        names -= {"escape"} if "import re" in path.read_text() else set()
        assert path.name == "screen.py" or not names & refused, path
        assert "rich.markup" not in path.read_text(), path


def test_what_the_library_tells_is_a_line_without_the_names_of_modules(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("oneformer_jax.data.datasets.images")
    with told():
        logger.warning("%s: comes out black", "a[red].png")
    assert capsys.readouterr().err == "warning: a[red].png: comes out black\n"
    assert logging.getLogger("oneformer_jax").handlers == []


def test_what_several_readers_of_a_folder_warn_of_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("oneformer_jax.data")
    for _ in range(2):  # each run says it anew
        with told():
            for message in ("one", "one", "another", "one"):
                logger.warning(message)
    assert capsys.readouterr().err.split("\n") == [*["warning: one", "warning: another"] * 2, ""]
