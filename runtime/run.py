"""`takt run`: a robot obeys an instruction in real time, with the latency budget in plain sight."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from runtime import console as page
from runtime import engines, joining, loop, skills, trace, voice
from runtime.advisor import Advisor
from runtime.budget import Budget, limits, table
from runtime.button import Button, recorder
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.delay import DelayedLink
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.live import Live
from runtime.machine import machine
from runtime.planner import Planner
from runtime.realtime import line, real_time, without_collections
from runtime.spawn import spawn
from runtime.think import served
from runtime.typed import Conversation, Heard
from vla import atomic
from vla.contract import Robot, TaktError, check_match

Shown = tuple[page.Feed, str, Path, Any]  # the last a Recorder, or None
WAIT = 60.0  # s, for the first answer of a policy's server
DOWNLOAD = 3600.0  # s, within which a policy of the hub is to be there


def make_robot(name: str, **options: object) -> Robot:
    """The robot that an installed package offers under this name (entry points `takt.robots`).

    Args:
        options: keyword arguments of the function behind the name; words, where a user gave them.

    Raises:
        TaktError: no such name or option; the line lists the valid ones.
    """
    found = {entry.name: entry for entry in entry_points(group="takt.robots")}
    if name not in found:
        raise TaktError(f"no robot {name!r}; valid: {', '.join(sorted(found)) or 'none is installed'}")
    make = found[name].load()
    parameters = inspect.signature(make).parameters
    takes = list(parameters)
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in takes and not anything:
            valid = f"it takes {', '.join(takes)}" if takes else "it takes none"
            raise TaktError(f"robot {name!r} takes no option {option!r}; {valid}")
    return make(**options)


def robot_options(port: str | None, calibration: Path | None, options: Sequence[str]) -> dict[str, object]:
    """What `make_robot` takes, from the flags that commands have for it.

    Raises:
        TaktError: an option that is not NAME=VALUE.
    """
    given: dict[str, object] = {"port": port, "calibration": calibration}
    for option in options:
        name, equals, value = option.partition("=")
        if not (equals and name.isidentifier()):
            raise TaktError(f"--options are each NAME=VALUE, got {option!r}")
        given[name] = value
    return {name: value for name, value in given.items() if value is not None}


def is_address(place: str) -> bool:
    """Whether it is a server's address; the argument of a NAME:ARGUMENT may hold a URL as well."""
    scheme, found, _ = place.partition("://")
    return bool(found) and scheme.isalnum()


@contextmanager
def policy_at(
    place: str, threads: int, engine: str = engines.DEFAULT, think: str | None = None, **options: Any
) -> Iterator[RemotePolicy]:
    """The policy at an address, or one that a child process serves: a bundle's folder, or a name.

    `think`: candidates and their judge, of a child's policy. `options` are those of `RemotePolicy`.
    """
    with ExitStack() as stack:
        address = place
        if not is_address(place):
            wait = DOWNLOAD if place.startswith("hub:") else WAIT
            child = spawn(place, threads=threads, timeout=wait, engine=engine, think=think)
            address, _ = stack.enter_context(child)
        yield stack.enter_context(RemotePolicy(address, **options))


class Presses:
    """Ctrl-C, before, while and after there is a robot to be made safe.

    Attributes:
        armed: once true, the first press only asks the loop to end after its tick; until then, and at a
            second press, whatever runs is interrupted.
        deaf: nothing is interrupted, as what runs makes the robot ready or safe.
    """

    def __init__(self) -> None:
        self.armed = self.deaf = self._pressed = False

    def __call__(self) -> bool:
        """Whether it was pressed. It counts even where the interruption was lost in a destructor."""
        return self._pressed

    def press(self, *_: object) -> None:
        again, self._pressed = self._pressed, True
        if self.deaf or (self.armed and not again):
            return
        # What this leads to is that the robot is left, and a third press must not keep it from that.
        self.deaf = self.armed
        raise KeyboardInterrupt

    @contextmanager
    def through(self, robot: Robot) -> Iterator[None]:
        """`with robot`, which no press interrupts while it is entered or left.

        An interruption would leave it half-way: powered, or on its way to where it parks.
        """
        self.deaf = True
        try:
            with robot:
                self.armed, self.deaf = True, False
                try:
                    yield
                finally:
                    self.deaf = True
        finally:
            self.armed = self.deaf = False


