"""A line of emulated servos: what arrives is obeyed, what is answered comes at its time, and faults happen.

Deterministic: the same bytes at the same times with the same seed give the same answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from robot_io import dynamixel, feetech
from robot_io.emulated import Servo
from robot_io.emulated_x import XServo
from robot_io.packets import BYTE_SECONDS

_BROADCAST = 0xFE  # of both protocols


@dataclass
class Faults:
    """What is wrong with the line and its servos.

    Attributes:
        drop, corrupt, truncate, noise, late: how probable it is that an answer is lost, has a byte changed,
            is cut, has noise before it, or comes `delay` s late.
        echo: what is sent comes back first, as from some adapters.
        dead: servos that neither hear nor answer. Their shafts stand.
        mute: servos that hear and do not answer.
        old: servos whose firmware does not know a fast sync read.
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
    old: list[int] = field(default_factory=list)
    stuck: list[int] = field(default_factory=list)
    errors: dict[int, int] = field(default_factory=dict)
    heat: dict[int, float] = field(default_factory=dict)
    supply: dict[int, float] = field(default_factory=dict)


class Line:
    """Servos on one wire. Attributes: `servos`, `faults`."""

    def __init__(self, servos: Sequence[Servo] | Sequence[XServo], seed: int = 0) -> None:
        self.servos: list[Any] = list(servos)
        self.faults = Faults()
        self._chance = random.Random(seed)
        self._codec: Any = dynamixel if isinstance(self.servos[0], XServo) else feetech
        self._decoder = self._codec.Decoder()
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
            if each.id == servo and each.limp:
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
            for servo in self.servos:
                if self._powered(servo, now):
                    servo.hear(now)
            if packet.code == dynamixel.Instruction.FAST_SYNC_READ and self._codec is dynamixel:
                out += self._together(packet, now)
                continue
            answered = packet.code != feetech.Instruction.SYNC_WRITE  # of both protocols
            chained = self._codec is dynamixel and packet.code == dynamixel.Instruction.SYNC_READ
            for request in self._codec.split(packet):
                if chained and not self._answers(request, now):
                    break  # each waits for the answer of the one before it, a dead one's for ever
                for servo in self._hearing(request, now):
                    answer = servo.answer(request, now)
                    if answered and answer is not None and servo.id not in self.faults.mute:
                        out.append(self._send(self._codec.encode(answer), servo.delay))
        return sorted((each for each in out if each[1]), key=lambda each: each[0])

    def _together(self, packet: dynamixel.Packet, now: float) -> list[tuple[float, bytes]]:
        """The answer to a fast sync read: each servo waits for the one before it, a dead one for ever."""
        requests, answers, count = dynamixel.split(packet), [], int.from_bytes(packet.data[2:4], "little")
        for request in requests:
            servo = next(iter(self._hearing(request, now)), None)
            if servo is None or servo.id in (*self.faults.mute, *self.faults.old):
                break
            answer = servo.answer(request, now)
            if answer is None or len(answer.data) != count:
                break
            answers.append((servo, answer))
        if not answers:  # nor can a length be written that no servo's table has
            return []
        parts = dynamixel.joined([answer for _, answer in answers], len(requests), count)
        return [self._send(part, servo.delay) for part, (servo, _) in zip(parts, answers, strict=True)]

    def _answers(self, request: Any, now: float) -> bool:
        return any(servo.id not in self.faults.mute for servo in self._hearing(request, now))

    def _powered(self, servo: Any, now: float) -> bool:
        return not servo.dead and now >= self._away.get(servo.id, now)

    def _hearing(self, request: Any, now: float) -> list[Any]:
        heard = [s for s in self.servos if request.id in (_BROADCAST, s.id)]
        return sorted((s for s in heard if self._powered(s, now)), key=lambda s: s.id)

    def _send(self, line: bytes, delay: float) -> tuple[float, bytes]:
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
        self._free += delay + len(line) * BYTE_SECONDS
        when = self._free + (faults.delay if late < faults.late else 0.0)
        return when, b"" if dropped < faults.drop else line
