"""X series servos made of numbers, as the line sees them: registers with their rules, watchdog, shutdown.

Pure functions of the time that is given. Where the vendor says nothing, the emulator takes what is worse for
a driver: a servo that is switched on, or whose watchdog is let rest, goes for whatever goal its register
holds, and errors of its hardware last until it is started anew. Modes that go for a position move the shaft
(3, 4, 5); the others, profiles by time, bulk instructions and indirect addresses are not emulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from robot_io import registers
from robot_io import xseries as x
from robot_io.dynamixel import ALERT, BROADCAST, Instruction, Packet
from robot_io.emulated_shaft import QUICKEST, Shaft
from robot_io.family import Model

FIRMWARE = 46  # one that knows a fast sync read
PATIENT, STRAINED = 2.0, 0.9  # s of so much of its torque until it calls that overload
_SIZE = 256
_TURN = registers.STEPS
_RESULT, _INSTRUCTION, _RANGE, _LENGTH, _LIMIT, _ACCESS = 1, 2, 4, 5, 6, 7  # of an answer's error byte
_VOLTAGE, _HEAT, _OVERLOAD = 0x01, 0x04, 0x20  # of register 70
# Turns a minute without load, at 12 and at 5 V.
_FASTEST = {x.XL430_W250.number: 61.0, x.XL330_M288.number: 103.0, x.XL330_M077.number: 383.0}
_READ_ONLY = range(x.MOVING.address, 168)

# What a servo comes with, by register; the rest is 0.
FACTORY: dict[registers.Register, int] = {
    x.FIRMWARE: FIRMWARE,
    x.BAUD: 3,
    x.RETURN_DELAY: 250,
    x.MODE: x.POSITION_MODE,
    x.MAX_POSITION: _TURN - 1,
}
_XL330: dict[registers.Register, int] = {
    x.MAX_TEMPERATURE: 70, x.MAX_VOLTAGE: 70, x.MIN_VOLTAGE: 35, x.SHUTDOWN: 0x35, x.P: 400,
    x.CURRENT_LIMIT: 1750,
}  # fmt: skip
MODELS: dict[int, dict[registers.Register, int]] = {
    x.XL430_W250.number: {
        x.MAX_TEMPERATURE: 72, x.MAX_VOLTAGE: 140, x.MIN_VOLTAGE: 60, x.SHUTDOWN: 0x34, x.P: 640, x.D: 4000,
    },
    x.XL330_M288.number: _XL330,
    x.XL330_M077.number: _XL330,
}  # fmt: skip
_SUPPLY = {x.XL430_W250.number: 12.0, x.XL330_M288.number: 5.0, x.XL330_M077.number: 5.0}  # V
_WHOLE = {register.address: register for register in x.TABLE.values()}


class XServo(Shaft):
    """One servo; what it says of its shaft is its place plus its homing offset.

    Attributes:
        forced: bits of register 70 that it reports whatever happens.
        heat, supply: °C and V that it reports; None for those of the model.
    """

    table = x.TABLE

    def __init__(
        self, servo: int, actual: float, now: float, settings: Mapping[registers.Register, int], model: Model
    ) -> None:
        super().__init__(actual, now)
        self.fastest = _FASTEST[model.number] * _TURN / 60.0
        self.forced = 0
        self.heat: float | None = None
        self.supply: float | None = None
        self._model, self._heard = model, now
        self._turns = 0  # whole turns of `actual` that it does not count
        self._strained, self._hardware = 0.0, 0  # s of too much load; bits of register 70 that last
        self._waiting: bytes | None = None  # what REG_WRITE left
        self._memory = bytearray(_SIZE)
        held = {**FACTORY, x.MODEL: model.number, **MODELS[model.number], **settings, x.ID: servo}
        for register, value in held.items():
            self.set(register, value)
        self._fresh = {register: held.get(register, 0) for register in (x.P, x.I, x.D)}
        self.power_up(now)

    @property
    def id(self) -> int:
        return self._memory[x.ID.address]

    @property
    def limp(self) -> bool:
        """Whether a hand can move it."""
        return self._memory[x.TORQUE.address] == 0

    @property
    def delay(self) -> float:
        """s until it begins to answer."""
        return x.RETURN_DELAY.si(self._memory[x.RETURN_DELAY.address])

    def get(self, register: registers.Register) -> int:
        return register.decode(bytes(self._memory[register.address : register.address + register.size]))

    def set(self, register: registers.Register, value: int) -> None:
        self._memory[register.address : register.address + register.size] = register.encode(value)

    # -- the shaft

    @property
    def _sign(self) -> int:
        return -1 if self._memory[x.DRIVE_MODE.address] & 1 else 1

    @property
    def bitten(self) -> bool:
        """Whether its watchdog has stopped it."""
        return self._memory[x.WATCHDOG.address] == 0xFF

    @property
    def driven(self) -> bool:
        mode = self._memory[x.MODE.address]
        moves = mode in (x.POSITION_MODE, x.EXTENDED, x.CURRENT_BASED)
        return moves and not self.limp and not self.dead and not self.bitten

    @property
    def position(self) -> float:
        """Where it says that it stands, steps."""
        return self._sign * (self.actual - self._turns * _TURN) + self._offset()

    def _offset(self) -> int:
        offset = self.get(x.HOMING_OFFSET)
        joint = self._memory[x.MODE.address] == x.POSITION_MODE
        return 0 if joint and abs(offset) > 1024 else offset

    def goal(self) -> float:
        return self._sign * (self.get(x.GOAL) - self._offset()) + self._turns * _TURN

    def limits(self) -> tuple[float, float]:
        speed = x.PROFILE_VELOCITY.si(self.get(x.PROFILE_VELOCITY)) / registers.RAD
        quick = x.PROFILE_ACCELERATION.si(self.get(x.PROFILE_ACCELERATION)) / registers.RAD
        return speed or self.fastest, quick or QUICKEST

    def strength(self) -> float:
        if self._memory[x.MODE.address] != x.CURRENT_BASED or self._model.current is None:
            return 1.0
        return min(1.0, self._model.load.si(abs(self.get(x.GOAL_CURRENT))))

    def strain(self, seconds: float) -> None:
        strained = not self.limp and abs(self.load) >= STRAINED
        self._strained = self._strained + seconds if strained else 0.0
        if self._strained > PATIENT:
            self._fail(_OVERLOAD)

    def _fail(self, bit: int) -> None:
        """An error of its hardware; one of those that shut it down switches its torque off for good."""
        self._hardware |= bit
        if bit & self._memory[x.SHUTDOWN.address]:
            self._memory[x.TORQUE.address] = 0

    def hear(self, now: float) -> None:
        """Something was said on the line, to whomever."""
        self.advance(now)
        self._heard = now

    def advance(self, now: float) -> None:
        patience = self._memory[x.WATCHDOG.address] * 0.02
        end = self._heard + patience
        if patience and not self.bitten and not self.limp and now > end:
            super().advance(end)
            self._memory[x.WATCHDOG.address] = 0xFF
            self.halt(end)
        super().advance(now)

    def power_up(self, now: float) -> None:
        """As after a power cut: EEPROM as it was, torque off, goal where it stands, turns counted anew."""
        self._memory[x.RAM :] = bytes(_SIZE - x.RAM)
        self.halt(now)
        self._strained, self._hardware, self._waiting, self._heard = 0.0, 0, None, now
        self._turns = math.floor(self.actual / _TURN)
        for register, value in self._fresh.items():
            self.set(register, value)
        self.set(x.STATUS_LEVEL, 2)
        self._refresh()
        self.say()

    def _refresh(self) -> None:
        self.set(x.GOAL_CURRENT, self.get(x.CURRENT_LIMIT))
        self.set(x.GOAL, round(self.position))

    # -- the line

    def answer(self, packet: Packet, now: float) -> Packet | None:
        """Carry out an instruction for this servo or for all; its status packet, where it sends one.

        A sync read or write comes here as the READ or WRITE that it is to this servo.
        """
        self.advance(now)
        self.say()
        error, data, level = 0, b"", self._memory[x.STATUS_LEVEL.address]
        quiet = packet.id == BROADCAST or level < 2
        if packet.code == Instruction.PING:
            data, quiet = bytes(self._memory[0:2] + self._memory[6:7]), False
        elif packet.code == Instruction.READ:
            error, data = self._read(packet.data)
            quiet = packet.id == BROADCAST or level < 1
        elif packet.code == Instruction.WRITE:
            error = self._put(packet.data)
        elif packet.code == Instruction.REG_WRITE:
            self._waiting = packet.data
        elif packet.code == Instruction.ACTION:
            error = _INSTRUCTION if self._waiting is None else self._put(self._waiting)
            self._waiting = None
        elif packet.code == Instruction.REBOOT:
            self.power_up(now)
        else:
            error = _INSTRUCTION
        alert = ALERT if self._memory[x.HARDWARE_ERROR.address] else 0
        return None if quiet else Packet(self.id, Instruction.STATUS, data, error | alert)

    def _read(self, parameters: bytes) -> tuple[int, bytes]:
        start, count = (int.from_bytes(parameters[i : i + 2], "little") for i in (0, 2))
        if start + count > _SIZE:
            return _ACCESS, b""
        return 0, bytes(self._memory[start : start + count])

    def _put(self, parameters: bytes) -> int:
        """A write: address, bytes. Registers one after another, up to one that refuses; its error."""
        at, data = int.from_bytes(parameters[:2], "little"), parameters[2:]
        while data:
            register = _WHOLE.get(at)
            size = register.size if register else 1
            if len(data) < size:
                return _LENGTH
            if error := self._refused(at, register, data[:size]):
                return error
            self._take(register, at, data[:size])
            at, data = at + size, data[size:]
        return 0

    def _refused(self, at: int, register: registers.Register | None, data: bytes) -> int:
        fixed = at < x.ID.address or at in _READ_ONLY or at >= _SIZE or register is x.HARDWARE_ERROR
        if fixed or (at < x.RAM and not self.limp):
            return _ACCESS
        if register is None:
            return 0
        value = register.decode(data)
        if register.highest is not None and abs(value) > register.highest:
            return _RANGE
        if register is x.GOAL:
            low, high = self.get(x.MIN_POSITION), self.get(x.MAX_POSITION)
            joint = self._memory[x.MODE.address] == x.POSITION_MODE
            return _RANGE if self.bitten else _LIMIT if joint and not low <= value <= high else 0
        if register is x.GOAL_CURRENT:
            over = self._model.current is not None and abs(value) > self.get(x.CURRENT_LIMIT)
            return _RANGE if self.bitten else _LIMIT if over else 0
        if register is x.WATCHDOG and value < 0:
            return _RANGE
        if register is x.TORQUE and value and self._hardware & self.get(x.SHUTDOWN):
            return _RESULT  # only a reboot switches it on again
        return 0

    def _take(self, register: registers.Register | None, at: int, data: bytes) -> None:
        self._memory[at : at + len(data)] = data
        if register is x.MODE:
            for each, value in self._fresh.items():
                self.set(each, value)
            self._refresh()

    def say(self) -> None:
        """Write the feedback registers."""
        heat = self.temperature if self.heat is None else self.heat
        volts = _SUPPLY[self._model.number] - 0.1 * abs(self.load) if self.supply is None else self.supply
        low, high = (each.si(self.get(each)) for each in (x.MIN_VOLTAGE, x.MAX_VOLTAGE))
        if heat > self.get(x.MAX_TEMPERATURE):
            self._fail(_HEAT)
        if not low - 1e-6 <= volts <= high + 1e-6:
            self._fail(_VOLTAGE)
        self._memory[x.HARDWARE_ERROR.address] = self._hardware | self.forced
        self.set(x.POSITION, round(self.position))
        self.set(x.VELOCITY, round(self._sign * self.velocity * registers.RAD / x.VELOCITY.scale))
        self.set(x.EFFORT, self._model.load.raw(self._sign * self.load))
        self.set(x.VOLTAGE, x.VOLTAGE.raw(max(0.0, min(25.0, volts))))
        self.set(x.TEMPERATURE, max(0, min(255, round(heat))))
        self.set(x.MOVING, int(abs(self.velocity) > 1.0))
