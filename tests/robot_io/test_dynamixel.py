"""Dynamixel packets: worked bytes, laws, and a million streams of noise."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robot_io import dynamixel
from robot_io.dynamixel import BROADCAST, Decoder, Ear, Instruction, Packet, Wire
from tests.robot_io.noise import COUNTS, streams

# Bytes in which what has to be stuffed is common.
stuffy = st.lists(st.sampled_from([0xFF, 0xFF, 0xFD, 0x00, 0x55]), max_size=40).map(bytes)
data = stuffy | st.binary(max_size=200)
instructions = st.builds(
    Packet,
    st.integers(0, BROADCAST),
    st.sampled_from([i for i in Instruction if i != Instruction.STATUS]),
    data,
)
answers = st.builds(
    Packet, st.integers(0, BROADCAST - 1), st.just(Instruction.STATUS), data, error=st.integers(0, 255)
)
packets = instructions | answers
# What six servos say to a sync read, with much that looks like a header in it.
rounds = st.integers(1, 21).flatmap(
    lambda count: st.lists(
        st.builds(
            Packet,
            st.integers(0, 252),
            st.just(Instruction.STATUS),
            st.lists(st.sampled_from([0xFF, 0xFD, 0x00]), min_size=count, max_size=count).map(bytes),
            error=st.sampled_from([0, 128]),
        ),
        min_size=1,
        max_size=6,
    )
)


def test_worked_packets_byte_for_byte() -> None:
    assert dynamixel.ping(1).hex(" ") == "ff ff fd 00 01 03 00 01 19 4e"
    assert dynamixel.write(1, 64, b"\x01").hex(" ") == "ff ff fd 00 01 06 00 03 40 00 01 db 66"
    assert dynamixel.sync_read(range(1, 7), 132, 4).hex(" ") == (
        "ff ff fd 00 fe 0d 00 82 84 00 04 00 01 02 03 04 05 06 b2 9b"
    )


def test_stuffing_keeps_headers_out_of_a_packet() -> None:
    line = dynamixel.write(1, 116, b"\xff\xff\xfd\x00")
    assert line.hex(" ").startswith("ff ff fd 00 01 0a 00 03 74 00 ff ff fd fd 00")
    assert line.count(b"\xff\xff\xfd\x00") == 1


@given(st.lists(packets, max_size=5), st.integers(1, 9))
def test_what_is_encoded_is_decoded_however_it_is_cut(sent: list[Packet], size: int) -> None:
    line = b"".join(map(dynamixel.encode, sent))
    decoder = Decoder()
    found = [p for i in range(0, len(line), size) for p in decoder.feed(line[i : i + size])]
    assert found == sent
    assert (decoder.skipped, decoder.broken) == (0, 0)


@given(packets)
def test_no_packet_holds_a_second_header(packet: Packet) -> None:
    assume(packet.id != 0xFF)
    assert dynamixel.encode(packet).count(b"\xff\xff\xfd\x00") == 1


@given(packets, st.data())
def test_one_changed_byte_is_never_accepted(packet: Packet, draw: st.DataObject) -> None:
    line = bytearray(dynamixel.encode(packet))
    at = draw.draw(st.integers(7, len(line) - 1))  # behind the length
    line[at] ^= draw.draw(st.integers(1, 255))
    assert Decoder().feed(bytes(line)) == []


@pytest.mark.parametrize("count", COUNTS)
def test_noise_is_never_an_exception_nor_a_bad_packet(count: int) -> None:
    chance = random.Random(2)
    sample = dynamixel.encode(Packet(2, Instruction.STATUS, b"\xff\xff\xfd\x02", error=128))
    for stream in streams(chance, count, sample, b"\xff\xff\xfd\x00"):
        decoder, whole = Decoder(64), b"".join(stream)
        for packet in (p for piece in stream for p in decoder.feed(piece)):
            # Whatever is accepted stood in the stream. Noise with a right CRC may be stuffed otherwise.
            assert dynamixel.encode(packet) in whole or packet.data in whole.replace(
                b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"
            )
            assert packet.id <= BROADCAST
        assert decoder.skipped <= len(whole)


def test_shares_of_one_answer_to_all() -> None:
    rows = [(3, b"abcd", 0), (4, b"efgh", 128)]
    body = b"".join(bytes((error, servo)) + values + b"\x00\x00" for servo, values, error in rows)[:-2]
    answer = Packet(BROADCAST, Instruction.STATUS, body[1:], body[0])
    assert dynamixel.shares(answer, 4) == [Packet(i, Instruction.STATUS, v, e) for i, v, e in rows]
    assert dynamixel.shares(answer, 5) is None


@settings(max_examples=40)
@given(rounds, st.integers(1, 40))
def test_what_several_say_in_one_packet_is_what_each_would_have_said(said: list[Packet], size: int) -> None:
    count = len(said[0].data)
    line = b"".join(dynamixel.joined(said, len(said), count))
    ear = Ear(count, len(said))
    found = [p for i in range(0, len(line), size) for p in ear.hear(line[i : i + size])]
    assert found == said
    assert ear.skipped == ear.broken == 0
    apart = Ear(count, len(said))
    assert [p for each in said for p in apart.hear(dynamixel.encode(each))] == said


@settings(max_examples=20)
@given(rounds)
def test_of_a_joint_answer_that_ends_early_nothing_is_taken(said: list[Packet]) -> None:
    count = len(said[0].data)
    parts = dynamixel.joined(said[:-1], len(said), count)
    assert Ear(count, len(said)).hear(b"".join(parts)) == []


def test_an_answer_of_another_length_is_none() -> None:
    assert Ear(2, 1).hear(dynamixel.encode(Packet(1, Instruction.STATUS, b"abc"))) == []
    assert Ear(3, 1).hear(dynamixel.encode(Packet(1, Instruction.READ, b"abc"))) == []


def test_a_wire_that_never_gets_a_fast_answer_whole_asks_no_more_for_one() -> None:
    def asked(wire: Wire, again: bool = False) -> int:
        return Decoder().feed(wire.ask((1, 2), 126, 21, again))[0].code

    wire = Wire()
    for missing in (2, 0, 2, 1, 2):
        assert asked(wire) == Instruction.FAST_SYNC_READ
        wire.fared(missing)
        assert asked(wire, again=True) == Instruction.SYNC_READ
        wire.fared(0)
    assert asked(wire) == Instruction.SYNC_READ
    single = Wire().ask((3,), 70, 1)
    assert Decoder().feed(single)[0].code == Instruction.SYNC_READ  # there is nothing to be saved


def test_six_servos_feedback_takes_what_the_documents_say() -> None:
    request = len(Wire().ask(range(1, 7), 126, 21))
    one = dynamixel.encode(Packet(1, Instruction.STATUS, bytes(21)))
    together = sum(map(len, dynamixel.joined([Packet(1, Instruction.STATUS, bytes(21))] * 6, 6, 21)))
    assert (request, request + together, request + 6 * len(one)) == (20, 178, 212)


def test_an_instruction_to_several_is_one_to_each() -> None:
    (request,) = Decoder().feed(dynamixel.sync_write(116, {1: b"abcd", 5: b"efgh"}))
    assert dynamixel.split(request) == [
        Packet(1, Instruction.WRITE, b"\x74\x00abcd"),
        Packet(5, Instruction.WRITE, b"\x74\x00efgh"),
    ]
    (request,) = Decoder().feed(dynamixel.sync_read((1, 5), 132, 4))
    assert [p.id for p in dynamixel.split(request)] == [1, 5]
    assert dynamixel.split(Packet(1, Instruction.READ, b"\x00")) == []


def test_errors_have_words() -> None:
    assert dynamixel.told(0) == ""
    assert dynamixel.told(0x87) == "hardware alert, access"
    assert dynamixel.told(0x19) == "error 0x19"
    assert dynamixel.hardware(0x24) == "overheat, overload"
    assert dynamixel.hardware(0x80) == "hardware alert" and dynamixel.hardware(0) == ""


@pytest.mark.parametrize("packet", [Packet(255, 1), Packet(1, 1, bytes(2000)), Packet(1, 1, error=1)])
def test_what_no_packet_can_say_is_refused(packet: Packet) -> None:
    with pytest.raises(ValueError):
        dynamixel.encode(packet)
