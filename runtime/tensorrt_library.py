"""TensorRT's two products by name, and a logger that keeps what they say instead of printing it.

Of both only names are used that every version from 10.3 (JetPack 6.2) to 11 has: see
tests/runtime/test_tensorrt_names.py. What TensorRT for RTX alone has is called in functions named `rtx_...`.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Mapping
from typing import Any

from vla.contract import TaktError

# The engine's name -> the Python module.
MODULES: Mapping[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


class Library:
    """One of the products, imported.

    Attributes:
        product: "tensorrt" or "tensorrt-rtx".
        trt: its module.
        logger: to be given to a builder, a parser or a runtime.
    """

    def __init__(self, product: str) -> None:
        """Import it.

        Raises:
            TaktError: it is not installed, or its libraries cannot be loaded.
        """
        self.product = product
        try:
            self.trt: Any = importlib.import_module(MODULES[product])
        except ModuleNotFoundError:
            hint = "it comes with JetPack; elsewhere " if product == "tensorrt" else ""
            raise TaktError(f"{product} is not installed: {hint}pip install 'takt-vla[{product}]'") from None
        except Exception as error:  # a stub, or a library that cannot be loaded: each raises its own
            raise TaktError(f"{product} does not start: {_line(str(error))}") from None
        self.logger, self._said = _logger(self.trt)

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def number(self) -> tuple[int, int]:
        """The first two parts of the version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    def smallest(self, onnx: bytes) -> bytes:
        """An engine of a small graph with fixed shapes, to see whether it can build at all.

        Raises:
            TaktError: what it says against it.
        """
        builder = self.trt.Builder(self.logger)
        typed = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = self.trt.OnnxParser(network, self.logger)
        if not parser.parse(onnx):
            raise TaktError(self.why())
        data = builder.build_serialized_network(network, builder.create_builder_config())
        if data is None:
            raise TaktError(self.why())
        return bytes(data)

    def why(self) -> str:
        """The last errors that TensorRT logged, in one line; forgotten with it."""
        said = "; ".join(dict.fromkeys(self._said)) or "it does not say why"
        self._said.clear()
        return _line(said)


def _logger(trt: Any) -> tuple[Any, deque[str]]:
    """A logger of TensorRT's kind, and where its errors go."""
    said: deque[str] = deque(maxlen=4)
    worst = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind asks for the call by name

        def log(self, severity: Any, message: str) -> None:
            if severity in worst:
                said.append(message)

    return Logger(), said


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
