"""Actions as commands: options in, exit codes out.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted, 143 terminated. Heavy modules
are imported by the command that needs them, so that `--help` and a typo in the spec answer at once.
"""

import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from oneformer_jax.actions.execute import execute
from oneformer_jax.actions.failures import explained
from oneformer_jax.actions.training_route import action_for_training
from oneformer_jax.spec.tasks import Task

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="OneFormer in JAX: one model for semantic, instance and panoptic segmentation, driven by a spec file.",
)

inspect = typer.Typer(no_args_is_help=True, help="Look at data, spec or model before training.")
app.add_typer(inspect, name="inspect")

SpecPath = Annotated[Path, typer.Option("--spec", "-e", "--experiment_spec_file", help="The spec file (YAML).")]
SourceKind = Literal["auto", "shi", "tao", "huggingface", "swin", "timm"]
TargetKind = Literal["checkpoint", "huggingface"]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of spec keys.")]


@app.command()
def train(
    spec: SpecPath,
    overrides: Overrides = None,
    automl_policy: Annotated[
        Literal["auto", "on", "off"] | None,
        typer.Option("--automl-policy", help="Search for good values first; else what the spec's automl_policy says."),
    ] = None,
) -> None:
    """Train a model; run the same command again to resume."""

    def run(console: Console) -> None:
        name = action_for_training(spec, overrides or [], automl_policy, console)
        execute(name, spec, overrides or [], lambda *run: action_of(name)(*run), console)

    guarded(run)


@app.command()
def automl(spec: SpecPath, overrides: Overrides = None) -> None:
    """Search for the values of keys that train best; run the same command again to go on."""
    run_action("automl", spec, overrides or [])


@app.command()
def evaluate(spec: SpecPath, overrides: Overrides = None) -> None:
    """Score a checkpoint: mIoU, PQ and AP of the tasks that model.test switches on."""
    run_action("evaluate", spec, overrides or [])


@app.command()
def inference(spec: SpecPath, overrides: Overrides = None) -> None:
    """Draw and write the results for a folder of images."""
    run_action("inference", spec, overrides or [])


@app.command()
def export(spec: SpecPath, overrides: Overrides = None) -> None:
    """Write a checkpoint as an ONNX file, and compare the two."""
    run_action("export", spec, overrides or [])


@app.command()
def quantize(spec: SpecPath, overrides: Overrides = None) -> None:
    """Store a checkpoint or an ONNX file in 8 bits, and show what that costs in accuracy."""
    run_action("quantize", spec, overrides or [])


@app.command("gen_trt_engine")
def gen_trt_engine(spec: SpecPath, overrides: Overrides = None) -> None:
    """Build a TensorRT engine of an exported ONNX file, on the GPU that will run it."""
    run_action("gen_trt_engine", spec, overrides or [])


@app.command()
def benchmark(
    engine: Annotated[Path | None, typer.Option(help="A TensorRT engine.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="An exported ONNX file, for ONNX Runtime.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint, for JAX.")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Images of a batch; may be repeated.")] = None,
    size: Annotated[
        tuple[int, int] | None, typer.Option(metavar="HEIGHT WIDTH", help="Of a checkpoint's images; else 640 640.")
    ] = None,
    task: Annotated[Task, typer.Option(help="The task.")] = "semantic",
    warm_up: Annotated[int, typer.Option(min=0, help="Batches before the measured ones.")] = 3,
    runs: Annotated[int, typer.Option(min=1, help="Measured batches of each size.")] = 20,
    device: Annotated[int, typer.Option(min=0, help="Index of the device.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the results as JSON.")] = None,
) -> None:
    """Measure how long a model takes for a batch of images: percentiles and images a second."""
    options: dict[str, Any] = {"engine": engine, "onnx": onnx, "checkpoint": checkpoint}
    options |= {"batch_sizes": batch_size or [1]}
    options |= {"size": size, "task": task, "warm_up": warm_up, "runs": runs, "device": device, "output": output}
    guarded(lambda console: action_of("benchmark")(console, **options))


@app.command()
def quickstart(spec: SpecPath = Path("configs/quickstart.yaml"), overrides: Overrides = None) -> None:
    """Draw a small data set, train on it, evaluate all three tasks and show the pictures."""
    guarded(lambda console: action_of("quickstart")(spec, overrides or [], console))


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
    options = {"kind": kind, "target": target, "label_map": label_map, "report": report}
    guarded(lambda console: action_of("convert")(source, destination, console, **options))


