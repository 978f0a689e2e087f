"""Spec files: what one says, a template to start from, and what describes the actions to TAO."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from oneformer_jax.app.spec import Spec, load_spec, oddities, unsupported_keys
from oneformer_jax.app.spec.dotted import flat
from oneformer_jax.app.spec.field import plain
from oneformer_jax.app.spec.published.bundle import bundle
from oneformer_jax.app.spec.published.schema import own_template
from oneformer_jax.app.spec.source import yaml_text
from oneformer_jax.app.spec.spec import notes
from oneformer_jax.app.spec.tree import leaves
from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.errors import OneFormerError
from oneformer_jax.writing import write_text


def inspect_spec(spec_path: Path, overrides: list[str], console: Console) -> None:
    """Prints the keys that differ from their defaults and where, what is not honoured, and where paths lead. Raises
    SpecError."""
    spec = load_spec(spec_path, overrides)
    values = flat(spec.to_dict(), {leaf.path for leaf in leaves(Spec)})
    changed = [leaf for leaf in leaves(Spec) if plain(spec.value(leaf.path)) != leaf.default]
    _print(
        console,
        f"{len(changed)} of {len(list(leaves(Spec)))} keys differ from their defaults",
        ("key", "value", "default", "set at"),
        [(leaf.path, _text(values[leaf.path]), _text(leaf.default), _place(spec.place(leaf.path))) for leaf in changed],
    )
    stated = [leaf for leaf in leaves(Spec) if leaf.key.unset and leaf not in changed and spec.is_set(leaf.path)]
    if stated:
        _print(
            console,
            f"{len(stated)} at their defaults, which decide because they are set",
            ("key", "value", "without it", "set at"),
            [(leaf.path, _text(values[leaf.path]), leaf.key.unset, _place(spec.place(leaf.path))) for leaf in stated],
        )
    ignored, reasons = unsupported_keys(spec), notes()
    if ignored:
        rows = [(path, _place(spec.place(path)), reasons[path]) for path in ignored]
        _print(console, f"{len(ignored)} set, but not honoured", ("key", "set at", "what happens"), rows)
    for oddity in oddities(spec):
        console.print(f"warning: {oddity}", style="yellow")
    paths = [
        (leaf.path, *resolved)
        for leaf in leaves(Spec)
        if leaf.key.location
        for resolved in _resolved(values[leaf.path])
    ]
    if paths:
        _print(console, "paths", ("key", "leads to", ""), paths)


def _resolved(value: Any) -> Iterator[tuple[str, str]]:
    """Each path of a value, absolute, and whether something is there."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    for location in filter(None, values):
        if is_address(location):
            yield location, "URL"
        else:
            path = Path(location).resolve()
            yield str(path), "folder" if path.is_dir() else "file" if path.is_file() else "not there"


def _text(value: Any) -> str:
    """A value as a spec would write it."""
    if value is None or isinstance(value, str):
        return value or ""
    return yaml_text(value, flow=True).removesuffix("...\n").strip()


def _place(place: str) -> str:
    return "command line" if place.startswith("command line") else place


def _print(console: Console, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "key")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def write_schemas(folder: Path, console: Console) -> None:
    """Writes schemas, manifest, templates and skill information below `folder`, over what is there."""
    files = bundle()
    for name, text in files.items():
        write_text(folder / name, text)
    console.print(f"{len(files)} files written to {folder}")


def write_default_spec(
    action: str, output: Path | None, spec: Path | None, overrides: list[str], console: Console
) -> None:
    """Writes the template of an action to a .yaml file, or as experiment.yaml to a folder; without either, prints it.

    The folder may also come as TAO takes it: `results_dir=FOLDER`, or results_dir of a spec file. A file that is there
    is kept.
    """
    text = own_template(action)
    if output is None and (folder := load_spec(spec, overrides).results_dir):
        output = Path(folder)
    if output is None:
        print(text, end="")
        return
    path = output if output.suffix in (".yaml", ".yml") else output / "experiment.yaml"
    if os.path.lexists(path):
        raise OneFormerError("exists already", where=str(path), hint="remove it or name another --output")
    write_text(path, text)
    console.print(f"{path} written")
