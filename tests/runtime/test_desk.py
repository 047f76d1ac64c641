"""Order, replacement, lateness, batches: what a desk promises. Real threads, injected time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.desk import Busy, Desk, Late, Pace
from tests import fakes
from vla.contract import ActionChunk, Observation, Prefix, Request, TaktError

SPEC = fakes.arm_spec()
Answer = ActionChunk | TaktError
deadlines = st.lists(st.sampled_from([None, 0.001, 50.0]), min_size=1, max_size=20)
PLANS = st.lists(deadlines, min_size=1, max_size=6)  # what each of several askers asks with


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Shared(fakes.ScriptedPolicy):
    """A policy for batches whose cost is a function of their size, on the injected clock.

    Attributes:
        batches: the requests it was given, by batch.
        gate: cleared, it keeps the policy inside an inference.
        entered: set when an inference has begun.
    """

    def __init__(self, clock: Hand, cost: Callable[[int], float] = lambda n: 0.1) -> None:
        super().__init__(SPEC)
        self.clock, self.cost = clock, cost
        self.batches: list[list[Request]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def infer_batch(self, requests: Sequence[Request]) -> list[ActionChunk]:
        self.entered.set()
        assert self.gate.wait(20)
        self.batches.append(list(requests))
        self.clock.now += self.cost(len(requests))
        shape = (SPEC.chunk_length, SPEC.actions.size)
        return [
            ActionChunk(r.observation.time, SPEC.dt, np.full(shape, r.observation.time), {"prefix": 0.01})
            for r in requests
        ]


class Answers:
    """Collects what `done` is called with."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[tuple[object, Answer]] = SimpleQueue()

    def to(self, key: object) -> Callable[[Answer], None]:
        return lambda answer: self.queue.put((key, answer))

    def take(self, count: int) -> list[tuple[object, Answer]]:
        return [self.queue.get(timeout=20) for _ in range(count)]


def request(time: float = 0.0, deadline: float | None = None, seed: int = 0, call: int = 0) -> Request:
    return Request(fakes.observation(SPEC, time), None, deadline, seed, call)


@contextmanager
def busy(policy: Shared, desk: Desk, answers: Answers) -> Iterator[None]:
    """The policy is inside an inference for a peer "first" meanwhile, so that requests wait."""
    policy.gate.clear()
    policy.entered.clear()
    assert desk.submit("first", request(), answers.to("first"))
    assert policy.entered.wait(20)
    try:
        yield
    finally:
        policy.gate.set()


def test_an_answer_carries_its_wait_and_its_arrival() -> None:
    clock, answers = Hand(), Answers()
    policy = Shared(clock, lambda n: 0.25)
    with Desk(policy, clock=clock) as desk:
        assert desk.spec == SPEC
        with busy(policy, desk, answers):
            assert desk.submit("a", request(3.0), answers.to("a"))
        (_, _), (key, chunk) = answers.take(2)
        assert key == "a"
        assert isinstance(chunk, ActionChunk)
        assert chunk.time == 3.0
        assert list(chunk.stages) == ["queue", "prefix"]
        assert chunk.stages["queue"] == pytest.approx(0.25)
        assert chunk.origin == 100.0
        assert (desk.answered, desk.failed, desk.late, desk.batches) == (2, 0, 0, 2)


def test_the_earliest_deadline_is_first_and_none_is_a_second() -> None:
    clock, answers = Hand(), Answers()
    policy = Shared(clock)
    with Desk(policy, batch=1, clock=clock) as desk:
        with busy(policy, desk, answers):
            for peer, deadline in [("n1", None), ("late", 9.0), ("n2", None), ("soon", 0.2), ("mid", 0.5)]:
                assert desk.submit(peer, request(deadline=deadline), answers.to(peer))
        assert [key for key, _ in answers.take(6)] == ["first", "soon", "mid", "n1", "n2", "late"]


