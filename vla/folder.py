"""A policy folder as LeRobot writes it, read and checked before anything is built.

    config.json                                    what kind of policy, its sizes, features, normalisation
    model.safetensors                              weights; in old folders the statistics as well
    policy_preprocessor.json, policy_postprocessor.json, *_step_<i>_<name>.safetensors
    tokenizer.json                                 not LeRobot's own: it names a hub's folder
    takt.json                                      ours, optional: what the rest leaves out (checkpoint.py)

Nothing is unpickled: weights are safetensors or they are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vla.contract import TaktError
from vla.normalise import EPS, Normalise
from vla.processors import OLD, finite, modes_of, normalise, relative, steps_of
from vla.stored import object_of, shapes_of, tensors

STATE, ACTION = "observation.state", "action"
OBSERVATION, IMAGES = "observation.", "observation.images."
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# What changes the meaning of actions or inputs, and is not done here, by its value where it is not.
SWITCHES = {"use_delta_joint_actions_aloha": False, "n_obs_steps": 1}
# Counts beyond these are mistakes, and would take all memory before anything else fails.
WIDEST = 65_536
SIDE = 8192  # pixels of a picture
MOST = {
    "rows": 4096, "chunk_size": 4096, "steps": 1000, "num_steps": 1000, "num_inference_steps": 1000,
    "tokenizer_max_length": 8192, "max_length": 8192, "n_encoder_layers": 1000, "n_decoder_layers": 1000,
    "self_attn_every_n_layers": 1000,
}  # fmt: skip


@dataclass(frozen=True)
class Feature:
    """An input or output: "STATE", "VISUAL", "ACTION" or "ENV", and its shape as LeRobot has it."""

    kind: str
    shape: tuple[int, ...]


def camera(feature: str) -> str:
    """What a camera is called whose feature is `observation.images.NAME`, or `observation.NAME` as of old."""
    return feature.removeprefix(IMAGES).removeprefix(OBSERVATION)


@dataclass
class Folder:
    """
    Attributes:
        config: config.json. shapes: of the weights, by key, without what torch.compile puts into it.
        inputs, outputs: features by name, in their order.
        modes: normalisation by kind of feature. stats: by feature and statistic. eps: of the normalisation.
        relative: which actions are relative to the state (normalise.py); empty where none is.
        untouched: inputs that are not normalised whatever their kind is.
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
    untouched: set[str] = field(default_factory=set)
    relative: list[bool] = field(default_factory=list)
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
    def pictures(self) -> dict[str, str]:
        """The cameras' features, by their names without what LeRobot puts before them."""
        visual = [name for name, f in self.inputs.items() if f.kind == "VISUAL"]
        return {camera(name): name for name in visual}

    @property
    def cameras(self) -> list[str]:
        """Their names, in the model's order."""
        return list(self.pictures)

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

    def real(self, name: str, default: float) -> float:
        """A number of config.json above 0.

        Raises:
            TaktError: it is not one.
        """
        return finite(self.path, name, self.config.get(name, default), positive=True)

    def words(self, default: int) -> int:
        """How many tokens are read: as the tokenizer's step says, else config.json.

        Raises:
            TaktError: it is no such number.
        """
        step = self.steps.get("tokenizer_processor", {})
        if "max_length" in step:
            return self.whole("max_length", step["max_length"])
        return self.number("tokenizer_max_length", default)

    def parts(self, name: str, whole: int, of: int) -> int:
        """How many parts of a width `of` a `whole` has.

        Raises:
            TaktError: there is a rest.
        """
        if of < 1 or whole < of or whole % of:
            raise TaktError(f"{self.path}: {name} cannot be {whole} with {of} each")
        return whole // of

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

    def mode(self, name: str) -> str:
        """How a feature is normalised."""
        feature = {**self.inputs, **self.outputs}[name]
        return "IDENTITY" if name in self.untouched else self.modes.get(feature.kind, "IDENTITY")

    def check_vectors(self, state: int, actions: int) -> None:
        """That the robot's numbers have room in the model's vectors, of `state` and `actions` numbers, and
        its pictures come as they are, which is what SmolVLA and the pi policies read.

        Raises:
            TaktError: they do not.
        """
        for name, most in ((STATE, state), (ACTION, actions)):
            if self.width(name) > most:
                raise TaktError(f"{self.path}: {name} has {self.width(name)} numbers, the model reads {most}")
        for name in self.pictures.values():
            if self.mode(name) != "IDENTITY" and name in self.stats:
                raise TaktError(
                    f"{self.path} normalises pictures by {self.mode(name)}, which a {self.kind} policy never "
                    'learns with: "VISUAL" has to be "IDENTITY"'
                )

    def normaliser(self, name: str) -> Normalise:
        """Of a feature.

        Raises:
            TaktError: its statistics are missing or do not fit.
        """
        feature = {**self.inputs, **self.outputs}[name]
        width = feature.shape[0]  # a vector's length, or a picture's channels
        made = Normalise(width)
        mode = self.mode(name)
        # As LeRobot: a feature without statistics is left as it is.
        if mode == "IDENTITY" or name in self.stats:
            exact = self.form == "openpi"
            made.set(mode, self.stats.get(name, {}), self.eps, f"{self.path}: {name}", exact)
        elif feature.kind in ("STATE", "ACTION"):
            raise TaktError(
                f"{self.path} has no statistics of {name}, which its {mode} normalisation wants: take the "
                "preprocessor's files along, or train with a data set"
            )
        if name == ACTION and any(self.relative):
            made.relative = torch.tensor(self.relative).float()
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
    shapes, keys = shapes_of(weights)
    inputs, outputs = (_features(path, config, name) for name in ("input_features", "output_features"))
    for name, kind, features in ((STATE, "STATE", inputs), (ACTION, "ACTION", outputs)):
        if name in features and features[name].kind != kind:
            raise TaktError(f"{path}/config.json: {name} is of type {features[name].kind!r}, not {kind}")
    for name, value in SWITCHES.items():
        if config.get(name, value) not in (value, None):
            raise TaktError(f"{path}/config.json: {name} is {config[name]!r}, which is not supported")
    usual = "QUANTILES" if config["type"] == "pi05" else "MEAN_STD"  # LeRobot's defaults
    modes = config.get("normalization_mapping", {"STATE": usual, "ACTION": usual})
    folder = Folder(path, config, shapes, inputs, outputs, modes_of(path, modes), {}, keys=keys)
    folder.extra = extra or {}
    folder.steps = steps_of(path / "policy_preprocessor.json")
    normalise(folder)
    folder.relative = relative(folder)
    return folder


