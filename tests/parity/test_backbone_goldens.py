"""Every backbone, converted by its names alone, against arrays computed by the original code.

Tolerances are those of golden/backbones/README.md: maps and outputs of modules 3e-5, gradients 1e-4 of the largest
entry.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from backbone_goldens import BackboneGolden, load_backbone
from goldens import channels_last

MAPS, GRADIENTS = 3e-5, 1e-4

OURS = {
    r"downsample_layers\.0": "stem_norm",
    r"downsample_layers\.(\d)": r"downsample\1",
    r"stages\.(\d)\.(\d)\.dwconv": r"stage\1_block\2/depthwise",
    r"stages\.(\d)\.(\d)": r"stage\1_block\2",
    r"patch_embed": "patch_norm",
    r"levels\.(\d)\.blocks\.(\d)\.attn": r"stage\1_block\2/attention",
    r"levels\.(\d)\.blocks\.(\d)": r"stage\1_block\2",
    r"levels\.(\d)\.downsample": r"downsample\1_norm",
    r"radio\.radio\.model\.patch_generator": "patches",
    r"radio\.radio\.model\.patch_generator\.embedder": "patches/embedder",
    r"radio\.radio\.model\.blocks\.(\d)": r"block\1",
    r"radio\.radio\.model\.blocks\.(\d)\.attn": r"block\1/attention",
}
"""Their modules -> ours."""

CROPPED = {"positions": "cropped"}

PROVED = pytest.mark.prove  # `make test`: the other kinds and dialects
FILES = [
    "convnext",
    pytest.param("dinat_a_k3", marks=PROVED),
    "dinat_a_k7",
    pytest.param("dinat_b_k3", marks=PROVED),
    pytest.param("dinat_c_k3", marks=PROVED),
    "dinat_c_k7",
    "radio",
    pytest.param("radio_ls", marks=PROVED),
]


@pytest.fixture(scope="module", params=FILES)
def golden(request: pytest.FixtureRequest, shared: Path) -> BackboneGolden:
    return load_backbone(shared, request.param)


def close(actual: Any, expected: np.ndarray, tolerance: float = MAPS) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=tolerance)


def test_maps_and_modules(golden: BackboneGolden) -> None:
    maps, calls = jax.jit(golden.maps_and_calls)(golden.params, golden.image(0))
    for name, expected in golden.expected(0).items():
        close(maps[name], expected)
    assert golden.modules
    for theirs, expected in golden.modules.items():
        found = calls
        for name in module_of(theirs).split("/"):
            found = found[name]
        output = np.asarray(found["__call__"][0])[0]
        close(output, expected if output.shape == expected.shape else channels_last(expected))


def module_of(theirs: str) -> str:
    return next(re.sub(pattern, ours, theirs) for pattern, ours in OURS.items() if re.fullmatch(pattern, theirs))


def test_maps_of_other_sizes(golden: BackboneGolden) -> None:
    for case in range(1, golden.cases):
        maps = jax.jit(golden.maps)(golden.params, golden.image(case))
        for name, expected in golden.expected(case).items():
            close(maps[name], expected)


def test_positions_of_radio_otherwise(shared: Path) -> None:
    """As RADIO itself resizes them, and as TAO does where the resolution is that of the table."""
    golden = load_backbone(shared, "radio")
    for kind, fields in {"align_corners_false": {"align_corners": False}, "resolution_equals_table": CROPPED}.items():
        other = replace(golden, config=replace(golden.config, **fields))
        maps = jax.jit(other.maps)(golden.params, golden.image(1))
        expected = golden.expected(1, f"out_{kind}")
        assert expected
        for name, array in expected.items():
            close(maps[name], array)


@pytest.mark.prove  # `make test`: below
def test_gradients(golden: BackboneGolden) -> None:
    check_gradients(golden)


@pytest.mark.slow
def test_gradients_of_one(shared: Path) -> None:
    check_gradients(load_backbone(shared, "convnext"))


def check_gradients(golden: BackboneGolden) -> None:
    value, gradients = jax.jit(jax.value_and_grad(golden.scalar))(golden.params)
    close(value, golden.file["grad_scalar"])
    found = golden.in_their_names(jax.tree.map(partial(np.asarray, dtype=np.float32), gradients))
    norms = dict(zip(golden.file["grad_names"].tolist(), golden.file["grad_norms"].tolist(), strict=True))
    assert found.keys() == norms.keys()
    for name, gradient in found.items():
        assert float(np.linalg.norm(gradient)) == pytest.approx(norms[name], rel=GRADIENTS, abs=1e-7), name
        if f"grad/{name}" in golden.file.arrays:
            expected = golden.file[f"grad/{name}"]
            np.testing.assert_allclose(
                gradient, expected, rtol=0, atol=GRADIENTS * np.abs(expected).max(), err_msg=name
            )
