"""No process contacts anything but what the spec or the command line names, and none leaves a report for its maker."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import pytest
from servers import running_web
from small_graph import SIZE, small_model

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.drawn_shapes import write_drawn_shapes

ROOT = Path(__file__).resolve().parents[2]
HERE = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::", ""}

# Python imports it at the start of every process that has its folder on PYTHONPATH.
WATCH = """
import os, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        found = address[0] if isinstance(address, tuple) else ""
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        found = arguments[0] or ""
    else:
        return
    found = found.decode() if isinstance(found, bytes) else found
    os.write(contacts, f"{event} {found}\\n".encode())

contacts = os.open(os.environ["CONTACTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(note)
"""
SPEC = """
results_dir: {0}/results
model: {{test: {{semantic_on: true}}, sem_seg_head: {{num_classes: 7}}}}
dataset:
  train: {{images: {0}/val/images, annotations: {0}/val/annotations.json, panoptic: {0}/val/panoptic}}
  val: {{images: {0}/val/images, annotations: {0}/val/annotations.json, panoptic: {0}/val/panoptic, batch_size: 2}}
  label_map: {0}/label_map.json
  augmentation: {{train_crop_size: [32, 32], test_min_size: 32, test_max_size: 32}}
evaluate: {{trt_engine: {0}/model.onnx}}
"""

Run = Callable[..., list[str]]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    write_drawn_shapes(tmp_path, {"val": 3}, size=SIZE, seed=1)
    categories = Categories.from_json(json.loads((tmp_path / "label_map.json").read_text()))
    onnx.save(small_model(categories=categories), tmp_path / "model.onnx")
    (tmp_path / "spec.yaml").write_text(SPEC.format(tmp_path))
    return tmp_path


@pytest.fixture
def contacts(tmp_path: Path) -> Run:
    """`contacts(words of the command line)`: whom it and its children contacted, but for this machine."""
    home, hooks = tmp_path / "home", tmp_path / "hooks"
    home.mkdir()
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCH)

    def run(*arguments: str | Path, before: Sequence[str] = (), code: str = "") -> list[str]:
        log = tmp_path / "contacts"
        log.write_text("")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "XDG", "ORT"))}
        environment = {**kept, "HOME": str(home), "CONTACTS": str(log), "ONEFORMER_CACHE_DIR": str(tmp_path / "cache")}
        environment["PYTHONPATH"] = os.pathsep.join([str(hooks), str(ROOT)])
        words = ["-c", code] if code else [str(ROOT / "cli.py"), *map(str, arguments)]
        command = [*before, sys.executable, *words]
        result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert not list(home.rglob("*icrosoft*"))  # where ONNX Runtime keeps what it has not reported yet
        found = {line.rpartition(" ")[2] for line in log.read_text().splitlines()}
        return sorted(found - HERE)

    return run


def test_what_is_watched_is_seen(contacts: Run) -> None:
    code = "import socket\ntry: socket.create_connection(('host.invalid', 80), timeout=1)\nexcept OSError: pass"
    assert contacts(code=code) == ["host.invalid"]


@pytest.mark.slow
def test_an_exported_model_is_scored_without_a_word_to_anybody(contacts: Run, workplace: Path) -> None:
    assert contacts("evaluate", "-e", workplace / "spec.yaml") == []
    assert (workplace / "results" / "evaluate" / "metrics.json").is_file()


@pytest.mark.slow
def test_an_address_of_the_spec_is_the_only_one_that_is_contacted(contacts: Run, workplace: Path) -> None:
    with running_web() as web:
        content = (workplace / "label_map.json").read_bytes()
        address = web.put("label_map.json", content).replace("127.0.0.1", "localhost")
        assert contacts("inspect", "data", "-e", workplace / "spec.yaml", f"dataset.label_map={address}") == []
        assert web.requests


TRAIN = (
    "train.is_dry_run=true",
    "model.backbone.swin={embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], window_size: 4}",
    "model.sem_seg_head={num_classes: 7, convs_dim: 64, mask_dim: 64, transformer_enc_layers: 1}",
    "model.one_former={hidden_dim: 64, nheads: 2, num_object_queries: 12, dim_feedforward: 32, dec_layers: 2}",
    "model.text_encoder={width: 64, num_layers: 1, n_ctx: 2, proj_num_layers: 1}",
)


@pytest.mark.prove  # its small sibling: test_an_exported_model_is_scored_without_a_word_to_anybody
def test_a_training_and_what_the_system_sees_of_it(contacts: Run, workplace: Path) -> None:
    """Where there is strace, the calls of libraries that are no Python are seen too."""
    trace = workplace / "trace"
    strace = shutil.which("strace")
    before = [strace, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)] if strace else []
    commands = [
        ("train", "-e", workplace / "spec.yaml", *TRAIN),
        ("evaluate", "-e", workplace / "spec.yaml"),
        ("prepare", "-e", workplace / "spec.yaml", "--output", workplace / "prepared"),
        ("inspect", "data", "-e", workplace / "spec.yaml", f"dataset.train.images=tfds://{workplace}/prepared",
         "dataset.train.annotations=", "dataset.train.panoptic="),
    ]  # fmt: skip
    for command in commands:
        assert contacts(*command, before=before) == []
        calls = trace.read_text() if strace else ""
        assert set(re.findall(r'(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)', calls)) <= HERE
