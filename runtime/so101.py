"""The SO-101 arm as a robot's description: names, ranges and limits of every body it has."""

from __future__ import annotations

from collections.abc import Iterable

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
# Five arm joints, then the jaw. It weighs 12 g and is all of its own load: slower limits than these
# delay its closing behind the arm's motion, and grasps fail.
MAX_VELOCITY = (3.0,) * 5 + (4.5,)  # rad/s
MAX_ACCELERATION = (20.0,) * 5 + (60.0,)  # rad/s^2
MAX_LEAD = 0.35  # rad; a servo's following error at full speed, with some to spare


def spec(cameras: Iterable[CameraSpec], name: str = "so101") -> RobotSpec:
    """The arm with these cameras; state and actions are the six joints in rad."""
    joints = tuple(JOINTS)
    return RobotSpec(
        name=name,
        state=joints,
        actions=ActionSpace(tuple(Dimension(j, "rad", *JOINTS[j]) for j in joints)),
        cameras=tuple(cameras),
        max_velocity=MAX_VELOCITY,
        max_acceleration=MAX_ACCELERATION,
        max_lead=(MAX_LEAD,) * len(joints),
    )
