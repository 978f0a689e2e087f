"""Commands about data: labels of other kinds made COCO, data sets checked and stored for training at scale."""

from pathlib import Path
from typing import Annotated

import typer

from oneformer_jax.app.cli.options import Overrides, SpecPath, path
from oneformer_jax.app.run.failures import guarded


def import_data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or archive of pictures and their labels.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", parser=path, help="The folder to write.")],
    kind: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Layout of the labels; default: recognised.")
    ] = None,
    val: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the pictures that validate, where the source does not say which."),
    ] = 0.1,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the pictures; without it they are links.")] = False,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path, help="List of classes: names, numbers, colours.")
    ] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(metavar="VALUE", help="Value of masks that is no class; may be repeated. -1: every value is one."),
    ] = None,
    images: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of the pictures, below SOURCE.")] = "",
    labels: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of the masks, below SOURCE.")] = "",
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory of the GPU that will train, such as 24GB: decides model and batch."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an import wrote to DEST.")] = False,
) -> None:
    """Turn masks, polygons or a benchmark's folders into a data set with a spec that trains on it."""
    with guarded() as console:
        from oneformer_jax.app.actions.importing.import_data import ImportRun
        from oneformer_jax.app.actions.importing.import_data import import_data as action
        from oneformer_jax.data.importers.reader import Options

        options = Options(classes, None if ignore is None else tuple(ignore), images, labels)
        action(ImportRun(source, destination, kind, options, val, copy, memory, overwrite), console)


def prepare(
    spec: SpecPath,
    output: Annotated[Path, typer.Option("--output", "-o", parser=path, help="The folder to write.")],
    overrides: Overrides = None,
) -> None:
    """Store a spec's data sets as shards for training at scale; run it again after an interruption to go on."""
    with guarded() as console:
        from oneformer_jax.app.actions.data import prepare as action

        action(spec, overrides or [], output, console)


def inspect_data(
    spec: SpecPath,
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help="Read the pixels of all images, not only of 500.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", parser=path, help="Picture to write; default: <results_dir>/inspect/samples.png."
        ),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=path,
            help="Write the annotations without what cannot be used, a spec that trains on them and a report there.",
        ),
    ] = None,
) -> None:
    """Check the data sets, print what they hold, and draw 16 training samples as the model will see them."""
    with guarded() as console:
        if fix is not None:
            if output is not None:
                raise typer.BadParameter("--fix draws no picture: leave --output out")
            from oneformer_jax.app.actions.cleaned_data import write_cleaned_data

            write_cleaned_data(spec, overrides or [], fix, console)
            return
        from oneformer_jax.app.actions.data import inspect_data as action

        action(spec, overrides or [], console, strict=strict, output=output)
