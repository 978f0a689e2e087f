"""The page of an evaluation: its numbers, its layers, and what it does in a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import VOID, Segment
from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.evaluation.metrics import GroundTruth, PanopticCounts, Scores
from oneformer_jax.postprocess.results import PanopticResult, PanopticSegment, Result
from oneformer_jax.predict.report import charts
from oneformer_jax.predict.report.layers import COLORS, LAYERS, MISSED, OTHER_OBJECT, WRONG_CLASS, errors, layers_of
from oneformer_jax.predict.report.page import Shown, report_page

NAMES = ("cat", "<b>sky</b> & sea", "dog's")
IS_THING = np.array([True, False, True])


def metrics() -> Metrics:
    nan = float("nan")
    scores = {
        "semantic": Scores({"mIoU": 0.5, "pixel_accuracy": 0.625}, {"IoU": np.array([0.25, 0.75, nan])}),
        "panoptic": Scores({"PQ": 0.4, "SQ": 0.8, "RQ": nan}, {"PQ": np.array([0.375, 0.1, nan])}),
    }
    confusion = np.array([[60, 20, 0], [0, 120, 0], [0, 0, 0]])
    zeros = np.zeros(3, np.int64)
    counts = PanopticCounts(zeros, zeros, zeros, zeros.astype(float), np.array([[3.0, 1, 2.4], [0, 0, 0], [2, 2, 1.8]]))
    return Metrics(NAMES, 7, "short edge", scores, confusion=confusion, counts=counts)


def page() -> str:
    blank = np.zeros((4, 6, 3), np.uint8)
    shown = [
        Shown(f"{name}.png", quality, quality > 0.5, [NAMES[number]], dict.fromkeys(LAYERS, blank))
        for number, (name, quality) in enumerate([("a<i>", 0.25), ("b", 0.5), ("c'", 1.0)])
    ]
    return report_page("runs/<x>", ["7 images."], metrics(), shown)


class Cells(HTMLParser):
    """The texts of the cells of all tables, the attributes of all tags, and which are open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def test_the_page_has_the_numbers_and_names_nothing_outside() -> None:
    text = page()
    read = Cells()
    read.feed(text)
    assert read.rows[:4] == [
        ["class", "IoU", "PQ", "share of pixels"],
        ["cat", "25.0", "37.5", "40.00%"],
        ["<b>sky</b> & sea", "75.0", "10.0", "60.00%"],
        ["dog's", "-", "-", "0.00%"],
    ]
    assert ["cat", "<b>sky</b> & sea", "25.0%", "20"] in read.rows
    assert ["small", "below 1,024 pixels", "4", "3", "75.0", "80.0"] in read.rows
    assert ["medium", "1,024 to 9,216 pixels", "0", "0", "-", "-"] in read.rows
    assert ["large", "from 9,216 on pixels", "4", "2", "50.0", "90.0"] in read.rows
    for headline in ("<em>50.0</em> mIoU", "pixel accuracy <b>62.5</b>", "<em>40.0</em> PQ", "RQ <b>-</b>"):
        assert headline in text
    assert "<b>sky" not in text.replace("&lt;b&gt;sky", "")
    assert "a<i>" not in text
    for tag, name, value in read.attributes:
        if name in ("src", "href"):
            assert value is not None
            assert value.startswith("data:"), (tag, value)
    assert not re.search(r"https?://|@import|url\(", text)
    assert text.count("<figure data-text=") == 3
    assert "c&#x27;.png: 100.0, one of the best" in text


def test_a_matrix_of_many_classes_shows_its_largest_cells() -> None:
    counts = np.random.default_rng(0).integers(1, 1000, (200, 200))
    np.fill_diagonal(counts, 10**5)
    page = charts.confusion(counts, [f"class {number}" for number in range(200)])
    assert page.count("<title>") == charts.MOST_CELLS
    assert all(f"class {number} predicted as class {number}:" in page for number in range(200))


def test_several_data_sets_have_a_row_each() -> None:
    whole = metrics()
    assert "Data sets" not in page()
    parts = {"one": replace(whole, num_images=3), "<two>": replace(whole, num_images=4, scores={})}
    read = Cells()
    read.feed(report_page("x", [], replace(whole, parts=parts), []))
    assert read.rows[:3] == [
        ["data set", "images", "mIoU", "pixel accuracy", "PQ", "SQ", "RQ"],
        ["one", "3", "50.0", "62.5", "40.0", "80.0", "-"],
        ["<two>", "4", "-", "-", "-", "-", "-"],
    ]


def test_without_semantic_and_pictures_their_sections_are_left_out() -> None:
    only = Metrics(NAMES, 1, "short edge", {"instance": Scores({"AP": 0.5}, {"AP": np.array([0.5, 0.5, 0.5])})})
    text = report_page("x", [], only, [])
    assert "Confusions" not in text
    assert "id=pictures" not in text
    assert "<em>50.0</em> AP" in text


