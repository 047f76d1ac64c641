"""The SO-101-like arm as MJCF, from the published frames, ranges, masses and servo constants.

Shapes are primitives of our own; frames, ranges, masses and centres of mass are the robot's, so
that a policy's joint angles mean the same in simulation and on metal.
"""

from __future__ import annotations

# Servo as a MuJoCo position actuator at the P gain LeRobot sets (16), per joint.
KP, KV, FORCE = 998.2, 2.731, 2.94
DAMPING, FRICTION, ARMATURE = 0.60, 0.052, 0.028

# Geom groups: 0 is drawn, 3 is not. Contact bits: 1 the arm and the table, 2 the things on it.
_BODY = 'contype="1" conaffinity="2" rgba=".93 .78 .30 1"'
_DARK = 'contype="1" conaffinity="2" rgba=".16 .16 .18 1"'
_SHOW = 'contype="0" conaffinity="0" rgba=".16 .16 .18 1"'
# Finger pads: high friction, torsional friction, soft enough to hold a cube that is not aligned.
_PAD = 'contype="1" conaffinity="2" condim="4" friction="1.5 .02 .001" solref=".008 1" rgba=".25 .25 .28 1"'


def joint(name: str, lower: float, upper: float) -> str:
    return (
        f'<joint name="{name}" type="hinge" axis="0 0 1" range="{lower} {upper}" '
        f'damping="{DAMPING}" frictionloss="{FRICTION}" armature="{ARMATURE}"/>'
    )


def inertial(mass: float, com: str, size: float = 0.03) -> str:
    """A solid ball's inertia of radius `size` m: the published masses come without tensors here."""
    i = 0.4 * mass * size**2
    return f'<inertial mass="{mass}" pos="{com}" diaginertia="{i:.3e} {i:.3e} {i:.3e}"/>'


ARM = f"""
<body name="base" pos="0 0 0">
  {inertial(0.147, ".0137 0 .0335")}
  <geom type="box" size=".045 .032 .012" pos="0 0 .012" {_DARK}/>
  <geom type="cylinder" size=".03 .02" pos=".02 0 .035" {_BODY}/>
  <body name="shoulder" pos=".03884 0 .0624" quat="0 0 -1 0">
    {inertial(0.100, "-.0308 0 -.0253")}
    {joint("shoulder_pan", -1.91986, 1.91986)}
    <geom type="cylinder" size=".026 .02" pos="0 0 -.015" {_BODY}/>
    <geom type="box" size=".018 .02 .022" pos="-.0304 0 -.05" {_DARK}/>
    <body name="upper_arm" pos="-.03040 -.01828 -.0542" quat="1 -1 -1 -1">
      {inertial(0.103, "-.0898 -.0084 .0184")}
      {joint("shoulder_lift", -1.74533, 1.74533)}
      <geom type="capsule" size=".017" fromto="0 0 .018 -.11257 -.002 .018" {_BODY}/>
      <geom type="capsule" size=".015" fromto="-.11257 -.002 .018 -.11257 -.028 .018" {_DARK}/>
      <body name="lower_arm" pos="-.11257 -.028 0" quat="1 0 0 1">
        {inertial(0.104, "-.0981 .0032 .0183")}
        {joint("elbow_flex", -1.69, 1.69)}
        <geom type="capsule" size=".015" fromto="0 0 .018 -.1349 .0052 .018" {_BODY}/>
        <body name="wrist" pos="-.1349 .0052 0" quat="1 0 0 -1">
          {inertial(0.079, "-.0001 -.0386 .0281")}
          {joint("wrist_flex", -1.65806, 1.65806)}
          <geom type="capsule" size=".014" fromto="0 -.005 .018 0 -.045 .018" {_DARK}/>
          <body name="gripper" pos="0 -.0611 .0181" quat=".01721 -.01721 .70690 .70690">
            {inertial(0.087, ".0002 .0002 -.0252")}
            {joint("wrist_roll", -2.74385, 2.84121)}
            <geom type="box" size=".018 .014 .012" pos=".006 0 -.012" {_BODY}/>
            <geom name="fixed_jaw" type="box" size=".004 .010 .022" pos="-.0120 0 -.044" {_BODY}/>
            <geom name="fixed_pad" type="box" size=".003 .009 .019" pos="-.0110 0 -.084" {_PAD}/>
            <geom type="box" size=".008 .022 .003" pos="0 .034 -.030" euler="-.57 0 0" {_SHOW}/>
            <geom type="box" size=".012 .010 .005" pos="0 .055 -.038" euler="-.57 0 0" {_SHOW}/>
            <site name="tool" pos=".012 0 -.098" size=".003" rgba="1 0 0 0"/>
            <site name="tip" pos="-.006 0 -.103" size=".003" rgba="1 0 0 0"/>
            <camera name="wrist" pos="0 .055 -.045" euler="-.57 0 0" fovy="62"/>
            <body name="moving_jaw" pos=".0202 .0188 -.0234" quat="1 1 0 0">
              {inertial(0.012, "-.0016 -.0300 .0193", 0.015)}
              {joint("gripper", -0.17453, 1.74533)}
              <geom name="moving_jaw" type="box" size=".004 .022 .010" pos="-.002 -.022 .019" {_BODY}/>
              <geom name="moving_pad" type="box" size=".003 .019 .009" pos="-.0075 -.061 .019"
                    euler="0 0 -.10" {_PAD}/>
            </body>
          </body>
        </body>
      </body>
    </body>
  </body>
</body>
"""

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")

ACTUATORS = "\n".join(
    f'<position name="{name}" joint="{name}" kp="{KP}" kv="{KV}" forcerange="-{FORCE} {FORCE}" '
    f'inheritrange="1"/>'
    for name in JOINTS
)
