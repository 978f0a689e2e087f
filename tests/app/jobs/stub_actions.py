"""Actions of a few lines in place of the real ones, and the command line of jobs."""

from typer.testing import CliRunner

from oneformer_jax.app.cli.job_commands import app

# Stands for the command line, `oneformer ACTION -e SPEC`, before the code of a test.
ACTION = """
import json, os, signal, sys, time
from pathlib import Path
import yaml
spec = yaml.safe_load(Path(sys.argv[3]).read_text())
folder = Path(spec["results_dir"]) / sys.argv[1]
folder.mkdir(exist_ok=True)
def status(state, message, **fields):
    with (folder / "status.json").open("a") as file:
        file.write(json.dumps({"status": state, "message": message, **fields}) + "\\n")
status("STARTED", "Starting.")
"""
ENDINGS = {
    "success": (
        "print('working'); status('SUCCESS', 'Done.', kpi={'test_mIoU': 0.25}); (folder / 'metrics.json').touch()",
        0,
        ("SUCCESS", "Done."),
    ),
    "failure": (
        "print('no', file=sys.stderr); status('FAILURE', 'no such data'); sys.exit(1)",
        1,
        ("FAILURE", "no such data"),
    ),
    "crash": ("os.abort()", 134, ("FAILURE", "ended with exit code 134 without a status: see the log")),
    "killed": (
        "os.kill(os.getpid(), 9)",
        137,
        ("FAILURE", "killed (SIGKILL): the system does this when memory runs out"),
    ),
}


def job(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})
