"""The SO-101 arm as a robot's description: names, ranges and limits of every body it has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runtime.safety import shrunk
from vla.contract import ActionSpace, CameraSpec, Dimension, RobotSpec

# Joint -> range in rad, in the order of the chain.
JOINTS: dict[str, tuple[float, float]] = {
    "shoulder_pan": (-1.91986, 1.91986),
    "shoulder_lift": (-1.74533, 1.74533),
    "elbow_flex": (-1.69, 1.69),
    "wrist_flex": (-1.65806, 1.65806),
    "wrist_roll": (-2.74385, 2.84121),
    "gripper": (-0.17453, 1.74533),
}


@dataclass(frozen=True)
class Profile:
    """Limits that go together.

    Attributes:
        velocity, acceleration: by joint, rad/s and rad/s^2.
        lead: how far a command may run ahead of the measured pose, rad.
        margin: the part of each joint's range that is left out at both ends.
    """

    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    lead: float
    margin: float = 0.0


# Five arm joints, then the jaw. It weighs 12 g and is all of its own load: slower limits than these
# delay its closing behind the arm's motion, and grasps fail. The lead is a servo's following error at
# full speed, with some to spare.
SIMULATION = Profile((3.0,) * 5 + (4.5,), (20.0,) * 5 + (60.0,), lead=0.35)
# Where a real arm starts; a policy for it has to be trained under these.
METAL = Profile((2.0,) * 6, (10.0,) * 6, lead=0.2, margin=0.02)


def spec(cameras: Iterable[CameraSpec], name: str = "so101", profile: Profile = SIMULATION) -> RobotSpec:
    """The arm with these cameras; state and actions are the six joints in rad."""
    joints = tuple(JOINTS)
    space = ActionSpace(tuple(Dimension(j, "rad", *JOINTS[j]) for j in joints))
    return RobotSpec(
        name=name,
        state=joints,
        actions=shrunk(space, profile.margin),
        cameras=tuple(cameras),
        max_velocity=profile.velocity,
        max_acceleration=profile.acceleration,
        max_lead=(profile.lead,) * len(joints),
    )
