"""A model of a hub in one call: the files of a repository come from a local server."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from models.every_backbone import BACKBONES
from models.tiny import TINY
from servers import running_web

from converters.write_huggingface import write_huggingface
from oneformer_jax import OneFormerError
from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.models import oneformer
from oneformer_jax.predict.pretrained import from_pretrained

CONFIG = replace(
    TINY,
    backbone=BACKBONES["dinat"],
    transformer=replace(TINY.transformer, enc_layers=0),
    text_encoder=replace(TINY.text_encoder, width=64),
)
CLASSES = Categories(tuple(Category(i, name, i == 0, (i, i, i)) for i, name in enumerate("abc")))
SCRIPT = """
import sys
import jax, numpy as np, oneformer_jax

model = oneformer_jax.from_pretrained("owner/tiny")
assert model.categories.names == ("a", "b", "c") and model.categories.is_thing_of(3)[0]
assert model.description.pixel_mean == (120.0, 110.0, 100.0)
np.savez(sys.argv[1], *jax.tree.leaves(model.params["backbone"]))
predictor = oneformer_jax.load_model("hf://owner/tiny")
result = predictor.predict(np.zeros((50, 60, 3), np.uint8), "panoptic")
assert result.panoptic.ids.shape == (50, 60)
folder = oneformer_jax.load_model(sys.argv[2])
assert folder.categories == predictor.categories and folder.thresholds == predictor.thresholds
for name, found in folder.backend.params["backbone"].items():
    jax.tree.map(np.testing.assert_array_equal, found, predictor.backend.params["backbone"][name])
try:
    oneformer_jax.load_model("hf://owner/none")
except oneformer_jax.OneFormerError as error:
    assert "hf://owner/none: cannot be fetched: " in str(error), error
    assert "404 Not Found" in str(error), error
"""


@pytest.mark.slow
def test_a_repository_becomes_a_model(tmp_path: Path) -> None:
    params = jax.tree.map(np.asarray, oneformer.init(CONFIG, jax.random.key(0)))
    write_huggingface(
        tmp_path / "tiny",
        params,
        CONFIG,
        categories=CLASSES,
        pixel_mean=(120.0, 110.0, 100.0),
        pixel_std=(60.0, 60.0, 60.0),
    )
    with running_web() as web:
        web.put_repository("owner/tiny", tmp_path / "tiny")
        env = os.environ | {"HF_ENDPOINT": web.address, "HF_HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "found.npz"), str(tmp_path / "tiny")]
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    with np.load(tmp_path / "found.npz") as found:
        for name, expected in zip(found.files, jax.tree.leaves(params["backbone"]), strict=True):
            np.testing.assert_array_equal(found[name], expected)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OneFormerError, match="none"):
        from_pretrained(str(tmp_path / "none"))
