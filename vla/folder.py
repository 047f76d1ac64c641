"""A policy folder as LeRobot writes it, read and checked before anything is built.

    config.json                                    what kind of policy, its sizes, features, normalisation
    model.safetensors                              weights; in old folders the statistics as well
    policy_preprocessor.json, policy_postprocessor.json, *_step_<i>_<name>.safetensors
    tokenizer.json                                 not LeRobot's own: it names a hub's folder
    takt.json                                      ours, optional: what the rest leaves out (checkpoint.py)

Nothing is unpickled: weights are safetensors or they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from vla.contract import TaktError
from vla.normalise import EPS, MODES, Normalise

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# What the steps of a preprocessor may be: what each does is done by the model, its words or its cameras.
STEPS = (
    "rename_observations_processor", "to_batch_processor", "device_processor", "tokenizer_processor",
    "normalizer_processor", "unnormalizer_processor", "smolvla_new_line_processor", "pi0_new_line_processor",
    "pi05_prepare_state_tokenizer_processor_step",
)  # fmt: skip
# What changes the meaning of actions or inputs, and is not done here, by its value where it is not.
SWITCHES = {"use_relative_actions": False, "use_delta_joint_actions_aloha": False, "n_obs_steps": 1}
KINDS = {"STATE", "VISUAL", "ACTION", "ENV", "REWARD", "LANGUAGE"}
# Prefixes of old folders, in which the statistics lie among the weights.
# Counts beyond these are mistakes, and would take all memory before anything else fails.
WIDEST = 65_536
MOST = {
    "rows": 4096, "chunk_size": 4096, "steps": 1000, "num_steps": 1000, "num_inference_steps": 1000,
    "tokenizer_max_length": 8192, "max_length": 8192, "n_encoder_layers": 1000, "n_decoder_layers": 1000,
    "self_attn_every_n_layers": 1000,
}  # fmt: skip
COMPILED = "_orig_mod."  # what torch.compile puts into the names of what it has compiled
OLD = ("normalize_inputs.buffer_", "normalize_targets.buffer_", "unnormalize_outputs.buffer_")


@dataclass(frozen=True)
class Feature:
    """An input or output: "STATE", "VISUAL", "ACTION" or "ENV", and its shape as LeRobot has it."""

    kind: str
    shape: tuple[int, ...]


@dataclass
class Folder:
    """
    Attributes:
        config: config.json. shapes: of the weights, by key, without what torch.compile puts into it.
        inputs, outputs: features by name, in their order.
        modes: normalisation by kind of feature. stats: by feature and statistic. eps: of the normalisation.
        steps: the preprocessor's, by name; empty in old folders.
        extra: takt.json, empty where there is none.
        form: whose it is, "lerobot" or "openpi" (openpi_folder.py). keys: of `shapes` -> as they are stored.
        home: where takt.json and a tokenizer of yours are, by default the folder itself. title: its name.
    """

    path: Path
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    inputs: dict[str, Feature]
    outputs: dict[str, Feature]
    modes: dict[str, str]
    stats: dict[str, dict[str, Tensor]]
    eps: float = EPS
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    form: str = "lerobot"
    keys: dict[str, str] = field(default_factory=dict)
    home: Path = Path()
    title: str = ""

    def __post_init__(self) -> None:
        self.home, self.title = self.path, self.path.resolve().name

    @property
    def kind(self) -> str:
        return str(self.config["type"])

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras, without what LeRobot puts before them."""
        return [name.removeprefix(IMAGES) for name, f in self.inputs.items() if f.kind == "VISUAL"]

    def width(self, name: str) -> int:
        """Of a feature that is a vector.

        Raises:
            TaktError: the policy has no such feature.
        """
        feature = {**self.inputs, **self.outputs}.get(name)
        if feature is None or len(feature.shape) != 1:
            raise TaktError(f"{self.path}/config.json has no vector {name!r} among its features")
        return feature.shape[0]

    def number(self, name: str, default: int, least: int = 1) -> int:
        """A whole number of config.json.

        Raises:
            TaktError: it is not one, or it is out of all proportion.
        """
        return self.whole(name, self.config.get(name, default), least)

    def whole(self, name: str, value: Any, least: int = 1) -> int:
        """See `number`."""
        most = MOST.get(name, WIDEST)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise TaktError(f"{self.path}: {name} is {value!r}, not a whole number from {least} to {most}")
        return value

    def shape(self, key: str, axes: int) -> tuple[int, ...]:
        """Of a weight.

        Raises:
            TaktError: there is no such weight, or it has another number of axes.
        """
        found = self.shapes.get(key)
        if found is None:
            raise TaktError(f"{self.weights} lacks {key}")
        if len(found) != axes:
            raise TaktError(f"{self.weights}: {key} has shape {list(found)}; {axes} axes are wanted")
        return found

    def count(self, prefix: str) -> int:
        """How many layers there are under `prefix`, which ends before their numbers."""
        numbers = {key[len(prefix) :].split(".")[0] for key in self.shapes if key.startswith(prefix)}
        return len(numbers)

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    def normaliser(self, name: str) -> Normalise:
        """Of a feature.

        Raises:
            TaktError: its statistics are missing or do not fit.
        """
        feature = {**self.inputs, **self.outputs}[name]
        width = feature.shape[0]  # a vector's length, or a picture's channels
        made = Normalise(width)
        mode = self.modes.get(feature.kind, "IDENTITY")
        # As LeRobot: a feature without statistics is left as it is.
        if mode == "IDENTITY" or name in self.stats:
            exact = self.form == "openpi"
            made.set(mode, self.stats.get(name, {}), self.eps, f"{self.path}: {name}", exact)
        elif feature.kind in ("STATE", "ACTION"):
            raise TaktError(
                f"{self.path} has no statistics of {name}, which its {mode} normalisation wants: take the "
                "preprocessor's files along, or train with a data set"
            )
        return made


