"""The files that the declarations of the keys give: a template to start from, and what describes the actions to TAO."""

from pathlib import Path

from rich.console import Console

from oneformer_jax.app.spec import load_spec
from oneformer_jax.app.spec.published.bundle import bundle, to_yaml
from oneformer_jax.app.spec.published.template import template
from oneformer_jax.errors import OneFormerError


def write_schemas(folder: Path, console: Console) -> None:
    """Writes schemas, manifest, templates and skill information below `folder`, over what is there."""
    files = bundle()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    console.print(f"{len(files)} files written to {folder}", soft_wrap=True)


def write_default_spec(
    action: str, output: Path | None, spec: Path | None, overrides: list[str], console: Console
) -> None:
    """Writes the template of an action to a .yaml file, or as experiment.yaml to a folder; without either, prints it.

    The folder may also come as TAO takes it: `results_dir=FOLDER`, or results_dir of a spec file. A file that is there
    is kept.
    """
    text = to_yaml(template(action))
    if output is None and (folder := load_spec(spec, overrides).results_dir):
        output = Path(folder)
    if output is None:
        print(text, end="")
        return
    path = output if output.suffix in (".yaml", ".yml") else output / "experiment.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OneFormerError("exists already", where=str(path), hint="remove it or name another --output") from None
    console.print(f"{path} written", soft_wrap=True)
