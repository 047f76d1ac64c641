"""`takt build`: the graphs of a bundle become TensorRT engines, on the machine that will run them.

    ONNX -> rewrite (export/rewrite.py) -> fp16 (export/half.py) -> check (export/compatible.py)
         -> parse, strongly typed -> build -> the cache of this machine (runtime/engine_cache.py)

Strongly typed means that the types are those of the graph and no flag changes them: TensorRT 11 has no
other way, and 10.3 (JetPack 6.2) does it as well. TensorRT for RTX builds where there is no GPU at all, and
then with --check: what came out is counted and thrown away, because an engine is used where it was built.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import tyro
from rich.console import Console

from export.apart import apart
from export.compatible import check
from export.half import half
from export.rewrite import rewrite
from runtime import bundle, engine_cache, engines
from runtime.cuda import Cuda
from runtime.engine_tensorrt import TensorrtGraph, key
from runtime.graphs import OnnxGraph, one_line
from runtime.tensorrt_library import MODULES, Library
from vla import atomic
from vla.contract import TaktError

# Largest accepted difference from ONNX Runtime in fp32, relative to an output's largest value. TF32 and fp16
# have 11 bits: 5e-4 a rounding, of which a graph makes many.
TOLERANCE = {"": 1e-3, "tf32": 2e-2, "fp16": 2e-2}
_COARSE = 5e-2  # of a graph that is quantised, or in half precision, as it stands
_PART = 2**31 - 2**20  # protobuf holds no more in one message


@dataclass
class Command:
    """Build a bundle's TensorRT engines on the machine that will run them."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """The bundle."""
    engine: str = "tensorrt"
    """tensorrt or tensorrt-rtx, or with a precision: tensorrt:fp16, tensorrt:tf32."""
    batch: int = 8
    """Rows that graphs with an open batch take at most, times the bundle's candidates."""
    workspace: float | None = None
    """GiB that a layer may use while it runs; by default as much as there is."""
    check: bool = False
    """Only see whether it can be built; TensorRT for RTX needs no GPU for that."""
    compute: str | None = None
    """With --check and TensorRT for RTX: the compute capability to build for, such as 8.9."""
    json: Path | None = None
    """Where to write sizes, seconds and differences."""

    def run(self) -> int:
        product, precision = self._checked()
        loaded = bundle.load(self.bundle)
        library = Library(product)
        cuda = None if self.check else Cuda()
        compute = cuda.compute if cuda is not None else self.compute
        most, rows = self.batch * loaded.candidates, []
        for name, file in _graphs(loaded, everything=self.check).items():
            begun = time.monotonic()
            with _said(name):
                made = prepared(file, precision, library, compute)
                data = self._build(library, made, cuda, most)
                error = None
                if cuda is not None:
                    most_off = _COARSE if coarse(made) and not precision else TOLERANCE[precision]
                    error = compared(file, TensorrtGraph(library, cuda, data, name), most_off)
                    place = engine_cache.folder()
                    engine_cache.write(place, name, key(library, cuda, file, precision), data)
            rows.append({"graph": name, "megabytes": len(data) / 1e6, "seconds": time.monotonic() - begun,
                         "difference": error})  # fmt: skip
            self._print(rows[-1])
        if self.json is not None:
            about = {
                "engine": self.engine,
                "version": library.version,
                "compute": compute,
                "kept": not self.check,
            }
            atomic.write_json(self.json, {**about, "graphs": rows})
        return 0

    def _checked(self) -> tuple[str, str]:
        product, precision = engines.parse(self.engine)
        if product not in MODULES:
            raise TaktError(f"takt build makes engines of {' or '.join(MODULES)}; {product} needs none")
        if not 1 <= self.batch <= 256:
            raise TaktError("--batch is from 1 to 256")
        if self.workspace is not None and not 0 < self.workspace < 1024:
            raise TaktError("--workspace is in GiB, above 0")
        if self.compute is not None:
            if not (self.check and product == "tensorrt-rtx"):
                raise TaktError("--compute goes with --check and --engine tensorrt-rtx alone")
            _number(self.compute)
        return product, precision

    def _build(self, library: Library, made: onnx.ModelProto, cuda: Cuda | None, most: int) -> bytes:
        timing = None
        if cuda is not None and library.product == "tensorrt":
            stem = f"timing-{library.version}-{cuda.name}-{cuda.compute}".replace(" ", "-").replace("/", "-")
            timing = engine_cache.folder() / f"{stem}.cache"
        tf32 = engines.parse(self.engine)[1] == "tf32"
        return build(library, made, most, tf32, self.workspace, timing, self.compute)

    def _print(self, row: dict[str, Any]) -> None:
        line = f"{row['graph']}: {row['megabytes']:.1f} MB in {row['seconds']:.1f} s"
        if row["difference"] is not None:
            line += f", differs from ONNX Runtime by {row['difference']:.1e}"
        Console(highlight=False).print(line + (", built and thrown away" if self.check else ""))


def prepared(
    file: Path, precision: str = "", library: Library | None = None, compute: str | None = None
) -> onnx.ModelProto:
    """The graph in `file` as TensorRT takes it.

    Args:
        precision: "fp16" to compute products in half precision; others leave the types as they are.
        library: to be asked which operators it knows and which opset it takes.
        compute: the GPU's compute capability, "8.7"; None for any.

    Raises:
        TaktError: the file is no graph, or TensorRT would refuse it: the node, why, what to do.
    """
    try:
        model = onnx.load(str(file))
    except Exception as error:  # protobuf's own classes, and an OSError for external data
        raise TaktError(f"{file} is no ONNX graph, or cut short ({one_line(error)}): copy it again") from None
    if not model.graph.node:
        raise TaktError(f"{file} is no ONNX graph, or cut short: it has no nodes; copy it again")
    version, supports = None, None
    if library is not None:
        network = library.trt.Builder(library.logger).create_network(_typed(library))
        supports = library.trt.OnnxParser(network, library.logger).supports_operator
        version = library.number if library.product == "tensorrt" else None
    check(model, None if compute is None else _number(compute), version, supports)
    model = rewrite(model)
    return half(model) if precision == "fp16" else model