def read(path: Path, extra: dict[str, Any] | None = None) -> Folder:
    """
    Args:
        extra: what takt.json says.

    Raises:
        TaktError: it is not such a folder, a file is malformed, or the weights are a pickle.
    """
    if not (path / "config.json").is_file():
        raise TaktError(f"{path}: it is no policy folder, config.json is missing")
    config = object_of(path / "config.json")
    if not isinstance(config.get("type"), str):
        raise TaktError(f"{path}/config.json names no type of policy")
    weights = path / "model.safetensors"
    if not weights.is_file():
        pickles = sorted(f.name for f in path.iterdir() if f.suffix in PICKLES)
        why = (
            f"{pickles[0]} is a pickle, which is never loaded: convert it" if pickles else "it has no weights"
        )
        raise TaktError(f"{path}: {why}; model.safetensors is wanted")
    shapes, keys = stored(weights)
    inputs, outputs = (_features(path, config, name) for name in ("input_features", "output_features"))
    for name, kind, features in ((STATE, "STATE", inputs), (ACTION, "ACTION", outputs)):
        if name in features and features[name].kind != kind:
            raise TaktError(f"{path}/config.json: {name} is of type {features[name].kind!r}, not {kind}")
    for name, value in SWITCHES.items():
        if config.get(name, value) not in (value, None):
            raise TaktError(f"{path}/config.json: {name} is {config[name]!r}, which is not supported")
    usual = "QUANTILES" if config["type"] == "pi05" else "MEAN_STD"  # LeRobot's defaults
    modes = config.get("normalization_mapping", {"STATE": usual, "ACTION": usual})
    folder = Folder(path, config, shapes, inputs, outputs, _modes(path, modes), {}, keys=keys)
    folder.extra = extra or {}
    folder.steps = _steps(path / "policy_preprocessor.json")
    _read_stats(folder)
    return folder


def object_of(file: Path) -> dict[str, Any]:
    """A JSON file that is an object.

    Raises:
        TaktError: it is not.
    """
    try:
        data = json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise TaktError(f"{file} is malformed: {_line(error)}") from None
    if not isinstance(data, dict):
        raise TaktError(f"{file} is malformed: an object is wanted")
    return data


