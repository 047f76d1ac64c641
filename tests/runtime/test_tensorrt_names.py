"""Every name of TensorRT and of CUDA that our code calls is there in every version that we say we run on.

The tables in tests/runtime/tensorrt_names/ were read out of the real bindings by tools/tensorrt_names.py:
TensorRT 10.3 (JetPack 6.2), 10.13 and 10.16 (JetPack 7), 11.4, TensorRT for RTX 1.7, and the CUDA runtime of
cuda-python 12.6 and 13. The names used are gathered by a walk over the source, so that a new call is seen.
"""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime import emulated

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "tensorrt_names"
TABLES = {file.stem: json.loads(file.read_text())["names"] for file in FOLDER.iterdir()}
VERSIONS = sorted(name for name in TABLES if name.startswith("tensorrt"))
CUDA = sorted(name for name in TABLES if name.startswith("cuda"))
FILES = ["runtime/tensorrt_library.py", "runtime/engine_tensorrt.py", "export/tensorrt.py"]
# A variable of this name holds an object of this class, wherever it stands in those files.
CLASSES = {
    "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser", "config": "IBuilderConfig",
    "profile": "IOptimizationProfile", "tensor": "ITensor", "cache": "ITimingCache", "error": "ParserError",
    "engine": "ICudaEngine", "context": "IExecutionContext", "runtime": "Runtime",
}  # fmt: skip
# What the emulation has beyond TensorRT: its own check of a configuration, and what an enumeration brings.
OURS = {("IBuilderConfig", "check")} | {
    (kind, name)
    for kind in ("NetworkDefinitionCreationFlag", "BuilderFlag", "MemoryPoolType")
    for name in dir(int)
}
# What is not TensorRT's in those files, though the variable's name is.
NOT_THEIRS = {("Logger", "log")}


def uses(source: str) -> Iterator[tuple[str, str, bool]]:
    """(class, name, whether only TensorRT for RTX need have it) of every use; "" is the module."""
    for function, node in _walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        rtx = function.startswith("rtx_")
        chain = _chain(node)
        if "trt" in chain[:-1]:  # trt.Builder, self._trt.BuilderFlag.TF32
            inside = chain[chain.index("trt") + 1 :]
            yield ("" if len(inside) == 1 else inside[0], inside[-1], rtx)
            continue
        last = chain[-2] if len(chain) > 1 else ""
        if last in CLASSES:
            runtime_config = rtx and chain[-1] == "cuda_graph_strategy"
            yield "IRuntimeConfig" if runtime_config else CLASSES[last], chain[-1], rtx


def _walk(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node with the name of the function around it."""
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef) else function
        yield inside, node
        yield from _walk(node, inside)


def _chain(node: ast.expr) -> list[str]:
    """["self", "trt", "Builder"] of self._trt.Builder; a call or an index in it starts the chain anew."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), _bare(node.attr)]
    return [_bare(node.id)] if isinstance(node, ast.Name) else [""]


def _bare(name: str) -> str:
    """Without the underscore of what is private; `__version__`, which no table has, keeps its own."""
    return name if name.startswith("__") else name.removeprefix("_")


def missing(source: str, table: dict[str, list[str]], product: str) -> list[str]:
    """The uses that a table lacks."""
    return [
        f"{kind or product}.{name}"
        for kind, name, rtx in uses(source)
        if (product == "tensorrt_rtx" or not rtx)
        and (kind, name) not in NOT_THEIRS
        and not name.startswith("__")
        if name not in table.get(kind, [])
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES)
def test_every_name_is_in_every_version(file: str, version: str) -> None:
    assert missing((ROOT / file).read_text(), TABLES[version], version.partition("-")[0]) == []


def test_the_walk_sees_the_calls_that_matter() -> None:
    found = {(kind, name) for file in FILES for kind, name, _ in uses((ROOT / file).read_text())}
    assert len(found) > 40
    assert found >= {
        ("", "Builder"), ("", "Runtime"), ("BuilderFlag", "TF32"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("OnnxParser", "parse"), ("ParserError", "desc"), ("IBuilderConfig", "set_timing_cache"),
        ("ITimingCache", "serialize"), ("Builder", "build_serialized_network"),
        ("IOptimizationProfile", "set_shape"),
        ("Runtime", "deserialize_cuda_engine"), ("ICudaEngine", "get_tensor_profile_shape"),
        ("IExecutionContext", "execute_async_v3"), ("IExecutionContext", "set_tensor_address"),
        ("TensorIOMode", "INPUT"), ("IRuntimeConfig", "cuda_graph_strategy"), ("", "nptype"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "version", "said"),
    [
        ("config.set_flag(trt.BuilderFlag.FP16)", "11.4", "BuilderFlag.FP16"),
        ("self._trt.BuilderFlag.BF16", "11.4", "BuilderFlag.BF16"),
        ("config.int8_calibrator = None", "11.4", "IBuilderConfig.int8_calibrator"),
        ("parser.supports_model(data)", "11.4", "OnnxParser.supports_model"),
        ("self._engine.create_execution_context_without_device_memory()", "11.4",
         "ICudaEngine.create_execution_context_without_device_memory"),
        ("engine.create_runtime_config()", "10.3", "ICudaEngine.create_runtime_config"),
        ("self._engine.num_bindings", "10.3", "ICudaEngine.num_bindings"),
        ("trt.volumes()", "10.16", "tensorrt.volumes"),
    ],
)  # fmt: skip
def test_the_walk_sees_what_a_version_lacks(source: str, version: str, said: str) -> None:
    (name,) = (name for name in VERSIONS if name.startswith(f"tensorrt-{version}"))
    assert missing(source, TABLES[name], "tensorrt") == [said]
    aside = f"def rtx_special():\n    {source}"
    assert missing(aside, TABLES[name], "tensorrt") == []


@pytest.mark.parametrize("version", CUDA)
def test_every_call_of_the_cuda_runtime_is_in_every_version(version: str) -> None:
    source = (ROOT / "runtime/cuda.py").read_text()
    chains = [_chain(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    used = {tuple(c[c.index("rt") + 1 :]) for c in chains if "rt" in c[:-1]}
    used |= {tuple(c[1:]) for c in chains if c[0] == "runtime" and len(c) > 1}
    assert len(used) > 15
    for name, *member in used:
        assert name in TABLES[version][""]
        assert not member or member[0] in TABLES[version][name]


def test_what_stands_in_for_them_has_no_name_that_they_lack() -> None:
    """The emulation offers no more than the real thing, or tests with it would prove nothing."""
    stand_in = emulated.tensorrt(emulated.Cudart())
    for name, value in vars(stand_in).items():
        if name.startswith("_"):
            continue
        assert all(name in TABLES[version][""] for version in VERSIONS), name
        public = [n for n in vars(value) if not n.startswith("_")] if isinstance(value, type) else []
        for attribute in (n for n in public if (name, n) not in OURS):
            assert all(attribute in TABLES[version][name] for version in VERSIONS), (name, attribute)
    calls = [name for name in vars(emulated.Cudart) if name.startswith("cuda")]
    assert len(calls) > 15
    assert all(name in TABLES[version][""] for version in CUDA for name in calls)


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
def test_the_table_of_an_installed_version_is_true(module: str) -> None:
    """The tables are made by a tool and not by hand; where the real thing is installed they are compared."""
    trt = pytest.importorskip(module)
    name = f"{module}-{trt.__version__}"
    if name not in TABLES:
        pytest.skip(f"no table of {name}")
    for kind, names in TABLES[name].items():
        value = importlib.import_module(module) if kind == "" else getattr(trt, kind)
        assert set(names) <= set(dir(value)), kind
