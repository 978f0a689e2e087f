"""What goes wrong in TAO's OneFormer, numbered, and the tests that show what holds here: tao_behaviour/behaviour.yaml.

`python -m pytest $(python tests/test_tao_behaviour.py 7 12)` runs the tests of numbers 7 and 12.
"""

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One behaviour; the file says what the fields are."""

    number: int
    there: str
    here: str
    tests: tuple[str, ...]
    later: str = ""


ROWS = [
    Row(**entry | {"tests": tuple(entry["tests"])})
    for entry in yaml.safe_load((TESTS / "tao_behaviour" / "behaviour.yaml").read_text())
]


def parts_of(node: str) -> tuple[str, str, str]:
    """File, function and case of a node; the case may be empty."""
    path, _, name = node.partition("::")
    name, _, case = name.removesuffix("]").partition("[")
    return path, name, case


@cache
def content_of(path: str) -> tuple[frozenset[str], frozenset[str]]:
    """The test functions and the texts of a file."""
    nodes = list(ast.walk(ast.parse((TESTS / path).read_text())))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(functions), frozenset(texts)


def test_every_number_stands_once() -> None:
    assert [row.number for row in ROWS] == list(range(1, 43))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number:02d}")
def test_the_tests_of_a_number_exist(row: Row) -> None:
    assert row.there
    assert row.here
    assert row.tests
    for node in row.tests:
        path, name, case = parts_of(node)
        functions, texts = content_of(path)
        assert name in functions, node
        assert not case or case in texts, node


def test_every_test_with_a_number_stands_at_that_number() -> None:
    listed = {(row.number, *parts_of(node)[:2]) for row in ROWS for node in row.tests}
    for file in (TESTS / "tao_behaviour").glob("test_*.py"):
        path = f"tao_behaviour/{file.name}"
        for name in content_of(path)[0]:
            assert (int(name.split("_")[1]), path, name) in listed


if __name__ == "__main__":
    nodes = {parts_of(node)[:2] for row in ROWS if str(row.number) in sys.argv[1:] for node in row.tests}
    print(*sorted(f"{TESTS / path}::{name}" for path, name in nodes), sep="\n")
