"""Feetech packets: worked bytes, laws, and a million streams of noise."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_io import feetech
from robot_io.feetech import BROADCAST, Decoder, Instruction, Packet
from tests.robot_io.noise import COUNTS, streams

packets = st.builds(Packet, st.integers(0, BROADCAST), st.integers(0, 255), st.binary(max_size=253))


def test_worked_packets_byte_for_byte() -> None:
    assert feetech.write(1, 40, b"\x01").hex(" ") == "ff ff 01 04 03 28 01 ce"
    assert feetech.sync_read(range(1, 7), 56, 2).hex(" ") == "ff ff fe 0a 82 38 02 01 02 03 04 05 06 26"
    goals = {i: (1000 + i).to_bytes(2, "little") for i in range(1, 7)}
    assert feetech.sync_write(42, goals).hex(" ") == (
        "ff ff fe 16 83 2a 02 01 e9 03 02 ea 03 03 eb 03 04 ec 03 05 ed 03 06 ee 03 90"
    )


def test_every_instruction_reads_back_as_what_was_asked() -> None:
    asked = {
        feetech.ping(3): Packet(3, Instruction.PING),
        feetech.read(3, 56, 15): Packet(3, Instruction.READ, bytes((56, 15))),
        feetech.reg_write(3, 42, b"\x00\x08"): Packet(3, Instruction.REG_WRITE, b"\x2a\x00\x08"),
        feetech.action(): Packet(BROADCAST, Instruction.ACTION),
    }
    for line, packet in asked.items():
        assert Decoder().feed(line) == [packet]


@given(st.lists(packets, max_size=5), st.integers(1, 9))
def test_what_is_encoded_is_decoded_however_it_is_cut(sent: list[Packet], size: int) -> None:
    line = b"".join(map(feetech.encode, sent))
    decoder = Decoder()
    found = [p for i in range(0, len(line), size) for p in decoder.feed(line[i : i + size])]
    assert found == sent
    assert (decoder.skipped, decoder.broken) == (0, 0)


@given(packets, st.binary(max_size=40))
def test_a_packet_behind_noise_of_another_length_is_found(packet: Packet, noise: bytes) -> None:
    """Noise may hold a packet by chance, or swallow the first bytes; a second copy is found in any case."""
    line = feetech.encode(packet)
    found = Decoder(len(packet.data)).feed(noise + line + line + bytes(len(line)))
    assert packet in found


@given(packets, st.data())
def test_one_changed_byte_is_never_accepted_as_a_packet_of_that_length(
    packet: Packet, data: st.DataObject
) -> None:
    line = bytearray(feetech.encode(packet))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    found = Decoder(len(packet.data)).feed(bytes(line))
    # One that starts later in the line is shorter than it is; with the length known, it cannot be whole.
    assert found == []


@pytest.mark.parametrize("expected", [None, 0, 2, 15])
def test_a_whole_packet_inside_a_broken_one_is_found(expected: int | None) -> None:
    inner = feetech.encode(Packet(4, 0, bytes(range(expected or 0))))
    cut = feetech.encode(Packet(3, 0, bytes(expected or 9)))[:5]
    decoder = Decoder(expected)
    assert decoder.feed(cut + inner + bytes(12)) == [Packet(4, 0, bytes(range(expected or 0)))]


def test_a_run_of_ff_before_a_header_costs_nothing() -> None:
    assert Decoder().feed(b"\xff\xff\xff" + feetech.ping(1)) == [Packet(1, Instruction.PING)]


@pytest.mark.parametrize("count", COUNTS)
def test_noise_is_never_an_exception_nor_a_bad_packet(count: int) -> None:
    chance = random.Random(1)
    for stream in streams(chance, count, feetech.encode(Packet(2, 32, b"\xff\xff\x02")), b"\xff\xff"):
        data = chance.choice([None, 0, 2, 15])
        decoder, at = Decoder(data, feetech.HIGHEST_ID), 0
        for packet in (p for piece in stream for p in decoder.feed(piece)):
            # Whatever is accepted stood in the stream, whole and in this order.
            line = feetech.encode(packet)
            at = b"".join(stream).index(line, at) + len(line)
            assert packet.id <= feetech.HIGHEST_ID
            assert data in (None, len(packet.data))
        assert decoder.skipped <= sum(map(len, stream))


@given(st.integers(0, 255))
@settings(max_examples=256)
def test_error_bits_have_words(bits: int) -> None:
    assert bool(feetech.told(bits)) == bool(bits)


def test_overload_is_told_by_name() -> None:
    assert feetech.told(0x25) == "voltage, overheat, overload"


@pytest.mark.parametrize("packet", [Packet(255, 1), Packet(1, 1, bytes(254)), Packet(1, 256)])
def test_what_no_packet_can_say_is_refused(packet: Packet) -> None:
    with pytest.raises(ValueError):
        feetech.encode(packet)


def test_values_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        feetech.sync_write(42, {1: b"\x00\x00", 2: b"\x00"})
