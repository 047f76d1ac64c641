"""vla-evaluation-harness: its own runner plays its benchmarks against our front, and nobody can spoil it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.fields import WireError
from runtime.protocols import codec, mapping, openpi, vla_eval
from tests import fakes
from tests.runtime.protocols import peers
from vla.contract import Observation, TaktError

pytest.importorskip("websockets")
import websockets.exceptions
from PIL import Image
from websockets.sync.client import connect

SPEC = fakes.arm_spec()  # rows 0.05 s apart, a new chunk every 0.2 s
NAMES = list(SPEC.actions.names)
HELLO = {"observation_params": {"bright": True}, "action_spec": {}}


def climbing(observation: Observation) -> np.ndarray:
    """Row i of the chunk is the state and i."""
    return np.asarray(observation.state, np.float64) + np.arange(SPEC.chunk_length)[:, None]


class Setting(peers.Setting):
    """A front over a scripted policy."""

    def __init__(self, keys: dict[str, Any] = HELLO, **options: Any) -> None:
        policy = fakes.ScriptedPolicy(SPEC, climbing)
        super().__init__(vla_eval.Front, "vla-eval", policy, keys, "ws://127.0.0.1:*", **options)


@pytest.fixture
def setting() -> Iterator[Setting]:
    with Setting() as made:
        yield made


def seen(value: float = 0.0, picture: Any = None) -> dict[str, Any]:
    """An observation's payload."""
    picture = np.zeros((96, 96, 3), np.uint8) if picture is None else picture
    images = {"front": picture, "wrist": picture}
    return {"images": images, "state": np.full(6, value), "task_description": "put the red cube"}


def message(kind: str, payload: Any, seq: int = 1) -> bytes:
    fields = {"type": kind, "payload": payload, "seq": seq, "timestamp": 0.0}
    return codec.harness_pack(fields)


def ask(socket: Any, kind: str, payload: Any, seq: int = 1) -> dict[str, Any]:
    socket.send(message(kind, payload, seq))
    return codec.unpack(socket.recv(timeout=20), codec.harness_array)


def row(socket: Any, payload: dict[str, Any]) -> np.ndarray:
    answer = ask(socket, "observation", payload)
    assert answer["type"] == "action", answer
    return answer["payload"]["actions"]


def plain(setting: Setting) -> Any:
    return connect(setting.front.address, compression=None, max_size=None)


# ---- the harness itself ----


class World:
    """A benchmark of the harness: what it is sent is its next state; kept for the tests to look at."""

    played: list[tuple[int, list[np.ndarray]]] = []
    bright: list[bool] = []


def benchmark() -> str:
    """Its import string."""
    base = pytest.importorskip("vla_eval.benchmarks.base")

    class Game(base.StepBenchmark):
        render_backends = frozenset({"cpu", "gpu"})

        def __init__(self, bright: bool = False) -> None:
            super().__init__()
            World.bright.append(bright)

        def get_tasks(self) -> list[dict[str, Any]]:
            return [{"name": "first"}, {"name": "second"}]

        def reset(self, task: dict[str, Any]) -> float:
            World.played.append((task["episode_idx"], []))
            return float(10 * task["episode_idx"])

        def step(self, action: dict[str, Any]) -> Any:
            World.played[-1][1].append(action["actions"])
            return base.StepResult(float(action["actions"][0]), 0.0, len(World.played[-1][1]) == 9, {})

        def make_obs(self, raw_obs: float, task: dict[str, Any]) -> dict[str, Any]:
            return seen(raw_obs, np.full((48, 64, 3), 7, np.uint8))

        def get_step_result(self, step_result: Any) -> dict[str, Any]:
            return {"success": True}

    globals()["Game"] = Game
    return f"{__name__}:Game"


def play(setting: Setting, **options: Any) -> dict[str, Any]:
    """The harness's own run of 2 tasks, 2 episodes each."""
    name = benchmark()
    harness = pytest.importorskip("vla_eval")
    World.played, World.bright = [], []
    config = {"benchmarks": [{"benchmark": name, "episodes_per_task": 2} | options]}
    (result,) = harness.run(config, server_url=setting.front.address, no_save=True, docker=False)
    return result


