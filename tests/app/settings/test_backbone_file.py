"""A file about a backbone is read by the keys of its section, and tells a conversion what weights do not hold."""

import json
from pathlib import Path

import numpy as np
import pytest

from converters.files.read import Source
from converters.published import DINAT
from converters.weights import convert
from oneformer_jax.app.settings.backbone_file import read_backbone_file
from oneformer_jax.errors import CheckpointError, SpecError

DILATIONS = [[1, 2], [1, 1], [1], [1]]


def written(folder: Path, text: str) -> Path:
    (folder / "backbone.yaml").write_text(text)
    return folder / "backbone.yaml"


def test_keys_of_a_section_and_others(tmp_path: Path) -> None:
    facts = {"name": "D2DiNAT", "kernel_size": 3, "dilations": DILATIONS, "mlp_ratio": 2, "of_no_section": [1]}
    read = read_backbone_file(written(tmp_path, json.dumps(facts)))
    assert read == {"kernel_size": 3, "dilations": DILATIONS, "mlp_ratio": 2.0, "of_no_section": [1]}
    assert read_backbone_file(written(tmp_path, "kernel_size: 3\ndilations: null\n")) == {
        "kernel_size": 3,
        "dilations": None,
    }


def test_of_a_spec_its_backbone(tmp_path: Path) -> None:
    section = "model: {backbone: {name: D2DiNAT, dinat: {kernel_size: 3}, swin: {embed_dim: 96}}}\nresults_dir: runs\n"
    assert read_backbone_file(written(tmp_path, section)) == {"kernel_size": 3}
    assert read_backbone_file(written(tmp_path, "model: {backbone: {swin: {embed_dim: 96}}}\n")) == {"embed_dim": 96}
    assert read_backbone_file(written(tmp_path, "model:\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: D2ResNet\n", "name is 'D2ResNet', expected one of D2SwinTransformer"),
        ("dilations: [[1], [0]]\n", r"dilations.*greater than 0"),
        ("attention: global\n", "attention: "),
        ("model: {backbone: {name: D2ResNet}}\n", "name is 'D2ResNet', expected one of"),
    ],
)
def test_what_no_backbone_accepts(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        read_backbone_file(written(tmp_path, text))


def weights(*, heads: int = 1, location: str = "weights.pth") -> Source:
    """A tiny DiNAT with bias tables for windows of 3 pixels."""
    width, state = 8, {"patch_embed.proj.0.weight": np.zeros((4, 3, 3, 3)), "patch_embed.proj.0.bias": np.zeros(4)}
    state |= {"patch_embed.proj.1.weight": np.zeros((8, 4, 3, 3)), "patch_embed.proj.1.bias": np.zeros(8)}
    state |= {f"patch_embed.norm.{name}": np.zeros(8) for name in ("weight", "bias")}
    for level, depth in enumerate(map(len, DILATIONS)):
        for block in range(depth):
            layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
            layers |= {"mlp.fc1": (2 * width, width), "mlp.fc2": (width, 2 * width)}
            start = f"levels.{level}.blocks.{block}"
            state[f"{start}.attn.rpb"] = np.zeros((heads, 5, 5))
            for name, shape in (layers | {"norm1": (width,), "norm2": (width,)}).items():
                state |= {f"{start}.{name}.weight": np.zeros(shape), f"{start}.{name}.bias": np.zeros(shape[0])}
        if level < 3:
            width *= 2
            state[f"levels.{level}.downsample.reduction.weight"] = np.zeros((width, width // 2, 3, 3))
            state |= {f"levels.{level}.downsample.norm.{name}": np.zeros(width) for name in ("weight", "bias")}
    return Source(location, {name: array.astype(np.float32) for name, array in state.items()}, None)


def test_dilations_are_told_and_never_guessed() -> None:
    with pytest.raises(CheckpointError, match="the dilations of this DiNAT, which weights do not hold, are not known"):
        convert(weights())
    for told in ({"backbone": {"dilations": DILATIONS}}, {"otherwise": {"dilations": DILATIONS, "embed_dim": 9}}):
        found = convert(weights(), **told)
        assert (found.config.dilations, found.config.kernel_size) == (((1, 2), (1, 1), (1,), (1,)), 3)
        assert "shifted_with_bias (they have bias tables)" in " ".join(found.report.notes)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"dilations": [[1], [1, 1], [1], [1]]}, r"expected four lists of 2, 2, 1, 1 whole numbers"),
        ({"dilations": DILATIONS, "kernel_size": 7}, "kernel_size is 7, the weights have 3"),
        ({"dilations": DILATIONS, "attention": "shifted"}, "attention is 'shifted', expected shifted_with_bias"),
    ],
)
def test_what_is_told_must_fit(facts: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(weights(), backbone=facts)


def test_the_name_of_a_published_file_tells_the_dilations_of_its_depths() -> None:
    (name, *_) = DINAT
    with pytest.raises(CheckpointError, match=r"expected four lists of 2, 2, 1, 1"):
        convert(weights(location=f"/somewhere/{name}"))
