"""What the declarations of the keys generate is what lies in the repository."""

from pathlib import Path

import pytest

from oneformer_jax.app.spec import load_spec
from oneformer_jax.app.spec.published.bundle import bundle
from oneformer_jax.app.spec.published.spec_page import page
from oneformer_jax.app.spec.spec import Spec
from oneformer_jax.app.spec.tree import leaves

ROOT = Path(__file__).resolve().parents[3]
SKILL = ROOT / "configs" / "skill"
NAMES = sorted(str(path.relative_to(SKILL)) for path in SKILL.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return bundle()


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_bundle_is_up_to_date(name: str, generated: dict[str, str]) -> None:
    again = "run `python cli.py schema --output configs/skill`"
    assert (SKILL / name).read_text(encoding="utf-8") == generated.get(name), again
    assert (SKILL / name).stat().st_size < 1_000_000


def test_nothing_is_missing_in_the_bundle(generated: dict[str, str]) -> None:
    assert set(NAMES) == set(generated)


def test_the_page_of_keys_is_up_to_date() -> None:
    again = "run `python -m oneformer_jax.app.spec.published.spec_page > docs/spec.md`"
    assert (ROOT / "docs" / "spec.md").read_text(encoding="utf-8") == page(), again


def test_the_page_names_every_key() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    for leaf in leaves(Spec):
        assert any(row.startswith(f"| `{leaf.path}` | {leaf.type} | ") for row in rows), leaf.path


@pytest.mark.parametrize("name", [name for name in NAMES if "spec_template" in name])
def test_each_template_is_a_spec(name: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text((SKILL / name).read_text(encoding="utf-8"), encoding="utf-8")
    spec = load_spec(path)
    if "deploy" not in name:
        assert spec.train.num_gpus == 8  # as published; one device where the spec does not say
        assert {leaf.path for leaf in leaves(Spec) if spec.value(leaf.path) != Spec().value(leaf.path)} == {
            "train.num_gpus"
        }