def test_those_with_deadlines_starve_nobody() -> None:
    """Two keep the desk busy, each asking again at once; one without a deadline has a turn."""
    clock, answers = Hand(), Answers()
    policy = Shared(clock)
    with Desk(policy, batch=1, clock=clock) as desk:
        served: list[object] = []
        with busy(policy, desk, answers):
            for peer in "ab":
                assert desk.submit(peer, request(deadline=0.5), answers.to(peer))
            assert desk.submit("none", request(), answers.to("none"))
        while "none" not in served:
            ((key, _),) = answers.take(1)
            served.append(key)
            assert len(served) < 40
            clock.now += 0.1
            if key in ("a", "b"):
                assert desk.submit(key, request(deadline=0.5), answers.to(key))


def test_without_deadlines_everyone_has_a_turn() -> None:
    """A peer that asks all the time, replacing its request, gets one turn in three like the others."""
    clock, answers = Hand(), Answers()
    policy = Shared(clock)
    with Desk(policy, batch=1, clock=clock) as desk:
        served: list[object] = []
        with busy(policy, desk, answers):
            for peer in "abc":
                assert desk.submit(peer, request(), answers.to(peer))
            for i in range(50):
                assert desk.submit("b", request(float(i)), answers.to("b"))
        for _ in range(30):
            ((key, _),) = answers.take(1)
            served.append(key)
            if key != "first":
                assert desk.submit(key, request(), answers.to(key))
        counts = [served.count(peer) for peer in "abc"]
    assert max(counts) - min(counts) <= 1


def test_the_newest_request_of_a_peer_replaces_its_waiting_one() -> None:
    clock, answers = Hand(), Answers()
    policy = Shared(clock)
    with Desk(policy, batch=1, clock=clock) as desk:
        with busy(policy, desk, answers):
            for i in range(5):
                assert desk.submit("a", request(float(i)), answers.to(("a", i)))
            assert desk.submit("b", request(9.0), answers.to("b"))
        assert [key for key, _ in answers.take(3)] == ["first", ("a", 4), "b"]
        assert desk.answered == 3
    assert answers.queue.empty()


def test_a_deadline_that_passed_while_waiting_is_late_and_not_run() -> None:
    clock, answers = Hand(), Answers()
    policy = Shared(clock, lambda n: 1.0)
    with Desk(policy, clock=clock) as desk:
        with busy(policy, desk, answers):
            assert desk.submit("late", request(1.0, deadline=0.5), answers.to("late"))
            assert desk.submit("fine", request(2.0, deadline=3.0), answers.to("fine"))
        (_, _), (key, late), (_, fine) = answers.take(3)
        assert key == "late"
        assert isinstance(late, Late)
        assert isinstance(fine, ActionChunk)
        assert desk.late == 1
        assert [r.observation.time for batch in policy.batches for r in batch] == [0.0, 2.0]
        # What is left of its time reaches the policy.
        assert policy.batches[1][0].deadline == pytest.approx(2.0)


def drive(policy: Shared, clock: Hand, peers: int, rounds: int, deadline: float | None = None) -> Desk:
    """Let `peers` peers ask together again and again."""
    answers = Answers()
    with Desk(policy, clock=clock) as desk:
        for _ in range(rounds):
            with busy(policy, desk, answers):
                for peer in range(peers):
                    assert desk.submit(peer, request(deadline=deadline), answers.to(peer))
            answers.take(peers + 1)
    return desk


def test_batches_are_made_where_they_pay() -> None:
    clock = Hand()
    policy = Shared(clock, lambda n: 0.1 + 0.01 * n)
    drive(policy, clock, peers=4, rounds=5)
    assert [len(batch) for batch in policy.batches[-2:]] == [1, 4]


