"""A leader and a recorded motion as policies: no leap at the beginning, no target from a silent leader."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.clock import SimulatedClock
from runtime.guides import LONGEST, NEAR, PACE, Led, Replayed, make_leader
from runtime.planner import InlineLink, Planner
from tests.runtime import recording
from vla.contract import Observation, TaktError

ROBOT = recording.spec(())
TICK = 1 / 30


class Hand:
    """A leader that stands where it is put."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock, self.at, self.silent = clock, np.zeros(2), 0.0

    def joints(self) -> tuple[float, np.ndarray]:
        return self.clock.now() - self.silent, self.at

    def __enter__(self) -> Hand:
        return self

    def __exit__(self, *exc: object) -> None:
        return


def seen(clock: SimulatedClock, state: np.ndarray) -> Observation:
    return Observation(clock.now(), state.astype(np.float32))


def test_a_robot_comes_to_its_leader_slowly_and_then_follows_at_once() -> None:
    clock = SimulatedClock(5.0)
    hand = Hand(clock)
    led = Led(hand, ROBOT)
    planner = Planner(led.spec, InlineLink(led, 0.0, clock), period=TICK)
    hand.at = np.array([1.0, -0.5])
    state = np.zeros(2)
    targets = []
    while not led.caught:
        observation = seen(clock, state)
        planner.submit(observation)
        target = planner.target(clock.now())
        assert target is not None
        targets.append(target)
        state = target  # a body that is where it was told
        clock.advance(TICK)
        assert len(targets) < 1000
    steps = np.abs(np.diff(targets, axis=0)) / TICK
    # Its speed limit is 1 rad/s in both joints; both arrive, the one that is further away last.
    assert steps.max() <= PACE + 1e-9 and steps.max() > 0.9 * PACE
    assert len(targets) == pytest.approx((1.0 - NEAR) / PACE / TICK, abs=3)
    hand.at = np.array([0.2, 0.4])
    observation = seen(clock, state)
    planner.submit(observation)
    np.testing.assert_allclose(planner.target(clock.now()), hand.at)


def test_a_silent_leader_is_followed_for_a_moment_and_no_longer() -> None:
    clock = SimulatedClock()
    hand = Hand(clock)
    led = Led(hand, ROBOT)
    planner = Planner(led.spec, InlineLink(led, 0.0, clock), period=TICK)
    had = []
    for i in range(60):
        hand.silent = max(0.0, (i - 29) * TICK) if i < 45 else 0.0
        planner.submit(seen(clock, hand.at))
        had.append(planner.target(clock.now()) is not None)
        clock.advance(TICK)
    gone = had.index(False)
    assert 0 < gone - 29 <= (LONGEST + 0.06) / TICK + 1
    assert not any(had[gone:45]) and all(had[45:])  # and followed again as soon as it is heard


def test_a_leader_outside_the_robots_range_is_followed_to_its_end() -> None:
    clock = SimulatedClock()
    hand = Hand(clock)
    led = Led(hand, ROBOT)
    led.infer(seen(clock, hand.at))
    assert led.caught
    hand.at = np.array([9.0, -9.0])
    assert led.infer(seen(clock, np.zeros(2))).actions[0].tolist() == [3.0, -3.0]


def test_a_motion_is_played_once_from_where_the_robot_stands() -> None:
    clock = SimulatedClock(100.0)
    actions = np.stack([np.linspace(0.5, 1.5, 41), np.linspace(-0.5, -1.0, 41)], axis=1)
    policy = Replayed(ROBOT, actions, 0.05, Led(Hand(clock), ROBOT).spec)
    planner = Planner(policy.spec, InlineLink(policy, 0.0, clock), join="naive", period=TICK)
    assert policy.begins is None and policy.ends == np.inf
    targets, times = [], []
    while clock.now() < policy.ends:
        planner.submit(seen(clock, np.array([-0.4, 0.1])))
        targets.append(planner.target(clock.now()))
        times.append(clock.now())
        clock.advance(TICK)
    assert policy.begins is not None
    assert all(t is not None for t in targets)
    begins, rows = policy.begins, np.array(targets)
    assert np.abs(np.diff(rows, axis=0)).max() <= PACE * TICK + 0.05 * 1.0  # the way there is slow
    np.testing.assert_allclose(rows[0], [-0.4, 0.1], atol=1e-6)
    playing = np.array(times) >= begins
    wanted = [
        np.interp(np.array(times)[playing] - begins, np.arange(41) * 0.05, actions[:, i]) for i in (0, 1)
    ]
    np.testing.assert_allclose(rows[playing], np.stack(wanted, axis=1), atol=1e-6)
    assert policy.ends == pytest.approx(begins + 2.0)


def test_a_motion_that_begins_too_far_away_is_refused() -> None:
    slow = recording.spec(())
    slow = slow.__class__(**{**vars(slow), "max_velocity": (0.01, 0.01)})
    policy = Replayed(slow, np.ones((2, 2)), 0.05, Led(Hand(SimulatedClock()), slow).spec)
    with pytest.raises(TaktError, match="move it nearer"):
        policy.infer(Observation(0.0, np.zeros(2, np.float32)))


def test_an_unknown_leader_names_the_valid_ones() -> None:
    with pytest.raises(TaktError, match="no leader 'ghost'; valid: "):
        make_leader("ghost", port="x")
