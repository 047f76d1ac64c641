"""What LeRobot's processors say: what is done to an observation before the model, and to actions after it.

    policy_preprocessor.json    renames cameras, makes words, normalises what the robot says
    policy_postprocessor.json   turns normalised actions back

LeRobot runs the steps; here each is a part of the model, of its words or of its cameras, and what has no such
part is refused. In folders from before LeRobot 0.4 the statistics lie among the weights.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vla.contract import TaktError
from vla.normalise import EPS, MODES
from vla.stored import object_of, tensors

if TYPE_CHECKING:
    from vla.folder import Folder

STATE, ACTION = "observation.state", "action"
STEPS = (
    "rename_observations_processor", "to_batch_processor", "device_processor", "tokenizer_processor",
    "normalizer_processor", "unnormalizer_processor", "smolvla_new_line_processor", "pi0_new_line_processor",
    "pi05_prepare_state_tokenizer_processor_step", "relative_actions_processor", "absolute_actions_processor",
)  # fmt: skip
# Steps of which one more would count: what they say is read once.
ONCE = (
    "rename_observations_processor", "tokenizer_processor", "normalizer_processor", "unnormalizer_processor",
)  # fmt: skip
KINDS = {"STATE", "VISUAL", "ACTION", "ENV", "REWARD", "LANGUAGE"}
# A key of old folders, with the name of a data set where statistics of several are kept.
OLD = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
OLD_KEY = re.compile(r"\w+\.((?P<set>[^.]+)_)?buffer_(?P<feature>[^.]+)\.(?P<statistic>[^.]+)")


def modes_of(path: Path, modes: Any) -> dict[str, str]:
    """A checked normalization_mapping: by kind of feature.

    Raises:
        TaktError: it is malformed or names what is not known.
    """
    if not isinstance(modes, dict):
        raise TaktError(f"{path}: the normalisation {modes!r} is no object")
    for kind, mode in modes.items():
        if kind not in KINDS or not isinstance(mode, str) or mode not in MODES:
            raise TaktError(
                f"{path}: no normalisation {mode!r} of {kind!r}; there are {', '.join(MODES)} of "
                f"{', '.join(sorted(KINDS))}"
            )
    return dict(modes)


def steps_of(file: Path) -> dict[str, dict[str, Any]]:
    """A processor's steps by name: each its config, with its file of tensors under "state_file".

    Raises:
        TaktError: it is malformed, or a step would change what is not changed here.
    """
    if not file.is_file():
        return {}
    found: dict[str, dict[str, Any]] = {}
    try:
        for s in object_of(file).get("steps") or []:
            name, step = s["registry_name"], {**s.get("config", {}), "state_file": s.get("state_file")}
            if name in found and name in ONCE:
                raise TaktError(f"{file} has two steps {name!r}: one is wanted")
            found[name] = step
    except (TypeError, KeyError, AttributeError):
        raise TaktError(f"{file} is malformed: each of its steps has a registry_name") from None
    for name, step in found.items():
        if name not in STEPS:
            raise TaktError(f"{file} has a step {name!r}, which is not supported; known: {', '.join(STEPS)}")
        state = step["state_file"]
        if state is not None and (not isinstance(state, str) or Path(state).name != state):
            raise TaktError(f"{file}: {state!r} is no name of a file beside it")
        if not isinstance(step.get("enabled", False), bool):
            raise TaktError(f"{file}: enabled of {name} is {step['enabled']!r}")
    if found.get("tokenizer_processor", {}).get("padding_side", "right") != "right":
        raise TaktError(f"{file}: words stand at the left of what fills them up; padding_side says otherwise")
    return found


def normalise(folder: Folder) -> None:
    """Set how the folder's features are normalised, and by which statistics, as LeRobot's processors do: what
    the robot says by the first's, actions by the second's.

    Raises:
        TaktError: the two do not belong together, or do not fit the features of config.json.
    """
    forward = folder.steps.get("normalizer_processor")
    back = steps_of(folder.path / "policy_postprocessor.json").get("unnormalizer_processor")
    known = [step for step in (forward, back) if step is not None]
    if known:
        folder.eps = _eps(folder, known)
    for step in known:
        _check_features(folder, step)
    if forward is not None:
        action = folder.modes.get("ACTION", "IDENTITY")
        folder.modes = _modes(folder, forward)
        folder.modes.setdefault("ACTION", action)
        folder.stats = _statistics(folder, forward)
        folder.untouched = _untouched(folder, forward)
    if back is not None:
        _take_actions(folder, back, both=forward is not None)
    if not folder.stats:
        _read_old(folder)


def _eps(folder: Folder, known: list[dict[str, Any]]) -> float:
    found = [step.get("eps", EPS) for step in known]
    for eps in found:
        if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < eps < 1:
            raise TaktError(f"{folder.path}: eps of the normalisation is {eps!r}")
        if eps != found[0]:
            raise TaktError(f"{folder.path}: pre- and postprocessor have eps {found[0]} and {eps}; {MEND}")
    return float(found[0])


MEND = "take both from one training"


def _modes(folder: Folder, step: dict[str, Any]) -> dict[str, str]:
    """Of a step; a kind that it does not name is left as it is. A step without any has config.json's."""
    return modes_of(folder.path, step["norm_map"]) if step.get("norm_map") else dict(folder.modes)


