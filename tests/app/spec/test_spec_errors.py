"""Each way to get a spec wrong is answered with its place, its key, what was found and what was expected."""

from pathlib import Path

import pytest

from oneformer_jax.app.spec import load_spec
from oneformer_jax.errors import SpecError

RADIO = "model:\n  backbone:\n    name: D2RADIO\n    radio:\n      "
DINAT = "model:\n  backbone:\n    name: D2DiNAT\n    dinat:\n      "


@pytest.mark.tao(33)
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("train:\n  num_epoch: 3\n", 2, ["train.num_epoch: unknown key", "did you mean train.num_epochs?"]),
        ("train:\n  seed: 1\n  lr: 0.1\n", 3, ["train.lr: unknown key", "did you mean train.optim.lr?"]),
        ("train:\n  batch_size: 4\n", 2, ["did you mean dataset.train.batch_size?"]),
        ("num_epochs: 4\n", 1, ["did you mean train.num_epochs?"]),
        ("trian:\n  seed: 1\n", 1, ["trian: unknown key", "did you mean train?"]),
        ("dataset:\n  task_prob_train: {semantics: 1}\n", 2, ["did you mean dataset.task_prob_train.semantic?"]),
        ("zzz: 1\n", 1, ["zzz: unknown key"]),
        ("train:\n  num_epochs: many\n", 2, ["train.num_epochs: found 'many' (text)", "expected whole number > 0"]),
        ("train:\n  num_epochs: 2.5\n", 2, ["found 2.5 (a number)", "whole number"]),
        ("train:\n  num_epochs: true\n", 2, ["found true (a truth value)"]),
        ("train:\n  optim:\n    lr: on\n", 3, ["train.optim.lr: found true (a truth value), expected number"]),
        ("train:\n  optim:\n    lr: .nan\n", 3, ["found nan"]),
        ("train:\n  gpu_ids: [true]\n", 2, ["train.gpu_ids: found [True] (a list)"]),
        ("train:\n  gpu_ids: 3\n", 2, ["found 3 (a whole number), expected a list of whole number >= 0"]),
        ("results_dir: [a]\n", 1, ["results_dir: found ['a'] (a list), expected text"]),
        ("dataset:\n  train:\n    images: {a: b}\n", 3, ["dataset.train.images: found {'a': 'b'}", "text or a list"]),
        ("train:\n  optim:\n    lr: 2\n", 3, ["found 2 (a whole number), expected number >= 0.0 and <= 1.0"]),
        ("dataset:\n  train:\n    batch_size: 0\n", 3, ["dataset.train.batch_size: found 0", ">= 1"]),
        ("dataset:\n  augmentation:\n    train_crop_size: [1, 2, 3]\n", 3, ["a list of 2 x whole number > 0"]),
        ("inference:\n  mode: everything\n", 2, ["expected one of semantic, instance, panoptic"]),
        ("train:\n  precision: fp8\n", 2, ["expected one of 32, 16-mixed, bf16-mixed"]),
        ("train:\n  optim:\n    type: SGD\n", 3, ["train.optim.type: found 'SGD' (text), expected one of AdamW, Muon"]),
        ("quantize:\n  device: tpu\n", 2, ["that matches ^(cuda|cpu|trt|cuda:[0-9]+)$"]),
        ("train: 5\n", 1, ["train: found 5 (a whole number), expected a section", "num_epochs"]),
        ("model:\n  backbone:\n    name: D2ResNet\n", 3, ["not available; use D2SwinTransformer or D2DiNAT"]),
        (f"{RADIO}backbone: vit_tiny\n", 5, ["'vit_tiny' (text) is not available; use vit_base_patch16_224"]),
        (f"{RADIO}cpe_max_size: 100\n", 5, ["cpe_max_size is 100: give a multiple of 16 up to 16384"]),
        (f"{RADIO}embed_dim: 100\n", 5, ["100 channels, expected a multiple of 2 and of 12"]),
        (f"{RADIO}out_features: [res4, res5]\n", 5, ["is not available; use", "or ['res3', 'res4', 'res5']"]),
        (f"{RADIO}window_size: 14\n", 5, ["window_size: 14 (a whole number) is not available"]),
        (f"{RADIO}num_teacher: 5000\n", 5, ["tokens in front of the patches, expected 1 to 1024"]),
        (
            "model:\n  backbone:\n    name: D2DiNAT\n    dinat:\n      kernel_size: 4\n",
            5,
            ["give an odd number from 3"],
        ),
        (
            "model:\n  backbone:\n    name: D2DiNAT\n    dinat:\n      dilations: [[1]]\n",
            5,
            ["four lists of 3, 4, 18, 5"],
        ),
        (
            "model:\n  sem_seg_head:\n    norm: BN\n",
            3,
            ["model.sem_seg_head.norm: 'BN' (text) is not available; use GN"],
        ),
        ("train:\n  num_epochs: 010\n", 2, ["010 is 8 in YAML: write 8"]),
        ("train:\n  num_epochs: 1:30\n", 2, ["1:30 is 90 in YAML: write 90"]),
        (
            "dataset:\n  val:\n    num_workers: 100000\n",
            3,
            ["dataset.val.num_workers is 100000: each worker is a process"],
        ),
        ("train:\n  optim:\n    momentum: 1\n", 3, ["train.optim.momentum is 1, expected less"]),
        (
            "train:\n  optim:\n    query_multiplier: 1e30\n",
            3,
            ["query_multiplier is 1e+30, expected up to 1"],
        ),
        ("train:\n  seed: 4294967296\n", 2, ["train.seed is 4294967296: it must be below 2^32"]),
        ("model:\n  backbone:\n    swin:\n      window_size: 100000\n", 4, ["window_size is 100000: attention"]),
        ("results_dir: s3://bucket/runs\n", 1, ["results_dir: is an address; results are written to a folder"]),
        ("train:\n  results_dir: gs://a/b\n", 2, ["train.results_dir: is an address"]),
        ("train:\n  seed: 1\n  seed: 2\n", 3, ["train.seed: written twice, first on line 2"]),
        ("train:\n\tseed: 1\n", 2, ["not valid YAML", "spaces, not tabs"]),
        ("train: [1, 2\nseed: 3\n", 2, ["not valid YAML"]),
        ("a: 1\n--- \nb: 2\n", 2, ["not valid YAML"]),
        ("# text\n- a\n- b\n", 2, ["found ['a', 'b'] (a list), expected sections with keys"]),
        ("just text\n", 1, ["found 'just text' (text), expected sections"]),
        ("results_dir: ${nothing.here}\n", 1, ["results_dir:", "nothing.here"]),
        ("results_dir: ${oc.env:NO_SUCH_VARIABLE_OF_OURS}\n", 1, ["results_dir:", "NO_SUCH_VARIABLE_OF_OURS"]),
        ("train:\n  results_dir: ${broken\n", 2, ["train.results_dir:"]),
        ("train:\n  results_dir: ${train.results_dir}\n", 2, ["train.results_dir:", "nterpolation"]),
        ("dataset:\n  train: &a\n    images: x\n    more: *a\n", 2, ["contains itself"]),
    ],
)
def test_file_line_key_and_hint(refusal, text: str, line: int, words: list[str]) -> None:
    message = refusal(text)
    assert f"run.yaml:{line}: " in message
    for word in words:
        assert word in message


