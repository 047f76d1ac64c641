"""The page of an evaluation that was really played: its numbers and films, and that no text in it is code."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import pytest

from sim.compare import compare
from sim.evaluate import SHIPPED
from sim.report import build, replay, result
from sim.report.markup import VOID, number
from sim.report.page import Parts, render
from sim.report.result import Result
from sim.score import by_task, score
from vla.__main__ import main
from vla.contract import TaktError

ROOT = Path(__file__).parents[3]
CURVE = ROOT / "benchmarks/results/latency_curve.json"
EVIL = '</title><script>alert("x")</script> & \' <b onclick="x">'


def episode(seed: int, success: bool, **more: Any) -> dict[str, Any]:
    row = {"task": "touch X", "group": "", "instruction": "touch it", "seed": seed, "success": success}
    return {**row, "steps": 30, "sim_seconds": 1.0, "held": 0, **more}


def evaluation(*episodes: dict[str, Any], **more: Any) -> Result:
    rows = list(episodes)
    counted = [e for e in rows if not e["group"]]
    return Result({
        "suite": "tabletop", "policy": "other", "split": "seen", "seeds": [1, len(rows)], "episodes": rows,
        "success": score([e["success"] for e in counted]), "tasks": by_task(counted), **more,
    })  # fmt: skip


class Strict(HTMLParser):
    """Keeps what is open, and the text that is seen; what is closed must have been the last to open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def parsed(text: str) -> Strict:
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert not parser.open
    return parser


# -- what was played


def test_the_folder_holds_page_json_table_and_films(folder: Path) -> None:
    names = {path.name for path in (folder / "report").iterdir()}
    assert {"report.html", "report.json", "episodes.csv"} < names
    assert json.loads((folder / "report/report.json").read_text()) == json.loads(
        (folder / "a.json").read_text()
    )
    outcomes = [e["success"] for e in json.loads((folder / "a.json").read_text())["episodes"]]
    assert 0 < sum(outcomes) < 4  # both kinds are there to be shown
    films = [name for name in names if name.endswith(".mp4")]
    assert len([name for name in films if name.startswith("failure")]) == outcomes.count(False)
    assert len([name for name in films if name.startswith("success")]) == min(2, outcomes.count(True))


def test_the_page_says_what_the_json_says(folder: Path) -> None:
    data = json.loads((folder / "a.json").read_text())
    page = parsed((folder / "report/report.html").read_text())
    text = " ".join(page.text)
    for found in (data["success"], *data["tasks"].values()):
        assert f"{found['k']}/{found['n']}" in text
        assert f"{100 * found['rate']:.1f} %" in text
        low, high = (100 * v for v in found["ci95"])
        assert f"{low:.1f} – {high:.1f} %" in text
    for row in data["latency_ms"].values():
        assert all(f"{row[q]:.2f}" in text for q in ("p50", "p95", "p99", "max"))
    assert str(data["latency"]["ticks"]["all"]) in text and number(data["jerk"], 4) in text
    for e in data["episodes"]:
        assert e["success"] or (e["instruction"] in text and str(e["seed"]) in text)
    assert "each came to what the evaluation says" in text  # played again: the same, tick for tick
    assert all(str(v) in text for v in (data["machine"]["processor"], data["machine"]["versions"]["mujoco"]))


def test_the_page_asks_nobody_and_is_small(folder: Path) -> None:
    path = folder / "report/report.html"
    page = parsed(path.read_text())
    assert path.stat().st_size < build.LIMIT
    loads = [
        a[key] for _, a in page.tags for key in ("src", "href", "xlink:href", "data", "action") if key in a
    ]
    assert loads and all(str(load).startswith("data:") for load in loads)
    assert not {"link", "base", "object", "embed"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", path.read_text())


def test_films_are_of_the_length_the_episode_had(folder: Path) -> None:
    data = json.loads((folder / "a.json").read_text())
    page = parsed((folder / "report/report.html").read_text())
    films = [a for tag, a in page.tags if tag == "video"]
    assert films
    for film in films:
        seed = int(str(film["aria-label"]).rsplit(" ", 1)[1])
        episode = next(e for e in data["episodes"] if e["seed"] == seed)
        raw = base64.b64decode(str(film["src"]).removeprefix("data:video/mp4;base64,"))
        with av.open(io.BytesIO(raw)) as container:
            stream = container.streams.video[0]
            frames = sum(1 for _ in container.decode(stream))
            assert stream.codec_context.name == "h264"
            assert frames / stream.average_rate == pytest.approx(episode["sim_seconds"], abs=0.15)


def test_the_command_of_an_episode_plays_that_episode(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "a.json").read_text())
    asked = [*Result(data).options(20_002), "--json", str(tmp_path / "one.json")]
    assert main(["eval", *asked]) == 0
    assert json.loads((tmp_path / "one.json").read_text())["episodes"] == data["episodes"][2:3]


def test_the_table_reads_back(folder: Path) -> None:
    episodes = json.loads((folder / "a.json").read_text())["episodes"]
    with (folder / "report/episodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: r[k] for k in build.COLUMNS} for r in rows] == [
        {k: str(e.get(k, "")) for k in build.COLUMNS} for e in episodes
    ]


def test_what_came_to_something_else_is_marked(folder: Path) -> None:
    r = result.load(folder / "a.json")
    index = next(i for i, e in enumerate(r.episodes) if e["success"])
    r.episodes[index]["steps"] += 1
    (played,) = replay.watch(r, str(SHIPPED), [index])
    text = " ".join(parsed(render(Parts(r, replays=[played]))).text)
    assert f"steps {played.row['steps'] + 1} then, {played.row['steps']} now" in text
    assert "1 came to something else than the evaluation says" in text


