"""`quantize` up to where the long work would begin: what each of their parts was called with."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

from key_rows import stop
from small_graph import small_model
from stopped_actions import run_until_stopped

import oneformer_jax.app.actions.model.quantize as quantize
from oneformer_jax.app.actions.model.quantization_report import Subject
from oneformer_jax.app.spec import Spec


def quantization(spec: Spec) -> SimpleNamespace:
    """The parts of `quantize` until the models are measured; `target` is the name of the result."""
    model = small_model()
    parts = {name: Mock() for name in ("calibration_feeds", "_providers")}
    subject = Subject("onnx", Path(), 1)
    parts |= {
        "Subject": Mock(file=Mock(return_value=subject)),
        "measured_ranges": Mock(return_value={}),
        "read_graph": Mock(return_value=model),
        "chosen_layers": Mock(return_value={"Conv_0": "int8"}),
        "with_8bit_weights": Mock(return_value=model),
        "with_8bit_activations": Mock(return_value=model),
        "_quantize_checkpoint": Mock(return_value=(subject, subject)),
        "_exported": Mock(return_value=Path("/exported.onnx")),
        "report": stop(),
    }
    found = run_until_stopped(quantize.quantize, quantize, spec, parts)
    files = [call.args[0] for call in found.Subject.file.call_args_list]
    target = files[-1] if files else found._quantize_checkpoint.call_args.args[1]
    return SimpleNamespace(**vars(found), target=target.name)