@app.command("default_specs")
def default_specs(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ACTION] [results_dir=FOLDER]")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", "--results_dir", "-r", help="A .yaml file, or a folder.")
    ] = None,
    spec: Annotated[
        Path | None, typer.Option("--spec", "-e", "--experiment_spec_file", help="A spec that names results_dir.")
    ] = None,
) -> None:
    """Write a spec with every key of an action (without one: of all actions) at TAO's default, to start from."""
    from oneformer_jax.actions.spec_files import write_default_spec as action
    from oneformer_jax.spec.template import ACTIONS

    names = [text for text in arguments or [] if "=" not in text]
    if names[1:] or not set(names) <= set(ACTIONS):
        raise typer.BadParameter(f"{' '.join(names)}: choose one of {', '.join(ACTIONS)}")
    overrides = [text for text in arguments or [] if "=" in text]
    guarded(lambda console: action("".join(names), output, spec, overrides, console))


@app.command()
def schema(output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")]) -> None:
    """Write the files that describe the actions to TAO's tools: schemas, spec templates, skill information."""
    from oneformer_jax.actions.spec_files import write_schemas as action

    guarded(partial(action, output))


@app.command()
def prepare(
    spec: SpecPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    overrides: Overrides = None,
) -> None:
    """Store a spec's data sets as shards for training at scale; run it again after an interruption to go on."""
    guarded(lambda console: action_of("prepare")(spec, overrides or [], output, console))


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def launch(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="train --spec S [KEY=VALUE]...")],
    num_processes: Annotated[int, typer.Option("--num-processes", "-n", min=1, help="Each stands for a node.")],
    max_restarts: Annotated[int, typer.Option(min=0, help="How often to go on after a process was lost.")] = 0,
) -> None:
    """Train on several processes of this machine, as if they were nodes; watch them and start them again."""
    from oneformer_jax.actions.launch import launch as action

    codes: list[int] = []
    guarded(lambda console: codes.append(action(command, num_processes, max_restarts, console)))
    raise typer.Exit(codes[0])


@inspect.command("data")
def inspect_data(
    spec: SpecPath,
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help="Read every pixel, not those of 500 images.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The picture; else <results_dir>/inspect/samples.png.")
    ] = None,
) -> None:
    """Check the data sets, print what they hold, and draw 16 training samples as the model will see them."""
    options = {"strict": strict, "output": output}
    guarded(lambda console: action_of("inspect_data")(spec, overrides or [], console, **options))


@inspect.command("spec")
def inspect_spec(spec: SpecPath, overrides: Overrides = None) -> None:
    """Print the keys that differ from their defaults and where they are set, what is not honoured, and the paths."""
    guarded(lambda console: action_of("inspect_spec")(spec, overrides or [], console))


@inspect.command("model")
def inspect_model(
    spec: SpecPath,
    overrides: Overrides = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images; else dataset.train.batch_size.")] = None,
    size: Annotated[
        tuple[int, int] | None, typer.Option(metavar="HEIGHT WIDTH", help="Pixels; else the training crop.")
    ] = None,
) -> None:
    """Print the model's parameters, operations and memory, for training and for inference."""
    options = {"batch": batch, "size": size}
    guarded(lambda console: action_of("inspect_model")(spec, overrides or [], console, **options))


def run_action(name: str, spec_path: Path, overrides: list[str]) -> None:
    """Loads the spec, prepares the result folder, runs the action and ends the process with its exit code."""
    guarded(lambda console: execute(name, spec_path, overrides, lambda *run: action_of(name)(*run), console))


def action_of(name: str) -> Callable[..., Any]:
    """The function of an action, from the module of its name. Call it under `guarded`: loading JAX takes seconds."""
    return getattr(import_module(f"oneformer_jax.actions.{name}"), name)


def guarded(run: Callable[[Console], Any]) -> None:
    """Turns what a person can meet into one message and an exit code; a defect keeps its traceback."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run(console)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted", style="red")
        raise typer.Exit(128 + signal.SIGINT) from None
    except Exception as error:
        known = explained(error)
        if known is None:
            _leave_others(error)
            raise
        Console(stderr=True).print(f"error: {known}", style="red", markup=False, highlight=False, soft_wrap=True)
        _leave_others()
        raise typer.Exit(1) from None


def _leave_others(defect: Exception | None = None) -> None:
    """Ends the process here if it is one of several; `defect`: what nobody has printed yet."""
    if "oneformer_jax.training.distributed" in sys.modules:  # else it is alone
        from oneformer_jax.training.distributed import leave_the_others

        leave_the_others(1, defect)
