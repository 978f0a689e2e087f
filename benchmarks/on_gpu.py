"""All that is to be known of a GPU, in one command: `make gpu`, and `make gpu-check` for its first part.

It runs in slices, each a command of its own: the tests that compare the GPU with the CPU, then the benchmarks beside
their peers. What is done is not done again, so that an interrupted run goes on; what cannot run here is listed with the
reason, and what failed ends in an exit code of 1. Nothing is installed or fetched. Results are JSON files in a folder
of the GPU's name, and `docs/gpu-<name>.md` shows them.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.command import RESULTS

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("-m", "pytest", "--tier=gpu", "-q", "-p", "no:xdist")
SIDE_BY_SIDE = ("torch", "transformers", "safetensors")


@dataclass(frozen=True)
class Slice:
    """`command` are the arguments of Python, with `{folder}` for that of the results. `needs` are the modules without
    which it cannot run. `minutes` is the longest that it may take."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    minutes: int = 9


def _beside(kind: str, backbone: str, size: int, batch: int, precision: str) -> Slice:
    options = ("--backbone", backbone, "--size", str(size), "--batch", str(batch), "--precision", precision)
    name = f"{kind} {backbone} {size} b{batch} {precision}"
    return Slice(name, ("-m", f"benchmarks.{kind}", *options, "--device", "gpu", "--apart"), SIDE_BY_SIDE)


CHECK = (Slice("a step beside the CPU's", (*TESTS, "tests/training/test_step_on_gpu.py"), ("pytest", "hypothesis"), 6),)
QUICKSTART = ("cli.py", "quickstart", "results_dir={folder}/quickstart", "train.num_epochs=2")
OF_IT = ("-e", "configs/quickstart.yaml", "results_dir={folder}/quickstart")
FILE = "{folder}/quickstart/export/model.onnx"
EXPORT = ("cli.py", "export", *OF_IT, "export.checkpoint={folder}/quickstart/train", f"export.onnx_file={FILE}")
BATCHES = ("--batch-size", "1", "--batch-size", "8")
SLICES = (
    *CHECK,
    Slice("training, resuming, evaluation", (*TESTS, "tests/e2e/test_commands_on_gpu.py"), ("pytest", "hypothesis")),
    Slice("deformable attention", ("-m", "benchmarks.deformable_attention", "--device", "gpu"), SIDE_BY_SIDE),
    *(_beside("inference", "swin_t", 512, 1, precision) for precision in ("bf16", "32")),
    *(_beside("training", "swin_t", 512, 2, precision) for precision in ("bf16", "32")),
    Slice("quickstart", QUICKSTART),
    Slice("export", EXPORT, ("jax2onnx",)),
    Slice(
        "latency in JAX",
        (
            "cli.py",
            "benchmark",
            "--checkpoint",
            "{folder}/quickstart/train",
            "--size",
            "128",
            "128",
            *BATCHES,
            "-o",
            "{folder}/latency-jax.json",
        ),
    ),
    Slice(
        "latency in ONNX Runtime",
        ("cli.py", "benchmark", "--onnx", FILE, "-o", "{folder}/latency-onnx.json"),
        ("onnxruntime",),
    ),
    Slice(
        "TensorRT engine",
        (
            "cli.py",
            "gen_trt_engine",
            *OF_IT,
            f"gen_trt_engine.onnx_file={FILE}",
            "gen_trt_engine.trt_engine={folder}/quickstart/model.engine",
        ),
        ("tensorrt", "cuda.bindings"),
    ),
    Slice(
        "latency in TensorRT",
        ("cli.py", "benchmark", "--engine", "{folder}/quickstart/model.engine", "-o", "{folder}/latency-tensorrt.json"),
        ("tensorrt",),
    ),
    _beside("inference", "swin_l", 1024, 1, "bf16"),
    _beside("training", "swin_l", 1024, 2, "bf16"),
)


def gpu_name() -> str:
    """As the driver calls the first GPU. Ends the program where there is none, or JAX cannot use it."""
    if shutil.which("nvidia-smi") is None:
        sys.exit("no NVIDIA driver: nvidia-smi was not found")
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode or not found.stdout.strip():
        sys.exit(f"no GPU: nvidia-smi says {(found.stdout + found.stderr).strip()[:300] or 'nothing'}")
    script = "import jax; print(jax.devices()[0].device_kind)"
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    seen = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    if seen.returncode:
        last = (seen.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"JAX does not see the GPU ({found.stdout.splitlines()[0]}): {last}\n  -> pip install -e '.[cuda]'")
    return found.stdout.splitlines()[0].strip()


def folder_name(gpu: str) -> str:
    """The name in lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower().removeprefix("nvidia ")).strip("-")


def lacking(one: Slice) -> list[str]:
    """The modules that a slice needs and this Python has not."""
    return [name for name in one.needs if importlib.util.find_spec(name) is None]


def run(slices: Sequence[Slice], folder: Path) -> bool:
    """Runs what has not been done yet, keeps the output of each, and says how each ended. Whether nothing failed."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "slices.json"
    ended: dict[str, dict[str, object]] = json.loads(record.read_text()) if record.is_file() else {}
    for one in slices:
        if ended.get(one.name, {}).get("ended") == "done":
            print(f"{one.name}: done before")
            continue
        if absent := lacking(one):
            ended[one.name] = {"ended": f"left out: {', '.join(absent)} not installed"}
        else:
            print(f"{one.name}: at most {one.minutes} minutes", flush=True)
            ended[one.name] = _run(one, folder)
        record.write_text(json.dumps(ended, indent=1) + "\n")
        print(f"{one.name}: {ended[one.name]['ended']}", flush=True)
    return all(not str(ended[one.name]["ended"]).startswith("failed") for one in slices)


def _run(one: Slice, folder: Path) -> dict[str, object]:
    words = [word.format(folder=folder) for word in one.command]
    output = ("--output", str(folder)) if words[1].startswith("benchmarks.") else ()
    log, started = folder / f"{folder_name(one.name)}.log", time.monotonic()
    with log.open("w") as text:
        try:
            code = subprocess.run(
                [sys.executable, *words, *output],
                cwd=ROOT,
                env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
                stdout=text,
                stderr=subprocess.STDOUT,
                timeout=60 * one.minutes,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
    seconds = round(time.monotonic() - started, 1)
    last = (log.read_text().strip().splitlines() or [""])[-1]
    return {"ended": "done" if code == 0 else f"failed with exit code {code}: {log}", "seconds": seconds, "last": last}


def page(gpu: str, folder: Path) -> Iterator[str]:
    """The lines of the page of a GPU: how each slice ended, then the tables of the benchmarks."""
    yield f"# Measured on {gpu}"
    yield ""
    yield "Generated by `make gpu`; the words of the tables are those of [benchmarks.md](benchmarks.md)."
    yield ""
    yield "| Slice | Ended | Seconds | Last line |"
    yield "| --- | --- | --- | --- |"
    for name, how in json.loads((folder / "slices.json").read_text()).items():
        yield f"| {name} | {str(how['ended']).partition(':')[0]} | {how.get('seconds', '')} | {how.get('last', '')} |"
    yield ""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.name != "slices.json"]
    if results:
        yield report.tables(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only whether a training step works here, in minutes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=report.PAGE.parent)
    options = parser.parse_args()
    gpu = gpu_name()
    folder = options.results / f"gpu-{folder_name(gpu)}"
    print(f"{gpu}: {folder}")
    succeeded = run(CHECK if options.check else SLICES, folder)
    path = options.docs / f"{folder.name}.md"
    path.write_text("\n".join(page(gpu, folder)) + "\n")
    print(path)
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