def _check_features(folder: Folder, step: dict[str, Any]) -> None:
    own = {**folder.inputs, **folder.outputs}
    features = step.get("features") or {}
    if not isinstance(features, dict) or not all(isinstance(f, dict) for f in features.values()):
        raise TaktError(f"{folder.path}: features of a processor are malformed")
    for name, feature in features.items():
        if name not in own:
            continue
        said = (feature.get("type"), list(feature.get("shape") or ()))
        same = said[0] == "VISUAL" or said[1] == list(own[name].shape)  # pictures come in any size
        if said[0] != own[name].kind or not same:
            raise TaktError(
                f"{folder.path}: a processor has {name} as {said[0]} {said[1]}, config.json as "
                f"{own[name].kind} {list(own[name].shape)}; {MEND}"
            )


def _untouched(folder: Folder, step: dict[str, Any]) -> set[str]:
    """What the robot says that the step leaves as it is."""
    features, keys = step.get("features"), step.get("normalize_observation_keys")
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise TaktError(f"{folder.path}: normalize_observation_keys is {keys!r}, a list of names is wanted")
    return {
        name for name in folder.inputs
        if (features and name not in features) or (keys is not None and name not in keys)
    }  # fmt: skip


def _statistics(folder: Folder, step: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    if step["state_file"]:
        for key, value in tensors(folder.path / str(step["state_file"])).items():
            name, _, statistic = key.rpartition(".")
            found.setdefault(name, {})[statistic] = value
    return found


def _take_actions(folder: Folder, back: dict[str, Any], both: bool) -> None:
    """Actions as the postprocessor has them; where the preprocessor's are others, one of both is strange."""
    mode, stats = _modes(folder, back).get("ACTION", "IDENTITY"), _statistics(folder, back)
    if both:
        wanted, other = folder.modes.get("ACTION", "IDENTITY"), folder.stats.get(ACTION, {})
        if wanted != mode:
            raise TaktError(
                f"{folder.path}: the preprocessor normalises actions by {wanted}, the postprocessor turns "
                f"them back by {mode}; {MEND}"
            )
        for statistic in MODES[mode]:
            one, two = other.get(statistic), stats.get(ACTION, {}).get(statistic)
            if (one is None) != (two is None) or (one is not None and not _same(one, two)):
                raise TaktError(
                    f"{folder.path}: pre- and postprocessor differ in {statistic} of the actions; {MEND}"
                )
    folder.modes["ACTION"] = mode
    folder.stats = {**stats, **folder.stats, ACTION: stats[ACTION]} if ACTION in stats else folder.stats


def _same(one: Tensor, two: Tensor | None) -> bool:
    return two is not None and one.shape == two.shape and bool(torch.equal(one.float(), two.float()))


def _read_old(folder: Folder) -> None:
    """Statistics among the weights; of several data sets' the one that takt.json names."""
    features = {name.replace(".", "_"): name for name in (*folder.inputs, *folder.outputs)}
    keys = {key: OLD_KEY.fullmatch(key) for key in folder.shapes if key.startswith(OLD)}
    found = {key: match for key, match in keys.items() if match and match["feature"] in features}
    sets = sorted({match["set"] or "" for match in found.values()})
    chosen = folder.extra.get("asset", "" if "" in sets else sets[0] if sets else "")
    if (len(sets) > 1 and "" not in sets and "asset" not in folder.extra) or (sets and chosen not in sets):
        raise TaktError(
            f"{folder.path} has statistics of {', '.join(filter(None, sets))}; takt.json says which are "
            f'meant: "asset": "{next(filter(None, sets), "")}"'
        )
    wanted = {key: folder.keys[key] for key, match in found.items() if (match["set"] or "") == chosen}
    for key, value in tensors(folder.weights, wanted).items() if wanted else ():
        feature = features[found[key]["feature"]]
        folder.stats.setdefault(feature, {})[found[key]["statistic"]] = value


def relative(folder: Folder) -> list[bool]:
    """Which actions are relative to the state, empty where none is: all but those whose joints are excluded.

    Raises:
        TaktError: the processors, or they and config.json, do not agree; or the kind of policy cannot do it.
    """
    step = folder.steps.get("relative_actions_processor", {})
    back = steps_of(folder.path / "policy_postprocessor.json").get("absolute_actions_processor", {})
    said = bool(folder.config.get("use_relative_actions", False))
    if not said == step.get("enabled", False) == back.get("enabled", False):
        raise TaktError(
            f"{folder.path}: use_relative_actions is {said}, the preprocessor makes them "
            f"{step.get('enabled', False)}, the postprocessor undoes it {back.get('enabled', False)}; {MEND}"
        )
    if not said:
        return []
    return mask_of(folder, [not _excluded(step, i) for i in range(folder.width(ACTION))])


def _excluded(step: dict[str, Any], i: int) -> bool:
    """Whether an action's name holds one of those of joints that stay absolute, as LeRobot compares them."""
    names, joints = step.get("action_names") or [], step.get("exclude_joints") or []
    return i < len(names) and any(joint and str(joint).lower() in str(names[i]).lower() for joint in joints)


def mask_of(folder: Folder, mask: Any) -> list[bool]:
    """A checked `Folder.relative`.

    Raises:
        TaktError: it is no list of true and false, one an action at most; or it is true of what has no state.
    """
    width, states = (folder.width(name) for name in (ACTION, STATE))
    if not isinstance(mask, list) or len(mask) > width or not all(isinstance(m, bool) for m in mask):
        raise TaktError(f"{folder.path}: relative is {mask!r}, wanted is true or false for each action")
    if any(mask[states:]):
        raise TaktError(f"{folder.path}: {sum(mask)} actions are relative to a state of {states} numbers")
    if folder.kind not in ("pi0", "pi05"):
        raise TaktError(
            f"{folder.path}: a {folder.kind} policy with actions relative to the state is not known"
        )
    return [*mask, *[False] * (width - len(mask))]


def finite(path: Path, name: str, value: Any, positive: bool = False) -> float:
    """A number of a file.

    Raises:
        TaktError: it is none.
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or (positive and value <= 0):
        raise TaktError(f"{path}: {name} is {value!r}; a number{' above 0' if positive else ''} is wanted")
    return float(value)
