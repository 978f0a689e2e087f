"""The pages say what is there: their snippets run, their links lead somewhere, the files that they name exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])
FILE = re.compile(r"`((?:[\w-]+/)*[\w.-]+\.(?:py|yaml|md|toml|json|yml))`")
FOLDERS = (
    "",
    "docs",
    "oneformer_jax",
    "oneformer_jax/app",
    "converters",
    "tests",
    "tests/converters",
    "configs",
    "benchmarks",
)
# What runs write, files of other code bases, and examples.
NOT_IN_THE_TREE = re.compile(
    r"runs/|jobs/|status|curves|log|metrics|report|results|spec\.yaml|best_spec|experiment|job\.json|"
    r"label_map|annotations|config\.json|class_info|preprocessor|quantization|engine\.json|a\.json|b\.json"
)


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture and the checkpoint of a tiny model where the quickstart leaves its own."""
    from oneformer_jax.checkpoints.description import Description
    from oneformer_jax.checkpoints.store import Checkpoints
    from oneformer_jax.data.drawn_shapes import CATEGORIES, write_drawn_shapes
    from oneformer_jax.models import oneformer
    from oneformer_jax.models.backbones import SwinConfig
    from oneformer_jax.models.config import OneFormerConfig, PixelDecoderConfig, TextEncoderConfig, TransformerConfig

    config = OneFormerConfig(
        num_classes=len(CATEGORIES.items),
        backbone=SwinConfig(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4),
        pixel_decoder=PixelDecoderConfig(conv_dim=32, mask_dim=32, num_layers=1, num_heads=2, dim_feedforward=32),
        transformer=TransformerConfig(
            hidden_dim=32, num_queries=12, num_heads=2, dim_feedforward=32, dec_layers=2, class_dec_layers=1
        ),
        text_encoder=TextEncoderConfig(width=64, num_layers=1, n_ctx=0, proj_num_layers=1),
    )
    folder = tmp_path_factory.mktemp("docs")
    with Checkpoints(folder / "runs" / "quickstart" / "train", keep=0, monitor="mIoU") as store:
        params = oneformer.init(config, jax.random.key(0))
        store.save(params, None, Description(config, CATEGORIES, (120.0,) * 3, (60.0,) * 3, spec={}))
        store.wait()
    write_drawn_shapes(folder / "runs" / "quickstart" / "data", {"val": 1}, size=64)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["README.md", "docs/tour.md", pytest.param("docs/predict.md", marks=pytest.mark.prove)]
)
def test_the_snippets_of_a_page_run_one_after_the_other(page: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    names: dict[str, Any] = {"__name__": "snippet"}
    found = blocks(ROOT / page)
    assert found
    for number, block in enumerate(found, start=1):
        exec(compile(block, f"{page}, snippet {number}", "exec"), names)


def links(page: Path) -> Iterator[str]:
    """The relative targets of the links of a page, without fragments."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    headings: dict[Path, set[str]] = {}
    for target in links(page):
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{relative(page)} links to {target}"
        if fragment:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            headings.setdefault(path, {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles})
            assert fragment in headings[path], f"{relative(page)} links to {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=relative)
def test_files_that_a_page_names_exist(page: Path) -> None:
    for name in FILE.findall(page.read_text()):
        if "/" in name and not NOT_IN_THE_TREE.search(name):
            assert any((ROOT / folder / name).exists() for folder in FOLDERS), f"{relative(page)} names {name}"


def test_the_tour_starts_each_folder_with_files_that_are_there() -> None:
    rows = re.findall(r"^\| `([\w/]+)`.*\| ([^|]+) \|$", (ROOT / "docs" / "tour.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    for folder, files in rows:
        for name in re.findall(r"`([\w/.]+)`", files):
            where = "oneformer_jax/app" if "/" in name else folder
            assert (ROOT / where / name).is_file(), f"{folder}: {name}"