def test_the_harness_plays(setting: Setting) -> None:
    result = play(setting)
    assert result["mean_success"] == 1.0 and World.bright == [True]
    assert [index for index, _ in World.played] == [0, 1, 0, 1]
    for index, rows in World.played:
        # Four rows of a chunk, then the next, from the state that the fourth had led to.
        start = 10.0 * index
        wanted = [
            start,
            start + 1,
            start + 2,
            start + 3,
            start + 3,
            start + 4,
            start + 5,
            start + 6,
            start + 6,
        ]
        np.testing.assert_allclose([r[0] for r in rows], wanted, atol=1e-4)
        assert all(r.shape == (6,) and r.dtype == np.float32 for r in rows)
    frame = setting.policy.seen[0].frames["wrist"]
    np.testing.assert_array_equal(frame, np.full(frame.shape, 7))
    assert setting.policy.seen[0].instruction == "put the red cube"
    assert (setting.front.answered, setting.front.refused) == (36, 0)


def test_noise_is_the_episodes_own(setting: Setting) -> None:
    """So a shard that plays an episode alone gives what a run of all gives."""
    play(setting)
    whole = setting.policy.resets
    starts = [whole[i : i + 3] for i in range(0, 12, 3)]
    assert [[call for _, call in each] for each in starts] == [[0, 1, 2]] * 4
    assert len({seed for seed, _ in whole}) == 4
    setting.policy.resets = []
    play(setting)
    assert setting.policy.resets == whole
    with Setting(HELLO | {"seed": 1}) as other:
        play(other)
        assert not set(other.policy.resets) & set(whole)


# ---- its messages ----


def test_hello(setting: Setting) -> None:
    with plain(setting) as socket:
        answer = ask(socket, "hello", {"harness_version": "0.7.0", "protocol_version": 1}, 7)
    assert answer["type"] == "hello" and answer["seq"] == 7
    assert answer["payload"]["protocol_version"] == 1 and answer["payload"]["model_server"] == "takt fake"
    assert answer["payload"]["observation_params"] == {"bright": True}


def encoded(picture: np.ndarray, kind: str, shape: list[int] | None = None) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return {"__image__": True, "format": kind, "data": stream.getvalue(), "shape": shape or [*picture.shape]}


@pytest.mark.parametrize(("kind", "most"), [("png", 0), ("jpeg", 4)])
def test_pictures(setting: Setting, kind: str, most: int) -> None:
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    picture = np.stack([np.tile(ramp, (96, 1))] * 3, axis=-1)
    with plain(setting) as socket:
        row(socket, seen(picture=encoded(picture, kind)))
    got = setting.policy.seen[0].frames["front"].astype(int)
    assert np.abs(got - picture).max() <= most


def test_a_new_episode_forgets_what_was_left(setting: Setting) -> None:
    with plain(setting) as socket:
        assert [row(socket, seen(5.0))[0] for _ in range(2)] == [5.0, 6.0]
        socket.send(message("episode_start", {"task": {"name": "other"}}))
        assert row(socket, seen(9.0))[0] == 9.0
        socket.send(message("episode_end", {}))
        assert row(socket, seen(1.0))[0] == 1.0


def test_rows_of_another_rate() -> None:
    with Setting({"rate": 40, "execute": 3}) as made, plain(made) as socket:
        assert [row(socket, seen())[0] for _ in range(4)] == pytest.approx([0.0, 0.5, 1.0, 0.0])


def test_an_error_is_one_line_and_the_session_goes_on(setting: Setting) -> None:
    with plain(setting) as socket:
        for payload, words in [
            ({"images": {}}, "'images/front' is missing"),
            (seen() | {"state": np.zeros(5)}, "has 5 numbers; the mapping wants 6"),
            (seen(picture=encoded(np.zeros((9, 9, 3), np.uint8), "png", [9, 8, 3])), "of another size"),
            (seen(picture=encoded(np.zeros((9, 9), np.uint8), "png", [9, 9, 3])), "of another size"),
            (
                seen(picture={"__image__": True, "format": "png", "data": b"GIF89a", "shape": [9, 9, 3]}),
                "cannot be decoded",
            ),
        ]:
            answer = ask(socket, "observation", payload, 3)
            assert answer["type"] == "error" and answer["seq"] == 3
            assert words in answer["payload"]["error"] and "\n" not in answer["payload"]["error"]
        assert ask(socket, "reboot", {})["payload"]["error"] == "no message 'reboot'"
        assert row(socket, seen(2.0))[0] == 2.0
    assert (setting.front.answered, setting.front.refused) == (1, 6)


def read(message: bytes) -> None:
    """What a server does with a picture that it looks at."""
    found = codec.unpack(message, codec.harness_array)
    if isinstance(found, codec.Refused):
        raise WireError(str(found))
    if isinstance(found, codec.Picture):
        found.decode()