def build(
    library: Library,
    model: onnx.ModelProto,
    most: int = 8,
    tf32: bool = False,
    workspace: float | None = None,
    timing: Path | None = None,
    compute: str | None = None,
) -> bytes:
    """A serialised engine.

    Args:
        model: as `prepared` leaves it.
        most: rows that an open batch takes at most; the engine is tuned for one.
        tf32: let products in float32 be computed with 11 bits.
        workspace: GiB a layer may use; None for no limit.
        timing: a file with what earlier builds on this machine measured, which is read and renewed.
        compute: for TensorRT for RTX, the compute capability to build for; None for the GPU here, or any.

    Raises:
        TaktError: what TensorRT says against it, in one line.
    """
    trt = library.trt
    builder = trt.Builder(library.logger)
    network = builder.create_network(_typed(library))
    parser = trt.OnnxParser(network, library.logger)
    if not _parsed(parser, model):
        error = parser.get_error(0) if parser.num_errors else None
        said = (
            f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}"
            if error
            else library.why()
        )
        raise TaktError(f"{library.product} {library.version} does not read the graph: {one_line(said)}")
    config = builder.create_builder_config()
    if not tf32:  # on by default, and 13 of 24 bits of a float32 with it
        config.clear_flag(trt.BuilderFlag.TF32)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(workspace * 2**30))
    if compute is not None:
        rtx_target(trt, config, compute)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if -1 in tuple(tensor.shape):
            shapes = [[rows if size < 0 else size for size in tensor.shape] for rows in (1, 1, most)]
            profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    if timing is not None:
        _use_timing(config, timing)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise TaktError(f"{library.product} {library.version} does not build the graph: {library.why()}")
    if timing is not None:
        timing.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache = config.get_timing_cache()
        atomic.write(timing, bytes(cache.serialize()), synced=True, private=True)
    return bytes(serialized)


def compared(file: Path, ours: TensorrtGraph, most: float) -> float:
    """Largest difference of an engine from ONNX Runtime, relative to each output's largest value.

    Raises:
        TaktError: it is more than `most`.
    """
    plain, rng = OnnxGraph(file), np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for name, (dtype, shape) in plain.inputs.items():
        sizes = [1 if size is None else size for size in shape]
        if dtype == "float32":
            feeds[name] = rng.uniform(0, 0.5, sizes).astype(dtype)
        elif dtype == "uint8":
            feeds[name] = rng.integers(0, 256, sizes).astype(dtype)
        else:  # words: every vocabulary has as many
            feeds[name] = np.ones(sizes, dtype) if name == "mask" else rng.integers(0, 6, sizes).astype(dtype)
    got = ours(feeds)
    worst = max(apart(got[name], value, 1e-2) for name, value in plain(feeds).items())
    if not worst <= most:
        raise TaktError(
            f"the engine differs from ONNX Runtime by {worst:.1e}, more than {most:.0e}: not kept"
        )
    return worst


def coarse(model: onnx.ModelProto) -> bool:
    """Whether a graph is quantised or in half precision as it stands."""
    low = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return quantised or any(weights.data_type in low for weights in model.graph.initializer)


def rtx_target(trt: Any, config: Any, compute: str) -> None:
    """Build for a GPU that need not be here; raises TaktError where this product has no such target."""
    number = round(10 * _number(compute))
    target = getattr(trt.ComputeCapability, f"SM{number}", None)
    if target is None:
        members = sorted(int(n[2:]) for n in trt.ComputeCapability.__members__ if n.startswith("SM"))
        valid = ", ".join(f"{n / 10:.1f}" for n in members)
        raise TaktError(f"TensorRT for RTX builds for compute capability {valid}; not for {compute}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(target, 0)


def _typed(library: Library) -> int:
    """The flag that TensorRT 10 wants for a strongly typed network; 11 takes it and needs it no more."""
    return 1 << int(library.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _parsed(parser: Any, model: onnx.ModelProto) -> bool:
    if model.ByteSize() < _PART:
        return bool(parser.parse(model.SerializeToString()))
    with tempfile.TemporaryDirectory(prefix="takt-") as folder:  # the weights go beside the graph
        path = str(Path(folder) / "graph.onnx")
        onnx.save(model, path, save_as_external_data=True, location="graph.onnx.data")
        return bool(parser.parse_from_file(path))


def _use_timing(config: Any, file: Path) -> None:
    """Attach what earlier builds measured; what TensorRT does not take is begun anew."""
    earlier = file.read_bytes() if file.is_file() and file.stat().st_size else b""
    for data in (earlier, b""):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def _graphs(loaded: bundle.Bundle, everything: bool) -> dict[str, Path]:
    """The graphs that run; all that the bundle has where it is only to be seen whether they can be built."""
    if not everything:
        return loaded.graphs
    return loaded.graphs | {n: loaded.path / str(f) for n, f in loaded.policy["graphs"].items()}


@contextmanager
def _said(name: str) -> Iterator[None]:
    """Errors begin with the graph's name."""
    try:
        yield
    except TaktError as error:
        raise TaktError(f"{name}: {error}") from None


def _number(compute: str) -> float:
    try:
        value = float(compute)
    except ValueError:
        value = 0.0
    if not 5 <= value < 20:
        raise TaktError(f"{compute!r} is no compute capability; write 8.7")
    return value
