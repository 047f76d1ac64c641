"""ONNX Runtime's other providers. That one is listed says little, so each graph is run once and seen to.

A provider that cannot start is replaced by the CPU without an error, and one that has no kernel for a node
leaves it to the CPU: a policy that was to run on a GPU would then be slow in silence. So the first run is
profiled, and a provider that ran nothing is refused.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.graphs import Graph, OnnxGraph, blank, one_line
from vla.contract import TaktError

# The engine's name -> ONNX Runtime's name of the provider.
PROVIDERS = {"cuda": "CUDAExecutionProvider", "ort-tensorrt": "TensorrtExecutionProvider"}


class ProviderGraph(OnnxGraph):
    """A graph that a provider has been seen to run.

    Attributes:
        nodes: provider's name -> how many nodes of the graph it ran.
    """

    def __init__(self, path: Path, provider: str, options: Mapping[str, Any], threads: int = 1) -> None:
        """Load the graph and run it once on zeros.

        Raises:
            TaktError: the provider is not in this build, did not start, ran no node, or failed.
        """
        name = provider.removesuffix("ExecutionProvider")
        with tempfile.TemporaryDirectory(prefix="takt-") as folder:
            self._prefix = str(Path(folder) / "profile")
            super().__init__(path, threads, [(provider, dict(options))])  # the CPU takes what it leaves
            if provider not in self._session.get_providers():
                raise TaktError(
                    f"ONNX Runtime lists {name} and it does not start: its driver or libraries are missing "
                    "(takt doctor says more)"
                )
            try:
                self(blank(self))
            except Exception as error:  # the engine's own exception classes are not public
                raise TaktError(f"{path} does not run on {name}: {one_line(error)}") from None
            self.nodes = _nodes(Path(self._session.end_profiling()))
        if not self.nodes[provider]:
            raise TaktError(
                f"{name} runs none of the {sum(self.nodes.values())} nodes of {path.name}: it has no kernels "
                "for them here; --engine onnx runs it on the CPU"
            )

    def _configure(self, options: Any) -> None:
        options.enable_profiling, options.profile_file_prefix = True, self._prefix


def open_graphs(
    files: Mapping[str, Path], engine: str, threads: int = 1, precision: str = ""
) -> dict[str, Graph]:
    """The graphs run by the provider that `engine` stands for.

    Raises:
        TaktError: this build of ONNX Runtime has no such provider, or as `ProviderGraph`.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise TaktError("onnxruntime is not installed: pip install 'takt-vla[gpu]'") from None
    provider = PROVIDERS[engine]
    if provider not in ort.get_available_providers():
        listed = ", ".join(name.removesuffix("ExecutionProvider") for name in ort.get_available_providers())
        raise TaktError(
            f"--engine {engine}: ONNX Runtime {ort.__version__} here has {listed} and no "
            f"{provider.removesuffix('ExecutionProvider')}; install its GPU build instead: "
            "pip uninstall onnxruntime, then pip install 'takt-vla[gpu]'"
        )
    options = {"trt_fp16_enable": "1"} if precision == "fp16" else {}
    return {name: ProviderGraph(file, provider, options, threads) for name, file in files.items()}


def _nodes(profile: Path) -> Counter[str]:
    """How many nodes each provider ran, from ONNX Runtime's profile."""
    events = json.loads(profile.read_text())
    ran = {
        (event["args"].get("node_index"), event["name"]): event["args"]["provider"]
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    return Counter(ran.values())