def stored(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of a file's tensors by key, and each key as it is stored: here without "_orig_mod.".

    Raises:
        TaktError: it is no safetensors file, or two keys become one.
    """
    shapes, keys = {}, {}
    try:
        with safe_open(file, "pt") as f:
            for key in f.keys():  # noqa: SIM118
                plain = key.replace(COMPILED, "")
                if plain in keys:
                    raise TaktError(f"{file} has {plain} twice, with and without {COMPILED}")
                shapes[plain], keys[plain] = tuple(f.get_slice(key).get_shape()), key
    except (SafetensorError, OSError) as error:
        raise TaktError(f"{file} is no safetensors file: {_line(error)}") from None
    return shapes, keys


def _features(path: Path, config: Mapping[str, Any], name: str) -> dict[str, Feature]:
    try:
        return {
            key: Feature(str(f["type"]), tuple(int(n) for n in f["shape"]))
            for key, f in (config.get(name) or {}).items()
        }
    except (TypeError, KeyError, ValueError, AttributeError):
        raise TaktError(
            f"{path}/config.json: {name} is malformed; type and shape of each are wanted"
        ) from None


def _modes(path: Path, modes: Any) -> dict[str, str]:
    if not isinstance(modes, dict):
        raise TaktError(f"{path}/config.json: normalization_mapping is no object")
    for kind, mode in modes.items():
        if kind not in KINDS or not isinstance(mode, str) or mode not in MODES:
            raise TaktError(
                f"{path}: no normalisation {mode!r} of {kind!r}; there are {', '.join(MODES)} of "
                f"{', '.join(sorted(KINDS))}"
            )
    return dict(modes)


def _steps(file: Path) -> dict[str, dict[str, Any]]:
    """A processor's steps by name: each its config, with its file of tensors under "state_file"."""
    if not file.is_file():
        return {}
    steps = object_of(file).get("steps")
    try:
        found = {
            s["registry_name"]: {**s.get("config", {}), "state_file": s.get("state_file")}
            for s in steps or []
        }
    except (TypeError, KeyError, AttributeError):
        raise TaktError(f"{file} is malformed: each of its steps has a registry_name") from None
    for name, step in found.items():
        if name not in STEPS:
            raise TaktError(f"{file} has a step {name!r}, which is not supported; known: {', '.join(STEPS)}")
        state = step["state_file"]
        if state is not None and (not isinstance(state, str) or Path(state).name != state):
            raise TaktError(f"{file}: {state!r} is no name of a file beside it")
    return found


def _read_stats(folder: Folder) -> None:
    """Statistics and modes: of the processors where there are, else among the weights."""
    forward = folder.steps.get("normalizer_processor")
    back = _steps(folder.path / "policy_postprocessor.json").get("unnormalizer_processor")
    for step in (forward, back):
        if step is None:
            continue
        folder.modes |= _modes(folder.path, step.get("norm_map") or {})
        eps = step.get("eps", EPS)
        if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < eps < 1:
            raise TaktError(f"{folder.path}: eps of the normalisation is {eps!r}")
        folder.eps = float(eps)
        if step["state_file"]:
            for key, value in _tensors(folder.path / str(step["state_file"])).items():
                name, _, statistic = key.rpartition(".")
                folder.stats.setdefault(name, {})[statistic] = value
    if folder.stats:
        return
    names = {name.replace(".", "_"): name for name in (*folder.inputs, *folder.outputs)}
    old = [key for key in folder.shapes if key.startswith(OLD)]
    tensors = _tensors(folder.weights, {key: folder.keys[key] for key in old}) if old else {}
    for key, value in tensors.items():
        prefix = next(p for p in OLD if key.startswith(p))
        feature, _, statistic = key[len(prefix) :].rpartition(".")
        if feature in names:
            folder.stats.setdefault(names[feature], {})[statistic] = value


def _tensors(file: Path, keys: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """All of a file's, or those that are named: what they are called here -> as they are stored."""
    try:
        if keys is None:
            return load_file(file)
        with safe_open(file, "pt") as f:
            return {key: f.get_tensor(name) for key, name in keys.items()}
    except (SafetensorError, OSError) as error:
        raise TaktError(f"{file} is no safetensors file: {_line(error)}") from None


def fill(
    model: nn.Module,
    folder: Folder,
    renames: Mapping[str, str],
    unused: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
) -> None:
    """Give a model, built on the meta device, the folder's weights.

    Args:
        renames: a prefix of the folder's keys -> the model's; the longest that fits counts.
        unused: prefixes of the folder's keys that the model has no use for.

    Raises:
        TaktError: a weight is missing, is too many, or has another shape; the line names it.
    """
    theirs: dict[str, str] = {}
    ignored = (*unused, *OLD)
    for key in folder.shapes:
        if not key.startswith(ignored):
            name = _renamed(key, renames)
            if name in theirs:
                raise TaktError(f"{folder.weights} has {theirs[name]} and {key}, of which one is wanted")
            theirs[name] = key
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    back = {ours: their for their, ours in sorted(renames.items(), key=lambda pair: len(pair[1]))}
    for name, shape in wanted.items():
        if name not in theirs:
            raise TaktError(f"{folder.weights} lacks {_renamed(name, back)}, shape {list(shape)}")
        found = folder.shapes[theirs[name]]
        if found != shape:
            raise TaktError(
                f"{folder.weights}: {theirs[name]} has shape {list(found)}, {list(shape)} is wanted"
            )
    more = sorted(theirs[name] for name in theirs.keys() - wanted.keys())
    if more:
        raise TaktError(
            f"{folder.weights} has {more[0]}, shape {list(folder.shapes[more[0]])}, which a {folder.kind} "
            f"policy of these sizes has not ({len(more)} such)"
        )
    tensors = _tensors(folder.weights, {name: folder.keys[theirs[name]] for name in wanted})
    model.load_state_dict({name: tensors[name].to(dtype) for name in wanted}, assign=True)
    model.requires_grad_(False)


def _renamed(key: str, renames: Mapping[str, str]) -> str:
    fitting = [prefix for prefix in renames if key.startswith(prefix)]
    if not fitting:
        return key
    longest = max(fitting, key=len)
    return renames[longest] + key[len(longest) :]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
