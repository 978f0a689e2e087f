"""Processes that `launch` starts together: one is lost and all start again, or its end explains itself."""

import sys
from pathlib import Path

import pytest

from oneformer_jax.app.cli import launch
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.errors import OneFormerError

# Process 1 is killed, or ends with a code, in as many starts as the second word says; process 0 then waits for it.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path

folder, losses, code, process = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), os.environ["NODE_RANK"]
start = len(list(folder.glob(f"{process}-*")))
(folder / f"{process}-{start}").touch()
if start < losses:
    if process == "0":
        time.sleep(60)
    while not (folder / f"0-{start}").exists():
        time.sleep(0.01)
    if code:
        sys.exit(code)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("losses", "code", "starts", "returned", "words"),
    [
        (0, 0, 1, 0, []),
        (1, 0, 2, 0, ["process 1 has ended (SIGKILL)", "ending process 0", "last checkpoint (1 of 1)"]),
        (2, 0, 2, 137, ["process 1 has ended (SIGKILL)", "last checkpoint (1 of 1)"]),
        (1, 1, 1, 1, ["process 1 has ended (exit code 1)", "ending process 0"]),
    ],
)
def test_a_lost_process_ends_the_others_and_all_start_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses: int,
    code: int,
    starts: int,
    returned: int,
    words: list[str],
) -> None:
    monkeypatch.setattr(launch, "COMMAND_LINE", (sys.executable, "-c", SCRIPT))
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    console = Screen(record=True, width=160)
    assert launch.launch([str(tmp_path), str(losses), str(code)], 2, 1, console) == returned
    text = console.export_text()
    assert all(word in text for word in words), text
    assert ("restarting" in text) == (starts > 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{p}-{s}" for p in "01" for s in range(starts))


def test_only_a_training_has_several_processes() -> None:
    assert launch.for_training(["train", "-e", "spec.yaml"]) == ["train", "-e", "spec.yaml"]
    with pytest.raises(OneFormerError, match=r"found `evaluate`(.|\n)*run `evaluate` without launch"):
        launch.for_training(["evaluate", "-e", "spec.yaml"])
