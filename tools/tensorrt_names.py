"""Write down the names of TensorRT's Python bindings, version by version: tests/runtime/tensorrt_names/.

    python tools/tensorrt_names.py

TensorRT itself cannot be installed where there is no GPU: the packages `tensorrt-cu*-libs` fetch it from
elsewhere. Its bindings are ordinary wheels, though, and import once the three libraries behind them are
there, be they empty. So this downloads the bindings (pip), compiles empty libraries with the nine functions
that the bindings are linked with (cc), imports them in a process of their own, and writes every class with
the names of its attributes. tests/runtime/test_tensorrt_names.py compares with them what our code calls.
Needs pip, cc and Python 3.10 to 3.12, for which all the wheels exist.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# What JetPack 6.2, JetPack 7 from its first to 7.2, and workstations have, and TensorRT for RTX.
WHEELS = [
    ("tensorrt", "tensorrt-cu12-bindings", "10.3.0"),
    ("tensorrt", "tensorrt-cu13-bindings", "10.13.3.9"),
    ("tensorrt", "tensorrt-cu13-bindings", "10.16.1.11"),
    ("tensorrt", "tensorrt-cu13-bindings", "11.4.0.106"),
    ("tensorrt_rtx", "tensorrt-rtx-cu13-bindings", "1.7.1.116"),
]
# The CUDA runtime for JetPack 6 and for the rest; imported as they are, they need no GPU.
CUDA = [("cuda-python", "12.6.2.post1"), ("cuda-bindings", "13.4.4")]
OUT = Path(__file__).resolve().parent.parent / "tests" / "runtime" / "tensorrt_names"
STUB = "".join(
    f"void *{name}(void) {{ return 0; }}\n"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getBuilderPluginRegistry",
        "getNvOnnxParserVersion",
        "getPluginRegistry",
        "initLibNvInferPlugins",
    )
)
# Classes that only plugins and networks written by hand need are left out, to keep the tables small.
WALK = """
import json, sys
module = __import__(sys.argv[1], fromlist=["x"])
table = {"": sorted(n for n in vars(module) if not n.startswith("_"))}
for name, value in vars(module).items():
    plain = not name.endswith(("Layer", "V2", "V3")) and "Plugin" not in name and "Loop" not in name
    if isinstance(value, type) and not name.startswith("_") and plain:
        table[name] = sorted(n for n in dir(value) if not n.startswith("_"))
print(json.dumps(table))
"""


WALK_CUDA = """
import json
from cuda.bindings import runtime
enums = ("cudaMemcpyKind", "cudaStreamCaptureMode")
names = [name for name in dir(runtime) if name.startswith("cuda")]
table = {"": [n for n in names if n in enums or not isinstance(getattr(runtime, n), type)]}
table |= {e: [n for n in dir(getattr(runtime, e)) if n.startswith("cuda")] for e in enums}
print(json.dumps(table))
"""


def cuda_names(package: str, version: str) -> dict[str, list[str]]:
    """As `names`, of cuda.bindings.runtime: its functions, constants, and the enumerations that we use."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:", "--target", folder]
        subprocess.run([*pip, f"{package}=={version}"], check=True, stderr=subprocess.DEVNULL)
        command, environment = [sys.executable, "-c", WALK_CUDA], {**os.environ, "PYTHONPATH": folder}
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def names(package: str, version: str) -> dict[str, list[str]]:
    """Class -> names of its attributes; "" -> names of the module."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, "-d", text, f"{package}=={version}"], check=True, stderr=subprocess.DEVNULL)
        (wheel,) = folder.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(folder)
        (bindings,) = folder.glob("*_bindings")
        (folder / "stub.c").write_text(STUB)
        (compiled,) = bindings.glob("*.so")
        for library in needed(compiled):
            command = ["cc", "-shared", "-fPIC", "-o", str(folder / library), str(folder / "stub.c")]
            subprocess.run([*command, f"-Wl,-soname,{library}"], check=True)
        done = subprocess.run(
            [sys.executable, "-c", WALK, bindings.name],
            cwd=folder, env={**os.environ, "LD_LIBRARY_PATH": text, "PYTHONPATH": text},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return json.loads(done.stdout)


def needed(library: Path) -> list[str]:
    """The libraries of TensorRT that a shared object is linked with, by their sonames in its string table."""
    words = library.read_bytes().split(b"\0")
    return sorted({w.decode() for w in words if w.startswith((b"libnv", b"libtensorrt")) and b".so." in w})


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for kind, package, version in WHEELS:
        write(f"{kind}-{version}", package, version, names(package, version))
    for package, version in CUDA:
        write(f"cuda-{version}", package, version, cuda_names(package, version))


def write(name: str, package: str, version: str, table: dict[str, list[str]]) -> None:
    """One line a class, so that a new table shows in a diff what has changed."""
    rows = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(table.items()))
    about = json.dumps({"package": package, "version": version, "by": "tools/tensorrt_names.py"})
    file = OUT / f"{name}.json"
    file.write_text(f'{{"about": {about},\n"names": {{\n{rows}}}}}\n')
    print(f"{file.name}: {len(table)} classes, {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
