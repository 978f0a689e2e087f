"""What needs no JAX imports without it, and the public names are there. Which part may import which: test_house.py."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]

FREE_OF_JAX = [
    "oneformer_jax",
    "oneformer_jax.errors",
    "oneformer_jax.app.spec",
    "oneformer_jax.data.geometry",
    "oneformer_jax.data.datasets.images",
    "oneformer_jax.data.datasets.categories",
    "oneformer_jax.data.datasets.files",
    "oneformer_jax.data.datasets.check_files",
    "oneformer_jax.data.datasets.sources",
    "oneformer_jax.data.storage.cache",
    "oneformer_jax.postprocess.results",
    "oneformer_jax.evaluation.evaluator",
    "oneformer_jax.evaluation.report",
    "oneformer_jax.predict.draw",
    "oneformer_jax.predict.write",
    "oneformer_jax.deploy.tensorrt_build",
    "oneformer_jax.predict.predictor",
    "oneformer_jax.app.cli.job_commands",
    "oneformer_jax.app.cli.commands",
    "oneformer_jax.app.actions.evaluate",
    "oneformer_jax.app.actions.inference",
    "oneformer_jax.app.actions.model.gen_trt_engine",
    "oneformer_jax.app.actions.model.benchmark",
    "converters.graphs.activations",
    "converters.files.read",
]

BLOCKER = (
    "import sys\n"
    "class Blocker:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.split('.')[0] in ('jax', 'jaxlib', 'flax', 'optax', 'orbax'):\n"
    "            raise ModuleNotFoundError(name)\n"
    "sys.meta_path.insert(0, Blocker())\n"
)
"""Python text after which JAX cannot be imported."""


@pytest.mark.slow
def test_the_jax_free_parts_import_where_jax_is_not_installed() -> None:
    script = BLOCKER + "\n".join(f"import {module}" for module in FREE_OF_JAX)
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_command_line_starts_without_what_only_its_actions_need() -> None:
    """Each of these takes a tenth of a second or more; the help and the check of a spec need none of them."""
    heavy = ("numpy", "PIL", "cv2", "jax", "pycocotools", "onnxruntime")
    script = f"import sys, oneformer_jax.app.cli.commands\nprint(sorted({set(heavy)} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_model_that_needs_jax_names_the_extra_that_brings_it(tmp_path: Path) -> None:
    for script in (f"oneformer_jax.load_model({str(tmp_path)!r})", "oneformer_jax.load_checkpoint"):
        command = [sys.executable, "-c", BLOCKER + "import oneformer_jax\n" + script]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "OneFormerError: " in result.stderr
        assert f" is not installed\n  -> pip install -e '{ROOT}[train]'" in result.stderr


@pytest.mark.slow
def test_whoever_looks_at_data_does_not_wait_for_pytorch() -> None:
    script = "import sys, oneformer_jax.app.actions.data; print({'torch', 'tensorboardX'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("set()\n", 0), result.stderr


def test_the_public_names_resolve() -> None:
    import oneformer_jax

    for name in oneformer_jax.__all__:
        assert getattr(oneformer_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = oneformer_jax.nothing


def test_no_hint_asks_an_index_for_this_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has registered its name there; whoever does could give anything."""
    import oneformer_jax.errors as errors

    assert errors.install_hint("automl") == f"pip install -e '{ROOT}[automl]'"
    monkeypatch.setattr(errors, "ROOT", tmp_path)
    origin = SimpleNamespace(read_text=lambda _: '{"url": "file:///w/oneformer_jax.whl"}')
    monkeypatch.setattr(errors, "distribution", lambda _: origin)
    assert errors.install_hint("automl") == "pip install 'oneformer_jax[automl] @ file:///w/oneformer_jax.whl'"
    monkeypatch.setattr(errors, "distribution", lambda _: SimpleNamespace(read_text=lambda _: None))
    assert errors.install_hint("automl") == "pip install -e '.[automl]', in a checkout"
    folders = [ROOT / name for name in ("oneformer_jax", "converters", "docs")]
    texts = [path.read_text() for folder in folders for end in ("py", "md") for path in folder.rglob(f"*.{end}")]
    assert not [text for text in texts if re.search(r"install '?oneformer_jax\[?[^@{]*'", text)]
