"""What a driver has to know of a family of servos: how they talk, and which registers mean what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from robot_io.packets import Wire
from robot_io.registers import Register


@dataclass(frozen=True)
class Model:
    """One model of a family.

    Attributes:
        number: what its model register says.
        load: the part of its torque that it gives, -1 to 1, as it says or infers it.
        current: A; None where it does not measure it.
        overload: the part of its torque that it gives for a moment only.
        grip: registers of RAM, and what a gripper gets in them: the torque that it may give for ever.
    """

    name: str
    number: int
    load: Register
    current: Register | None
    overload: float = 0.8
    grip: Mapping[Register, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Servos that have a protocol and a table of registers in common.

    Attributes:
        wire: makes a master's side of their protocol, one for each bus.
        highest: the highest id.
        table: all registers by name.
        feedback: address and size of what is read of all servos in every cycle.
        audit: address and size of what is read of one servo in every cycle, in turn.
        described: bytes from address 0 that say all that has to be known before a servo is switched on.
        running: all that may be written while an arm runs. Goals are the guard's to limit; the rest is set
            at the start and at the end.
        begin: what is written into RAM before a servo is switched on.
        lock: the register that keeps EPROM from being written, where there is one.
        watchdog: the register with which a servo stops by itself when its master is silent, where there is
            one; `bite` is what is written into it, `bitten` what it then says.
        error: the register of error bits, and whether a cycle's feedback has it; where it does not, an
            answer with `alert` in its error byte says that there are some.
        told: error bits in words.
        tired: error bits that a slower arm may make go away.
        offset: 1 where a servo says its shaft's place less the homing offset, -1 where it says the sum.
        turns: whether it turns its direction round by itself, as its drive mode says.
        furthest: the greatest homing offset, steps.
        counts: whether it counts turns, and so may be a whole one off.
    """

    name: str
    wire: Callable[[], Wire]
    highest: int
    table: Mapping[str, Register]
    feedback: tuple[int, int]
    audit: tuple[int, int]
    described: int
    running: frozenset[Register]
    begin: Mapping[Register, int]
    lock: Register | None
    watchdog: Register | None
    bite: int
    bitten: int
    error: Register
    alert: int
    told: Callable[[int], str]
    tired: int
    offset: int
    turns: bool
    furthest: int
    counts: bool

    # Registers that every family has.
    @property
    def model(self) -> Register:
        return self.table["model"]

    @property
    def torque(self) -> Register:
        return self.table["torque"]

    @property
    def goal(self) -> Register:
        return self.table["goal"]

    @property
    def position(self) -> Register:
        return self.table["position"]

    @property
    def velocity(self) -> Register:
        return self.table["velocity"]

    @property
    def voltage(self) -> Register:
        return self.table["voltage"]

    @property
    def temperature(self) -> Register:
        return self.table["temperature"]

    @property
    def mode(self) -> Register:
        return self.table["mode"]

    @property
    def placed(self) -> tuple[Register, Register, Register]:
        """Homing offset, least and greatest position."""
        return self.table["homing_offset"], self.table["min_position"], self.table["max_position"]
