"""The trusted path as a whole: whatever a policy, its link, the clock and the sensors do, the body is safe.

The planner, the guard and the ticker are the real ones, under a simulated clock. Hypothesis plays the rest of
the world: it delays, loses, repeats, reorders, corrupts and misdates chunks, stalls the clock, lets
readings grow old, and takes the link down.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import so101
from runtime.clock import SimulatedClock, Ticker
from runtime.guard import Guard
from runtime.planner import Planner
from runtime.safety import LONGEST, Limits
from runtime.states import Flag, State
from tests import fakes
from vla.contract import ActionChunk, Observation

# Rows of infinities are interpolated on their way to the guard.
pytestmark = pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning"
)

SPEC = fakes.arm_spec(chunk_length=12, dt=0.05, replan=0.1)
BODY = so101.spec(fakes.CAMERAS)
LIMITS = Limits.of(BODY)
SIZE = BODY.actions.size
MAX_AGE = 0.5
# Braking from full speed, s of counted time.
BRAKE = float((LIMITS.velocity / LIMITS.acceleration).max())

WILD = (float("nan"), float("inf"), -float("inf"), 1e300, -1e30, 9.0, -9.0)


@dataclass(frozen=True)
class Fate:
    """What becomes of one answer."""

    delays: tuple[float, ...] = (0.0,)  # s; one a delivery: none loses it, two repeat it
    goal: float = 0.0
    jump: float = 0.0  # of every other row
    wild: float | None = None  # in one place
    misdated: float = 0.0  # s, added to the chunk's time
    dt: float = SPEC.dt
    rows: int = SPEC.chunk_length


@dataclass(frozen=True)
class Turn:
    """What happens in one tick, besides."""

    work: float = 0.0  # s; more than a period skips ticks
    camera: float = 0.0  # s of age
    state: float = 0.0  # s of age
    lost: bool = False  # the measured state is not finite
    link_up: bool = True
    told: Flag | None = None


# When, what, and in which state.
Sent = tuple[float, np.ndarray, State]


@dataclass
class Fated:
    """A link whose answers do what they are fated to.

    Attributes:
        last: the latest time for which a delivered row may be obeyed, s.
        spoke: when it last delivered anything, s.
    """

    clock: SimulatedClock
    fates: list[Fate]
    ends: float
    last: float = 0.0
    spoke: float = 0.0
    asked: int = 0
    lost: int = 0
    link_up: bool = True
    due: list[tuple[float, ActionChunk]] = field(default_factory=list)

    def submit(self, observation: Observation, *_: object, **__: object) -> bool:
        now = self.clock.now()
        if now >= self.ends:
            return False
        fate = self.fates[self.asked % len(self.fates)]
        self.asked += 1
        actions = np.full((fate.rows, SIZE), fate.goal)
        actions[::2] += fate.jump
        if fate.wild is not None:
            actions[self.asked % fate.rows, self.asked % SIZE] = fate.wild
        chunk = ActionChunk(observation.time + fate.misdated, fate.dt, actions)
        self.due += [(now + delay, chunk) for delay in fate.delays]
        return True

    def poll(self) -> list[ActionChunk]:
        now = self.clock.now()
        ready = [chunk for due, chunk in self.due if due <= now]
        self.due = [d for d in self.due if d[0] > now]
        for chunk in ready:
            self.spoke = now
            if chunk.time <= now + 1e-6:  # one that is for a time to come is refused
                self.last = max(self.last, min(chunk.end, chunk.time + MAX_AGE))
        return ready[::-1]  # newest first


finite = st.floats(-4.0, 4.0)
fates = st.builds(
    Fate,
    delays=st.lists(st.one_of(st.floats(0.0, 0.1), st.floats(0.0, 0.8)), max_size=2).map(tuple),
    goal=finite,
    jump=st.one_of(st.just(0.0), finite),
    wild=st.one_of(st.none(), st.sampled_from(WILD)),
    misdated=st.one_of(
        st.just(0.0), st.floats(-1.0, 1.0), st.sampled_from([float("nan"), float("inf"), 60.0])
    ),
    dt=st.one_of(st.just(SPEC.dt), st.floats(1e-4, 1.0)),
    rows=st.one_of(st.just(SPEC.chunk_length), st.integers(1, 40)),
)
soon = st.floats(0.0, 0.2).map(lambda d: (d,))
goods = st.builds(Fate, delays=soon, goal=finite, jump=finite)
wilds = st.builds(Fate, delays=soon, goal=finite, wild=st.sampled_from(WILD))
calm = st.just(Turn())
troubled = st.builds(
    Turn,
    work=st.one_of(st.just(0.0), st.floats(0.0, 0.06), st.floats(0.0, 0.7)),
    camera=st.one_of(st.just(0.0), st.floats(0.0, 0.5)),
    state=st.one_of(st.just(0.0), st.floats(0.0, 0.2)),
    link_up=st.booleans(),
)
dire = st.one_of(
    st.builds(Turn, told=st.sampled_from([Flag.INTERRUPTED, Flag.ROBOT_FAULT, Flag.EMERGENCY])),
    st.just(Turn(lost=True)),
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Fate], list[Turn], np.ndarray, float, float]:
    """The arguments of `play`; one disaster a world, or none."""
    turns = draw(
        st.lists(st.one_of(calm, troubled) if draw(st.booleans()) else calm, min_size=8, max_size=24)
    )
    if draw(st.booleans()):
        turns[draw(st.integers(1, len(turns) - 1))] = draw(dire)
    place = draw(st.lists(st.floats(0.0, 1.0), min_size=SIZE, max_size=SIZE))
    return (
        draw(st.lists(st.one_of(goods, wilds, fates), min_size=1, max_size=6)),
        turns,
        LIMITS.lower + np.array(place) * (LIMITS.upper - LIMITS.lower),
        draw(st.sampled_from([0.0, 0.5, 1.0])),
        draw(st.sampled_from([20.0, 30.0, 50.0])),
    )


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_every_command_is_safe_and_motion_ends(world: tuple) -> None:
    check(*play(*world))


def play(
    answers: list[Fate], happenings: list[Turn], pose: np.ndarray, follows: float, rate: float
) -> tuple[list[Sent], Fated, Guard]:
    """A run until long after the link's end; `follows` is how much of a command the body carries out."""
    clock = SimulatedClock(10.0)
    link = Fated(clock, answers, ends=10.0 + len(happenings) / rate)
    planner, guard = Planner(SPEC, link, max_age=MAX_AGE), Guard(BODY)
    ticker = Ticker(clock, 1.0 / rate)
    sent: list[Sent] = []
    after = 0.0
    for i, (scheduled, now) in enumerate(ticker):
        turn = happenings[i] if i < len(happenings) else Turn()
        if not link.due and now > max(link.ends, link.last) + 1e-6:
            after += 1 / rate
        if after > BRAKE + 0.2:
            break
        state = np.full(SIZE, np.nan) if turn.lost and i else pose
        captured = {c.name: now - turn.camera for c in BODY.cameras}
        seen = Observation(now - turn.state, state.astype(np.float32), captured=captured)
        if guard.fresh(seen, now):
            planner.submit(seen)
        if turn.told is not None:
            guard.tell(turn.told)
        command = guard(planner.target(now), seen, now, now - scheduled, ticker.skipped, turn.link_up)
        sent.append((now, command, guard.status.state))
        pose = pose + follows * (command - pose)
        clock.advance(turn.work)
    return sent, link, guard


