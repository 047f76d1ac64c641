"""Who may ask: one lease a robot, sessions that belong to one connection. Pure, in injected time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.offset import Offset
from runtime.sessions import Refused, Session, Sessions
from runtime.wire import LEASE, Hello


def stays(peer: bytes) -> bool:
    return False


def leaves(peer: bytes) -> bool:
    return True


def refused(code: str, call: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.code == code


def test_the_first_commander_has_the_lease_until_goodbye() -> None:
    sessions = Sessions()
    first = sessions.open(b"a", Hello("arm"), 0.0, stays)
    assert sessions.commands(first)
    refused("lease", lambda: sessions.open(b"b", Hello("arm"), 0.5, stays))
    assert sessions.commands(sessions.of(b"a", first.id, 0.6))
    assert sessions.commands(sessions.open(b"b", Hello("other arm"), 0.7, stays))
    sessions.close(first)
    assert sessions.commands(sessions.open(b"c", Hello("arm"), 0.8, stays))


def test_silence_and_a_broken_connection_free_the_lease() -> None:
    sessions = Sessions()
    first = sessions.open(b"a", Hello("arm"), 0.0, stays)
    sessions.of(b"a", first.id, 2.0)
    refused("lease", lambda: sessions.open(b"b", Hello("arm"), 2.0 + LEASE, stays))
    second = sessions.open(b"b", Hello("arm"), 2.01 + LEASE, stays)
    refused("session", lambda: sessions.of(b"a", first.id, 3.02))
    third = sessions.open(b"c", Hello("arm"), 3.02, leaves)
    assert sessions.commands(third)
    assert not sessions.commands(second)


def test_a_silent_holder_keeps_the_lease_that_nobody_wants() -> None:
    sessions = Sessions()
    first = sessions.open(b"a", Hello("arm"), 0.0, stays)
    sessions.check_infer(sessions.of(b"a", first.id, 100.0), 0)


def test_a_session_belongs_to_its_connection() -> None:
    sessions = Sessions()
    first = sessions.open(b"a", Hello("arm"), 0.0, stays)
    refused("session", lambda: sessions.of(b"b", first.id, 0.1))
    refused("session", lambda: sessions.of(b"a", first.id + 1, 0.1))
    again = sessions.open(b"a", Hello("arm"), 0.2, stays)
    assert again.id != first.id
    refused("session", lambda: sessions.of(b"a", first.id, 0.3))
    assert len(sessions) == 1


def test_numbers_rise_and_observers_do_not_ask() -> None:
    sessions = Sessions()
    first = sessions.open(b"a", Hello("arm"), 0.0, stays)
    for seq in (0, 1, 5):
        sessions.check_infer(first, seq)
    for seq in (5, 0):
        refused("refused", lambda seq=seq: sessions.check_infer(first, seq))
    watcher = sessions.open(b"b", Hello("arm", "observe"), 0.0, stays)
    sessions.open(b"c", Hello("other", "observe"), 0.0, stays)
    refused("lease", lambda: sessions.check_infer(watcher, 0))
    assert sessions.observers("arm") == [watcher]


def test_only_silent_sessions_make_room() -> None:
    ended: list[Session] = []
    sessions = Sessions(most=2, closed=ended.append)
    first = sessions.open(b"a", Hello("1"), 0.0, stays)
    second = sessions.open(b"b", Hello("2"), 0.5, stays)
    refused("busy", lambda: sessions.open(b"c", Hello("3"), 0.9, stays))
    sessions.open(b"c", Hello("3"), 1.1, stays)
    assert ended == [first]
    assert sessions.commands(second)
    assert len(sessions) == 2


PEERS = st.sampled_from([b"a", b"b", b"c", b"d"])
ROBOTS = st.sampled_from(["arm", "leg"])


class Connections(RuleBasedStateMachine):
    """Whatever they do, a robot has one commander, who spoke within the lease or has no rival."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions = Sessions(most=3)
        self.now = 0.0
        self.known: dict[bytes, Session] = {}

    @rule(peer=PEERS, robot=ROBOTS, role=st.sampled_from(["command", "observe"]), gone=st.booleans())
    def hello(self, peer: bytes, robot: str, role: str, gone: bool) -> None:
        holders = [s for s in self.known.values() if s.robot == robot and self.sessions.commands(s)]
        try:
            self.known[peer] = self.sessions.open(peer, Hello(robot, role), self.now, lambda p: gone)
        except Refused as error:
            if error.code == "lease":
                assert holders
                assert not gone
        else:
            for holder in holders:
                if role == "command" and holder.peer != peer:
                    assert gone or self.now - holder.heard > LEASE

    @rule(peer=PEERS, owner=PEERS, seq=st.integers(0, 5))
    def infer(self, peer: bytes, owner: bytes, seq: int) -> None:
        if owner not in self.known:
            return
        session = self.known[owner]
        before = session.seq
        try:
            self.sessions.check_infer(self.sessions.of(peer, session.id, self.now), seq)
        except Refused:
            assert session.seq == before
        else:
            assert peer == owner
            assert seq > before

    @rule(seconds=st.floats(0.0, 1.5))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(peer=PEERS)
    def bye(self, peer: bytes) -> None:
        if peer in self.known:
            self.sessions.close(self.known.pop(peer))

    @invariant()
    def one_commander(self) -> None:
        holding = [s.robot for s in self.known.values() if self.sessions.commands(s)]
        assert len(holding) == len(set(holding))
        assert len(self.sessions) <= 3


TestConnections = Connections.TestCase
TestConnections.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("ahead", [-1e6, 0.0, 12.5])
def test_the_offset_is_that_of_the_quickest_trip(ahead: float) -> None:
    offset = Offset()
    assert offset.seconds is None
    assert offset.ours(1.0) is None
    for asked, there, stayed, back in [(0.0, 0.2, 1.0, 0.01), (5.0, 0.001, 0.5, 0.001), (9.0, 0.1, 0.0, 0.4)]:
        arrived = asked + there + ahead
        offset.note(asked, arrived, arrived + stayed, asked + there + stayed + back)
    assert offset.seconds == pytest.approx(ahead, abs=1e-6)
    assert offset.ours(ahead + 3.0) == pytest.approx(3.0, abs=1e-6)
    assert offset.ours(None) is None


def test_an_impossible_trip_is_left_out() -> None:
    offset = Offset()
    offset.note(0.0, 5.0, 4.0, 1.0)  # left before it arrived
    offset.note(0.0, 5.0, 9.0, 1.0)  # stayed longer than we waited
    assert offset.seconds is None
