"""Actions as commands: options in, exit codes out.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted, 143 terminated, 129 hung
up. Heavy modules are imported by the command that needs them, so that `--help` and a typo in the spec answer at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from oneformer_jax import __version__
from oneformer_jax.app.automl.policy import Policy, action_for_training
from oneformer_jax.app.cli.data_commands import import_data, inspect_data, prepare
from oneformer_jax.app.cli.options import Overrides, SpecPath, path
from oneformer_jax.app.cli.predict_command import predict
from oneformer_jax.app.run.children import CONFIGS
from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.failures import guarded
from oneformer_jax.tasks import Task

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="OneFormer in JAX: one model for semantic, instance and panoptic segmentation, driven by a spec file.",
)


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"oneformer {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What every command takes."""


inspect = typer.Typer(no_args_is_help=True, help="Look at data, spec or model before training.")
app.add_typer(inspect, name="inspect")
app.command("import")(import_data)
app.command()(prepare)
app.command()(predict)
inspect.command("data")(inspect_data)

SourceKind = Literal["auto", "shi", "tao", "huggingface", "swin", "timm", "dinat", "convnext"]
TargetKind = Literal["checkpoint", "huggingface"]


@app.command()
def train(
    spec: SpecPath,
    overrides: Overrides = None,
    automl_policy: Annotated[
        Policy | None,
        typer.Option("--automl-policy", help="Whether to run an AutoML search; default: automl_policy in the spec."),
    ] = None,
) -> None:
    """Train a model; run the same command again to resume."""
    with guarded() as console:
        if action_for_training(spec, overrides or [], automl_policy, console) == "automl":
            automl(spec, overrides)
            return
        with running("train", spec, overrides, console) as (read, run):
            from oneformer_jax.app.actions.train.train import train as action
            from oneformer_jax.app.settings.training import training_run

            action(training_run(read, run.folder), run)


@app.command()
def automl(spec: SpecPath, overrides: Overrides = None) -> None:
    """Search for the values of keys that train best; run the same command again to go on."""
    with guarded() as console, running("automl", spec, overrides, console) as (read, run):
        from oneformer_jax.app.automl.request import search_run

        settings = search_run(read)  # which says where Optuna is not installed: the action imports it
        from oneformer_jax.app.actions.automl import automl as action

        action(settings, run)


@app.command()
def evaluate(spec: SpecPath, overrides: Overrides = None) -> None:
    """Score a checkpoint: mIoU, PQ and AP of the tasks that model.test switches on."""
    with guarded() as console, running("evaluate", spec, overrides, console) as (read, run):
        from oneformer_jax.app.actions.evaluate import evaluate as action
        from oneformer_jax.app.settings.evaluation import evaluation_run

        action(evaluation_run(read), run)


@app.command()
def inference(spec: SpecPath, overrides: Overrides = None) -> None:
    """Draw and write the results for a folder of images."""
    with guarded() as console, running("inference", spec, overrides, console) as (read, run):
        from oneformer_jax.app.actions.inference import inference as action
        from oneformer_jax.app.settings.evaluation import inference_run

        action(inference_run(read), run)


@app.command()
def export(spec: SpecPath, overrides: Overrides = None) -> None:
    """Write a checkpoint as an ONNX file, and compare the two."""
    with guarded() as console, running("export", spec, overrides, console) as (read, run):
        from oneformer_jax.app.actions.model.export import export as action
        from oneformer_jax.app.settings.deployment import export_run

        action(export_run(read), run)


@app.command()
def quantize(spec: SpecPath, overrides: Overrides = None) -> None:
    """Store a checkpoint or an ONNX file in 8 bits, and show what that costs in accuracy."""
    with guarded() as console, running("quantize", spec, overrides, console) as (read, run):
        from oneformer_jax.app.actions.model.quantize import quantize as action
        from oneformer_jax.app.settings.deployment import quantization_run

        action(quantization_run(read), run)


@app.command("gen_trt_engine")
def gen_trt_engine(spec: SpecPath, overrides: Overrides = None) -> None:
    """Build a TensorRT engine of an exported ONNX file, on the GPU that will run it."""
    with guarded() as console, running("gen_trt_engine", spec, overrides, console) as (read, run):
        from oneformer_jax.app.actions.model.gen_trt_engine import gen_trt_engine as action
        from oneformer_jax.app.settings.deployment import engine_run

        action(engine_run(read), run)


@app.command()
def benchmark(
    engine: Annotated[Path | None, typer.Option(parser=path, help="A TensorRT engine.")] = None,
    onnx: Annotated[Path | None, typer.Option(parser=path, help="An exported ONNX file, for ONNX Runtime.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(parser=path, help="A checkpoint, for JAX.")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Images per batch; may be repeated.")] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="HEIGHT WIDTH", help="Height and width of a checkpoint's images; default: 640 640."),
    ] = None,
    task: Annotated[Task, typer.Option(help="The task.")] = "semantic",
    warm_up: Annotated[int, typer.Option(min=0, help="Batches to run before measuring.")] = 3,
    runs: Annotated[int, typer.Option(min=1, help="Batches to measure for each size.")] = 20,
    device: Annotated[int, typer.Option(min=0, help="Index of the device.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", parser=path, help="Where to write the results as JSON.")
    ] = None,
) -> None:
    """Measure how long a model takes for a batch of images: percentiles and images a second."""
    with guarded() as console:
        from oneformer_jax.app.actions.model.benchmark import benchmark as action
        from oneformer_jax.app.actions.model.benchmark import one_model
        from oneformer_jax.predict.runs import BenchmarkRun

        kind, path = one_model(engine=engine, onnx=onnx, checkpoint=checkpoint)
        sizes = tuple(batch_size or (1,))
        action(BenchmarkRun(kind, path, sizes, size, task, warm_up, runs, device, output), console)


