"""A bus of servos: requests with deadlines, answers that are checked, writes that are allowed.

The vendors' protocols number nothing, so a late answer looks like one to the request after it. Four things
keep it out: input is flushed before each request; an answer has to come from a servo that was asked, with
as many bytes as were asked for; answers come in the order of the request; whoever answers twice is asked
anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial

from robot_io.family import Family
from robot_io.packets import BYTE_SECONDS, Answer, Answers, Echo
from robot_io.port import Port
from robot_io.registers import Register
from robot_io.sts import STS
from vla.contract import TaktError

BROADCAST = 0xFE  # of both protocols
OFF = 0
SILENT = 3  # reads in a row without an answer, from which a servo is not asked with the others
SELDOM = 4  # reads of several, of which one asks who was silent before as well
PATIENCE = 0.010  # s that answers may take beyond their bytes' time


def seconds_of(patience: str) -> float:
    """A patience that a user gave, s.

    Raises:
        TaktError: it is none.
    """
    try:
        seconds = float(patience)
    except ValueError:
        seconds = -1.0
    if not 0.001 <= seconds <= 1.0:
        raise TaktError(f"--options patience is in seconds, from 0.001 to 1, got {patience!r}")
    return seconds


@dataclass
class Traffic:
    """What went over the bus.

    Attributes:
        sent, received: bytes.
        requests, retries: how often something was asked, and asked again.
        missing: answers that did not come, retries included.
        disordered: answers out of turn, twice, or from one that was not asked.
        noise: bytes that belonged to no packet.
        broken: packets with a wrong checksum.
        echoed: bytes of our own that came back, as some adapters do it.
    """

    sent: int = 0
    received: int = 0
    requests: int = 0
    retries: int = 0
    missing: int = 0
    disordered: int = 0
    noise: int = 0
    broken: int = 0
    echoed: int = 0

    def __iadd__(self, other: Traffic) -> Traffic:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self


class Bus:
    """The one master of a line of servos.

    Attributes:
        family: what kind of servos they are.
        patience: s that the answers to a request may take beyond their bytes' time.
        cycle: the traffic since `take` was last called.
        total: all traffic before.
    """

    def __init__(self, port: Port, patience: float = PATIENCE, family: Family = STS) -> None:
        """`patience`: see the class; it may be changed at any time."""
        self.port, self.family, self._wire = port, family, family.wire()
        self.cycle, self.total = Traffic(), Traffic()
        self.patience = patience
        self._configuring = False
        self._missed: dict[int, int] = {}  # reads in a row in which a servo was silent
        self._reads = 0

    def take(self) -> Traffic:
        """The traffic since the last call; a control cycle calls it once."""
        taken, self.cycle = self.cycle, Traffic()
        self.total += taken
        return taken

    # -- reading

    def read(self, servos: Sequence[int], address: int, count: int) -> dict[int, Answer]:
        """The same `count` bytes of several servos; those that stay silent are asked once more, then missing.

        Raises:
            PortGone: the line is gone.
        """
        if self._wire.chained:
            return self._read_chained(servos, address, count)
        found = self._ask(self._wire.ask(servos, address, count), servos, count)
        if left := [servo for servo in servos if servo not in found]:
            self.cycle.retries += 1
            found |= self._ask(self._wire.ask(left, address, count, again=True), left, count)
        return found

    def _read_chained(self, servos: Sequence[int], address: int, count: int) -> dict[int, Answer]:
        """Of servos that wait for the one before them to have answered: one that is silent silences all
        behind it. So those behind it are asked again without it; one that was silent in `SILENT` reads is
        asked by itself from then on, and in reads of several only now and then.
        """
        silent = [servo for servo in servos if self._missed.get(servo, 0) >= SILENT]
        together = [servo for servo in servos if servo not in silent]
        found = self._ask(self._wire.ask(together, address, count), together, count) if together else {}
        left = [servo for servo in together if servo not in found]
        self._wire.fared(len(left))
        if left:
            self.cycle.retries += 1
        while left:
            found |= self._ask(self._wire.ask(left, address, count, again=True), left, count)
            left = [servo for servo in left if servo not in found][1:]
        self._reads += 1
        if len(servos) == 1 or self._reads % SELDOM == 0:
            for servo in silent:
                found |= self._ask(self._wire.ask([servo], address, count, again=True), [servo], count)
        for servo in servos:
            self._missed[servo] = 0 if servo in found else self._missed.get(servo, 0) + 1
        return found

    def value(self, servo: int, register: Register) -> int | None:
        """One raw value of one servo; None when it is silent."""
        answer = self.read([servo], register.address, register.size).get(servo)
        return None if answer is None else register.decode(answer.data)

    # -- writing

    def write(self, servo: int, register: Register, value: int) -> Answer | None:
        """One raw value to one servo; its answer, with its error byte, or None when it is silent.

        Raises:
            TaktError: the register may not be written now.
            ValueError: a value that it cannot hold.
            PortGone: the line is gone.
        """
        line = self._wire.write(servo, register.address, self._allowed(register, value))
        found = self._ask(line, [servo], 0)
        if not found:
            self.cycle.retries += 1
            found = self._ask(line, [servo], 0)
        return found.get(servo)

    def sync_write(self, register: Register, values: Mapping[int, int]) -> None:
        """A raw value each to several servos, in one packet that nobody answers. Raises as `write` does."""
        rows = {servo: self._allowed(register, value) for servo, value in values.items()}
        self._tell(self._wire.sync_write(register.address, rows))

    def broadcast(self, register: Register, value: int) -> None:
        """The same raw value to every servo on the line, in one packet. Raises as `write` does."""
        self._tell(self._wire.write(BROADCAST, register.address, self._allowed(register, value)))

    @contextmanager
    def configuring(self, servos: Sequence[int]) -> Iterator[None]:
        """While this lasts every register may be written, EPROM as well, which then keeps it.

        Raises:
            TaktError: a servo is silent, or its torque is not off.
        """
        for servo in servos:
            if self.value(servo, self.family.torque) != OFF:
                raise TaktError(f"servo {servo} is not switched off: its settings are written only then")
        self._configuring = True
        try:
            self._lock(servos, 0)
            try:
                yield
            finally:
                self._lock(servos, 1)
        finally:
            self._configuring = False

    def _lock(self, servos: Sequence[int], value: int) -> None:
        if self.family.lock is not None:
            for servo in servos:
                self.write(servo, self.family.lock, value)

    # -- making safe

    def safe(self, servos: Iterable[int], goals: Mapping[int, int] | None = None) -> dict[int, str]:
        """Switch every servo off, or with `goals` let each hold its own; servo -> what went wrong, "" for ok.

        First one packet to all, which needs nobody's answer. Then each servo by itself, whatever the others
        did and whatever error bits it has, and a look at what it says it does. Watchdogs are let rest: goals
        come after that, as one that has bitten lets none in, and torque goes off before. It never raises, and
        ends within five times the patience per servo.
        """
        register = self.family.torque if goals is None else self.family.goal
        wanted = {servo: OFF if goals is None else goals[servo] for servo in servos}
        steps: list[Callable[[], str]] = [self.rest, partial(self._to_all, register, wanted)]
        for step in steps if goals is not None else steps[::-1]:
            attempt(step)
        outcome = {}
        for servo, value in wanted.items():
            outcome[servo] = attempt(partial(self._make_sure, servo, register, value))
        return outcome

    def _to_all(self, register: Register, wanted: Mapping[int, int]) -> str:
        if register is self.family.torque:
            self.broadcast(register, OFF)
        else:
            self.sync_write(register, wanted)
        return ""

    def rest(self) -> str:
        """All watchdogs are let rest, by one packet that nobody answers."""
        if self.family.watchdog is not None:
            self.broadcast(self.family.watchdog, 0)
        return ""

    def _make_sure(self, servo: int, register: Register, wanted: int) -> str:
        watchdog = self.family.watchdog
        if watchdog is not None and register is self.family.goal:
            self._ask(self._wire.write(servo, watchdog.address, watchdog.encode(0)), [servo], 0)
        self.write(servo, register, wanted)
        seen = self.value(servo, register)
        if seen is None:
            return "does not answer"
        return "" if seen == wanted else f"{register.name} is {seen}, not {wanted}"

    # -- bytes

    def _allowed(self, register: Register, value: int) -> bytes:
        if register not in self.family.running and not self._configuring:
            raise TaktError(f"register {register.name!r} is not written while the arm runs")
        return register.encode(value)

    def _tell(self, line: bytes) -> None:
        self.cycle.requests += 1
        self.cycle.sent += len(line)
        self.port.send(line, time.monotonic() + self.patience)

    def _ask(self, line: bytes, servos: Sequence[int], count: int) -> dict[int, Answer]:
        """What came back from whom, in turn; see the top of this file."""
        expected = len(line) + self._wire.longest(count, len(servos))
        deadline = time.monotonic() + 2 * BYTE_SECONDS * expected + self.patience
        self._tell(line)
        answers, ear, echo = Answers(servos), self._wire.ear(count, len(servos)), Echo(line)
        while not answers.complete and (piece := self.port.receive(deadline)):
            self.cycle.received += len(piece)
            for packet in ear.hear(echo.strip(piece)):
                answers.take(packet)
        self.cycle.missing += len(servos) - len(answers.found)
        self.cycle.disordered += answers.disordered
        self.cycle.noise += ear.skipped
        self.cycle.broken += ear.broken
        self.cycle.echoed += echo.stripped
        return answers.found


def attempt(what: Callable[[], str]) -> str:
    """What it says, or what it raised, in a line."""
    try:
        return what()
    except Exception as error:  # whatever it is, the other servos are still to be made safe
        return str(error) or type(error).__name__