def test_an_interpolation_that_contains_its_own_section(refusal) -> None:
    assert "interpolation" in refusal("train:\n  optim: ${train}\n")


def test_all_problems_come_in_one_message(refusal) -> None:
    message = refusal(
        "train:\n  num_epoch: 3\n  seed: a\n  seed: b\nevaluate:\n  batch_size: -4\n", ["inference.mode=all", "x.y=1"]
    )
    assert "6 problems" in message
    lines = message.splitlines()[1:]
    assert len(lines) == 6  # the seed is written twice, and no number
    for key in ("train.num_epoch", "train.seed", "evaluate.batch_size", "inference.mode", "x"):
        assert any(f": {key}: " in line for line in lines)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not found"):
        load_spec(tmp_path / "absent.yaml")
    with pytest.raises(SpecError, match="this is a folder"):
        load_spec(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(SpecError, match="not UTF-8 text"):
        load_spec(tmp_path / "binary.yaml")
    (tmp_path / "control.yaml").write_bytes(b"a: \x01")
    with pytest.raises(SpecError, match="not valid YAML"):
        load_spec(tmp_path / "control.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.num_epochs=", ["command line: train.num_epochs=: train.num_epochs: found '' (text)"]),
        ("train.num_epochs=010", ["train.num_epochs: 010 is 8 in YAML: write 8"]),
        (".train.num_epochs=3", ["not the name of a key: nothing stands beside a dot"]),
        ("train..num_epochs=3", ["not the name of a key: nothing stands beside a dot"]),
        ("train.num_epochs=none", ["command line: train.num_epochs=none: train.num_epochs: found 'none'"]),
        ("train.epochs=3", ["command line: train.epochs=3: train.epochs: unknown key"]),
        ("+train.num_epoch=3", ["did you mean train.num_epochs?"]),
        ("train.gpu_ids=[0,", ["train.gpu_ids: the value is not valid YAML"]),
        ("train.num_epochs", ["command line: train.num_epochs: not an override", "write key=value"]),
        ("--verbose", ["not an override"]),
        ("~train.num_epochs=3", ["not an override"]),
        ("train=3", ["expected a section"]),
        ("train.seed.deep=3", ["train.seed.deep: train.seed is written as a value"]),
        ("train.optim={lr: 7}", ["train.optim.lr: found 7"]),
    ],
)
def test_overrides_are_located_on_the_command_line(refusal, override: str, words: list[str]) -> None:
    message = refusal("train:\n  seed: 1\n", [override])
    for word in words:
        assert word in message
    assert "command line: " in message
