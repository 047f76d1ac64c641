"""The import order of the house, held by a walk over the source and by a process that imports the robot side.

    vla <- runtime <- { sim, robot_io } <- export

A file imports from its own folder or from one to the left; sim and robot_io never meet.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Folder -> the folders that its files may import from.
MAY_IMPORT = {
    "vla": {"vla"},
    "runtime": {"runtime", "vla"},
    "sim": {"sim", "runtime", "vla"},
    "robot_io": {"robot_io", "runtime", "vla"},
    "export": {"export", "robot_io", "sim", "runtime", "vla"},
}
# All that runtime and the bodies may take from vla; none of it needs torch.
WITHOUT_TORCH = {
    "atomic",
    "contract",
    "preprocess",
    "flow",
    "dataset",
    "dataset_arrow",
    "dataset_body",
    "dataset_format",
    "dataset_media",
    "dataset_reader",
    "dataset_stats",
    "dataset_writer",
}
# The files of vla that may import torch; so may export.
MODELS = {
    "nano.py",
    "nano_losses.py",
    "plain.py",
    "plain_losses.py",
    "plain_data.py",
    "plain_policy.py",
    "plain_train.py",
    "training.py",
    "train_data.py",
    "layers.py",
    "expert.py",
    "siglip_folder.py",
    "normalise.py",
    "siglip.py",
    "resnet.py",
    "smolvla.py",
    "smolvla_folder.py",
    "pi0.py",
    "pi0_folder.py",
    "act.py",
    "act_folder.py",
    "folder.py",
    "folder_spec.py",
    "openpi_folder.py",
    "processors.py",
    "stored.py",
    "fold.py",
    "graphed.py",
    "minilm.py",
    "possible.py",
    "policy.py",
    "checkpoint.py",
    "train.py",
}
# What the extra `torch` brings stays with them, lest a robot need it.
TORCH = {"torch", "safetensors", "onnxscript", "transformers"}

FILES = sorted(file for folder in MAY_IMPORT for file in (ROOT / folder).rglob("*.py"))


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in it the import stands.

    `from vla import flow` and `from vla.flow import sample` both give a name that starts with "vla.flow".
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def problems(source: str, file: Path) -> list[str]:
    """What is wrong with the imports of `file`, a path relative to the root."""
    folder = file.parts[0]
    found = []
    for name in imports(ast.parse(source), ".".join(file.parts[:-1])):
        top, _, rest = name.partition(".")
        module = rest.partition(".")[0]
        if top in MAY_IMPORT and top not in MAY_IMPORT[folder]:
            found.append(f"{folder} may not import {top}: {name}")
        if top == "vla" and folder in ("runtime", "sim", "robot_io") and module not in WITHOUT_TORCH:
            found.append(f"of vla, {folder} may import only {sorted(WITHOUT_TORCH)}: {name}")
        if top in TORCH and folder != "export" and (folder != "vla" or file.name not in MODELS):
            found.append(f"{top} has no place here: {name}")
        if folder == "vla" and top == "vla" and file.name not in MODELS and f"{module}.py" in MODELS:
            found.append(f"torch would come in by way of {name}")
        if top in ("pickle", "dill", "shelve", "marshal"):
            found.append(f"{top} runs what it reads: {name}")
    return found


def calls(source: str) -> list[str]:
    """Calls that have no place in the product."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("eval", "exec"):
                found.append(f"line {node.lineno}: {name} runs what it is given")
            if name == "torch.load":
                found.append(f"line {node.lineno}: torch.load unpickles; read safetensors")
            if name == "time.time":
                found.append(
                    f"line {node.lineno}: time.time jumps; take the clock that is given, or time.monotonic"
                )
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_import_order(file: Path) -> None:
    assert problems(file.read_text(), file.relative_to(ROOT)) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_call_that_executes_data_or_reads_the_wall_clock(file: Path) -> None:
    assert calls(file.read_text()) == []


def test_packages_are_empty() -> None:
    full = [file for file in FILES if file.name == "__init__.py" and file.read_text().strip()]
    assert full == []


def test_no_folder_is_left_out() -> None:
    python = {file.parent.relative_to(ROOT).parts[0] for file in ROOT.glob("*/__init__.py")}
    assert python - {"tests"} == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("file", "source", "word"),
    [
        ("vla/flow.py", "import runtime.loop", "may not import runtime"),
        ("runtime/loop.py", "from sim import robot", "may not import sim"),
        ("runtime/loop.py", "def f():\n    from export.graph import main", "may not import export"),
        ("sim/robot.py", "from robot_io.arm import Arm", "may not import robot_io"),
        ("robot_io/arm.py", "import sim.tabletop.scene", "may not import sim"),
        ("runtime/engine.py", "from vla import nano", "may import only"),
        ("sim/demos.py", "from vla.train import fit", "may import only"),
        ("runtime/engine.py", "import torch.nn as nn", "no place"),
        ("vla/dataset.py", "from torch import Tensor", "no place"),
        ("vla/flow.py", "from .nano import tiny", "by way of"),
        ("sim/tabletop/scene.py", "from ...vla import nano", "may import only"),
        ("runtime/wire.py", "import pickle", "runs what it reads"),
    ],
)
def test_the_walk_sees(file: str, source: str, word: str) -> None:
    (problem,) = problems(source, Path(file))
    assert word in problem


@pytest.mark.parametrize(
    "source", ["eval('1')", "exec(x)", "torch.load(f)", "def f():\n    return time.time()"]
)
def test_the_walk_sees_the_call(source: str) -> None:
    assert len(calls(source)) == 1


def test_the_walk_lets_pass_what_is_allowed() -> None:
    source = (
        "import numpy\nfrom vla.contract import Robot\nfrom vla import flow\nfrom runtime.loop import run"
    )
    assert problems(source, Path("sim/robot.py")) == []
    assert problems("import torch\nfrom vla import nano\nimport sim.robot", Path("export/graph.py")) == []
    assert calls("model.eval()\ntime.perf_counter()") == []


# Imports every module named on the command line; prints those that an absent extra keeps out.
IMPORT_ALL = """
import importlib, json, sys
left_out = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        left_out[name] = error.name
assert "torch" not in sys.modules, "torch came in"
print(json.dumps(left_out))
"""


@pytest.mark.parametrize("folders", [("runtime", "robot_io"), ("sim",)], ids=" and ".join)
def test_the_robot_side_imports_no_torch(folders: tuple[str, ...]) -> None:
    if "sim" in folders:
        pytest.importorskip("mujoco")
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in FILES
        if file.relative_to(ROOT).parts[0] in folders and not file.name.startswith("__")
    ]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    # Whatever a module needs at import beyond the base is one of the extras, and never one of ours.
    assert set(json.loads(done.stdout).values()) <= {
        "cv2",
        "onnxruntime",
        "tensorrt",
        "pyarrow",
        "av",
        "serial",
        "viser",
        "ray",
    }