def check(sent: list[Sent], link: Fated, guard: Guard) -> None:
    """The limits at every command, and the end of motion."""
    before_time, before, _ = sent[0]
    velocity, braked = np.zeros(SIZE), 0.0
    for now, command, state in sent[1:]:
        dt = min(now - before_time, LONGEST)
        assert np.isfinite(command).all()
        assert (command >= LIMITS.lower).all() and (command <= LIMITS.upper).all()
        moved = (command - before) / dt
        assert (np.abs(moved) <= LIMITS.velocity + 1e-9 / dt).all()
        assert (np.abs(moved - velocity) <= LIMITS.acceleration * dt + 1e-9 / dt).all()
        # No row is for a time after `last`, and in no state but RUNNING is one obeyed: the arm brakes.
        braking = state is not State.RUNNING or now > link.last + 1e-6
        assert not (braking and braked > BRAKE + 1e-9 and moved.any())
        braked = braked + dt if braking else 0.0
        before_time, before, velocity = now, command, moved
    assert link.last <= link.spoke + MAX_AGE + 1e-6
    assert guard.status.state is not State.RUNNING


def test_the_world_is_neither_too_kind_nor_too_cruel() -> None:
    """What the law quantifies over does move the arm, hold it, stop it; else it would say nothing."""
    seen: Counter[State] = Counter()
    farthest = 0.0

    # What is drawn depends on the constants in the modules that are loaded: enough that it does not matter.
    @settings(deadline=None, max_examples=400, database=None, derandomize=True)
    @given(worlds())
    def count(world: tuple) -> None:
        nonlocal farthest
        sent, _, guard = play(*world)
        seen.update({after for _, _, after, _ in guard.history})
        farthest = max(farthest, *(float(np.abs(command - world[2]).max()) for _, command, _ in sent))

    count()
    assert set(State) - {State.ESTOP} <= set(seen)
    assert seen[State.RUNNING] > 20 and farthest > 0.3


def test_a_plain_world_reaches_its_goal() -> None:
    """Nothing happens, and so nothing is in the way."""
    sent, link, guard = play([Fate(goal=0.4)], [Turn()] * 60, np.zeros(SIZE), 1.0, 30.0)
    np.testing.assert_allclose(sent[-1][1], 0.4, atol=1e-3)
    assert link.asked > 10 and not guard.status.over
