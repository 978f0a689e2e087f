"""Actions as commands: options in, exit codes out.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted, 143 terminated. Heavy modules
are imported by the command that needs them, so that `--help` and a typo in the spec answer at once.
"""

import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from oneformer_jax.actions.execute import Action, execute
from oneformer_jax.errors import OneFormerError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="OneFormer in JAX: one model for semantic, instance and panoptic segmentation, driven by a spec file.",
)

SpecPath = Annotated[Path, typer.Option("--spec", "-e", help="The spec file (YAML).")]
SourceKind = Literal["auto", "shi", "tao", "huggingface", "swin", "timm"]
TargetKind = Literal["checkpoint", "huggingface"]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of spec keys.")]


@app.command()
def train(spec: SpecPath, overrides: Overrides = None) -> None:
    """Train a model; run the same command again to resume."""
    from oneformer_jax.actions.train import train as action

    run_action("train", spec, overrides or [], action)


@app.command()
def evaluate(spec: SpecPath, overrides: Overrides = None) -> None:
    """Score a checkpoint: mIoU, PQ and AP of the tasks that model.test switches on."""
    from oneformer_jax.actions.evaluate import evaluate as action

    run_action("evaluate", spec, overrides or [], action)


@app.command()
def inference(spec: SpecPath, overrides: Overrides = None) -> None:
    """Draw and write the results for a folder of images."""
    from oneformer_jax.actions.inference import inference as action

    run_action("inference", spec, overrides or [], action)


@app.command()
def quickstart(spec: SpecPath = Path("configs/quickstart.yaml"), overrides: Overrides = None) -> None:
    """Draw a small data set, train on it, evaluate all three tasks and show the pictures."""
    from oneformer_jax.actions.quickstart import quickstart as action

    guarded(lambda console: action(spec, overrides or [], console))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A .pth, .ckpt, .safetensors file, a folder, or hf://, s3://.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to write.")],
    kind: Annotated[SourceKind, typer.Option("--from", help="Whose names the source has.")] = "auto",
    target: Annotated[TargetKind, typer.Option("--to", help="What to write.")] = "checkpoint",
    label_map: Annotated[Path | None, typer.Option(help="Class names and things: a label map or annotations.")] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write the report as JSON.")] = None,
) -> None:
    """Convert PyTorch weights to a checkpoint, or a model to a Hugging Face folder."""
    from oneformer_jax.actions.convert import convert as action

    guarded(partial(action, source, destination, kind=kind, target=target, label_map=label_map, report=report))


def run_action(name: str, spec_path: Path, overrides: list[str], action: Action) -> None:
    """Loads the spec, prepares the result folder, runs the action and ends the process with its exit code."""
    guarded(lambda console: execute(name, spec_path, overrides, action, console))


def guarded(run: Callable[[Console], Any]) -> None:
    """Turns what a person can meet into one message and an exit code; a defect keeps its traceback."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run(console)
    except OneFormerError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted", style="red")
        raise typer.Exit(128 + signal.SIGINT) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        Console(stderr=True).print(f"error: {place}{error.strerror}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from None
