"""A run with a console, over simulated time: real sockets, and what is wished and shown in which tick."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from robot_io.dryrun import DryRun
from runtime import journal_reader, loop
from runtime.budget import Budget
from runtime.button import Button
from runtime.clock import SimulatedClock, Ticker
from runtime.console import COMMANDS, STATE, STOP, Feed, address
from runtime.delay import DelayedLink
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.live import QUIET, Live
from runtime.planner import InlineLink, Planner
from runtime.recorder import Recorder
from runtime.skills import Plain
from runtime.typed import Conversation
from tests import fakes
from vla.contract import Observation

SPEC = fakes.arm_spec()
PERIOD = 1 / 30


def circle(seen: Observation) -> np.ndarray:
    """A motion without an end: joints go round and round, each rad/s at the most."""
    times = seen.time + SPEC.dt * np.arange(SPEC.chunk_length)
    return np.repeat(0.5 * np.sin(2.0 * times)[:, None], SPEC.actions.size, axis=1)


class Bench:
    """A dry arm whose run is looked at; `script` says what people want at which tick."""

    def __init__(self, folder: Path, button: Callable[[DryRun], Button] | None = None) -> None:
        self.clock = SimulatedClock(100.0)
        self.robot = DryRun(self.clock)
        self.link = DelayedLink(InlineLink(fakes.ScriptedPolicy(SPEC, circle), 0.05, self.clock), self.clock)
        other = InlineLink(fakes.ScriptedPolicy(SPEC), 0.0, self.clock)
        self.feed = Feed(folder)
        about = {"robot": "dryrun", "policy": "fake", "rate": 30.0}
        named = {"one": self.link.link, "other": other}
        made = button(self.robot) if button else None
        self.live = Live(self.feed, folder, about, self.link, named, made)
        self.context = zmq.Context()
        self.sockets = {}
        for kind, what in ((zmq.PUSH, COMMANDS), (zmq.PUSH, STOP), (zmq.SUB, STATE)):
            self.sockets[what] = self.context.socket(kind)
            if kind == zmq.SUB:
                self.sockets[what].setsockopt(zmq.CONFLATE, 1)
                self.sockets[what].setsockopt(zmq.SUBSCRIBE, b"")
            self.sockets[what].connect(address(folder, what))
        self.number = self.looks = 0
        self.commands: list[np.ndarray] = []

    def want(self, do: str, **what: Any) -> None:
        """Say it and wait until it has arrived, so that the next tick has it."""
        self.number += 1
        queue = STOP if do == "stop" else COMMANDS
        self.sockets[queue].send(msgpack.packb({"n": self.number, "do": do, **what}))
        assert self.feed._in[queue].poll(10_000)

    def play(self, script: dict[int, Callable[[], object]], ticks: int) -> dict[str, Any]:
        """The state that was shown last."""
        self.words, self.guard, self.budget = Words(Plain()), Guard(self.robot.spec), Budget()
        self.planner = Planner(SPEC, self.link, period=PERIOD)
        self.live.begin(self.robot, self.words, self.planner, self.guard, self.budget)
        until = loop.lasting(self.clock, ticks * PERIOD)

        def at(now: float) -> bool:
            script.pop(len(self.commands), lambda: None)()
            return self.live.until(now) or until(now)

        def on_tick(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
            self.commands.append(command)
            self.live.on_tick(seen, target, command)

        self.result = loop.run(
            self.robot, self.planner, Ticker(self.clock, PERIOD), self.budget, self.words, self.guard, at,
            on_tick,
        )  # fmt: skip
        return self.shown()

    def shown(self) -> dict[str, Any]:
        self.looks += 1
        marked = {"look": self.looks}
        for _ in range(200):  # the connection may have been made only now
            self.feed.send(self.live._view.state(self.clock.now()) | self.live._knobs() | marked)
            while self.sockets[STATE].poll(50):
                state = msgpack.unpackb(self.sockets[STATE].recv())
                if state.get("look") == self.looks:  # not one from before, which has taken its time
                    return state
        raise AssertionError("nothing was shown")

    def moved(self, since: int) -> int:
        """The last tick from `since` on whose command was another than that before."""
        changed = np.flatnonzero((np.diff(np.array(self.commands), axis=0) != 0).any(axis=1)) + 1
        return int(max((i for i in changed if i >= since), default=since))

    def close(self) -> None:
        self.feed.close()
        self.context.destroy(linger=0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        yield bench
        bench.close()


def test_what_is_said_is_done_and_shown(bench: Bench) -> None:
    shown = bench.play({5: lambda: bench.want("say", text="go round")}, 60)
    assert bench.moved(0) == 59
    assert shown["state"] == "RUNNING" and shown["plan"] == [["go round", "running"]]
    assert [row[2:] for row in shown["said"]] == [["go round", "go round", ""]]
    assert [row[3] for row in shown["changes"]] == ["CONNECTED", "ARMED", "HOLD", "RUNNING"]
    assert shown["counts"]["answered"] > 3 and shown["chunks"][-1][1] == pytest.approx(66.7, abs=34)
    assert [row[0] for row in shown["ticks"]] == list(range(45, 61))


def test_a_stop_halts_within_what_the_limits_take_and_nothing_moves_after_it(bench: Bench) -> None:
    script = {0: lambda: bench.want("say", text="go round"), 40: lambda: bench.want("stop")}
    shown = bench.play(script, 120)
    # At v/a after the tick that found it: that is what the arm needs to brake.
    brake = float((bench.guard.limits.velocity / bench.guard.limits.acceleration).max())
    assert 40 <= bench.moved(40) <= 40 + np.ceil(brake / PERIOD)
    assert brake < 0.2
    assert shown["state"] == "ARMED" and shown["plan"] == [["go round", "dropped"]]
    assert shown["said"][-1][2:] == ["STOP", "stopped; dropped: go round", ""]


def test_a_stop_wins_over_what_came_with_it_and_what_was_on_its_way(bench: Bench) -> None:
    def both() -> None:
        bench.want("say", text="go round")
        bench.want("stop")
        bench.want("say", text="go round")

    soon = round(QUIET / PERIOD) - 2
    script = {0: both, soon: lambda: bench.want("say", text="go round")}
    shown = bench.play(script, 60)
    assert bench.moved(0) == 0
    assert bench.feed.void == 1
    assert [row[3].partition(":")[0] for row in shown["said"]] == ["I stand still", "not taken", "not taken"]


def test_after_a_stop_the_arm_moves_when_it_is_told_to_again(bench: Bench) -> None:
    again = 60 + round(QUIET / PERIOD) + 2
    script = {
        0: lambda: bench.want("say", text="go round"),
        60: lambda: bench.want("stop"),
        again: lambda: bench.want("say", text="go round"),
    }
    assert bench.play(script, again + 40)["state"] == "RUNNING"
    assert bench.moved(0) == again + 39


def test_what_is_typed_or_spoken_elsewhere_counts_as_what_is_said_on_the_page(bench: Bench) -> None:
    """After a stop as well: the first line comes too soon after it, the second starts the arm again."""

    def hears(line: str) -> Callable[[], object]:
        def typed() -> bool:
            talk = Conversation(bench.words, 1e9, 0.0, (lambda: [line],), lambda: True, hear=bench.live.hear)
            return talk(bench.clock.now())

        return typed

    again = 60 + round(QUIET / PERIOD) + 2
    script = {
        0: hears("go round"),
        60: lambda: bench.want("stop"),
        62: hears("too soon"),
        again: hears("go round again"),
    }
    state = bench.play(script, again + 40)
    assert state["state"] == "RUNNING" and bench.moved(0) == again + 39
    still = np.diff(np.array(bench.commands[again - 8 : again]), axis=0)
    assert not still.any(), "what came too soon moved nothing"
    assert [row[2] for row in state["said"] if row[2]] == ["go round", "STOP", "too soon", "go round again"]


def test_answers_are_kept_back_and_chunks_joined_otherwise_while_it_runs(bench: Bench) -> None:
    script = {
        0: lambda: bench.want("say", text="go round"),
        40: lambda: bench.want("set", name="delay_ms", value=300),
        41: lambda: bench.want("set", name="join", value="hold"),
    }
    shown = bench.play(script, 100)
    assert shown["knobs"]["delay_ms"] == 300 and shown["knobs"]["join"] == "hold"
    assert shown["knobs"]["joins"] == ["naive", "hold", "ensemble"]  # this policy cannot continue a chunk
    assert shown["chunks"][-1][4]["injected"] == pytest.approx(300, abs=34)
    assert bench.planner.stale > 10
    # How chunks are joined is chosen for the runs that follow as well.
    assert bench.play({}, 5)["knobs"]["join"] == "hold"


def test_another_policy_takes_over(bench: Bench) -> None:
    script = {
        0: lambda: bench.want("say", text="go round"),
        40: lambda: bench.want("set", name="policy", value="other"),
    }
    shown = bench.play(script, 120)
    assert shown["knobs"]["policy"] == "other"
    np.testing.assert_allclose(bench.commands[-1], 0.0, atol=1e-6)  # it goes to zero and stays there


@pytest.mark.parametrize(
    "what",
    [
        {"do": "set", "name": "join", "value": "rtc"}, {"do": "set", "name": "join", "value": "glue"},
        {"do": "set", "name": "delay_ms", "value": -5}, {"do": "set", "name": "delay_ms", "value": "5"},
        {"do": "set", "name": "policy", "value": "x"}, {"do": "set", "name": "x", "value": 1}, {"do": "say"},
        {"do": "say", "text": 5}, {"do": "table", "seed": 1}, {"do": "record", "on": True}, {"do": []}, {},
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_the_run_goes_on(bench: Bench, what: dict[str, Any]) -> None:
    do = {"do": what.get("do", 0)}
    shown = bench.play({3: lambda: bench.want(**(what | do))}, 30)
    assert len(bench.commands) == 30
    (row,) = shown["said"]
    assert row[2] == "" and row[3] and row[4] == "bad"


def test_another_table_ends_the_run(bench: Bench) -> None:
    bench.live.table = {"seed": 3, "try": []}
    bench.play({3: lambda: bench.want("table", seed=-4)}, 10)
    assert bench.live.wanted is None and len(bench.commands) == 10
    bench.play({13: lambda: bench.want("table", seed=7)}, 10)
    assert bench.live.wanted == 7 and len(bench.commands) == 13


def test_a_silent_console_is_told_of_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    bench.feed._clock = lambda: now[0]

    def later() -> None:
        now[0] = 10.0

    bench.play({1: lambda: bench.want("alive", viewers=1), 10: later}, 60)
    assert capsys.readouterr().err == "takt: the console has gone; the run goes on without it\n"
    assert len(bench.commands) == 60


def test_a_recorded_episode_begins_with_an_instruction_and_ends_when_the_arm_stands(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, Recorder(tmp_path, 30.0) as recorder:
        bench = Bench(Path(folder), lambda robot: Button(recorder, robot.spec, {}))
        script = {
            2: lambda: bench.want("record", on=True),
            10: lambda: bench.want("say", text="go round"),
            # The dry arm's ticks pass faster than a disk writes, so that the recorder has to be waited for.
            **{i: lambda: time.sleep(0.02) for i in range(11, 60)},
            60: lambda: bench.want("stop"),
            61: lambda: bench.want("record", on=False),
        }
        shown = bench.play(script, 120)
        bench.close()
        assert shown["recording"]["on"] is False
        assert shown["recording"]["said"].startswith("episode 0: ")
    (episode,) = journal_reader.episodes(tmp_path)
    recorded = journal_reader.read(episode)
    assert recorded.meta.instruction == "go round"
    commit = recorded.commit
    assert commit.rows + commit.dropped >= 50 and commit.rows > 20 and commit.success is None
    assert np.abs(np.diff(recorded.command, axis=0)).max() > 0.01