@given(st.integers(0, 2**16))
def test_errors_are_told_by_their_kinds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    planes = rng.integers(-1, 4, (1, 4, 6)).astype(np.int16)
    ids = np.where(rng.random((4, 6)) < 0.7, planes[0] + 1, rng.integers(0, 5, (4, 6))).astype(np.int32)
    kinds, found = [0, 0, 1, 2], [0, 0, 1, 0]
    truth = GroundTruth.from_segments(planes, [Segment(n + 1, kind, False) for n, kind in enumerate(kinds)])
    result = PanopticResult(ids, tuple(PanopticSegment(n + 1, kind, True, 1.0, 1) for n, kind in enumerate(found)))
    wrong = errors(result, truth, IS_THING)
    for y in range(4):
        for x in range(6):
            row, number = int(planes[0, y, x]), int(ids[y, x])
            expected = 0
            if row == VOID:
                pass
            elif number == 0:
                expected = MISSED
            elif found[number - 1] != kinds[row]:
                expected = WRONG_CLASS
            elif IS_THING[kinds[row]]:
                both = ((planes[0] == row) & (ids == number)).sum()
                either = ((planes[0] == row) | ((ids == number) & (planes[0] != VOID))).sum()
                expected = 0 if both / either > 0.5 else OTHER_OBJECT
            assert wrong[y, x] == expected


def test_layers_of_a_large_picture() -> None:
    planes = np.full((1, 700, 1400), VOID, np.int16)
    planes[0, :, :700], planes[0, :, 700:1300] = 0, 1
    truth = GroundTruth.from_segments(planes, [Segment(1, 0, False), Segment(2, 1, False)])
    ids = np.zeros((700, 1400), np.int32)
    ids[:, :1000] = 1
    result = Result(panoptic=PanopticResult(ids, (PanopticSegment(1, 0, True, 0.8, 700_000),)))
    categories = Categories.from_json([{"id": k, "name": f"n{k}", "isthing": int(IS_THING[k])} for k in range(3)])
    layers = layers_of(np.full((700, 1400, 3), 80, np.uint8), truth, result, categories, IS_THING, 0.5)
    assert tuple(layers) == LAYERS
    assert {layer.shape for layer in layers.values()} == {(320, 640, 3)}
    marked = layers["errors"].astype(int)

    def is_near(x: int, kind: int) -> bool:
        color = np.array(COLORS[kind])
        return bool(np.abs(marked[160, x] - color).max() < 90 and marked[160, x].argmax() == color.argmax())

    assert is_near(400, WRONG_CLASS)
    assert is_near(550, MISSED)
    for right in (100, 620):
        assert np.ptp(marked[160, right]) == 0, "grey where it is right and where nothing is annotated"


ACTIONS = """
const errors = [];
window.addEventListener("error", (event) => errors.push(event.message));
window.addEventListener("load", () => {
  const column = (n) => [...document.querySelectorAll("table.sorts tbody tr")].map((row) => row.cells[n].textContent);
  const press = (n) => document.querySelectorAll("table.sorts th button")[n].click();
  const shown = () => [...document.querySelectorAll("#pictures figure")].filter((one) => one.offsetParent)
    .map((one) => [...one.querySelectorAll("img")].filter((image) => image.offsetParent).map((image) => image.alt));
  const said = [shown()];
  press(1); said.push(column(1)); press(1); said.push(column(1)); press(0); said.push(column(0));
  press(0); said.push(column(0));
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "4", bubbles: true})); said.push(shown());
  document.querySelector("#pictures img.errors").click(); said.push(shown());
  const search = document.getElementById("search");
  search.value = "DOG"; search.dispatchEvent(new Event("input")); said.push(shown());
  document.documentElement.setAttribute("data-said", JSON.stringify([said, errors]));
});
"""


@pytest.mark.slow
def test_it_sorts_switches_and_searches_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("Debian's package chromium is not installed")
    text = page().replace("<body>", f"<body><script>{ACTIONS}</script>")
    (tmp_path / "report.html").write_text(text)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    result = subprocess.run(
        [browser, *options, "--virtual-time-budget=3000", "--dump-dom", f"file://{tmp_path / 'report.html'}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    read = Cells()
    read.feed(result.stdout)
    (said,) = [value for _, name, value in read.attributes if name == "data-said"]
    assert said is not None
    found, problems = json.loads(said)
    assert problems == []
    every = ["cat", "<b>sky</b> & sea", "dog's"]
    assert found == [
        [["prediction"]] * 3,
        ["75.0", "25.0", "-"],
        ["-", "25.0", "75.0"],
        [every[1], every[0], every[2]],
        [every[2], every[0], every[1]],
        [["errors"]] * 3,
        [["picture"]] * 3,
        [["picture"]],
    ]
