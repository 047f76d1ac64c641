"""What the planner decides before the work starts: when to ask, what to commit, how many steps fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.clock import SimulatedClock
from runtime.planner import Planner
from tests import fakes
from vla.contract import ActionChunk, Observation, Prefix

SPEC = replace(fakes.arm_spec(chunk_length=12, dt=0.1, replan=0.2), joining="prefix", committed=12)
SIZE = SPEC.actions.size
PERIOD = 1 / 30


class Anytime:
    """A policy of a known cost on a simulated clock, which makes the steps that fit its deadline.

    Attributes:
        fixed, step: s as a function of the time of asking.
        took: (asked, s) of every request.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        fixed: Callable[[float], float],
        step: Callable[[float], float],
        most: int,
    ) -> None:
        self.clock, self.fixed, self.step, self.most = clock, fixed, step, most
        self.took: list[tuple[float, float]] = []
        self.steps: list[int] = []
        self.lost, self.link_up = 0, True
        self._due: list[tuple[float, ActionChunk]] = []

    def submit(self, seen: Observation, prefix: Prefix | None = None, deadline: float | None = None) -> bool:
        now = self.clock.now()
        fixed, step = self.fixed(now), self.step(now)
        fit = self.most if deadline is None or step == 0 else int((deadline - fixed) // step)
        steps = min(max(fit, 1), self.most)
        seconds = fixed + steps * step
        self.took.append((now, seconds))
        self.steps.append(steps)
        rows = seen.time + SPEC.dt * np.arange(SPEC.chunk_length)
        actions = np.repeat(rows[:, None], SIZE, axis=1)
        stages = {"prefix": fixed, "steps": steps * step}
        self._due.append((now + seconds, ActionChunk(seen.time, SPEC.dt, actions, stages, (step,) * steps)))
        return True

    def poll(self) -> list[ActionChunk]:
        now = self.clock.now() + 1e-9
        ready = [c for due, c in self._due if due <= now]
        self._due = [d for d in self._due if d[0] > now]
        return ready


def play(
    fixed: Callable[[float], float],
    step: Callable[[float], float],
    most: int,
    seconds: float,
    **options: float,
) -> tuple[Planner, Anytime, list[tuple[float, bool]]]:
    """The planner, the policy, and (now, held) of every tick."""
    clock = SimulatedClock()
    policy = Anytime(clock, fixed, step, most)
    planner = Planner(SPEC, policy, period=PERIOD, **options)  # type: ignore[arg-type]
    ticks = []
    for k in range(round(seconds / PERIOD)):
        clock.sleep_until(k * PERIOD)
        planner.receive(clock.now())
        planner.submit(fakes.observation(SPEC, clock.now()))
        ticks.append((clock.now(), planner.target(clock.now()) is None))
    return planner, policy, ticks


def test_the_choices_follow_a_latency_that_jumps_before_more_is_missed_than_must_be() -> None:
    """50 -> 200 -> 50 ms, 6 s each. Only the request in flight at the jump can be a surprise."""

    def latency(now: float) -> float:
        return 0.2 if 6.0 <= now < 12.0 else 0.05

    planner, policy, ticks = play(latency, lambda _: 0.0, 0, 18.0)
    surprises = [
        c.time
        for c, (asked, took) in zip(planner.choices, policy.took, strict=True)
        if c.latency is not None and took > c.latency + PERIOD
    ]
    assert planner.exceeded <= len(surprises) <= 1  # the first of the slow phase, which nothing announces
    assert all(5.9 < t < 6.3 for t in surprises)
    rows = {c.time: c.rows for c in planner.choices}
    quick = [r for t, r in rows.items() if 1.0 < t < 6.0]
    slow = [r for t, r in rows.items() if 6.3 < t < 12.0]
    again = [r for t, r in rows.items() if t > 12.0 + 3.2]  # the window is 3 s long
    assert set(quick) == {2} and set(again) == {2}
    assert set(slow) == {4}
    first = next(now for now, held in ticks if not held)
    assert not any(held for now, held in ticks if now > first)


def test_a_jump_is_believed_while_its_first_answer_is_still_under_way() -> None:
    def latency(now: float) -> float:
        return 0.8 if now >= 3.0 else 0.05

    planner, policy, _ = play(latency, lambda _: 0.0, 0, 5.0)
    asked = next(t for t, took in policy.took if took > 0.5)
    clock_now = asked + 0.5
    fresh = Planner(SPEC, policy, period=PERIOD)
    fresh._total.put(0.0, 0.05)
    fresh._in_flight = asked
    assert fresh.latency(clock_now) == pytest.approx(0.5)
    assert planner.latency(5.0) is not None


@settings(deadline=None, max_examples=60)
@example(0.4375, 0.01953125, 31)  # all steps take nearly a whole chunk
@example(0.4375, 0.01953125, 34)  # and a little more than one
@given(st.floats(0.0, 0.45), st.floats(0.0, 0.02), st.integers(1, 40))
def test_the_queue_never_runs_dry_while_one_step_fits(fixed: float, step: float, most: int) -> None:
    """Two answers with the fewest steps and their ticks have to fit into a chunk of 1.1 s, however many
    steps the policy would like to make."""
    planner, _, ticks = play(lambda _: fixed, lambda _: step + 1e-6, most, 8.0)
    # The first answer is warm-up, the second tells what one takes, the third may end a hold; where one with
    # all steps takes a whole chunk, none of its rows are left when it comes, and the fourth does.
    whole = fixed + most * (step + 1e-6)
    begun = (3 if whole < 1.05 else 4) * whole + 6 * PERIOD
    held = [now for now, h in ticks if h and now > begun]
    assert held == []
    assert all(c.fits for c in planner.choices if c.time > begun + 1.0)


def test_fewer_steps_are_made_where_all_of_them_do_not_fit() -> None:
    planner, policy, _ = play(lambda _: 0.1, lambda _: 0.1, 10, 20.0, deadline=0.55)
    usual = policy.steps[6:]
    assert set(usual) <= {3, 4}  # 0.55 s less 0.1 and what a tick and the way take
    told = [c.steps for c in planner.choices][6:]
    assert all(s is not None and 1 <= s <= 4 for s in told)
    late = [took for _, took in policy.took[6:] if took > 0.55]
    assert late == []


def test_when_nothing_fits_the_chunk_is_kept_then_the_arm_holds() -> None:
    # Not even one step fits the declared deadline, but the running chunk lasts until the answer is there.
    planner, _, ticks = play(lambda _: 0.5, lambda _: 0.01, 4, 12.0, deadline=0.3)
    assert planner.kept > 10
    assert not any(held for now, held in ticks if now > 1.2)
    # Not even the chunk lasts.
    planner, _, ticks = play(lambda _: 1.5, lambda _: 0.01, 4, 12.0)
    assert planner.stale == sum(held for _, held in ticks) == len(ticks)


@given(st.floats(0.02, 0.9), st.floats(0.02, 0.9))
def test_a_longer_latency_is_never_asked_for_later(a: float, b: float) -> None:
    """Seconds into a chunk at which the next is asked for, once the planner knows."""

    def asked(latency: float) -> float:
        _, policy, _ = play(lambda _: latency, lambda _: 0.0, 0, 8.0)
        gaps = np.diff([t for t, _ in policy.took])[3:]
        return float(np.max(gaps))

    low, high = sorted((a, b))
    # While one is in flight no other is asked for, so what is compared is the wait beyond that.
    assert asked(high) - high <= asked(low) - low + PERIOD + 1e-9


def test_what_failed_is_asked_again_at_once() -> None:
    clock = SimulatedClock()
    policy = Anytime(clock, lambda _: 10.0, lambda _: 0.0, 0)
    planner = Planner(SPEC, policy, period=PERIOD)
    assert planner.submit(fakes.observation(SPEC, 0.0))
    assert not planner.submit(fakes.observation(SPEC, 0.1))
    policy.lost += 1
    assert planner.submit(fakes.observation(SPEC, 0.2))
    assert planner.failed == 1
