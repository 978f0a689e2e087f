"""How the house is laid out: imports go down, a spec is read and not handed on, files and folders have a size."""

import ast
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("oneformer_jax", "converters")
FUNCTIONS_WITH_A_SPEC = 45
LONGEST_FILE, LARGEST_FOLDER = 350, 16
MEDIAN_FILE = (110, 180)
VAGUE = {"utils", "common", "misc", "helpers"}


def modules() -> list[Path]:
    """The files of both packages, without those that make a folder a package."""
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in found if path.name != "__init__.py"]


def functions_with_a_spec(path: Path) -> Iterator[str]:
    """The functions of a file that have a parameter with the annotation Spec."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            annotations = [ast.unparse(a.annotation) for a in arguments if a.annotation is not None]
            if any("Spec" in annotation.replace('"', "").split(" | ") for annotation in annotations):
                yield node.name


def test_imports_go_down() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_every_part_has_a_line_in_the_table_of_imports() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {part.strip() for line in contracts[0]["layers"] for part in line.split("|")}
    found = {
        f"{package}.{path.stem}"
        for package in PACKAGES
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert named == {name for name in found if "__" not in name}


def test_a_spec_is_read_and_not_handed_on() -> None:
    found = {path.relative_to(ROOT): list(functions_with_a_spec(path)) for path in modules()}
    total = sum(map(len, found.values()))
    listing = [f"{path}: {', '.join(names)}" for path, names in found.items() if names]
    print(f"\n{total} functions take a Spec", *listing, sep="\n")
    assert total <= FUNCTIONS_WITH_A_SPEC


def test_files_and_folders_have_a_size_that_can_be_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in modules()}
    folders = Counter(path.parent for path in lengths)
    median = statistics.median(lengths.values())
    print(f"\n{len(lengths)} files, {median:g} lines the median one")
    assert MEDIAN_FILE[0] <= median <= MEDIAN_FILE[1]
    assert not {path: length for path, length in lengths.items() if length > LONGEST_FILE}
    assert not {folder: count for folder, count in folders.items() if count > LARGEST_FOLDER}
    assert not VAGUE & {path.stem for path in lengths}


def test_nothing_is_mocked_outside_tests() -> None:
    assert not [path for path in modules() if "unittest" in path.read_text()]


def test_test_files_have_names_of_their_own() -> None:
    """Python imports one module of a name, and a run of all tests then lacks the other file."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