@contextmanager
def interruptible() -> Iterator[Presses]:
    """Handle Ctrl-C and SIGTERM as `Presses` says, for as long as this lasts."""
    presses = Presses()
    before = {s: signal.signal(s, presses.press) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield presses
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Command:
    """Obey an instruction with a policy on a robot."""

    text: tyro.conf.Positional[str] = ""
    """The instruction; none is needed where people give them, with --console or --listen."""
    _: KW_ONLY
    robot: str
    """The robot's name."""
    policy: str
    """A bundle's or checkpoint's folder, hub:OWNER/NAME@COMMIT, a policy's name, or the address of a server:
    tcp://HOST:PORT."""
    port: str | None = None
    """The line of a robot's servos: /dev/ttyACM0, or emulated."""
    calibration: Path | None = None
    """The arm's calibration, a file of LeRobot's."""
    options: tuple[str, ...] = ()
    """More for the robot, each NAME=VALUE (docs/robots.md)."""
    voice: str | None = None
    """Hear what is spoken as well: microphone, or FILE.wav (docs/prompting.md)."""
    voice_model: Path | None = None
    """Recognise speech by a Whisper model of yours, a folder in CTranslate2's form, not by the grammar."""
    planner: str | None = None
    """Who takes apart what the grammar does not understand: an OpenAI-compatible http://127.0.0.1:PORT/v1."""
    planner_model: str = ""
    """Which of its models is asked (default: the first that it lists)."""
    rate: float = 30.0
    """Ticks a second."""
    seconds: float = 20.0
    """How long to obey; a plan of several steps, so long for each. It ends before where the policy can tell
    that all is done. With --console it goes on until Ctrl-C."""
    listen: bool = False
    """Stay when all is done, and obey what is typed; a terminal's lines are heard in any case."""
    console: bool = False
    """Serve a page that shows the run and takes instructions, knobs and a stop (docs/console.md)."""
    bind: str = page.BIND
    """Where the page is served, HOST:PORT; places that other machines reach need --token."""
    token: bool = False
    """Let in only those whose address has the random token that is printed."""
    record: Path | None = None
    """With --console: a button that records episodes into this folder (docs/recording.md)."""
    join: str | None = None
    """How chunks are joined: naive, hold, ensemble, rtc; by default rtc where the policy can, else naive."""
    deadline: float | None = None
    """Seconds within which a chunk is due; by default before the one that runs ends."""
    max_age: float | None = None
    """Seconds after its observation that an action may be played; by default to a chunk's last row."""
    realtime: bool = False
    """Ask for SCHED_FIFO, locked memory and a core of its own, and say what was granted."""
    core: int | None = None
    """The core for --realtime; the last one by default."""
    name: str = ""
    """What this body is called by a server; one client at a time commands a name. By default the robot's."""
    frames: str = "raw"
    """How frames travel to a server: raw, or jpeg for links that are slow."""
    keys: Path | None = None
    """Folder with this client's keys, for a server that asks for them (takt keys)."""
    threads: int = 1
    """Threads of the engine, when the policy is a folder."""
    engine: str = engines.DEFAULT
    """What runs a bundle: onnx, cuda, ort-tensorrt, openvino, tensorrt, tensorrt-rtx; NAME:PRECISION."""
    think: str | None = None
    """Chunks drawn at each request and who takes one: N or N:JUDGE, coherence or critic, as time allows."""
    trace: Path | None = None
    """Where to write the run as a timeline that ui.perfetto.dev opens."""
    json: Path | None = None
    """Where to write the result."""

    def run(self) -> int:
        self._check()
        robot = make_robot(self.robot, **robot_options(self.port, self.calibration, self.options))
        link = {"robot": self.name or robot.spec.name, "frames": self.frames, "keys": self.keys}
        # The robot is entered last and so made safe first.
        with (
            interruptible() as pressed,
            policy_at(self.policy, self.threads, self.engine, self.think, **link) as policy,
            self._page() as shown,
        ):
            check_match(policy.spec, robot.spec)
            if hasattr(robot, "fit"):  # cameras whose frames are made as large as the policy wants them
                robot.fit(policy.spec.cameras)
            joining.make(self.join, policy.spec)
            with pressed.through(robot):
                words = self._words(robot, policy)
                result, budget, limit = self._obey(robot, policy, words, pressed, shown)
            self._report(result, budget, limit, words)
        if result.reason == "done" and words.unfinished:
            print(f"not done within {self.seconds:g} s for each step; --seconds allows more")
        if result.reason == "done" and (words.failed or words.unfinished):
            return 1
        return {"done": 0, "interrupted": 130}.get(result.reason, 1)

    def _words(self, robot: Robot, policy: RemotePolicy) -> Words:
        """What is to be done; whatever cannot be understood is said before anything moves."""
        known = skills.find(policy.spec.name)
        advisor = None if self.planner is None else Advisor(self.planner, known, self.planner_model)
        words = Words(known, robot=robot.spec, advisor=advisor)
        if not self.text:
            return words
        said = words.hear(self.text, 0.0)
        if not (words.plan or words.thinking or self.listen or self.voice or self.console):
            raise TaktError(said)
        return words

    @contextmanager
    def _page(self) -> Iterator[Shown | None]:
        """The console, if one is wanted; it is there before the robot is."""
        if not self.console:
            yield None
            return
        with ExitStack() as stack:
            records = None
            if self.record is not None:
                records = stack.enter_context(recorder(self.record, self.rate))
            shown = stack.enter_context(page.opened(self.bind, self.token))
            print(f"the page: {shown[1]}   (Ctrl-C ends)", flush=True)
            yield (*shown, records)

    def _check(self) -> None:
        if not self.text.strip() and (self.text or not (self.console or self.listen or self.voice)):
            raise TaktError('the instruction is empty; try "put the red cube in the blue bowl"')
        page.check_place(self.bind, self.token)
        if not (1 <= self.rate <= 1000 and 0 < self.seconds < float("inf")):
            raise TaktError("--rate is from 1 to 1000, --seconds above 0 and finite")
        if self.keys is not None and "://" not in self.policy:
            raise TaktError("--keys is for a server at an address; a policy started here is private as it is")
        if self.record is not None and not self.console:
            raise TaktError("--record is a button of the page: give --console as well, or see takt record")
        if self.voice_model and not (self.voice or self.console):
            raise TaktError("--voice-model is for what is spoken: give --voice as well, or --console")
        voice.choose(self.voice_model)
        engines.parse(self.engine)
        if self.engine != engines.DEFAULT and is_address(self.policy):
            raise TaktError(
                "--engine is for a policy started here; give it to the server: takt serve --engine"
            )
        if served(self.think) is not None and is_address(self.policy):
            raise TaktError("--think is for a policy started here; give it to the server: takt serve --think")
        if self.core is not None and not self.realtime:
            raise TaktError("--core is where --realtime runs: give both, or neither")
        for name in ("deadline", "max_age"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise TaktError(f"--{name.replace('_', '-')} is in seconds, above 0 and finite")

    def _obey(
        self,
        robot: Robot,
        policy: RemotePolicy,
        words: Words,
        pressed: Callable[[], bool],
        shown: Shown | None = None,
    ) -> tuple[loop.LoopResult, Budget, dict[str, float]]:
        # The first inference allocates and reads the words: before the loop it costs no beat.
        policy.infer(replace(robot.read(), instruction=words.plan[0].text if words.plan else self.text))
        policy.reset(0)
        clock, budget, guard = MonotonicClock(), Budget(), Guard(robot.spec)
        period = 1.0 / self.rate
        link = DelayedLink(policy, clock)
        planner = Planner(
            policy.spec, link, max_age=self.max_age, join=self.join, period=period, deadline=self.deadline
        )
        live = None if shown is None else self._live(shown, link, robot)
        if live is not None:
            live.begin(robot, words, planner, guard, budget)
        with ExitStack() as stack:
            if self.realtime:
                print(line(stack.enter_context(real_time(self.core))), flush=True)
            else:
                stack.enter_context(without_collections())
            heard = Heard.open(stack, self.voice, policy.spec.name, self.listen)
            seconds = self.seconds if live is None else float("inf")
            over = Conversation(
                words, seconds, clock.now(), heard.polls, self._stays(heard),
                hear=None if live is None else live.hear,
            )  # fmt: skip
            until = over if live is None else live.beside(over)
            ticker = Ticker(clock, period)
            result = loop.run(
                robot, planner, ticker, budget, words, guard, until,
                on_tick=None if live is None else live.on_tick, interrupted=pressed, settle=True,
            )  # fmt: skip
        return result, budget, limits(policy.spec, period, planner.replan)

    def _stays(self, heard: Heard) -> Callable[[], bool]:
        """Whether there may be more to hear when all is done."""
        typed, ears = heard.typed, heard.ears

        def more() -> bool:
            asked = self.listen and typed is not None and typed.open
            return self.console or asked or (ears is not None and ears.open)

        return more

    def _live(self, shown: Shown, link: DelayedLink, robot: Robot) -> Live:
        feed, _, folder, records = shown
        about = {"robot": self.robot, "policy": self.policy, "rate": self.rate}
        button = None if records is None else Button(records, robot.spec, about)
        return Live(feed, folder, about, link, button=button)

    def _report(self, result: loop.LoopResult, budget: Budget, limit: dict[str, float], words: Words) -> None:
        console = Console()
        console.print(table(budget, limit))
        print(f"{result.reason}: {told(result)}")
        about = {"robot": self.robot, "policy": self.policy, "instruction": self.text, "rate": self.rate}
        about |= {"plan": [[step.text, step.state] for step in words.plan]}
        about |= {"deadline": self.deadline or limit["chunk"], "machine": machine()}
        if self.json is not None:
            data = {**about, "loop": result.to_json(), "latency_ms": budget.to_json()}
            atomic.write_json(self.json, data, indent=2)
        if self.trace is not None:
            trace.write(self.trace, budget, about)


def told(result: loop.LoopResult) -> str:
    """How a run went, in a line or a few."""
    counts = {
        name: getattr(result, name)
        for name in ("late", "refused", "failed", "exceeded", "kept", "void", "skipped")
    }
    spoken = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    lines = [
        f"{result.answered} of {result.asked} requests answered{', ' if spoken else ''}{spoken}; "
        f"held for {result.held} of {result.ticks} ticks"
    ]
    if result.verdicts:
        clamps = ", ".join(f"{name} {count}" for name, count in sorted(result.verdicts.items()))
        lines.append(f"safety filter: {clamps}")
    # Being led up and the first hold, before there is a chunk, are what every run begins with.
    for time, before, after, reasons in result.states[-5:]:
        if time > 0:
            lines.append(f"{time:8.2f} s  {before} -> {after}: {', '.join(reasons)}")
    return "\n".join(lines)
