"""A line of emulated servos: what arrives is obeyed, what is answered comes at its time, and faults happen.

Deterministic: the same bytes at the same times with the same seed give the same answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from robot_io import feetech
from robot_io import registers as r
from robot_io.emulated import Servo
from robot_io.feetech import BROADCAST, BYTE_SECONDS, Decoder, Instruction, Packet


@dataclass
class Faults:
    """What is wrong with the line and its servos.

    Attributes:
        drop, corrupt, truncate, noise, late: how probable it is that an answer is lost, has a byte changed,
            is cut, has noise before it, or comes `delay` s late.
        echo: what is sent comes back first, as from some adapters.
        dead: servos that neither hear nor answer. Their shafts stand.
        mute: servos that hear and do not answer.
        stuck: servos whose shaft something holds.
        errors: servo -> error bits that it reports.
        heat, supply: servo -> °C, V that it reports.
    """

    drop: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    noise: float = 0.0
    late: float = 0.0
    delay: float = 0.08
    echo: bool = False
    dead: list[int] = field(default_factory=list)
    mute: list[int] = field(default_factory=list)
    stuck: list[int] = field(default_factory=list)
    errors: dict[int, int] = field(default_factory=dict)
    heat: dict[int, float] = field(default_factory=dict)
    supply: dict[int, float] = field(default_factory=dict)


class Line:
    """Servos on one wire. Attributes: `servos`, `faults`."""

    def __init__(self, servos: Sequence[Servo], seed: int = 0) -> None:
        self.servos = list(servos)
        self.faults = Faults()
        self._chance = random.Random(seed)
        self._decoder = Decoder()
        self._away: dict[int, float] = {}  # servo -> until when it has no power
        self._free = 0.0  # when the wire is free

    def fail(self, faults: Faults) -> None:
        """From now on these faults and no others."""
        self.faults = faults
        for servo in self.servos:
            servo.stuck, servo.dead = servo.id in faults.stuck, servo.id in faults.dead
            servo.forced = faults.errors.get(servo.id, 0)
            servo.heat, servo.supply = faults.heat.get(servo.id), faults.supply.get(servo.id)

    def cut_power(self, servo: int, now: float, seconds: float) -> None:
        """A servo loses its power, and comes back after `seconds` as it was saved."""
        self._away[servo] = now + seconds
        for each in self.servos:
            if each.id == servo:
                each.advance(now)
                each.power_up(now)

    def hand(self, servo: int, steps: float, now: float) -> None:
        """Somebody moves a shaft to `steps` of `actual`; one whose torque is on stays where it is."""
        for each in self.servos:
            if each.id == servo and each.get(r.TORQUE) == r.OFF:
                each.advance(now)
                each.actual = steps
                each.say()

    def advance(self, now: float) -> None:
        """Move on to `now`, registers included."""
        for servo in self.servos:
            servo.advance(now)
            servo.say()

    def receive(self, piece: bytes, now: float) -> list[tuple[float, bytes]]:
        """Bytes that arrived; (when, bytes) that leave, each packet by itself, oldest first."""
        self._free = max(self._free, now + len(piece) * BYTE_SECONDS)
        out = [(now, piece)] if self.faults.echo else []
        for packet in self._decoder.feed(piece):
            answered = packet.code != Instruction.SYNC_WRITE
            for request in _single(packet):
                for servo in self._hearing(request, now):
                    answer = servo.answer(request, now)
                    if answered and answer is not None and servo.id not in self.faults.mute:
                        out.append(self._send(feetech.encode(answer)))
        return sorted((each for each in out if each[1]), key=lambda each: each[0])

    def _hearing(self, request: Packet, now: float) -> list[Servo]:
        heard = [s for s in self.servos if request.id in (BROADCAST, s.id)]
        powered = [s for s in heard if not s.dead and now >= self._away.get(s.id, now)]
        return sorted(powered, key=lambda s: s.id)

    def _send(self, line: bytes) -> tuple[float, bytes]:
        faults, chance = self.faults, self._chance
        # One draw for each fault, whatever the others do: what one servo does never moves another's dice.
        dropped, changed, cut, noisy, late = (chance.random() for _ in range(5))
        at, byte, noise = chance.randrange(len(line)), chance.randrange(1, 256), chance.randbytes(6)
        if changed < faults.corrupt:
            line = line[:at] + bytes((line[at] ^ byte,)) + line[at + 1 :]
        if cut < faults.truncate:
            line = line[:at]
        if noisy < faults.noise:
            line = noise + line
        self._free += len(line) * BYTE_SECONDS
        when = self._free + (faults.delay if late < faults.late else 0.0)
        return when, b"" if dropped < faults.drop else line


def _single(packet: Packet) -> list[Packet]:
    """An instruction to several servos as one to each; others, and those that make no sense, as they are."""
    data = packet.data
    if packet.code == Instruction.SYNC_READ and len(data) > 2:
        return [Packet(servo, Instruction.READ, data[:2]) for servo in data[2:]]
    if packet.code == Instruction.SYNC_WRITE and len(data) > 2:
        width = data[1] + 1
        rows = [data[i : i + width] for i in range(2, len(data) - width + 1, width)]
        return [Packet(row[0], Instruction.WRITE, data[:1] + row[1:]) for row in rows]
    if packet.code == Instruction.READ and len(data) < 2:
        return []
    return [packet]