def test_failures_of_each_kind_come_first() -> None:
    episodes = [
        episode(1, True), episode(2, False), episode(3, False), episode(4, False, task="lift X"),
        episode(5, False, error="its worker process died"), episode(6, True, task="lift X"),
    ]  # fmt: skip
    assert replay.choose(episodes, 2, 1) == [1, 3, 0]
    assert replay.choose(episodes, 9, 9) == [1, 3, 2, 0, 5]  # never what took a process with it


# -- what is shown


def test_text_of_users_is_text() -> None:
    e = episode(1, False, instruction=EVIL, task=EVIL, error=EVIL)
    page = render(Parts(evaluation(e, episode(2, True), policy=EVIL)))
    found = parsed(page)
    assert not any(tag in ("script", "b") for tag, _ in found.tags)
    assert EVIL in found.text  # as it is, in the table of failures


def test_the_same_evaluation_gives_the_same_page() -> None:
    r = evaluation(episode(1, False), episode(2, True), jerk=5.0)
    assert render(Parts(r)) == render(Parts(r))


def test_groups_pairs_and_buckets_have_rows_of_their_own() -> None:
    more = {"absent": score([True, False]), "buckets": {"easy": score([True] * 3), "hard": score([False])}}
    text = " ".join(parsed(render(Parts(evaluation(episode(1, True), **more)))).text)
    assert all(name in text for name in ("nothing moved where nothing is to be done", "easy", "hard"))
    assert "3/3" in text and "0/1" in text


def test_pairs_on_the_page_are_those_of_compare(tmp_path: Path) -> None:
    this = evaluation(*(episode(i, i % 4 != 0) for i in range(1, 41)))
    other = evaluation(*(episode(i, i % 3 != 0) for i in range(1, 41)), policy="rival")
    for name, r in (("a", this), ("b", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(r.data))
    found = compare(tmp_path / "b.json", tmp_path / "a.json")
    asked = ["report", str(tmp_path / "a.json"), "--against", str(tmp_path / "b.json")]
    assert main([*asked, "--out", str(tmp_path / "a.html")]) == 0
    text = " ".join(parsed((tmp_path / "a.html").read_text()).text).replace("−", "-")
    low, high = (100 * v for v in found["ci95"])
    assert f"{100 * found['difference']:+.1f} points ({low:+.1f} to {high:+.1f})" in text
    assert f"{found['mcnemar_p']:.3g}" in text and f"{100 * found['detectable']:.1f} points" in text
    assert f"Only this one solved: {found['only_two']}" in text
    assert f"Only the other solved: {found['only_one']}" in text
    assert "where the policy 'other' lies is not known" in text  # so there are no films


def test_a_latency_curve_is_drawn_point_by_point(tmp_path: Path) -> None:
    curve = json.loads(CURVE.read_text())
    out, _ = build.build(evaluation(episode(1, True)), None, tmp_path / "a.html", curve=curve)
    page = parsed(out.read_text())
    text = " ".join(page.text)
    for row in curve["rows"]:
        assert f"{row['success']['k']}/{row['success']['n']} at {row['latency']['ms']:g} ms" in text
    whiskers = [
        a for tag, a in page.tags if tag == "line" and a.get("class") == "whisker" and "%" not in str(a["x1"])
    ]
    assert len(whiskers) == 2 * len(curve["rows"])  # one for a desk, one for a phone


def test_evaluations_of_several_latencies_make_a_curve() -> None:
    def late(ms: float, success: bool, join: str) -> Result:
        drawn = {"p50": ms, "p95": ms, "p99": ms, "max": ms}
        of = {"given": f"{ms:g}ms", "kind": "constant", "ms": ms, "drawn_ms": drawn}
        return evaluation(episode(1, success), latency=of, join=join)

    found = build.curves(late(0, True, "rtc"), [late(200, False, "rtc"), late(200, True, "naive")], None)
    assert {name: [(p.x, p.k) for p in points] for name, points in found.items()} == {
        "rtc": [(0, 1), (200, 0)],
        "naive": [(200, 1)],
    }
    assert build.curves(late(0, True, "rtc"), [late(0, False, "naive")], None) == {}


def test_reasons() -> None:
    assert result.reason(episode(1, True)) == ""
    assert result.reason(episode(1, False)) == "no success within 1 s"
    assert result.reason(episode(1, False, error="it broke")) == "it broke"
    assert "something moved" in result.reason(episode(1, False, group="absent"))


# -- what is no evaluation


@pytest.mark.parametrize("given", [
    "{", "[]", '{"episodes": [], "suite": "x"}', '{"suite": "x", "episodes": [{"seed": 1}], "policy": "p"}',
])  # fmt: skip
def test_a_foreign_file_is_one_line(given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(given)
    with pytest.raises(TaktError, match=r"is no report of takt eval"):
        result.load(path)
    assert main(["report", str(path), "--out", str(tmp_path / "a.html")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_does_not_fit_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, other = tmp_path / "a.json", tmp_path / "b.json"
    path.write_text(json.dumps(evaluation(episode(1, True)).data))
    other.write_text(json.dumps(evaluation(episode(1, True), suite="another").data))
    for asked, said in (
        (["--against", str(other)], "do not compare"),
        (["--against", str(tmp_path / "none.json")], "No such file"),
        (["--curve", str(path)], "latency_curve"),
        (["--out", "a.png"], ".html"),
        (["--rate", "30"], "this is an evaluation"),
        (["--videos", "1000"], "from 0 to 100"),
    ):
        assert main(["report", str(path), "--out", str(tmp_path / "a.html"), *asked]) == 1
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
