"""The 50 tasks of Meta-World's MT50 (Yu et al. 2019, arXiv 1910.10897), their difficulty and their words.

The four buckets are those of Seo et al. 2022 (Masked World Models, arXiv 2206.14244, appendix), which TinyVLA
(arXiv 2409.12514), SmolVLA (arXiv 2506.01844) and LeRobot report by; the published average is the mean of the
four buckets' rates, not that of all tasks.

The words are ours, after the descriptions in Meta-World's appendix, which LeRobot's data sets carry too, with
these differences: no two tasks share a sentence (there push and push-back do, which the picture alone would
have to tell apart). A checkpoint that was trained on those sentences is told those: TAKT_METAWORLD_WORDS.
"""

from __future__ import annotations

import json
from pathlib import Path

from vla.contract import TaktError

BUCKETS: dict[str, dict[str, str]] = {
    "easy": {
        "button-press": "press the button",
        "button-press-topdown": "press the button from above",
        "button-press-topdown-wall": "reach over the wall and press the button from above",
        "button-press-wall": "go around the wall and press the button",
        "coffee-button": "push the button on the coffee machine",
        "dial-turn": "turn the dial by half a turn",
        "door-close": "close the door on its hinge",
        "door-lock": "lock the door by turning the lock clockwise",
        "door-open": "open the door on its hinge",
        "door-unlock": "unlock the door by turning the lock counter-clockwise",
        "drawer-close": "push the drawer shut",
        "drawer-open": "pull the drawer open",
        "faucet-close": "turn the faucet clockwise",
        "faucet-open": "turn the faucet counter-clockwise",
        "handle-press": "press the handle down",
        "handle-press-side": "press the handle down from the side",
        "handle-pull": "pull the handle up",
        "handle-pull-side": "pull the handle up from the side",
        "lever-pull": "pull the lever by a quarter of a turn",
        "plate-slide": "slide the plate into the cabinet",
        "plate-slide-back": "slide the plate back out of the cabinet",
        "plate-slide-back-side": "slide the plate out of the cabinet sideways",
        "plate-slide-side": "slide the plate into the cabinet sideways",
        "reach": "reach the goal position",
        "reach-wall": "go around the wall and reach the goal position",
        "window-close": "push the window closed",
        "window-open": "push the window open",
        "peg-unplug-side": "unplug the peg sideways",
    },
    "medium": {
        "basketball": "dunk the basketball into the basket",
        "bin-picking": "take the puck out of one bin and put it into the other bin",
        "box-close": "take the cover and close the box with it",
        "coffee-pull": "pull the mug away from the coffee machine",
        "coffee-push": "push the mug under the coffee machine",
        "hammer": "drive the screw into the wall with the hammer",
        "peg-insert-side": "insert the peg into the hole sideways",
        "push-wall": "push the puck around the wall to the goal",
        "soccer": "kick the ball into the goal",
        "sweep": "sweep the puck off the table",
        "sweep-into": "sweep the puck into the hole",
    },
    "hard": {
        "assembly": "pick up the nut and put it onto the peg",
        "hand-insert": "insert the gripper into the hole",
        "pick-out-of-hole": "pick the puck out of the hole",
        "pick-place": "pick up the puck and place it at the goal",
        "push": "push the puck to the goal",
        "push-back": "pull the puck back to the goal",
    },
    "very hard": {
        "shelf-place": "pick up the puck and place it on the shelf",
        "disassemble": "pick the nut off the peg",
        "stick-pull": "take the stick and pull the box with it",
        "stick-push": "take the stick and push the box with it",
        "pick-place-wall": "pick up the puck and place it behind the wall at the goal",
    },
}

BUCKET = {task: bucket for bucket, tasks in BUCKETS.items() for task in tasks}
NAMES = tuple(sorted(BUCKET))  # task number seed mod 50


def words(replaced: str | None) -> dict[str, str]:
    """Every task's instruction.

    Args:
        replaced: a JSON file with an object of other sentences by task; None for ours.

    Raises:
        TaktError: the file is none, or speaks of tasks that there are not.
    """
    ours = {task: text for tasks in BUCKETS.values() for task, text in tasks.items()}
    if replaced is None:
        return ours
    try:
        theirs = json.loads(Path(replaced).read_text())
        found = {task.removesuffix("-v3"): text for task, text in theirs.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise TaktError(f"TAKT_METAWORLD_WORDS: {replaced} is no JSON of task -> sentence: {error}") from None
    unknown = sorted(set(found) - set(ours))
    if unknown or not all(isinstance(text, str) and text for text in found.values()):
        raise TaktError(f"TAKT_METAWORLD_WORDS: {replaced} has no sentence, or one for {unknown[:3]}")
    return ours | found
