"""Compiles the parts of a case, each in a process of its own, whose memory is free afterwards.

    found = compiled_parts(case, folder, quick=True)

With `quick` the process ends when the memory is planned, a third of the way: schedule and buffers are then final, and
what is left is machine code. What a folder holds of the same revision is not compiled again.
"""

import json
import multiprocessing
import os
import re
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_program.case import Case
from benchmarks.gpu_program.custom_calls import StatedCost
from benchmarks.gpu_program.kernels import Program

ROOT = Path(__file__).resolve().parents[2]
SIZES = ("temp", "argument", "output", "alias")


@dataclass(frozen=True)
class Part:
    """One compiled program: its text, its bytes on a device by what they are for (`SIZES`), how many entries the logits
    of its attentions have, what the whole case gets from the host and returns, in bytes, and versions."""

    program: Program
    sizes: dict[str, int]
    attention_entries: frozenset[int]
    host: tuple[int, int]
    versions: str


def compiled_parts(case: Case, folder: Path | None = None, *, quick: bool = False) -> dict[str, Part]:
    """By the names of the parts. Their texts stay in `folder`, where one is given.

    Raises RuntimeError: a process ended without a result; it has said why.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = (folder or Path(temporary)) / case.name
        place.mkdir(parents=True, exist_ok=True)
        return {name: _part(case, name, place, quick) for name in case.parts}


def revision() -> str:
    """Of the checkout, with `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _part(case: Case, name: str, folder: Path, quick: bool) -> Part:
    facts, text = folder / f"{name}.json", folder / f"{name}.hlo"
    here = revision()
    if not facts.is_file() or "dirty" in here or json.loads(facts.read_text())["revision"] != here:
        facts.unlink(missing_ok=True)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as dump:
            arguments = (case, name, folder, Path(dump) if quick else None)
            process = multiprocessing.get_context("spawn").Process(target=_compile, args=arguments)
            process.start()
            process.join()
        if not facts.is_file():
            raise RuntimeError(f"the process that compiled {name} ended with exit code {process.exitcode}")
        print(f"{case.name}: {name} compiled in {time.monotonic() - start:.0f} s", flush=True)
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"revision": here}))
    found = json.loads(facts.read_text())
    stated = [StatedCost(kernel, tuple(map(tuple, shapes)), *rest) for kernel, shapes, *rest in found["stated"]]
    program = Program(text.read_text(), stated)
    return Part(program, found["sizes"], frozenset(found["attention"]), tuple(found["host"]), found["versions"])


def _compile(case: Case, name: str, folder: Path, dump: Path | None) -> None:
    """Writes text and facts of one part, in a process of its own, before it imports JAX. Where XLA has a folder to dump
    to, only as far as the memory is planned."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # it computes nothing
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    if dump is not None:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={dump}"
    import jax

    from benchmarks.gpu_program.programs import host_bytes, traced_parts
    from benchmarks.gpu_program.traced import attention_entries, stated_costs

    traced = traced_parts(case)
    attention = attention_entries(traced[name].jaxpr)
    if "forward" in traced:  # the backward pass takes up what the exponentials were kept for
        attention |= attention_entries(traced["forward"].jaxpr)
    facts = {
        "stated": stated_costs(traced[name].jaxpr),
        "attention": sorted(count // case.devices for count in attention),
        "host": host_bytes(case, traced),
        "versions": f"jax {jax.__version__}, jaxlib {jax.lib.__version__}",
    }
    lowered = traced[name].lower()
    text, sizes = _compiled(lowered) if dump is None else _planned(lowered, dump)
    (folder / f"{name}.hlo").write_text(text)
    (folder / f"{name}.json").write_text(json.dumps(facts | {"sizes": sizes}))
    os._exit(0)  # the compiler may still run, on a thread that nothing ends


def _compiled(lowered: Any) -> tuple[str, dict[str, int]]:
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    return compiled.as_text(), {size: getattr(memory, f"{size}_size_in_bytes") for size in SIZES}


def _planned(lowered: Any, dump: Path) -> tuple[str, dict[str, int]]:
    """What the compiler has written when it has planned the memory; it goes on, on a thread."""
    failed: list[BaseException] = []

    def compile_it() -> None:
        try:
            lowered.compile()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=compile_it, daemon=True)
    thread.start()
    last = "gpu_after_optimizations-memory-usage-report.txt"  # of the files that are written then
    while not (found := list(dump.glob(f"*{last}"))):
        if failed:
            raise failed[0]
        if not thread.is_alive():
            raise RuntimeError(f"the compiler has ended and left no {last}")
        time.sleep(0.2)
    time.sleep(0.5)
    (report,) = found
    stem = report.name.removesuffix("-memory-usage-report.txt")
    return (dump / f"{stem}.txt").read_text(), planned_sizes((dump / f"{stem}-buffer-assignment.txt").read_text())


def planned_sizes(assignment: str) -> dict[str, int]:
    """`SIZES` by XLA's list of buffers."""
    sizes = dict.fromkeys(SIZES, 0)
    for number, words in re.findall(r"^allocation \d+: size (\d+), (.*)$", assignment, re.MULTILINE):
        size, is_argument, is_output = int(number), "parameter" in words, "maybe-live-out" in words
        sizes["argument"] += size * is_argument
        sizes["output"] += size * is_output
        sizes["alias"] += size * (is_argument and is_output)
        sizes["temp"] += size * ("preallocated-temp" in words)
    return sizes