def test_batches_are_not_made_where_they_do_not_pay() -> None:
    clock = Hand()
    policy = Shared(clock, lambda n: 0.1 * n)
    drive(policy, clock, peers=4, rounds=10)
    assert [len(b) for b in policy.batches].count(4) == 1  # the measurement
    assert [len(batch) for batch in policy.batches[-5:]] == [1] * 5


def test_no_batch_is_made_that_would_miss_a_deadline() -> None:
    clock = Hand()
    policy = Shared(clock, lambda n: 0.1 + 0.02 * n)
    # Alone 0.12 s each; four together 0.18 s, which fits 1 s but not the 0.15 s that are left of 0.27.
    desk = drive(policy, clock, peers=4, rounds=3, deadline=1.0)
    assert len(policy.batches[-1]) == 4
    assert desk.late == 0
    answers = Answers()
    with Desk(policy, clock=clock) as desk:
        for size in (1, 4):
            desk.pace.note(size, policy.cost(size))
        with busy(policy, desk, answers):
            assert desk.submit("soon", request(1.0, deadline=0.12 + 0.15), answers.to("soon"))
            for peer in range(3):
                assert desk.submit(peer, request(2.0), answers.to(peer))
        answers.take(5)
        assert desk.late == 0
    times = [[r.observation.time for r in batch] for batch in policy.batches]
    assert times[times.index([1.0]) + 1] == [2.0] * 3


@given(
    st.dictionaries(st.integers(1, 8), st.floats(0.001, 1.0), max_size=8),
    st.integers(1, 8),
    st.floats(0.0, 2.0),
)
def test_the_chosen_size_pays_and_is_in_time(seconds: dict[int, float], most: int, left: float) -> None:
    pace = Pace()
    for size, cost in seconds.items():
        pace.note(size, cost)
    size = pace.choose(most, left)
    assert 1 <= size <= most
    if size > 1:
        assert seconds.get(size, size * seconds[1]) <= left
        if size in seconds:
            assert seconds[size] < size * seconds[1]


def test_a_size_that_did_not_pay_is_measured_again() -> None:
    pace = Pace()
    pace.note(2, 1.0)
    for _ in range(63):
        pace.note(1, 0.1)
    assert pace.choose(2, 10.0) == 1
    pace.note(1, 0.1)
    assert pace.choose(2, 10.0) == 2


def test_one_bad_request_in_a_batch_fails_alone(capfd: pytest.CaptureFixture[str]) -> None:
    clock, answers = Hand(), Answers()

    class Picky(Shared):
        def infer_batch(self, requests: Sequence[Request]) -> list[ActionChunk]:
            chunks = super().infer_batch(requests)
            for r in requests:
                if r.observation.time == 1.0:
                    raise TaktError("camera is missing")
                if r.observation.time == 2.0:
                    raise ZeroDivisionError("a secret")
            return chunks

    policy = Picky(clock, lambda n: 0.1)
    with Desk(policy, clock=clock) as desk:
        desk.pace.note(1, 0.1)
        with busy(policy, desk, answers):
            for i in range(4):
                assert desk.submit(i, request(float(i)), answers.to(i))
        got = dict(answers.take(5))
        assert str(got[1]) == "camera is missing"
        assert str(got[2]) == "inference failed, see the server's log"
        assert isinstance(got[0], ActionChunk)
        assert isinstance(got[3], ActionChunk)
        assert (desk.answered, desk.failed) == (3, 2)
        assert max(map(len, policy.batches)) == 4
    assert "a secret" in capfd.readouterr().err


@pytest.mark.parametrize("bad", [np.full((16, 6), np.nan), np.zeros((16, 5)), np.zeros((0, 6)), np.zeros(6)])
def test_actions_that_no_robot_may_be_given_are_not_handed_out(bad: np.ndarray) -> None:
    with (
        Desk(fakes.ScriptedPolicy(SPEC, lambda o: bad)) as desk,
        pytest.raises(TaktError, match="gave actions"),
    ):
        desk.ask("a", request(), timeout=20.0)


