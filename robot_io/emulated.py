"""STS servos made of numbers, as the line sees them: registers, motion, load, heat, and what protects them.

Pure functions of the time that is given. Where the vendor says nothing, the emulator takes what is worse for
a driver: a servo that is switched on goes for whatever goal its register holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from robot_io import registers as r
from robot_io.feetech import BROADCAST, Error, Instruction, Packet

STEP = 0.001  # s of motion at a time
LONGEST = 2.0  # s of motion caught up at once; a longer stall loses time
FASTEST = 3400.0  # steps/s, 50 turns a minute
QUICKEST = 40_000.0  # steps/s^2, what the motor can do
LAG = 0.02  # s, of the position loop
STALL = 40.0  # steps of error at which a motor that is held gives all it has
AMBIENT, NOMINAL = 25.0, 12.1  # °C, V
_SIZE = 128  # bytes of the table
_NEAR = 0.05  # steps; nearer is there

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


class Servo:
    """One servo.

    Attributes:
        actual: where its shaft stands, steps; what it says is this less its homing offset.
        stuck, dead: something holds the shaft; it neither moves nor hears.
        led: a plant moves the shaft, see `lead`; without one a servo moves its own.
        forced: error bits that it reports whatever happens.
        heat, supply: °C and V that it reports; None for those of the model.
    """

    def __init__(self, servo: int, actual: float, now: float, settings: Mapping[r.Register, int]) -> None:
        self.actual, self.velocity, self.load = actual, 0.0, 0.0
        self.temperature = AMBIENT
        self._left = actual  # where it was last driven
        self.stuck, self.dead, self.led, self.forced = False, False, False, 0
        self.heat: float | None = None
        self.supply: float | None = None
        self._memory = bytearray(_SIZE)
        self._time = now
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

    def get(self, register: r.Register) -> int:
        return r.pick(register, bytes(self._memory), 0)

    def set(self, register: r.Register, value: int) -> None:
        self._memory[register.address : register.address + register.size] = register.encode(value)

    def aim(self) -> float:
        """Where a plant should have the shaft, steps of `actual`: the goal, or where it was last driven."""
        if self.get(r.TORQUE) != r.ON or self.dead or self.stuck:
            return self._left
        self._left = self.actual
        return self._clamped(self.get(r.GOAL)) + self.get(r.HOMING_OFFSET)

    def strength(self) -> float:
        """The part of its torque that it may give now."""
        limit = self.get(r.TORQUE_LIMIT) / 1000.0
        return min(limit, self.get(r.PROTECTIVE_TORQUE) / 100.0) if self._overloaded else limit

    def lead(self, actual: float, velocity: float, load: float) -> None:
        """What the plant says of the shaft: steps, steps/s, and the part of the torque it takes."""
        self.actual, self.velocity, self.load = actual, velocity, load

    @property
    def position(self) -> float:
        """Where it says that it stands, steps."""
        return self.actual - self.get(r.HOMING_OFFSET)

    def power_up(self, now: float) -> None:
        """As after a power cut: settings as they were saved, torque off, the goal where it stands."""
        self._memory[:] = self._saved + bytes(_SIZE - r.RAM)
        self._time, self.velocity, self.load, self._left = now, 0.0, 0.0, self.actual
        self._strained, self._overloaded, self._waiting = 0.0, False, None
        self.set(r.GOAL, self._in_range(self.position))
        self.set(r.TORQUE_LIMIT, self.get(r.MAX_TORQUE))
        self.set(r.LOCK, 1)
        self.say()

    # -- the line

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

    # -- the shaft

    def advance(self, now: float) -> None:
        """Move on to `now`."""
        elapsed = min(now - self._time, LONGEST)
        steps = int(elapsed / STEP + 1e-6)
        if steps <= 0:
            return
        self._time = now - (elapsed - steps * STEP)
        if self.led:
            self._protect(steps * STEP)
            return
        driven = self.get(r.TORQUE) == r.ON and not self.dead
        goal = self._clamped(self.get(r.GOAL)) + self.get(r.HOMING_OFFSET)
        speed = abs(self.get(r.GOAL_SPEED)) or FASTEST
        quick = self.get(r.ACCELERATION) * 100.0 or QUICKEST
        for _ in range(steps):
            if not driven or (abs(goal - self.actual) < _NEAR and abs(self.velocity) < 1.0):
                self.velocity, self.load = 0.0, 0.0
                self._protect((steps - 1) * STEP)
                break
            self._move(goal, min(speed, FASTEST), min(quick, QUICKEST))
            self._protect(STEP)

    def _move(self, goal: float, speed: float, quick: float) -> None:
        gap = goal - self.actual
        limit = self.strength()
        if self.stuck:
            self.velocity = 0.0
            self.load = math.copysign(min(limit, abs(gap) / STALL), gap)
            return
        wanted = min(speed, abs(gap) / LAG, math.sqrt(2.0 * quick * abs(gap)))
        change = math.copysign(wanted, gap) - self.velocity
        change = max(-quick * STEP, min(quick * STEP, change))
        self.velocity += change
        self.actual += self.velocity * STEP
        load = 0.08 * self.velocity / FASTEST + 0.25 * change / (QUICKEST * STEP)
        self.load = max(-limit, min(limit, load))

    def _protect(self, seconds: float) -> None:
        """Heat, and less torque after too much load for too long."""
        drift = (AMBIENT - self.temperature) / 120.0 + self.load**2
        self.temperature += drift * min(seconds, 60.0)
        strained = abs(self.load) >= self.get(r.OVERLOAD) / 100.0
        self._strained = self._strained + seconds if strained else 0.0
        self._overloaded |= self._strained > self.get(r.PROTECTION_TIME) / 100.0

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