def test_an_enormous_picture_is_not_decoded() -> None:
    """A header that says 65535 x 65535 in a file of a few bytes."""
    head = bytearray(encoded(np.zeros((1, 1, 3), np.uint8), "png")["data"])
    head[16:24] = (65535).to_bytes(4, "big") * 2
    for shape in ([65535, 65535, 3], [4096, 4096, 3]):
        picture = {"__image__": True, "format": "png", "data": bytes(head), "shape": shape}
        assert peers.refusal(lambda picture=picture: read(msgpack.packb(picture)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        "hello",
        msgpack.packb([1]),
        msgpack.packb({"type": "hello", "payload": {}, "seq": -1, "timestamp": 0}),
        msgpack.packb({"type": "hello", "payload": [], "seq": 1, "timestamp": 0}),
        b"\x91" * 100_000,
    ],
)
def test_what_is_no_message_is_an_error_that_the_harness_can_read(setting: Setting, data: bytes) -> None:
    with plain(setting) as socket:
        socket.send(data)
        answer = codec.unpack(socket.recv(timeout=20), codec.harness_array)
        assert answer["type"] == "error" and "\n" not in answer["payload"]["error"]
        assert row(socket, seen(4.0))[0] == 4.0


def test_what_nobody_reads_may_be_anything(setting: Setting) -> None:
    """Empty and complex arrays, long lists, a picture that is none; where it is read it is an error."""
    odd = {"__ndarray__": True, "data": b"", "dtype": "<f4", "shape": [0, 3]}
    complex_ = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<c8", "shape": [1]}
    more = {"aux": odd, "spectrum": complex_, "history": [0.5] * 5000}
    more["thumb"] = {"__image__": True, "format": "raw", "data": b"\0" * 8, "shape": [3, 3, 3]}
    with plain(setting) as socket:
        assert row(socket, seen(4.0) | more)[0] == 4.0
        for bad, words in ((odd, "sides lie between"), (complex_, "dtype that is not accepted")):
            socket.send(message("episode_start", {"task": {b"bytes": 1}}))
            answer = ask(socket, "observation", seen() | {"state": bad})
            assert answer["type"] == "error" and words in answer["payload"]["error"]


def test_a_simulator_that_answers_no_pings_keeps_its_session() -> None:
    assert vla_eval.Front.pings is None and openpi.Front.pings is not None


@given(st.binary(max_size=200), st.lists(st.integers(-1, 99), max_size=4))
def test_random_bytes_raise_nothing_but_one_line(data: bytes, shape: list[int]) -> None:
    for kind in ("png", "jpeg", "raw", "tiff"):
        picture = {"__image__": True, "format": kind, "data": data, "shape": shape}
        assert "\n" not in peers.refusal(lambda picture=picture: read(msgpack.packb(picture)))
    assert "\n" not in peers.refusal(lambda: read(data))


def test_a_token() -> None:
    with Setting(token="secret") as made:
        address = made.front.address.removeprefix("ws://")
        with connect(f"ws://takt:secret@{address}", compression=None) as socket:
            assert row(socket, seen(3.0))[0] == 3.0
        for url in (f"ws://{address}", f"ws://takt:no@{address}"):
            with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
                connect(url)
            assert caught.value.response.status_code == 401


def test_many_shards_at_once(setting: Setting) -> None:
    results: dict[int, list[float]] = {}

    def shard(number: int) -> None:
        with plain(setting) as socket:
            socket.send(message("episode_start", {"task": {"episode_idx": number}}))
            results[number] = [float(row(socket, seen(float(number)))[0]) for _ in range(8)]

    threads = [threading.Thread(target=shard, args=(k,)) for k in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert results == {k: [k + 0.0, k + 1.0, k + 2.0, k + 3.0] * 2 for k in range(8)}


# ---- its mapping ----


@pytest.mark.parametrize(
    ("protocol", "keys", "words"),
    [
        ("openpi", {"execute": 2}, "execute is of --protocol vla-eval"),
        ("vla-eval", {"dialect": "n1.5"}, "dialect is of --protocol gr00t"),
        ("vla-eval", {"execute": 17}, "execute is a number from ['1 to 16']"),
        ("vla-eval", {"execute": 0}, "execute is a number from"),
        ("vla-eval", {"rate": 0}, "rate is"),
        ("vla-eval", {"observation_params": [1]}, "observation_params is a map"),
        ("vla-eval", {"actions": NAMES[:-1]}, "action 'gripper' is missing"),
    ],
)
def test_mappings_that_are_refused(protocol: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(TaktError) as caught:
        mapping.parse(keys, protocol, SPEC)
    assert words in str(caught.value)
