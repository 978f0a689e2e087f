"""`predict`: pictures in, results out, with nothing but a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from oneformer_jax.app.cli.options import path
from oneformer_jax.app.run.failures import guarded
from oneformer_jax.tasks import Task

if TYPE_CHECKING:
    from oneformer_jax.predict.write import Format


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A run folder, checkpoint, .onnx or .engine file, Hugging Face folder, hf:// address."
        ),
    ],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE", help="Pictures, folders of pictures at any depth, 'patterns', archives, addresses."
        ),
    ],
    task: Annotated[
        Task | None, typer.Option(help="What to find; default: what a checkpoint was trained for, else panoptic.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=path,
            help="The folder to write; default: a new one, predictions, predictions-2, ...",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", metavar="LIST", help="overlay,png,json or some of these; default: all of the task."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Score of what is written; default: the model's for segments."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Names of the classes to write, divided by commas; may be repeated."),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--show-labels/--hide-labels", help="Whether overlays name the classes.")
    ] = True,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images or tiles at a time; default: 1, or what the model takes.")
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(min=32, metavar="PIXELS", help="Look at larger pictures in tiles of this side, and join them."),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(min=1, metavar="PIXELS", help="What neighbouring tiles share; default: an eighth of --tile."),
    ] = None,
) -> None:
    """Draw and write what a model finds in pictures; no spec is needed."""
    if threshold is not None and task == "semantic":
        raise typer.BadParameter("--threshold has no meaning for --task semantic: every pixel has a class")
    if overlap is not None and not overlap <= (tile or 0) // 2:
        what = "no --tile is given" if tile is None else f"tiles of {tile} pixels share {tile // 2} at most"
        raise typer.BadParameter(f"--overlap {overlap}: {what}")
    with guarded() as console:
        from oneformer_jax.app.actions.inference import predict as action
        from oneformer_jax.app.run.execute import writing_to
        from oneformer_jax.app.run.opened import usual_task
        from oneformer_jax.devices import DeviceChoice
        from oneformer_jax.postprocess.windows import Windows
        from oneformer_jax.predict.runs import InferenceRun, ModelChoice, Wanted

        task = task or usual_task(model)
        settings = InferenceRun(
            ModelChoice(model, DeviceChoice(section="predict"), batch_size),
            images=tuple(sources),
            task=task,
            wanted=Wanted(_formats(formats, task), tuple(classes or ()), threshold, labels),
            images_key="SOURCE",
            threshold_key="the model's threshold" if threshold is None else "--threshold",
            windows=None if tile is None else Windows.of_sides(tile, overlap),
        )
        with writing_to(output, console) as run:
            action(settings, run)


def _formats(text: str | None, task: Task) -> "tuple[Format, ...] | None":
    """Those of a list with commas, each once. Raises BadParameter for one that the task does not have."""
    from oneformer_jax.predict.write import FORMATS

    if text is None:
        return None
    found = [name.strip() for name in text.split(",")]
    if wrong := [name for name in found if name not in FORMATS[task]]:
        known = ", ".join(FORMATS[task])
        raise typer.BadParameter(f"--format: found '{wrong[0]}', but --task {task} has {known}")
    return tuple(cast("Format", name) for name in dict.fromkeys(found))
