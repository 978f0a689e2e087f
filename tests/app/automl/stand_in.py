"""`python stand_in.py SPEC`: what a training leaves, in seconds, for tests of the study around it.

It keeps a checkpoint after every epoch, goes on from it, and ends when its standard input does. The score rises over
the epochs to a value that depends on the learning rate alone and is largest at 1e-4. Above 3e-3 it fails.
`python stand_in.py study SPEC FOLDER` is a study of such trainings.
"""

import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

COMMAND = (sys.executable, __file__)
SECONDS_PER_EPOCH = float(os.environ.get("STAND_IN_EPOCH", "0.02"))
STEPS_PER_EPOCH = 5
BEST_LR, LARGEST_LR = 1e-4, 3e-3


def score(lr: float, epoch: int) -> float:
    """The last one of four epochs is a little worse than the third: the best counts."""
    late = 0.01 if epoch == 4 else 0.0
    return 0.9 - 0.05 * (math.log10(lr / BEST_LR)) ** 2 - 0.3 * math.exp(-epoch) - late


def train(spec_path: Path) -> int:
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(143)), daemon=True).start()
    section = yaml.safe_load(spec_path.read_text())["train"]
    folder, lr = Path(section["results_dir"]), float(section.get("optim", {}).get("lr", 1e-5))

    def write(name: str, line: dict[str, Any]) -> None:
        with (folder / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    done = max((int(path.name) for path in (folder / "checkpoints").glob("*")), default=0) // STEPS_PER_EPOCH
    write("starts.jsonl", {"epoch": done, "time": time.time()})
    if lr > LARGEST_LR:
        write("status.json", {"status": "FAILURE", "message": f"the gradients were not finite: lr {lr}"})
        return 1
    for epoch in range(done + 1, section["num_epochs"] + 1):
        time.sleep(SECONDS_PER_EPOCH)
        step = epoch * STEPS_PER_EPOCH
        write("log.jsonl", {"step": step, "kind": "validation", "mIoU": score(lr, epoch)})
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
        for link in ("best", "latest"):
            (folder / link).unlink(missing_ok=True)
            (folder / link).symlink_to(f"checkpoints/{step}")
        write("status.json", {"epoch": epoch - 1, "step": step, "status": "RUNNING", "message": "in progress"})
        loss = {"train_loss": 1 - score(lr, epoch)}
        write("status.json", {"status": "RUNNING", "message": "Train metrics generated.", "kpi": loss})
    write("starts.jsonl", {"end": time.time()})
    write("status.json", {"status": "SUCCESS", "message": "", "kpi": {"train_loss": 9.0}})
    return 0


def study(spec_path: Path, folder: Path) -> None:
    from oneformer_jax.app.actions.automl import search
    from oneformer_jax.app.automl.request import search_run
    from oneformer_jax.app.run.execute import Run
    from oneformer_jax.app.run.screen import Screen
    from oneformer_jax.app.run.status import StatusFile
    from oneformer_jax.app.spec import load_spec

    console = Screen()
    run = Run(folder, StatusFile(folder, "automl", console), console)
    search(search_run(load_spec(spec_path, ["automl.metric=mIoU"])), run, COMMAND)


if __name__ == "__main__":
    if sys.argv[1] == "study":
        study(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(train(Path(sys.argv[1])))
