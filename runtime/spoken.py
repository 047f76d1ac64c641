"""Words that every robot understands at once, whatever its policy: stop, wait, go on, faster, no.

They are told from a table, in the tick, and never wait for a model. A sentence that holds "stop" stops,
whatever else it says: of the two ways to be wrong, that one moves nothing.
"""

from __future__ import annotations

import enum
import re


class Say(enum.Enum):
    """What kind of thing was said."""

    NOTHING = "nothing"
    STOP = "stop"
    WAIT = "wait"
    GO_ON = "go on"
    FASTER = "faster"
    SLOWER = "slower"
    NORMAL = "normal speed"
    UNDO = "undo"
    DONE = "done"
    CORRECTION = "correction"
    NEXT = "next"
    TASK = "task"


# Anywhere in a sentence.
_STOP = re.compile(
    r"\b(?:stop|halt|freeze|abort|cancel|quit it|cut it out|dont move|do not move|stopp|anhalten|abbrechen"
    r"|hör auf|hoer auf)\b|停|别动|不要动"
)
# The whole of a sentence, courtesies left out.
_MOMENT = "(?:moment|second|sec|minute|bit)"
_MORE = "(?:a (?:bit|little) |much |move |go )*"
_WHOLE: tuple[tuple[Say, tuple[str, ...]], ...] = (
    (Say.WAIT, ("wait", f"wait (?:a|one|for a)? ?{_MOMENT}", "hold on", "hold it", "hold still", "pause")),
    (Say.WAIT, ("hang on", "one moment", f"just a {_MOMENT}", "stay", "stay there")),
    (Say.WAIT, ("warte", "warte mal", "moment", "moment mal", "等一下", "等等", "暂停")),
    (Say.GO_ON, ("go on", "continue", "carry on", "go ahead", "resume", "proceed", "keep going", "go")),
    (Say.GO_ON, ("weiter", "mach weiter", "weitermachen", "继续")),
    (Say.FASTER, (f"{_MORE}(?:faster|quicker)", "speed up", "hurry", "hurry up", "schneller", "快一?点")),
    (Say.SLOWER, (f"{_MORE}slower", "slow down", "slowly", "careful", "carefully", "langsamer", "慢一?点")),
    (Say.NORMAL, ("normal", "(?:at )?(?:normal|usual) speed", "normale geschwindigkeit", "正常速度")),
    (Say.UNDO, ("(?:undo|revert|take back)(?: (?:that|it|this|the last one))?", "put (?:it|that) back")),
    (Say.DONE, ("next", "next step", "done", "thats it", "good", "its done", "fertig", "好了")),
    (Say.UNDO, ("go back", "(?:mach das )?rückgängig", "撤销")),
)
_COURTESY = r"(?:please|robot|now|ok|okay|hey|hi|bitte|jetzt|thanks|thank you|danke|please,|请)"
_NO = re.compile(
    r"^(?:no+|nope|nah|not that(?: one)?|wrong(?: one)?|i meant?|sorry|actually|rather|oops|i said|instead"
    r"|nein|falsch)\b[\s,.!:;-]*|^(?:不是|不对|不)[,，、 ]*"
)
_NEXT = re.compile(
    r"^(?:and )?(?:then|after that|afterwards|next|and then|also|dann|danach|und dann|anschließend)\b[\s,:]*"
    r"|^(?:然后|接着)[,，、 ]*"
)


def plain(text: str) -> str:
    """Lower case, quotes and the last stop left out, one space between words."""
    return re.sub(r"\s+", " ", re.sub(r"['’`\"“”]", "", text.lower())).strip(" .!?,;。！？，")


def kind(text: str) -> tuple[Say, str]:
    """What kind of thing was said, and what is left of it: of a correction the part after "no"."""
    said = plain(text)
    if not said:
        return Say.NOTHING, ""
    if _STOP.search(said):
        return Say.STOP, ""
    bare = re.sub(rf"^(?:{_COURTESY}\b[\s,]*)+|(?:[\s,]*\b{_COURTESY})+$", "", said).strip(" ,")
    for what, patterns in _WHOLE:
        if any(re.fullmatch(pattern, bare) for pattern in patterns):
            return what, ""
    no = _NO.match(said)
    if no:
        rest = _NO.sub("", said[no.end() :]).strip(" ,")  # "no, not that one, the blue one"
        inner = kind(rest)[0] if rest else Say.NOTHING
        return (inner, "") if inner not in (Say.NOTHING, Say.TASK, Say.CORRECTION) else (Say.CORRECTION, rest)
    then = _NEXT.match(said)
    if then and said[then.end() :]:
        return Say.NEXT, said[then.end() :]
    return Say.TASK, text.strip()
