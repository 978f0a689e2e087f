"""The command line in forks of a process that has imported its modules: the same program, without seconds of imports.

A fork happens before JAX starts its backend; the child takes on the environment, the folder and the output that it is
given and runs `cli.py` as its main program. What it prints, its exit code and what it leaves are those of
`python cli.py`.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
READ_AT_START = ("JAX", "XLA", "TF_", "PYTHON", "LD_", "GLIBC", "MALLOC")  # by libraries, when they are imported
spent = 0.0  # CPU seconds of all commands


class CommandServer:
    """A process that forks for each command."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._spent = 0.0
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def can_run(self, environment: Mapping[str, str]) -> bool:
        """Whether nothing is asked for that had to be known before the imports."""
        names = environment.keys() | self._environment.keys()
        names = {name for name in names if name.startswith(READ_AT_START)}
        return all(environment.get(name) == self._environment.get(name) for name in names)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """`python cli.py` with these arguments; raises subprocess.TimeoutExpired after so many seconds."""
        with tempfile.TemporaryDirectory() as place:
            outputs = Path(place, "stdout"), Path(place, "stderr")
            code = self.wait(self.start(arguments, environment, folder, outputs, seconds))
            out, errors = (output.read_text() for output in outputs)
        if code == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(list(arguments), seconds, out, errors)
        return subprocess.CompletedProcess(list(arguments), code, out, errors)

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        outputs: tuple[Path, Path],
        seconds: float,
    ) -> int:
        """The process id of `python cli.py` with these arguments, which an alarm ends after so many seconds."""
        return self._answer([list(arguments), dict(environment), str(folder), list(map(str, outputs)), seconds])

    def wait(self, process: int) -> int:
        """The exit code of a command, once it has ended."""
        global spent
        code, taken = self._answer(process)
        spent += taken
        self._spent += taken
        return code

    def _answer(self, request: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """From then on the CPU seconds of its commands are those of a child that was waited for."""
        global spent
        self._process.communicate()
        spent -= self._spent


def serve() -> None:
    """Answers each line of JSON on standard input: a command with its process id, a process id with the exit code and
    the CPU seconds of that child, once it has ended."""
    sys.path[0] = str(ROOT)
    for name in ("oneformer_jax.app.cli", "oneformer_jax.app.actions"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
    importlib.import_module("tensorboardX")  # with torch, if that is there
    gc.freeze()  # or each child copies all of it
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, int):
            _, status, used = os.wait4(request, 0)
            answer: object = [os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]
        elif (answer := os.fork()) == 0:
            become_the_command(*request)
        print(json.dumps(answer), flush=True)


def become_the_command(
    arguments: list[str], environment: dict[str, str], folder: str, outputs: list[str], seconds: float
) -> None:
    """Runs it and ends the process, as the interpreter ends any: threads, exit handlers, buffers."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    files = [os.open(os.devnull, os.O_RDONLY), *(os.open(path, os.O_WRONLY | os.O_CREAT) for path in outputs)]
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.alarm(max(1, round(seconds)))
    script = str(ROOT / "cli.py")
    sys.argv, sys.orig_argv = [script, *arguments], [sys.executable, script, *arguments]
    runpy.run_path(script, run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    serve()
