"""A language model that takes sentences apart, behind any OpenAI-compatible endpoint; never waited for.

    tick --- text the grammar does not understand ---> thread: POST /v1/chat/completions, strict JSON schema,
                                                       to the first model of GET /v1/models
    tick <-- steps, each of which the grammar has to understand, or nothing: then the grammar's answer holds

What comes back is text from outside: it is bounded, checked against the schema, and every step is read by the
same skills that read a person. A step they do not know is not done.
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from runtime.skills import Reading, Skills, Wish
from vla.contract import TaktError

TIMEOUT = 10.0  # s for an answer
_LONGEST = 64 << 10  # bytes of an answer
_STEPS = 12
SCHEMA = {
    "type": "object",
    "properties": {
        "steps": {"type": "array", "maxItems": _STEPS, "items": {"type": "string"}},
        "problem": {"type": "string"},
    },
    "required": ["steps", "problem"],
    "additionalProperties": False,
}
_TELL = (
    "You take apart what a person tells a robot. Answer with steps, in order, each exactly one of the "
    "instructions that the robot knows; no steps and a short problem where it cannot be done. It knows: "
)


class Advisor:
    """One question at a time to a model; `ask` and `poll` return at once.

    Attributes:
        asked, failed: questions sent, and those without a usable answer. last_error: why, of the newest.
    """

    def __init__(self, address: str, skills: Skills, model: str = "", timeout: float = TIMEOUT) -> None:
        """
        Args:
            address: http://HOST:PORT/v1, without a key.
            model: its name there; "" for the first that the endpoint lists.

        Raises:
            TaktError: it is no such address.
        """
        parts = urlsplit(address)
        try:
            port = parts.port or 80
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or not port:
            raise TaktError(f"--planner is an address such as http://127.0.0.1:8000/v1, got {address!r}")
        self.asked = self.failed = 0
        self.last_error = ""
        self._host, self._port, self._path = parts.hostname, port, parts.path.rstrip("/")
        self._skills, self._model, self._timeout = skills, model, timeout
        self._busy = False
        self._answers: queue.SimpleQueue[tuple[str, Reading | str]] = queue.SimpleQueue()

    def ask(self, text: str) -> bool:
        """Send a sentence; False while another is being thought about."""
        if self._busy:
            return False
        self._busy, self.asked = True, self.asked + 1
        threading.Thread(target=self._think, args=(text,), daemon=True, name="takt-advisor").start()
        return True

    def poll(self) -> tuple[str, Reading] | None:
        """(what was asked, what it means) once it is there; a reading without wishes when that failed."""
        try:
            text, answer = self._answers.get_nowait()
        except queue.Empty:
            return None
        self._busy = False
        if isinstance(answer, str):
            self.failed, self.last_error = self.failed + 1, answer
            return text, Reading(problem=f"the planner was of no help ({answer})")
        return text, answer

    def _think(self, text: str) -> None:
        try:
            self._answers.put((text, self._read(self._post(text))))
        except Exception as error:  # whatever it is, the next sentence may be asked about
            self._answers.put((text, f"{type(error).__name__}: {error}"[:200]))

    def _post(self, text: str) -> Any:
        """The model's answer, parsed."""
        known = "; ".join(self._skills.known()) or "anything"
        end = time.monotonic() + self._timeout
        body = {
            "model": self._model or self._first(end),
            "temperature": 0,
            "messages": [
                {"role": "system", "content": _TELL + known},
                {"role": "user", "content": text},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "plan", "strict": True, "schema": SCHEMA},
            },
        }
        return self._http("POST", "chat/completions", end, json.dumps(body))

    def _first(self, end: float) -> str:
        """The first model that is offered: servers of several want its name in each request."""
        try:
            return str(self._http("GET", "models", end)["data"][0]["id"])
        except (TaktError, KeyError, IndexError, TypeError, ValueError):
            return "planner"  # one that lists none has one, and takes any name

    def _http(self, method: str, what: str, end: float, body: str | None = None) -> Any:
        """What a request brings, parsed; nothing is waited for after `end`, s.

        Raises:
            TaktError: it is refused, or its answer is too long.
        """
        left = max(0.001, end - time.monotonic())
        connection = http.client.HTTPConnection(self._host, self._port, timeout=left)
        try:
            connection.request(method, f"{self._path}/{what}", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read(_LONGEST + 1)
        finally:
            connection.close()
        if answer.status != 200:
            raise TaktError(f"status {answer.status}")
        if len(data) > _LONGEST:
            raise TaktError("an answer of more than 64 KiB")
        return json.loads(data)

    def _read(self, answer: Any) -> Reading:
        """Steps that the skills understand, every one; else what the model says the problem is."""
        try:
            plan = json.loads(answer["choices"][0]["message"]["content"])
            steps, problem = plan["steps"], plan["problem"]
        except (KeyError, IndexError, TypeError) as error:
            raise TaktError(f"not the answer that was asked for: {error!r}") from None
        texts = isinstance(steps, list) and all(isinstance(step, str) and len(step) < 200 for step in steps)
        if not texts or len(steps) > _STEPS or not isinstance(problem, str):
            raise TaktError("not the answer that was asked for")
        if not steps:
            return Reading(problem=problem[:200] or "the planner knows no way to do that")
        wishes: list[Wish] = []
        for step in steps:
            reading = self._skills.read(step)
            if not reading.wishes:
                raise TaktError(f"a step that is not known: {step[:60]!r}")
            wishes += reading.wishes
        return Reading(tuple(wishes), guessed=True)
