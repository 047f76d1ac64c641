"""The closed form against MuJoCo, its inverse against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import so101
from sim.gl import mujoco
from sim.tabletop import kinematics, motion, places, scene, tasks
from sim.tabletop.arm import JOINTS

LAW = settings(deadline=None, max_examples=150, derandomize=True)

joints = st.tuples(*(st.floats(lower, upper) for lower, upper in list(so101.JOINTS.values())[:4])).map(
    np.array
)
# Where things stand and the hand goes: around the pan axis [m, rad, m].
spots = st.tuples(st.floats(*places.RHO), st.floats(-places.SWEEP, places.SWEEP), st.floats(0.012, 0.10))


@pytest.fixture(scope="module")
def arm() -> Any:
    return scene.compile_model()


@pytest.fixture(scope="module")
def forward(arm: Any) -> Any:
    """The tool point [m] and the approach direction by MuJoCo, from four joint angles."""
    data = mujoco.MjData(arm)
    where = [arm.joint(name).qposadr[0] for name in JOINTS]

    def run(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        data.qpos[where] = [*q, 0.0, 0.5]
        mujoco.mj_kinematics(arm, data)
        # The hand points along its own -z.
        return data.site("tool").xpos.copy(), -data.body("gripper").xmat.reshape(3, 3)[:, 2]

    return run


@LAW
@given(q=joints)
def test_the_closed_form_is_mujocos(forward: Any, q: np.ndarray) -> None:
    point, pitch = kinematics.tool(q)
    there, direction = forward(q)
    np.testing.assert_allclose(point, there, atol=1e-4)
    np.testing.assert_allclose(-np.sin(pitch), direction[2], atol=1e-3)


def test_the_zero_pose_is_the_published_one(arm: Any) -> None:
    """Stretched forwards and level. Published: the point on the hand's axis, 98 mm from its frame."""
    data = mujoco.MjData(arm)
    mujoco.mj_kinematics(arm, data)
    hand = data.body("gripper")
    point = hand.xpos + hand.xmat.reshape(3, 3) @ (0.0, 0.0, -0.098)
    np.testing.assert_allclose(point, (0.391, 0.0, 0.234), atol=1e-3)
    # The tool point lies between the jaws, 12 mm above that axis.
    tool, pitch = kinematics.tool(np.zeros(4))
    np.testing.assert_allclose(tool, point + (0.0, 0.0, 0.012), atol=1e-3)
    assert pitch == 0.0


@LAW
@given(q=joints, roll=st.floats(-2.0, 2.0))
def test_more_joints_than_four_change_nothing(q: np.ndarray, roll: float) -> None:
    np.testing.assert_array_equal(kinematics.tool(np.array([*q, 0.3, roll]))[0], kinematics.tool(q)[0])


@LAW
@given(spots, st.floats(0.6, np.pi / 2))
def test_solving_and_going_there_arrives(place: tuple[float, float, float], pitch: float) -> None:
    point = kinematics.cartesian(np.array(place))
    q = kinematics.solve(point, pitch)
    if q is None:
        return
    arrived, tilt = kinematics.tool(q)
    np.testing.assert_allclose(arrived, point, atol=1e-9)
    assert abs(tilt - pitch) <= 0.7 + 1e-9
    assert (q >= kinematics.LOWER).all()
    assert (q <= kinematics.UPPER).all()
    assert q.shape == (4,)


@LAW
@given(spots)
def test_the_whole_workspace_can_be_reached_as_the_expert_does(place: tuple[float, float, float]) -> None:
    point = kinematics.cartesian(np.array(place))
    q = kinematics.solve(point, motion.pitch(place[2]))
    assert q is not None
    np.testing.assert_allclose(kinematics.tool(q)[0], point, atol=1e-9)


@LAW
@given(q=joints)
def test_solve_undoes_tool(q: np.ndarray) -> None:
    """From any pose with the elbow up and the hand before the base: the same pose comes back."""
    point, pitch = kinematics.tool(q)
    rho, angle, _ = kinematics.cylindrical(point)
    # Past a straight arm the elbow is down, and the solver takes the other branch.
    bend = q[2] + kinematics._A1 - kinematics._A2
    radial = (point[0] - kinematics.PAN_X) * np.cos(q[0]) - point[1] * np.sin(q[0])
    if bend < 0.01 or radial < 0.01:
        return
    back = kinematics.solve(point, pitch)
    assert back is not None
    np.testing.assert_allclose(back, q, atol=1e-5)
    assert rho > 0
    assert abs(angle + q[0]) < 0.2 or abs(angle) > 1.5


@pytest.mark.parametrize("point", [(2.0, 0.0, 0.1), (0.2, 0.0, 1.0), (kinematics.PAN_X, 0.0, -0.5)])
def test_out_of_reach_is_none(point: tuple[float, float, float]) -> None:
    assert kinematics.solve(np.array(point), 1.2) is None


@LAW
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_cylindrical_and_cartesian_are_inverses(x: float, y: float, z: float) -> None:
    point = np.array([x, y, z])
    around = kinematics.cylindrical(point)
    assert around[0] >= 0
    np.testing.assert_allclose(kinematics.cartesian(around), point, atol=1e-12)


@LAW
@given(st.floats(1e-3, 1), st.floats(-3.1, 3.1), st.floats(-1, 1))
def test_cartesian_and_cylindrical_are_inverses(rho: float, angle: float, z: float) -> None:
    around = np.array([rho, angle, z])
    np.testing.assert_allclose(kinematics.cylindrical(kinematics.cartesian(around)), around, atol=1e-9)


def test_the_arms_ranges_are_the_robots(arm: Any) -> None:
    assert tuple(so101.JOINTS) == JOINTS
    for name, limits in so101.JOINTS.items():
        np.testing.assert_allclose(arm.joint(name).range, limits)
        np.testing.assert_allclose(arm.actuator(name).ctrlrange, limits)
    first = np.array(list(so101.JOINTS.values())[:4])
    np.testing.assert_allclose(kinematics.LOWER, first[:, 0])
    np.testing.assert_allclose(kinematics.UPPER, first[:, 1])
    np.testing.assert_array_less(so101.spec(()).actions.lower, tasks.HOME)
    np.testing.assert_array_less(tasks.HOME, so101.spec(()).actions.upper)
