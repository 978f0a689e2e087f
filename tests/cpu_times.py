"""CPU seconds of each test, its fixtures and the processes that it started: `pytest --cpu-times=FILE`.

`python tests/cpu_times.py FILE` prints the files and the tests that take most. Wall time says little on a machine that
does other work too, and less than that without the speed of the machine: the header and the end of a run state it.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest

SHOWN = 30


def seconds() -> float:
    """CPU seconds of this process, of the children that it waited for, and of commands in forks."""
    return sum(os.times()[:4]) + forked.spent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("tiers").addoption(
        "--cpu-times", metavar="FILE", help="append the CPU seconds of each test to FILE"
    )


def machine() -> str:
    """What times depend on."""
    from oneformer_jax.devices import processor  # once its types are checked

    return f"machine: {processor()}"


def pytest_report_header() -> str:
    return machine()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(machine())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    before = seconds()
    result = yield
    if file := item.config.getoption("--cpu-times"):
        with open(file, "a") as lines:  # short lines are appended whole, whoever else writes
            lines.write(json.dumps([item.nodeid, round(seconds() - before, 2)]) + "\n")
    return result


def table(file: Path) -> str:
    """The files and the tests that take most, as text."""
    tests: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        name, taken = json.loads(line)
        tests[name] += taken
    files: Counter[str] = Counter()
    for name, taken in tests.items():
        files[name.partition("::")[0]] += taken
    rows = [f"{sum(tests.values()):8.1f}  all {len(tests)} tests"]
    for counter in (files, tests):
        rows += ["", *(f"{taken:8.1f}  {name}" for name, taken in counter.most_common(SHOWN))]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