def test_a_policy_without_batches_is_asked_one_by_one() -> None:
    policy = fakes.ScriptedPolicy(SPEC)
    with Desk(policy) as desk:
        assert desk.ask("a", request(1.0, seed=5, call=2), timeout=20.0).time == 1.0
        assert desk.ask("b", request(2.0, seed=6), timeout=20.0).time == 2.0
    assert policy.resets == [(5, 2), (6, 0)]


def test_a_policy_that_cannot_be_shared_is_refused() -> None:
    class Alone:
        spec = SPEC

        def reset(self, seed: int) -> None: ...

        def infer(
            self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
        ) -> ActionChunk:
            raise AssertionError

    with pytest.raises(TaktError, match="cannot be shared"):
        Desk(Alone())


def test_a_full_house_says_so() -> None:
    clock, answers = Hand(), Answers()
    policy = Shared(clock)
    with Desk(policy, clock=clock, peers=2) as desk:
        with busy(policy, desk, answers):
            assert desk.submit("a", request(), answers.to("a"))
            assert desk.submit("b", request(), answers.to("b"))
            assert not desk.submit("c", request(), answers.to("c"))
            assert desk.submit("a", request(), answers.to("a"))
            with pytest.raises(Busy):
                desk.ask("d", request(), timeout=20.0)
            desk.withdraw("b")
            assert desk.submit("c", request(), answers.to("c"))
        assert [key for key, _ in answers.take(3)] == ["first", "a", "c"]


def test_asking_gives_up_in_time_and_leaves_nothing_behind() -> None:
    clock, answers = Hand(), Answers()
    policy = Shared(clock)
    with Desk(policy, clock=clock) as desk:
        with busy(policy, desk, answers), pytest.raises(TaktError, match="no answer"):
            desk.ask("a", request(1.0), timeout=0.01)
        answers.take(1)
        desk.ask("b", request(2.0), timeout=20.0)
    assert [r.observation.time for batch in policy.batches for r in batch] == [0.0, 2.0]


def test_closing_answers_all_that_wait() -> None:
    clock, answers = Hand(), Answers()
    policy = Shared(clock)
    desk = Desk(policy, clock=clock)
    with busy(policy, desk, answers):
        assert desk.submit("a", request(), answers.to("a"))
        closing = threading.Thread(target=desk.close)
        closing.start()
        while not desk._over:
            pass
    closing.join(20)
    got = dict(answers.take(2))
    assert isinstance(got["first"], ActionChunk)
    assert "closing" in str(got["a"])
    assert not desk.submit("b", request(), answers.to("b"))


def test_a_done_that_raises_is_reported_and_work_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_: Answer) -> None:
        raise OSError("gone")

    with Desk(fakes.ScriptedPolicy(SPEC)) as desk:
        assert desk.submit("a", request(), fail)
        desk.ask("b", request(), timeout=20.0)
    assert "an answer was lost: OSError: gone" in capfd.readouterr().err


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([None, 0.001, 50.0]), min_size=1, max_size=20), min_size=1, max_size=6)
)
def test_no_answer_is_lost_or_given_twice(plans: list[list[float | None]]) -> None:
    """Threads ask at once, each waiting for its answer before the next question."""
    policy = Shared(Hand(), lambda n: 0.01)
    counts = [0] * len(plans)
    with Desk(policy, batch=3, clock=policy.clock) as desk:

        def asker(number: int) -> None:
            for deadline in plans[number]:
                answers = Answers()
                assert desk.submit(number, request(float(number), deadline), answers.to(number))
                ((_, answer),) = answers.take(1)
                assert isinstance(answer, Late) or answer.time == number
                counts[number] += 1
                assert answers.queue.empty()

        threads = [threading.Thread(target=asker, args=(i,)) for i in range(len(plans))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert counts == [len(plan) for plan in plans]
        assert desk.answered + desk.late == sum(counts)
        assert desk.failed == 0