@app.command()
def quickstart(
    spec: Annotated[
        Path,
        typer.Option(
            "--spec", "-e", "--experiment_spec_file", parser=path, help="The spec file.", show_default="its own"
        ),
    ] = CONFIGS / "quickstart.yaml",
    overrides: Overrides = None,
) -> None:
    """Draw a small data set, train on it, evaluate all three tasks and show the pictures."""
    with guarded() as console:
        from oneformer_jax.app.actions.quickstart import quickstart as action

        action(spec, overrides or [], console)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A .pth, .ckpt, .safetensors file, a folder, or hf://, s3://.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", parser=path, help="The folder to write.")],
    kind: Annotated[
        SourceKind,
        typer.Option(
            "--from", help="Code base whose parameter names the source has; default: recognised from the names."
        ),
    ] = "auto",
    target: Annotated[TargetKind, typer.Option("--to", help="Kind of output to write.")] = "checkpoint",
    label_map: Annotated[
        Path | None,
        typer.Option(parser=path, help="Label map or annotations with the class names and which of them are things."),
    ] = None,
    report: Annotated[Path | None, typer.Option(parser=path, help="Where to write the report as JSON.")] = None,
    backbone: Annotated[
        Path | None,
        typer.Option(parser=path, help="A spec, or YAML with keys of its backbone's section, such as dilations."),
    ] = None,
) -> None:
    """Convert PyTorch weights to a checkpoint, or a model to a Hugging Face folder."""
    with guarded() as console:
        from oneformer_jax.app.actions.model.convert import convert as action
        from oneformer_jax.app.settings.backbone_file import read_backbone_file

        told = read_backbone_file(backbone) if backbone else None
        action(
            source, destination, console, kind=kind, target=target, label_map=label_map, report=report, backbone=told
        )


@app.command("default_specs")
def default_specs(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ACTION] [results_dir=FOLDER]")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", "--results_dir", "-r", parser=path, help="A .yaml file, or a folder."),
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", "-e", "--experiment_spec_file", parser=path, help="A spec that sets results_dir."),
    ] = None,
) -> None:
    """Write a spec with every key of an action (without one: of all actions) at its default, to start from."""
    from oneformer_jax.app.actions.spec_files import write_default_spec as action
    from oneformer_jax.app.spec.published.schema import ACTIONS

    names = [text for text in arguments or [] if "=" not in text]
    if names[1:] or not set(names) <= set(ACTIONS):
        raise typer.BadParameter(f"{' '.join(names)}: choose one of {', '.join(ACTIONS)}")
    overrides = [text for text in arguments or [] if "=" in text]
    with guarded() as console:
        action("".join(names), output, spec, overrides, console)


@app.command()
def schema(output: Annotated[Path, typer.Option("--output", "-o", parser=path, help="The folder to write.")]) -> None:
    """Write the files that describe the actions to TAO's tools: schemas, spec templates, skill information."""
    from oneformer_jax.app.actions.spec_files import write_schemas as action

    with guarded() as console:
        action(output, console)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def launch(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="train --spec S [KEY=VALUE]...")],
    num_processes: Annotated[
        int, typer.Option("--num-processes", "-n", min=1, help="Processes to start, each acting as a node.")
    ],
    max_restarts: Annotated[int, typer.Option(min=0, help="How often to restart after a process was lost.")] = 0,
) -> None:
    """Train on several processes of this machine, as if they were nodes; watch them and start them again."""
    from oneformer_jax.app.cli.launch import for_training
    from oneformer_jax.app.cli.launch import launch as action

    with guarded() as console:
        code = action(for_training(command), num_processes, max_restarts, console)
    raise typer.Exit(code)


@inspect.command("spec")
def inspect_spec(spec: SpecPath, overrides: Overrides = None) -> None:
    """Print the keys that differ from their defaults and where they are set, what is not honoured, and the paths."""
    with guarded() as console:
        from oneformer_jax.app.actions.spec_files import inspect_spec as action

        action(spec, overrides or [], console)


@inspect.command("model")
def inspect_model(
    spec: SpecPath,
    overrides: Overrides = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images per batch; default: dataset.train.batch_size.")
    ] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="HEIGHT WIDTH", help="Height and width in pixels; default: the training crop."),
    ] = None,
    device: Annotated[
        Literal["h100"] | None,
        typer.Option(help="What a training step needs on this GPU, which need not be there; default: what is here."),
    ] = None,
) -> None:
    """Print the model's parameters, operations and memory, for training and for inference."""
    with guarded() as console:
        from oneformer_jax.app.actions.model.cost import inspect_model as action

        action(spec, overrides or [], console, batch=batch, size=size, device=device)
