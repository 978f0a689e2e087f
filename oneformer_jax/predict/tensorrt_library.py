"""TensorRT as a module, and what it reports. The extra `tensorrt` installs it, from NVIDIA's own package index."""

from typing import Any

from oneformer_jax.errors import EngineError
from oneformer_jax.extras import install_hint


def tensorrt() -> Any:
    """The module, of version 10 or 11. Raises EngineError."""
    try:
        import tensorrt as module
    except ImportError as error:
        raise EngineError(
            f"TensorRT is not installed, or cannot be loaded: {error}", hint=install_hint("tensorrt")
        ) from error
    if module.__version__.partition(".")[0] not in ("10", "11"):
        raise EngineError(f"TensorRT {module.__version__} is not supported", hint="install version 10 or 11")
    return module


def reports(module: Any, *, verbose: bool = False) -> Any:
    """A TensorRT logger that keeps errors in its list `errors`, and prints: all, or nothing below a warning."""
    Severity = module.ILogger.Severity
    shown = Severity.VERBOSE if verbose else Severity.WARNING

    class Reports(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(Severity.ERROR):
                self.errors.append(msg)
            if int(severity) <= int(shown):
                print(f"TensorRT: {msg}", flush=True)

    return Reports()
