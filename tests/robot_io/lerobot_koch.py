"""LeRobot's Dynamixel bus on a line: what it finds, how it calibrates, and where it moves; run by its Python.

python lerobot_koch.py PORT CALIBRATION OUT.json
"""

import json
import sys
import time

from lerobot.motors.dynamixel import DynamixelMotorsBus, OperatingMode
from lerobot.motors.motors_bus import Motor, MotorCalibration, MotorNormMode

port, file, out = sys.argv[1:]
with open(file) as opened:
    rows = {joint: MotorCalibration(**row) for joint, row in json.load(opened).items()}
kinds = dict.fromkeys(rows, "xl330-m288") | {"shoulder_pan": "xl430-w250", "shoulder_lift": "xl430-w250"}
bus = DynamixelMotorsBus(
    port, {j: Motor(row.id, kinds[j], MotorNormMode.DEGREES) for j, row in rows.items()}, dict(rows)
)
bus.connect()
told = {"calibrated": bus.is_calibrated}
with bus.torque_disabled():
    bus.configure_motors()
    for joint in rows:
        mode = OperatingMode.CURRENT_POSITION if joint == "gripper" else OperatingMode.EXTENDED_POSITION
        bus.write("Operating_Mode", joint, mode.value)
told["stood"] = {joint: bus.read("Present_Position", joint, normalize=False) for joint in rows}
told["raw"] = bus.sync_read("Present_Position", normalize=False)
told["degrees"] = bus.sync_read("Present_Position")
bus.disable_torque()
told["offsets"] = bus.set_half_turn_homings()
told["halfway"] = bus.sync_read("Present_Position", normalize=False)
bus.write_calibration(rows)
bus.enable_torque()
goals = {joint: at + 40 for joint, at in told["raw"].items()}
bus.sync_write("Goal_Position", goals, normalize=False)
end = time.monotonic() + 20
while time.monotonic() < end:
    told["moved"] = bus.sync_read("Present_Position", normalize=False)
    if all(abs(told["moved"][joint] - goal) <= 1 for joint, goal in goals.items()):
        break
bus.disconnect()
with open(out, "w") as opened:
    json.dump(told, opened)
