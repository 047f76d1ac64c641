"""STS servos made of numbers, as the line sees them: registers, and what protects a shaft.

Pure functions of the time that is given. Where the vendor says nothing, the emulator takes what is worse for
a driver: a servo that is switched on goes for whatever goal its register holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from robot_io import registers as r
from robot_io.emulated_shaft import QUICKEST, Shaft
from robot_io.feetech import BROADCAST, Error, Instruction, Packet

FASTEST = 3400.0  # steps/s, 50 turns a minute
NOMINAL = 12.1  # V
_SIZE = 128  # bytes of the table

# What a servo comes with, by register; the rest is 0.
FACTORY: dict[r.Register, int] = {
    r.FIRMWARE: 0x0A03,
    r.MODEL: r.STS3215,
    r.RETURN_DELAY: 250,
    r.RESPONSE_LEVEL: 1,
    r.MAX_POSITION: r.STEPS - 1,
    r.MAX_TEMPERATURE: 70,
    r.MAX_VOLTAGE: 140,
    r.MIN_VOLTAGE: 40,
    r.MAX_TORQUE: 1000,
    r.UNLOAD: 0x2C,
    r.P: 32,
    r.D: 32,
    r.PROTECTION_CURRENT: 500,
    r.PROTECTIVE_TORQUE: 20,
    r.PROTECTION_TIME: 200,
    r.OVERLOAD: 80,
}


class Servo(Shaft):
    """One servo; what it says of its shaft is `actual` less its homing offset.

    Attributes:
        forced: error bits that it reports whatever happens.
        heat, supply: °C and V that it reports; None for those of the model.
        delay: s until it begins to answer.
    """

    fastest = FASTEST
    delay = 0.0
    table = r.TABLE

    def __init__(self, servo: int, actual: float, now: float, settings: Mapping[r.Register, int]) -> None:
        super().__init__(actual, now)
        self.forced = 0
        self.heat: float | None = None
        self.supply: float | None = None
        self._memory = bytearray(_SIZE)
        self._waiting: bytes | None = None  # what REG_WRITE left
        self._strained = 0.0  # s of too much load
        self._overloaded = False
        for register, value in {**FACTORY, **settings, r.ID: servo}.items():
            self.set(register, value)
        self._saved = bytes(self._memory[: r.RAM])
        self.power_up(now)

    @property
    def id(self) -> int:
        return self._memory[r.ID.address]

    @property
    def limp(self) -> bool:
        """Whether a hand can move it."""
        return self.get(r.TORQUE) == r.OFF

    def get(self, register: r.Register) -> int:
        return r.pick(register, bytes(self._memory), 0)

    def set(self, register: r.Register, value: int) -> None:
        self._memory[register.address : register.address + register.size] = register.encode(value)

    @property
    def driven(self) -> bool:
        return self._memory[r.TORQUE.address] == r.ON and not self.dead

    def goal(self) -> float:
        return self._clamped(self.get(r.GOAL)) + self.get(r.HOMING_OFFSET)

    def limits(self) -> tuple[float, float]:
        speed, quick = abs(self.get(r.GOAL_SPEED)), self.get(r.ACCELERATION) * 100.0
        return speed or FASTEST, quick or QUICKEST

    def strength(self) -> float:
        limit = self.get(r.TORQUE_LIMIT) / 1000.0
        return min(limit, self.get(r.PROTECTIVE_TORQUE) / 100.0) if self._overloaded else limit

    def strain(self, seconds: float) -> None:
        strained = abs(self.load) >= self.get(r.OVERLOAD) / 100.0
        self._strained = self._strained + seconds if strained else 0.0
        self._overloaded |= self._strained > self.get(r.PROTECTION_TIME) / 100.0

    @property
    def position(self) -> float:
        """Where it says that it stands, steps."""
        return self.actual - self.get(r.HOMING_OFFSET)

    def power_up(self, now: float) -> None:
        """As after a power cut: settings as they were saved, torque off, the goal where it stands."""
        self._memory[:] = self._saved + bytes(_SIZE - r.RAM)
        self.halt(now)
        self._strained, self._overloaded, self._waiting = 0.0, False, None
        self.set(r.GOAL, self._in_range(self.position))
        self.set(r.TORQUE_LIMIT, self.get(r.MAX_TORQUE))
        self.set(r.LOCK, 1)
        self.say()

    # -- the line

    def hear(self, now: float) -> None:
        """Something was said on the line, to whomever."""

    def answer(self, packet: Packet, now: float) -> Packet | None:
        """Carry out an instruction for this servo or for all; its status packet, where it sends one.

        A sync read or write comes here as the READ or WRITE that it is to this servo.
        """
        self.advance(now)
        self.say()
        data, quiet = b"", packet.id == BROADCAST
        if packet.code == Instruction.READ:
            at, count = packet.data[:2]
            data = bytes(self._memory[at : at + count]).ljust(count, b"\0")
        elif packet.code == Instruction.WRITE:
            self._put(packet.data)
        elif packet.code == Instruction.REG_WRITE:
            self._waiting = packet.data
        elif packet.code == Instruction.ACTION and self._waiting is not None:
            self._put(self._waiting)
            self._waiting = None
        self.say()
        asked = packet.code in (Instruction.PING, Instruction.READ)
        if (quiet and packet.code != Instruction.PING) or not (asked or self.get(r.RESPONSE_LEVEL)):
            return None
        return Packet(self.id, self.get(r.STATUS), data)

    def _put(self, parameters: bytes) -> None:
        """A write: address, bytes. What is read only stays as it is."""
        for address, byte in enumerate(parameters[1:], parameters[0] if parameters else 0):
            if address < 5 or r.FEEDBACK_AT <= address < r.FEEDBACK_AT + r.FEEDBACK_SIZE or address >= _SIZE:
                continue
            if address == r.TORQUE.address:
                self._switch(byte)
                continue
            self._memory[address] = byte
            if address < r.RAM and not self.get(r.LOCK):
                saved = bytearray(self._saved)
                saved[address] = byte
                self._saved = bytes(saved)

    def _switch(self, value: int) -> None:
        if value == 128:  # where it stands becomes the middle
            offset = round(self.actual) - r.STEPS // 2
            self.set(r.HOMING_OFFSET, max(-2047, min(2047, offset)))
            return
        self._memory[r.TORQUE.address] = value
        self._strained, self._overloaded = 0.0, False

    def _clamped(self, goal: int) -> int:
        low, high = self.get(r.MIN_POSITION), self.get(r.MAX_POSITION)
        return max(low, min(high, goal)) if low < high else goal

    def _in_range(self, position: float) -> int:
        return max(1 - r.STEPS, min(r.STEPS - 1, round(position)))

    def say(self) -> None:
        """Write the feedback registers."""
        heat = self.temperature if self.heat is None else self.heat
        volts = NOMINAL - 0.4 * abs(self.load) if self.supply is None else self.supply
        bits = self.forced | (Error.OVERLOAD if self._overloaded else 0)
        bits |= Error.OVERHEAT if heat > self.get(r.MAX_TEMPERATURE) else 0
        low, high = r.MIN_VOLTAGE.si(self.get(r.MIN_VOLTAGE)), r.MAX_VOLTAGE.si(self.get(r.MAX_VOLTAGE))
        bits |= 0 if low <= volts <= high else Error.VOLTAGE
        self.set(r.POSITION, self._in_range(self.position))
        self.set(r.VELOCITY, round(self.velocity))
        self.set(r.LOAD, round(self.load * 1000))
        self.set(r.VOLTAGE, r.VOLTAGE.raw(max(0.0, min(25.0, volts))))
        self.set(r.TEMPERATURE, max(0, min(255, round(heat))))
        self.set(r.STATUS, bits)
        self.set(r.MOVING, int(abs(self.velocity) > 1.0))
        self.set(r.TARGET, self.get(r.GOAL))
        self.set(r.CURRENT, round(abs(self.load) * 400))
