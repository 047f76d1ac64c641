"""Masters of other hands on emulated servos: what they say is understood, and what they hear is right.

Dynamixel's SDK comes with the extra `dev`. The others are skipped where they are not installed: pip install
feetech-servo-sdk and lerobot[feetech]; LeRobot's Dynamixel bus runs in the Python of `make parity`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robot_io import calibration, dynamixel, feetech
from robot_io import registers as r
from robot_io import xseries as x
from robot_io.bodies import KOCH
from robot_io.calibration import Joint
from robot_io.emulator import Emulator
from robot_io.xseries import X
from tests.parity.conftest import PYTHON
from tests.robot_io.conftest import Shared
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
def koch(shared: dict[str, Shared]) -> Iterator[Emulator]:
    yield shared["koch"].get()
    shared["koch"].put_back()


@pytest.fixture
def port(koch: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    sdk = pytest.importorskip("dynamixel_sdk", reason="pip install dynamixel-sdk")
    monkeypatch.setattr("dynamixel_sdk.port_handler.LATENCY_TIMER", 500)  # ms; a busy machine may take some
    opened = sdk.PortHandler(koch.port)
    assert opened.openPort() and opened.setBaudRate(1_000_000)
    yield opened
    opened.closePort()


def test_dynamixels_own_sdk_reads_and_writes(koch: Emulator, port: Any) -> None:
    import dynamixel_sdk as sdk

    packets = sdk.PacketHandler(2.0)
    models = {servo: KOCH.model(joint).number for joint, servo in KOCH.ids.items()}
    assert {s: packets.ping(port, s)[0] for s in IDS} == models
    found, result = packets.broadcastPing(port)
    assert result == sdk.COMM_SUCCESS and {s: said[0] for s, said in found.items()} == models
    assert packets.write1ByteTxRx(port, 3, x.TORQUE.address, 1) == (sdk.COMM_SUCCESS, 0)
    here = packets.read4ByteTxRx(port, 3, x.POSITION.address)[0]
    assert here == koch.look()[3]["position"]
    write = sdk.GroupSyncWrite(port, packets, x.GOAL.address, 4)
    assert write.addParam(3, list((here - 30).to_bytes(4, "little")))
    assert write.txPacket() == sdk.COMM_SUCCESS
    until(lambda: abs(koch.look()[3]["position"] - (here - 30)) <= 1, "it does not get there")
    assert packets.regWriteTxRx(port, 3, x.GOAL.address, 4, list(here.to_bytes(4, "little")))[0] == 0
    assert koch.look()[3]["goal"] == here - 30
    assert packets.action(port, 3) in (sdk.COMM_SUCCESS, sdk.COMM_RX_TIMEOUT)  # some versions wait for none
    until(lambda: abs(koch.look()[3]["position"] - here) <= 1, "it does not get there")


@pytest.mark.parametrize("fast", [False, True])
def test_dynamixels_own_sdk_reads_all_at_once(koch: Emulator, port: Any, fast: bool) -> None:
    import dynamixel_sdk as sdk

    read = sdk.GroupSyncRead(port, sdk.PacketHandler(2.0), *X.feedback)
    assert all(read.addParam(servo) for servo in IDS)
    assert (read.fastSyncRead if fast else read.txRxPacket)() == sdk.COMM_SUCCESS
    seen = koch.look()
    for register in (x.POSITION, x.VOLTAGE, x.TEMPERATURE):
        said = [read.getData(s, register.address, register.size) for s in IDS]
        assert said == [seen[s][register.name] for s in IDS]


def test_dynamixels_own_sdk_understands_what_is_refused(koch: Emulator, port: Any) -> None:
    import dynamixel_sdk as sdk

    packets = sdk.PacketHandler(2.0)
    torque, mode, goal = x.TORQUE.address, x.MODE.address, x.GOAL.address
    assert packets.write1ByteTxRx(port, 2, torque, 1) == (sdk.COMM_SUCCESS, 0)
    assert packets.write1ByteTxRx(port, 2, mode, 3) == (sdk.COMM_SUCCESS, sdk.ERRNUM_ACCESS)
    assert packets.write1ByteTxRx(port, 2, torque, 0) == (sdk.COMM_SUCCESS, 0)
    assert packets.write1ByteTxRx(port, 2, mode, 3) == (sdk.COMM_SUCCESS, 0)
    assert packets.write4ByteTxRx(port, 2, goal, 4095) == (sdk.COMM_SUCCESS, sdk.ERRNUM_DATA_LIMIT)
    assert packets.write4ByteTxRx(port, 3, goal, 9 << 20) == (sdk.COMM_SUCCESS, sdk.ERRNUM_DATA_RANGE)
    koch.fail(errors={2: 0x20})
    said = packets.read1ByteTxRx(port, 2, x.HARDWARE_ERROR.address)
    assert said == (0x20, sdk.COMM_SUCCESS, sdk.ERRBIT_ALERT)
    packets.write1ByteTxRx(port, 3, torque, 1)
    assert packets.reboot(port, 3) == (sdk.COMM_SUCCESS, 0)
    assert koch.look()[3]["torque"] == 0


@pytest.mark.slow
def test_lerobots_dynamixel_bus_calibrates_and_moves(koch: Emulator, tmp_path: Path) -> None:
    if not PYTHON.is_file():
        pytest.skip("make parity")
    said = tmp_path / "said.json"
    script = Path(__file__).with_name("lerobot_koch.py")
    done = subprocess.run(
        [PYTHON, script, koch.port, koch.calibration, said], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(said.read_text())
    mine = calibration.read(koch.calibration, KOCH)
    assert told["calibrated"]
    for joint, motor in mine.items():
        assert told["raw"][joint] == told["stood"][joint]
        if joint != calibration.GRIPPER:
            ours = math.degrees(Joint.of(joint, motor, KOCH).angle(told["raw"][joint]))
            assert told["degrees"][joint] == pytest.approx(ours, rel=3e-4, abs=1e-6)
        # Its homing brings every joint to 2047 where it stands, and ours puts it there by the same offset.
        assert told["halfway"][joint] == 2047
        offset = (2047 - told["raw"][joint]) + motor.homing_offset
        assert told["offsets"][joint] == offset
        assert told["moved"][joint] == pytest.approx(told["raw"][joint] + 40, abs=2)
    seen = koch.look()
    assert {each["torque"] for each in seen.values()} == {0}
    for joint, motor in mine.items():
        for register, value in calibration.settings(joint, motor, KOCH).items():
            assert seen[motor.id][register.name] == value


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
