"""The arms that this driver knows: joints, servos, limits and settings, a table each.

A body's joints are named and ordered as LeRobot has them, so that its calibration files fit. The middle of a
calibrated range is 0 rad; a gripper is shut where its range begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from robot_io import registers as r
from robot_io import xseries as x
from robot_io.family import Family, Model
from robot_io.sts import STS, STS3215
from robot_io.xseries import XL330_M077, XL330_M288, XL430_W250, X
from runtime import so101
from runtime.so101 import Profile

GRIPPER = "gripper"


@dataclass(frozen=True)
class Body:
    """One kind of arm.

    Attributes:
        name: of the robot, `takt run --robot NAME`.
        title: what people call it, with its article.
        joints: joint -> range in rad, in the order of the chain.
        servos: joint -> id and model.
        endless: joints without stops, whose calibrated range is a whole turn.
        rest: where an emulated one stands at first, rad.
        settings: registers that every servo holds in EPROM, by joint; `None` for all joints.
        turned: joints whose servos turn the other way round, by their drive mode.
        gains: RAM that is written when a servo is switched on, by joint.
        profiles: limits by name; `metal` is what an arm of metal starts with.
    """

    name: str
    title: str
    family: Family
    joints: Mapping[str, tuple[float, float]]
    servos: Mapping[str, tuple[int, Model]]
    endless: frozenset[str]
    rest: tuple[float, ...]
    settings: Mapping[str | None, Mapping[r.Register, int]]
    profiles: Mapping[str, Profile]
    turned: frozenset[str] = frozenset()
    gains: Mapping[str, Mapping[r.Register, int]] = field(default_factory=dict)

    @property
    def ids(self) -> dict[str, int]:
        """joint -> servo, as LeRobot numbers them."""
        return {joint: servo for joint, (servo, _) in self.servos.items()}

    def model(self, joint: str) -> Model:
        return self.servos[joint][1]

    def kept(self, joint: str) -> dict[r.Register, int]:
        """What a joint's servo holds in EPROM whatever its calibration is."""
        return {**self.settings[None], **self.settings.get(joint, {})}


SO101 = Body(
    name="so101",
    title="an SO-101",
    family=STS,
    joints=so101.JOINTS,
    servos={joint: (servo, STS3215) for servo, joint in enumerate(so101.JOINTS, 1)},
    endless=frozenset({"wrist_roll"}),
    rest=(0.0, -1.2, 1.2, 0.8, 0.0, 0.0),
    settings={
        # What LeRobot sets on an SO-101, and what this driver counts on.
        None: {r.RETURN_DELAY: 0, r.RESPONSE_LEVEL: 1, r.MODE: 0, r.P: 16, r.I: 0, r.D: 32},
        # A gripper presses on things: it gets less torque, and gives in sooner.
        GRIPPER: {r.MAX_TORQUE: 500, r.PROTECTION_CURRENT: 250, r.OVERLOAD: 25},
    },
    profiles={"metal": so101.METAL, "simulation": so101.SIMULATION},
)

# As wide as MuJoCo Menagerie's model of it (low_cost_robot_arm), but with the middle of each range at 0.
_KOCH = {
    "shoulder_pan": (-2.2, 2.2),
    "shoulder_lift": (-1.085, 1.085),
    "elbow_flex": (-1.51, 1.51),
    "wrist_flex": (-2.0, 2.0),
    "wrist_roll": (-3.14, 3.14),
    GRIPPER: (0.0, 1.63),
}
KOCH = Body(
    name="koch",
    title="a Koch v1.1",
    family=X,
    joints=_KOCH,
    servos={
        "shoulder_pan": (1, XL430_W250),
        "shoulder_lift": (2, XL430_W250),
        "elbow_flex": (3, XL330_M288),
        "wrist_flex": (4, XL330_M288),
        "wrist_roll": (5, XL330_M288),
        GRIPPER: (6, XL330_M288),
    },
    endless=frozenset({"shoulder_pan", "wrist_roll"}),
    rest=(0.0, -0.9, 1.2, 0.8, 0.0, 0.2),
    # LeRobot's: a range may lie across the end of a turn, and a gripper's strength is limited by its current.
    settings={
        None: {x.RETURN_DELAY: 0, x.MODE: x.EXTENDED},
        GRIPPER: {x.MODE: x.CURRENT_BASED},
    },
    gains={"elbow_flex": {x.P: 1500, x.I: 0, x.D: 600}},
    # Without load an XL430 turns at 6.4 rad/s (12 V), an XL330-M288 at 10.8 (5 V): a third of the slower one.
    profiles={"metal": Profile((2.0,) * 6, (10.0,) * 6, lead=0.2, margin=0.02)},
)

# The arm that leads one by hand: other servos, the elbow's the other way round. It is not driven.
KOCH_LEADER = replace(
    KOCH,
    name="koch_leader",
    title="a Koch v1.1's leader",
    servos={joint: (servo, XL330_M077) for joint, servo in KOCH.ids.items()},
    turned=frozenset({"elbow_flex"}),
    profiles={},
)

BODIES = {body.name: body for body in (SO101, KOCH, KOCH_LEADER)}
