"""The page that shows an evaluation: one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim.report import against, pictures, scene3d
from sim.report.markup import Markup, number, table, tag
from sim.report.replay import Replay
from sim.report.result import QUANTILES, Result, reason

CSS = Path(__file__).with_name("page.css")
# What the page may load: what is in it. The frame of a 3D replay obeys the same; it makes workers of its own.
POLICY = (
    "default-src 'none'; img-src data: blob:; media-src data:; font-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' data: blob:; worker-src data: blob:; "
    "connect-src data: blob:; frame-src 'self'"
)
LONG = ("machine", "versions")  # facts that take more than a column
LISTED = 200  # failures in the table; all are in the JSON
STAGES = {
    "words": "words", "preprocess": "frames and words made ready", "prefix": "prefix (once a chunk)",
    "steps": "denoising steps",
}  # fmt: skip

TICKS = {
    "all": "ticks", "held": "held: no row to play", "dry": "of these dry: the plan had run out",
    "skipped": "skipped",
}  # fmt: skip
ANSWERS = {"asked": "answers asked for", "late": "late: not used"}


@dataclass(frozen=True)
class Parts:
    """What the page is made of.

    Attributes:
        result: the evaluation.
        others: what it is compared with.
        curves: success against latency, by what the legend says; empty for no picture.
        of_curves: what was measured for them.
        replays: episodes that were played again.
        not_filmed: why there are none; "" where there are.
        client, scenes: viser's, see scene3d; a scene by the index of its episode.
        not_in_3d: why there are none.
    """

    result: Result
    others: list[Result] = field(default_factory=list)
    curves: pictures.Curves = field(default_factory=dict)
    of_curves: str = ""
    replays: list[Replay] = field(default_factory=list)
    not_filmed: str = ""
    client: str = ""
    scenes: dict[int, str] = field(default_factory=dict)
    not_in_3d: str = ""


def render(parts: Parts) -> str:
    """The whole file."""
    r = parts.result
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", f"{r.data['policy']} on {r.data['suite']}: {fraction(r.data['success'])}"),
        tag("style", Markup(CSS.read_text())),
    ]
    sections = [
        what(r), rates(r), failures(parts), *(against.section(r, other) for other in parts.others),
        latency(parts), budget(r), in_3d(parts),
    ]  # fmt: skip
    foot = tag("footer", "Made by takt report. Simulated time: an episode is a function of its seed.")
    held = scene3d.embed(parts.client, parts.scenes) if parts.scenes else None
    body = tag("body", tag("main", sections, foot), held)
    return "<!doctype html>\n" + tag("html", tag("head", head), body, lang="en") + "\n"


def fraction(score: dict[str, Any]) -> str:
    return f"{score['k']}/{score['n']}"


def percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def ci(score: dict[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{100 * low:.1f} – {100 * high:.1f} %"


def what(r: Result) -> Markup:
    """What was run, what it came to, and how to run it again."""
    data, success = r.data, r.data["success"]
    machine = data.get("machine") or {}
    versions = ", ".join(f"{k} {v}" for k, v in (machine.get("versions") or {}).items())
    first, last = data["seeds"]
    seeds = f"{first} – {last}" + (f", part {data['shard']}" if "shard" in data else "")
    facts = {
        "suite": data["suite"],
        "split": data["split"] + (", swapped instructions" if data.get("swap") else ""),
        "policy": data["policy"], "engine": r.engine, "chunks joined by": data.get("join"),
        "simulated latency": r.latency, "rate": f"{data.get('rate', 30.0):g} Hz", "seeds": seeds,
        "machine": ", ".join(str(machine[k]) for k in ("processor", "system") if machine.get(k))
        + (f", {machine['cores']} cores" if machine.get("cores") else ""),
        "versions": ", ".join(filter(None, (f"Python {machine.get('python')}" if machine else "", versions))),
    }  # fmt: skip
    listed = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", value),
            class_="long" if name in ("machine", "versions") else None,
        )
        for name, value in facts.items()
        if value
    ]
    return tag(
        "header",
        tag("h1", f"{data['policy']} on {data['suite']}, {data['split']}"),
        tag("p", percent(success["rate"]), tag("span", f" {fraction(success)} succeeded"), class_="headline"),
        tag("p", f"95 % Wilson interval {ci(success)}", class_="soft"),
        tag("dl", listed),
        tag("p", "Run it again:", class_="soft"),
        tag("pre", tag("code", r.command())),
    )  # fmt: skip


def rates(r: Result) -> Markup:
    """Success for each kind of task and each group: picture and table in one."""
    named = {"task": None, "0 – 100 %": "picture", "n/N": "n", "rate": "n", "95 % Wilson": "n ci"}
    head = tag("tr", [tag("th", name, scope="col", class_=kind) for name, kind in named.items()])

    def row(name: str, score: dict[str, Any], kind: str | None = None) -> Markup:
        title = f"{name}: {fraction(score)}, {percent(score['rate'])}, interval {ci(score)}"
        return tag(
            "tr", tag("td", name), tag("td", pictures.interval(score, title), class_="picture"),
            tag("td", fraction(score), class_="n"), tag("td", percent(score["rate"]), class_="n"),
            tag("td", ci(score), class_="n ci"), class_=kind,
        )  # fmt: skip

    rows = [row(name, score) for name, score in r.data["tasks"].items()]
    rows.append(row("all", r.data["success"], "all"))
    if r.groups:
        rows.append(tag("tr", tag("td", "beside these, scores of their own", colspan=5), class_="group"))
        rows += [row(name, score) for name, score in r.groups.items()]
    blank = tag("td", aria_hidden="true")
    rows.append(tag("tr", blank, tag("td", pictures.scale(), class_="picture"), blank, blank,
                    tag("td", class_="ci", aria_hidden="true"), class_="axis"))  # fmt: skip
    return tag(
        "section", tag("h2", "Success by task"),
        tag("p", "The dot is the rate, the line its 95 % Wilson interval. Where two lines overlap widely, "
            "this many episodes do not tell the two apart.", class_="soft"),
        tag("table", tag("thead", head), tag("tbody", rows), class_="rates"),
    )  # fmt: skip


def failures(parts: Parts) -> Markup:
    """What failed and why, seen; then a few that did not."""
    r = parts.result
    failed = [(i, e) for i, e in enumerate(r.episodes) if not e["success"]]
    films = [film(r, replay) for replay in parts.replays]
    told = {replay.index: replay.why for replay in parts.replays if not replay.row["success"]}
    said = f"{len(failed)} of {len(r.episodes)} episodes failed. " if failed else "No episode failed. "
    if films:
        bad = sum(not r.episodes[x.index]["success"] for x in parts.replays)
        good = len(films) - bad
        shown = [f"{n} {one}" if n == 1 else f"{n} {many}" for n, one, many in
                 ((bad, "failure", "failures"), (good, "success", "successes")) if n]  # fmt: skip
        differ = sum(bool(x.differs(r.episodes[x.index])) for x in parts.replays)
        said += f"{' and '.join(shown)} were played again for these films: " + (
            f"{differ} came to something else than the evaluation says, and are marked."
            if differ
            else "each came to what the evaluation says, tick for tick."
        )
    rows = [
        [tag("span", e["seed"], class_="seeds"), e["task"], e["instruction"], told.get(i) or reason(e)]
        for i, e in failed
    ]
    more = f"; the first {LISTED}, all are in the JSON" if len(rows) > LISTED else ""
    listing = tag(
        "details", tag("summary", f"all {len(rows)} failures{more}"),
        table(["seed", "task", "instruction", "why"], rows[:LISTED], aria_label="failures"),
        open=None if films else "open",
    )  # fmt: skip
    return tag(
        "section", tag("h2", "Failures first"), tag("p", said),
        tag("p", f"No films: {parts.not_filmed}.", class_="soft") if parts.not_filmed else None,
        tag("div", films, class_="films") if films else None, listing if rows else None,
    )  # fmt: skip


def film(r: Result, replay: Replay) -> Markup:
    """One episode with its film."""
    e = r.episodes[replay.index]
    seconds = f"{e['sim_seconds']:.1f} s, {e['steps']} ticks"
    verdict = tag("span", "succeeded", class_="good") if e["success"] else tag("span", "failed", class_="bad")
    why = "" if e["success"] else f": {replay.why or reason(e)}"
    differs = replay.differs(e)
    source = "data:video/mp4;base64," + base64.b64encode(replay.mp4).decode()
    caption = tag(
        "figcaption", tag("p", f"“{e['instruction']}”", class_="said"), tag("p", verdict, why),
        tag("p", f"{e['task']} · seed {e['seed']} · {seconds}", class_="soft"),
        tag("p", f"Played again, on other versions or another machine, it came to something else: {differs}.",
            class_="warn") if differs else None,
        tag("pre", tag("code", r.command(e["seed"]))),
    )  # fmt: skip
    video = tag("video", src=source, controls="controls", muted="muted", playsinline="playsinline",
                preload="metadata", aria_label=f"{e['task']}, seed {e['seed']}")  # fmt: skip
    return tag("figure", video, caption, class_="film")


def latency(parts: Parts) -> Markup | None:
    """Success against latency."""
    if not parts.curves:
        return None
    rows = [
        [name, number(p.x), f"{p.k}/{p.n}", percent(p.rate), f"{100 * p.low:.1f} – {100 * p.high:.1f} %"]
        for name, points in parts.curves.items()
        for p in points
    ]
    head = ["joined by", "latency, ms", "n/N", "rate", "95 % Wilson"]
    return tag(
        "section", tag("h2", "Success against latency"),
        tag("p", "Physics goes on while the policy thinks. ", parts.of_curves,
            " Whiskers are 95 % Wilson intervals.", class_="soft"),
        tag("figure", pictures.legend(list(parts.curves)), pictures.curves(parts.curves, True),
            pictures.curves(parts.curves, False)),
        tag("details", tag("summary", "the numbers"),
            table(head, rows, (1, 2, 3, 4), aria_label="success against latency")),
    )  # fmt: skip


def budget(r: Result) -> Markup:
    """Where the milliseconds went, and what latency did to the ticks."""
    data, late = r.data, r.data.get("latency")
    head = ["stage, ms a chunk", "p50", "p95", "p99", "max"]
    cost = dict(data.get("latency_ms") or {})
    out: list[Any] = [tag("h2", "Budget")]
    if cost:
        rows = [[STAGES.get(s, s), *(f"{row[q]:.2f}" for q in QUANTILES)] for s, row in cost.items()]
        out.append(tag("p", "Measured on the machine above, one thread; the episodes' own time is simulated.",
                       class_="soft"))  # fmt: skip
        out.append(table(head, rows, (1, 2, 3, 4), aria_label="latency by stage"))
    counted: list[list[Any]] = []
    if isinstance(late, dict):
        if drawn := late.get("drawn_ms"):
            counted.append(["simulated latency of an answer, ms: p50 / p95 / p99 / max",
                            " / ".join(number(drawn[q]) for q in QUANTILES)])  # fmt: skip
        ticks, answers = late.get("ticks", {}), late.get("answers", {})
        for key, name in TICKS.items():
            if key in ticks:
                counted.append([name, share(ticks[key], ticks.get("all", 0), key != "all")])
        for key, name in ANSWERS.items():
            if key in answers:
                counted.append([name, share(answers[key], answers.get("asked", 0), key != "asked")])
    if "jerk" in data:
        unit = "joints, rad/s³" if data["suite"] == "tabletop" else "state, in its units per s³"
        counted.append([f"rms jerk over an episode, mean, of the {unit}", number(data["jerk"], 4)])
    if counted:
        out.append(table(["over all episodes", ""], counted, (1,), aria_label="ticks, answers, jerk"))
    return tag("section", out)


def share(part: int, whole: int, of: bool) -> str:
    return f"{part} ({100 * part / whole:.1f} %)" if of and whole else f"{part}"


def in_3d(parts: Parts) -> Markup | None:
    """Episodes to look at from all sides, each behind a button."""
    if parts.not_in_3d:
        return tag("p", f"Not in 3D: {parts.not_in_3d}.", class_="soft")
    if not parts.scenes:
        return None
    shown = []
    for index in parts.scenes:
        e = parts.result.episodes[index]
        verdict = "succeeded" if e["success"] else "failed"
        shown.append(scene3d.stage(index, f"“{e['instruction']}”", f"{verdict}, seed {e['seed']}"))
    return tag(
        "section", tag("h2", "From all sides"),
        tag("p", "The bodies as they were recorded; drag to turn, scroll to come closer. This needs WebGL.",
            class_="soft"),
        shown,
    )  # fmt: skip
