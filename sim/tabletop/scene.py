"""The tabletop as MJCF: the arm, things and bowls of primitive geoms, painted zones, lights and cameras.

One model is compiled for all episodes; colours, poses, lights and which things are on the table
change at reset. Things that are not in a scene wait out of sight, without weight or contact.
"""

from __future__ import annotations

import numpy as np

from sim.gl import mujoco
from sim.tabletop import arm
from sim.tabletop.meaning import SHAPES

EACH, BOWLS, ZONES = 3, 2, 2  # at most this many of each shape, bowls and zones in a scene
SLOTS = (*(f"{shape}{i}" for shape in SHAPES for i in range(EACH)), *(f"bowl{i}" for i in range(BOWLS)))
CUBE_HALF = 0.015  # [m]
CYLINDER_RADIUS, CYLINDER_HALF = 0.0155, 0.019  # [m]
BALL_RADIUS = 0.0175  # [m]
BOWL_INNER, BOWL_RIM = 0.042, 0.030  # inner radius, height of the rim [m]
ZONE_HALF = 0.040  # [m]
HALF = {"cube": CUBE_HALF, "cylinder": CYLINDER_HALF, "ball": BALL_RADIUS, "bowl": 0.0}  # rests this high [m]
TIMESTEP = 1 / 240  # [s]; 8 steps a tick at 30 Hz, 24 a row of a chunk

_GEOM = {
    "cube": f'type="box" size="{CUBE_HALF} {CUBE_HALF} {CUBE_HALF}" condim="4"',
    "cylinder": f'type="cylinder" size="{CYLINDER_RADIUS} {CYLINDER_HALF}" condim="6"',
    # Rolling friction: a ball that was nudged, or a cylinder that spins on its rim, comes to rest.
    "ball": f'type="sphere" size="{BALL_RADIUS}" condim="6"',
}
_ROLLING = {"cube": 0.001, "cylinder": 0.002, "ball": 0.004}


def _thing(kind: str, i: int) -> str:
    return f"""
    <body name="{kind}{i}" pos="{2 + i} {SHAPES.index(kind)} .1" gravcomp="1"><freejoint name="{kind}{i}"/>
      <geom name="{kind}{i}" {_GEOM[kind]} mass=".020" contype="2" conaffinity="3"
            friction=".7 .02 {_ROLLING[kind]}" solref=".008 1"/>
    </body>"""


def _zone(i: int) -> str:
    return f"""
    <body name="zone{i}" pos="{2 + i} 5 0">
      <geom name="zone{i}" type="box" size="{ZONE_HALF} {ZONE_HALF} .0004" contype="0" conaffinity="0"/>
    </body>"""


def _bowl(i: int, sides: int = 12) -> str:
    """A flat-bottomed bowl: a disc and a ring of boxes that lean outwards."""
    ring = []
    for k in range(sides):
        a = 2 * np.pi * k / sides
        r = BOWL_INNER + 0.002
        half = r * np.tan(np.pi / sides) + 0.0015
        ring.append(
            f'<geom name="bowl{i}_{k}" type="box" size=".002 {half:.4f} {BOWL_RIM / 2}" '
            f'pos="{r * np.cos(a):.5f} {r * np.sin(a):.5f} {BOWL_RIM / 2}" '
            f'quat="{_lean(a)}" mass=".008" contype="2" conaffinity="3"/>'
        )
    return f"""
    <body name="bowl{i}" pos="{2 + i} 4 .1" gravcomp="1"><freejoint name="bowl{i}"/>
      <geom name="bowl{i}_floor" type="cylinder" size="{BOWL_INNER} .0015" pos="0 0 .0015" mass=".10"
            contype="2" conaffinity="3" friction="1.0 .02 .001"/>
      {"".join(ring)}
    </body>"""


def _lean(angle: float, lean: float = 0.12) -> str:
    """Quaternion of a wall segment: turned to `angle` about z, then leaning outwards by `lean` rad."""
    z = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
    y = np.array([np.cos(lean / 2), 0, np.sin(lean / 2), 0])
    q = np.empty(4)
    mujoco.mju_mulQuat(q, z, y)
    return " ".join(f"{v:.5f}" for v in q)


def mjcf() -> str:
    """The whole scene as MJCF text."""
    things = "".join(_thing(kind, i) for kind in SHAPES for i in range(EACH))
    things += "".join(_bowl(i) for i in range(BOWLS)) + "".join(_zone(i) for i in range(ZONES))
    return f"""
<mujoco model="takt tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10">
    <flag sleep="enable"/>
  </option>
  <visual>
    <global offwidth="960" offheight="720"/>
    <quality offsamples="0" shadowsize="2048"/>
    <headlight ambient=".25 .25 .25" diffuse=".2 .2 .2" specular="0 0 0"/>
  </visual>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1=".93 .95 .97" rgb2=".55 .62 .70" width="64" height="384"/>
    <material name="table" specular=".1" shininess=".1" reflectance="0" rgba=".76 .70 .62 1"/>
  </asset>
  <worldbody>
    <light name="key" pos=".5 .4 1.0" dir="-.3 -.4 -1" diffuse=".6 .6 .6" specular=".1 .1 .1"/>
    <light name="fill" pos="-.1 -.6 .9" dir=".3 .6 -.9" diffuse=".25 .25 .25" specular="0 0 0"
           castshadow="false"/>
    <geom name="table" type="plane" size=".75 .75 .1" material="table" contype="1" conaffinity="2"
          friction=".7 .02 .001"/>
    <camera name="front" pos=".60 0 .40" xyaxes="0 1 0 -.6985 0 .7156" fovy="40"/>
    <camera name="view" pos=".52 -.42 .36" xyaxes=".70 .714 0 -.375 .368 .851" fovy="38"/>
    {arm.ARM}
    {things}
  </worldbody>
  <actuator>{arm.ACTUATORS}</actuator>
</mujoco>"""


def compile_model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(mjcf())
