"""Imports run one way, and what needs no JAX imports without it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each part may import of the project, besides itself and `errors`.
ALLOWED = {
    "spec": set(),
    "data": {"spec"},
    "postprocess": {"spec", "data"},
    "evaluation": {"spec", "data", "postprocess"},
    "models": set(),
    "losses": {"models", "data"},
    "converters": {"spec", "data", "models", "losses", "postprocess", "evaluation", "deploy"},
    "training": {"models", "losses", "data", "converters"},
    "inference": {"spec", "data", "models", "postprocess", "evaluation", "training"},
    "deploy": {"spec", "data", "postprocess", "evaluation"},
    "automl": {"spec", "training"},
    "jobs": {"spec", "data", "actions", "automl"},
    "actions": {
        *("spec", "data", "models", "losses", "converters", "training", "postprocess", "evaluation", "inference"),
        *("automl", "deploy"),
    },
}

FREE_OF_JAX = [
    "oneformer_jax",
    "oneformer_jax.errors",
    "oneformer_jax.app.spec",
    "oneformer_jax.data.geometry",
    "oneformer_jax.data.datasets.images",
    "oneformer_jax.data.datasets.categories",
    "oneformer_jax.data.storage.dataset_root",
    "oneformer_jax.data.datasets.check_files",
    "oneformer_jax.data.datasets.sources",
    "oneformer_jax.data.storage.cache",
    "oneformer_jax.postprocess.result",
    "oneformer_jax.evaluation.evaluator",
    "oneformer_jax.evaluation.report",
    "oneformer_jax.predict.draw",
    "oneformer_jax.predict.write",
    "oneformer_jax.deploy",
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

DATA_BELOW_POSTPROCESS = {"geometry", "images", "categories", "dataset"}


def imports_of(path: Path) -> set[str]:
    """Modules of the project that a file imports, at any depth of the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] in ("oneformer_jax", "converters")}


def part_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "converters":
        return "converters"
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else None


def sources() -> list[Path]:
    return sorted([*(ROOT / "oneformer_jax").rglob("*.py"), *(ROOT / "converters").rglob("*.py")])


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imports_of(path):
        imported = part_of(module)
        if part is None or imported is None or imported == part:
            continue
        assert imported in ALLOWED[part], f"{part} imports {module}"
        if part in ("postprocess", "evaluation") and imported == "data" and len(module.split(".")) > 2:
            assert module.split(".")[2] in DATA_BELOW_POSTPROCESS, f"{part} imports {module}"


def test_no_file_is_longer_than_400_lines_or_called_utils() -> None:
    for path in sources():
        assert len(path.read_text().splitlines()) <= 400, path
        assert path.stem not in ("utils", "common", "misc", "helpers"), path


def test_the_jax_free_parts_import_where_jax_is_not_installed() -> None:
    script = BLOCKER + "\n".join(f"import {module}" for module in FREE_OF_JAX)
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_public_names_resolve() -> None:
    import oneformer_jax

    for name in oneformer_jax.__all__:
        assert getattr(oneformer_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = oneformer_jax.nothing
