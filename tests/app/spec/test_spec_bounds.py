"""Specs that were made to be large, deep or endless, and places in the home folder."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.app.spec.field import plain
from oneformer_jax.app.spec.tree import leaves
from oneformer_jax.errors import SpecError

LETTERS = "abcdefghi"
BOMBS = {
    "aliases": "a: &a [x, x, x]\n"
    + "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(LETTERS)),
    "sections": "a: &a {x: 1}\n"
    + "".join(f"k{k}: &k{k} {{p: *{b}, q: *{b}}}\n" for k, b in enumerate(["a", *(f"k{i}" for i in range(30))])),
    "deep lists": "train: {seed: " + "[" * 5000 + "]" * 5000 + "}",
    "deep sections": "train: " + "{a: " * 300 + "1" + "}" * 300,
    "within itself": "train: &a {optim: *a}",
    "merged with itself": "train: &a {<<: *a}",
    "a key that is a list": "? [a, b]\n: 1",
    "digits": "train: {seed: " + "9" * 5000 + "}",
    "base 60": "train: {seed: 1" + ":59" * 20_000 + "}",
    "a long key": "a" * 100_000 + ": 1",
    "long keys": "".join(f"{'a' * 900}{k}: 1\n" for k in range(300)),
    "many keys": "".join(f"k{k}: 1\n" for k in range(3000)),
    "megabytes": "# " + "x" * 2_000_000,
    "nested interpolations": "results_dir: '" + "${" * 300 + "'",
    "no name of a key": "train: {null: 2}",
    "an empty name of a key": "? \n: 2",
    "a path with NUL": 'results_dir: "a\\0b"',
    "NUL in a list": 'dataset: {train: {images: ["a\\0b"]}}',
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_spec_is_refused_in_seconds(name: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(BOMBS[name] + "\n")
    start = time.monotonic()
    with pytest.raises(SpecError) as raised:
        load_spec(tmp_path / "spec.yaml")
    assert time.monotonic() - start < 10
    assert len(str(raised.value)) < 50_000


def test_interpolations_that_double_each_time_are_refused(tmp_path: Path) -> None:
    places = [leaf.path for leaf in leaves(Spec) if leaf.key.location and leaf.type == "string"][:20]
    overrides = [f"{name}=${{{other}}}${{{other}}}" for name, other in pairwise(places)]
    with pytest.raises(SpecError, match="interpolations repeat each other too often"):
        load_spec(None, [*overrides, f"{places[-1]}=x"])
    assert load_spec(None, [*overrides[-3:], f"{places[-1]}=x"]).value(places[-4]) == "x" * 8


@pytest.mark.slow
def test_the_home_folder_is_meant_by_a_tilde_in_every_key_that_names_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    places = [leaf for leaf in leaves(Spec) if leaf.key.location]
    assert {"results_dir", "train.results_dir", "evaluate.checkpoint", "gen_trt_engine.trt_engine"} <= {
        leaf.path for leaf in places
    }
    for leaf in places:
        spec = load_spec(None, [f"{leaf.path}=~/a~b"])
        assert str(tmp_path / "a~b") in str(plain(spec.value(leaf.path))), leaf.path
    spec = load_spec(
        None, ["dataset.train.images=[tfds://~/x, s3://~/y]", "dataset.label_map={'*': ~/m}", "model_name=~/x"]
    )
    assert spec.dataset.train.images == (f"tfds://{tmp_path}/x", "s3://~/y")
    assert spec.dataset.label_map == {"*": f"{tmp_path}/m"}
    assert spec.model_name == "~/x"


def test_every_key_whose_text_speaks_of_a_file_or_folder_is_a_place() -> None:
    words = ("folder", "file", "checkpoint", "weights to", "model to")
    named = {
        leaf.path
        for leaf in leaves(Spec)
        if leaf.type in ("string", "list") and any((leaf.field.description or "").lower().startswith(w) for w in words)
    }
    assert named <= {leaf.path for leaf in leaves(Spec) if leaf.key.location}


def test_a_refused_spec_makes_no_folder_of_the_name_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text("results_dir: ~/runs\nunknown: 1\n")
    with pytest.raises(SpecError), running("train", tmp_path / "spec.yaml", [], Screen(quiet=True)):
        pass
    assert (tmp_path / "home" / "runs" / "train" / "status.json").is_file()
    assert not (tmp_path / "~").exists()
    (tmp_path / "spec.yaml").write_text('results_dir: "a\\0b"\n')
    with pytest.raises(SpecError, match="NUL"), running("train", tmp_path / "spec.yaml", [], Screen(quiet=True)):
        pass


def test_an_endless_file_is_refused_at_once() -> None:
    with pytest.raises(SpecError, match="/dev/zero: more than 1 MiB are too much for a spec file"):
        load_spec(Path("/dev/zero"))


def test_a_key_without_a_name_is_refused_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("results_dir: a\nnull: 2\n")
    with pytest.raises(SpecError, match=r"spec.yaml:2: found null in place of the name of a key\n  -> write a name"):
        load_spec(tmp_path / "spec.yaml")
