"""Every key of the spec counts for what it names, or is refused, or is named as not honoured: one row for each."""

import ast
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import action_rows
import automl_rows
import dataset_rows
import deploy_rows
import model_rows
import pytest
import train_rows
from key_rows import Changes, Refused, Row, Rows, Shown

from oneformer_jax.app.spec import Spec, load_spec, unsupported_keys
from oneformer_jax.app.spec.field import plain
from oneformer_jax.app.spec.spec import notes
from oneformer_jax.app.spec.tree import Leaf, leaves
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.errors import SpecError

TESTS = Path(__file__).resolve().parents[2]
LEAVES = {leaf.path: leaf for leaf in leaves(Spec)}
SECTIONS: tuple[Rows, ...] = tuple(
    rows for file in (action_rows, model_rows, dataset_rows, train_rows, automl_rows, deploy_rows) for rows in file.ROWS
)
ROWS: Rows = {path: row for section in SECTIONS for path, row in section.items()}

SpecOf = Callable[..., Spec]


def status(leaf: Leaf) -> str:
    """What the declaration of a key promises."""
    if leaf.key.honoured is not True:
        return "not honoured"
    if len(leaf.key.only) == 1 or (leaf.type == "categorical" and len(get_args(leaf.field.annotation)) == 1):
        return "refused"  # every value but one
    return "extension" if leaf.extension else "honoured"


def another_value(leaf: Leaf) -> Any:
    """An acceptable value that is not the default."""
    match leaf.type:
        case "bool":
            return not leaf.default
        case "int" | "float":
            return (leaf.default or 0) + 1
        case "categorical":
            return next(value for value in get_args(leaf.field.annotation) if value != leaf.default)
        case "list":
            return leaf.default[:1] or ([{}] if "dict" in str(leaf.field.annotation) else ["a"])
        case "collection":
            return {"a": 1}
    return "cpu"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set for each of training and validation."""
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_shapes(folder, {"train": 4, "val": 2, "test": 2}, size=32, seed=3)
    return folder


@pytest.fixture(scope="module")
def spec_of(data: Path) -> SpecOf:
    """A spec with data and the given overrides, each read once."""
    files = [
        f"dataset.{split}.{key}=DATA/{split}/{name}"
        for split in ("train", "val", "test")
        for key, name in (("images", "images"), ("panoptic", "panoptic"), ("annotations", "annotations.json"))
    ]

    @cache
    def load(*overrides: str) -> Spec:
        return load_spec(None, [text.replace("DATA", str(data)) for text in (*files, *overrides)])

    return load


def names_of_tests(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


def check_row(row: Row, path: str, spec_of: SpecOf) -> None:
    """Raises AssertionError where the run does not do what the row says."""
    match row:
        case Changes(value, observed, expected, beside, together):
            assert observed(spec_of(*beside)) != expected
            assert observed(spec_of(*beside, f"{path}={value}", *together)) == expected
        case Refused(value):
            with pytest.raises(SpecError) as caught:
                spec_of(f"{path}={value}")
            assert f"{path}: " in str(caught.value)
        case Shown(node):
            file, _, name = node.partition("::")
            assert name in names_of_tests(TESTS / file), f"there is no test {node}"


@pytest.mark.parametrize("path", LEAVES)
def test_a_key_counts_or_is_refused_or_is_named(path: str, spec_of: SpecOf) -> None:
    leaf = LEAVES[path]
    if status(leaf) == "not honoured":
        assert path not in ROWS, f"{path} has a row but is declared as not honoured"
        spec = Spec.model_validate(nested(path, another_value(leaf)))
        assert plain(spec.value(path)) != leaf.default
        assert unsupported_keys(spec) == [path]
        assert notes()[path]
        return
    assert path in ROWS, f"{path} has no row: show what it changes, or declare it as not honoured with a note"
    assert isinstance(ROWS[path], Refused) == (status(leaf) == "refused")
    check_row(ROWS[path], path, spec_of)


def nested(path: str, value: Any) -> dict[str, Any]:
    """`value` at a dotted path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def test_each_row_is_of_one_key_and_the_summary_holds_all() -> None:
    assert Counter(path for section in SECTIONS for path in section).most_common(1)[0][1] == 1
    assert ROWS.keys() <= LEAVES.keys()
    counts = Counter(map(status, LEAVES.values()))
    in_part = sum(callable(leaf.key.honoured) for leaf in LEAVES.values())
    kinds = Counter(type(row).__name__ for row in ROWS.values())
    print(
        f"\n{len(LEAVES)} keys: {counts['honoured']} honoured, {counts['refused']} refused but for one value, "
        f"{counts['not honoured']} not honoured and named ({in_part} of them with some values only), "
        f"{counts['extension']} extensions\n"
        f"rows: {kinds['Changes']} changed in a setting, {kinds['Refused']} refused, {kinds['Shown']} in other tests"
    )
    assert sum(counts.values()) == len(LEAVES) == len(ROWS) + counts["not honoured"]
    assert counts.keys() == {"honoured", "refused", "not honoured", "extension"}