def _features(path: Path, config: Mapping[str, Any], name: str) -> dict[str, Feature]:
    try:
        found = {
            key: Feature(str(f["type"]), tuple(int(n) for n in f["shape"]))
            for key, f in (config.get(name) or {}).items()
        }
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise TaktError(
            f"{path}/config.json: {name} is malformed; type and shape of each are wanted"
        ) from None
    for key, feature in found.items():
        most = WIDEST if len(feature.shape) == 1 else SIDE
        if not all(0 < n <= most for n in feature.shape):
            raise TaktError(f"{path}/config.json: {key} has shape {list(feature.shape)}; 1 to {most} each")
    return found


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
        there = folder.shapes[theirs[name]]
        if there != shape:
            raise TaktError(
                f"{folder.weights}: {theirs[name]} has shape {list(there)}, {list(shape)} is wanted"
            )
    more = sorted(theirs[name] for name in theirs.keys() - wanted.keys())
    if more:
        raise TaktError(
            f"{folder.weights} has {more[0]}, shape {list(folder.shapes[more[0]])}, which a {folder.kind} "
            f"policy of these sizes has not ({len(more)} such)"
        )
    found = tensors(folder.weights, {name: folder.keys[theirs[name]] for name in wanted})
    model.load_state_dict({name: found[name].to(dtype) for name in wanted}, assign=True)
    model.requires_grad_(False)


def _renamed(key: str, renames: Mapping[str, str]) -> str:
    fitting = [prefix for prefix in renames if key.startswith(prefix)]
    if not fitting:
        return key
    longest = max(fitting, key=len)
    return renames[longest] + key[len(longest) :]
