"""Masters of other hands on emulated servos: what they say is understood, and what they hear is right.

Skipped where they are not installed: pip install feetech-servo-sdk dynamixel-sdk, and lerobot[feetech].
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from robot_io import calibration, dynamixel, feetech
from robot_io import registers as r
from robot_io.calibration import Joint
from robot_io.emulator import Emulator
from tests.robot_io.driving import IDS
from tests.runtime.peers import until


def test_feetechs_own_sdk(arm: Emulator) -> None:
    sdk = pytest.importorskip("scservo_sdk", reason="pip install feetech-servo-sdk")
    port, packets = sdk.PortHandler(arm.port), sdk.PacketHandler(0)
    assert port.openPort() and port.setBaudRate(1_000_000)
    try:
        model, result, error = packets.ping(port, 3)
        assert (model, result, error) == (r.STS3215, sdk.COMM_SUCCESS, 0)
        assert packets.write1ByteTxRx(port, 3, r.TORQUE.address, r.ON) == (sdk.COMM_SUCCESS, 0)
        here = packets.read2ByteTxRx(port, 3, r.POSITION.address)[0]
        assert here == arm.look()[3]["position"]
        read = sdk.GroupSyncRead(port, packets, r.POSITION.address, 2)
        assert all(read.addParam(servo) for servo in IDS)
        assert read.txRxPacket() == sdk.COMM_SUCCESS
        seen = arm.look()
        assert [read.getData(s, r.POSITION.address, 2) for s in IDS] == [seen[s]["position"] for s in IDS]
        write = sdk.GroupSyncWrite(port, packets, r.GOAL.address, 2)
        assert write.addParam(3, list((here - 30).to_bytes(2, "little")))
        assert write.txPacket() == sdk.COMM_SUCCESS
        until(lambda: abs(arm.look()[3]["position"] - (here - 30)) <= 1, "it does not get there")
    finally:
        port.closePort()


def test_lerobots_bus(arm: Emulator) -> None:
    pytest.importorskip("scservo_sdk", reason="pip install feetech-servo-sdk")
    lerobot = pytest.importorskip("lerobot.motors.feetech", reason="pip install lerobot")
    motors = pytest.importorskip("lerobot.motors.motors_bus")
    mine = calibration.read(arm.calibration)
    degrees = motors.MotorNormMode.DEGREES
    bus = lerobot.FeetechMotorsBus(
        arm.port,
        {joint: motors.Motor(m.id, "sts3215", degrees) for joint, m in mine.items()},
        {joint: motors.MotorCalibration(**vars(m)) for joint, m in mine.items()},
    )
    bus.connect()
    assert bus.is_calibrated
    with bus.torque_disabled():
        bus.configure_motors()
        for joint in mine:
            bus.write("P_Coefficient", joint, 16)
    here = bus.sync_read("Present_Position", normalize=False)
    assert list(here.values()) == [seen["position"] for seen in arm.look().values()]
    turned = bus.sync_read("Present_Position")
    for joint, motor in mine.items():
        if joint != calibration.GRIPPER:
            ours = Joint.of(joint, motor).angle(here[joint]) * 180 / 3.141592653589793
            assert turned[joint] == pytest.approx(ours, rel=3e-4, abs=1e-6)
    bus.sync_write("Goal_Position", {joint: at + 40 for joint, at in here.items()}, normalize=False)
    goals = {mine[joint].id: at + 40 for joint, at in here.items()}
    until(lambda: all(abs(arm.look()[s]["position"] - goals[s]) <= 1 for s in IDS), "it does not get there")
    bus.disconnect()
    assert {seen["torque"] for seen in arm.look().values()} == {r.OFF}


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def answering(master: int, answer: bytes, request: bytearray) -> Callable[[], None]:
    def serve() -> None:
        while not request.endswith(b"\x4e") and len(request) < 10:
            request.extend(os.read(master, 100))
        os.write(master, answer)

    return serve


def test_dynamixels_own_sdk(line: tuple[int, str]) -> None:
    """Its ping is ours byte for byte, and our answer, which has to be stuffed, is one to it."""
    sdk = pytest.importorskip("dynamixel_sdk", reason="pip install dynamixel-sdk")
    port, packets = sdk.PortHandler(line[1]), sdk.PacketHandler(2.0)
    assert port.openPort()
    answer = dynamixel.Packet(1, dynamixel.Instruction.STATUS, b"\xb0\x04\x2e", error=0)
    request = bytearray()
    thread = threading.Thread(target=answering(line[0], dynamixel.encode(answer), request))
    thread.start()
    try:
        assert packets.ping(port, 1) == (1200, sdk.COMM_SUCCESS, 0)
        assert bytes(request) == dynamixel.ping(1)
    finally:
        thread.join(10)
        port.closePort()


def test_both_checksums_are_the_sdks() -> None:
    sdk = pytest.importorskip("dynamixel_sdk", reason="pip install dynamixel-sdk")
    data = list(dynamixel.sync_read(IDS, 132, 4)[:-2])
    assert sdk.PacketHandler(2.0).updateCRC(0, data, len(data)) == dynamixel.crc(bytes(data))
    assert feetech.checksum(bytes((1, 4, 3, 40, 1))) == 0xCE
