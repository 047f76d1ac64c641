"""The page in a real browser, beside a real arm in simulation: what people do, and what reaches the robot."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("websockets", reason="no page without the extra `console`")

from websockets.sync.client import ClientConnection, connect

from runtime import live
from tests.sim.console.conftest import Demo, until
from tests.sim.report.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
DATA = Path(__file__).parents[2] / "data"
LINES = "[...document.querySelectorAll('#said .you')].map(p => p.textContent)"
HALT = 0.2  # s from the stop's reaching the loop to the last change of command
PERIOD = 1 / 30
CHANGES = "document.getElementById('changes').innerText"
TEXT = "put the red cube in the blue bowl"
KEYS = {"Enter": ("Enter", 13, "\r"), "ArrowUp": ("ArrowUp", 38, ""), " ": ("Space", 32, " ")}


class Page(Browser):
    """A browser that is used as people use it: by mouse and keys."""

    def said(self) -> str:
        return self.run("document.getElementById('said').innerText")

    def state(self) -> str:
        return self.run("document.getElementById('state').textContent")

    def click(self, element: str) -> None:
        """In its middle, once it lies still and nothing lies over it."""
        self.run(f"{element}.scrollIntoView({{block: 'center'}})")
        place = f"(b => [b.x + b.width / 2, b.y + b.height / 2])({element}.getBoundingClientRect())"
        there: list[list[float]] = [[-1, -1]]

        def settled() -> bool:
            there.append(self.run(place))
            on = self.run(f"{element}.contains(document.elementFromPoint({there[-1][0]}, {there[-1][1]}))")
            return there[-1] == there[-2] and on

        until(settled, f"{element} does not lie still")
        x, y = there[-1]
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        code, number, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            about = {"text": text} if text and kind == "keyDown" else {}
            self(
                "Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, **about
            )

    def type(self, text: str) -> None:
        self.click("document.getElementById('text')")
        self("Input.insertText", text=text)

    def wait_for(self, script: str, what: str) -> None:
        try:
            until(lambda: self.run(script), what)
        except AssertionError:
            raise AssertionError(f"{what}: {self.state()}; {self.said()}; {self.run(CHANGES)}") from None

    def ready(self) -> None:
        self.wait_for("!!document.getElementById('about').textContent", "the page shows nothing")


def element(name: str) -> str:
    return f"document.getElementById('{name}')"


def button(group: str, text: str) -> str:
    return f"[...document.querySelectorAll('#{group} button')].find(b => b.textContent === '{text}')"


@pytest.fixture(scope="module")
def page(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("chromium") / "home")
    page.visit(f"{demo.url}#flat")  # without a graphics card, 3D takes the cores that the arm needs
    page.ready()
    yield page
    page.close()


@pytest.fixture
def rested(demo: Demo, page: Page) -> Page:
    """The page, with the arm at rest on a table that was laid anew."""
    page.click(element("stop"))
    page.wait_for(f"{element('state')}.textContent === 'ARMED'", "it was not stopped")
    until(demo.still, "the arm does not come to rest")
    page.click(element("again"))
    page.wait_for(f"{element('state')}.textContent === 'HOLD'", "no table was laid")
    time.sleep(1.2 * live.QUIET)  # what is said so soon after a stop is not taken
    return page


def other(demo: Demo) -> ClientConnection:
    """Another viewer, without a browser."""
    return connect(f"{demo.url.replace('http', 'ws')}ws", max_size=None)


def halted(demo: Demo) -> float:
    """s from the newest stop to the last change of command after it; skipped ticks are not counted."""
    until(demo.still, "the arm does not come to rest")
    stop = demo.stops()[-1]
    times, commands = demo.commands()
    changed = np.flatnonzero((np.diff(commands, axis=0) != 0).any(axis=1)) + 1
    after = [i for i in changed if times[i] > stop]
    if not after:
        return 0.0
    missed = np.diff(times[np.flatnonzero(times > stop)[0] - 1 : after[-1] + 1])
    return float(times[after[-1]] - stop - np.maximum(0, missed - 1.5 * PERIOD).sum())


def test_typed_run_and_done(demo: Demo, rested: Page) -> None:
    page = rested
    page.type(TEXT)
    page.press("Enter")
    page.wait_for(f"{element('plan')}.querySelector('.running')?.textContent.includes('{TEXT}')", "no plan")
    page.wait_for(f"{element('state')}.textContent === 'RUNNING'", "the arm does not run")
    until(demo.moving, "the arm does not move")
    page.wait_for(f"{element('said')}.innerText.includes('success after')", "no success")
    page.wait_for(f"!!{element('plan')}.querySelector('.done')", "the policy does not say that it is done")
    # What it saw and what it cost.
    cameras = "[...document.querySelectorAll('#cameras figure')].map(f => f.dataset.camera).sort().join()"
    assert page.run(cameras) == "front,wrist"
    assert page.run("[...document.querySelectorAll('#cameras img')].every(i => i.naturalWidth === 96)")
    assert int(page.run("document.querySelector('[data-count=answered] dd').textContent")) > 3
    assert "prefix" in page.run(f"{element('legend')}.innerText")
    assert page.complaints == []


def test_a_click_on_stop_halts_the_arm(demo: Demo, rested: Page) -> None:
    page = rested
    page.click(button("try", TEXT))
    until(demo.moving, "the arm does not move")
    page.click(element("stop"))
    assert halted(demo) <= HALT
    page.wait_for(f"{element('state')}.textContent === 'ARMED'", "the page does not say that it was stopped")
    assert not page.run(f"!!{element('plan')}.querySelector('.running')")
    # A stop is not forgotten: nothing moves until somebody says what is to be done.
    time.sleep(1.0)
    assert demo.still()


def test_the_space_bar_stops_unless_somebody_types(demo: Demo, rested: Page) -> None:
    page = rested
    page.click(button("try", TEXT))
    until(demo.moving, "the arm does not move")
    stops = len(demo.stops())
    page.type("put")
    page.press(" ")
    assert page.run(f"{element('text')}.value") == "put "
    assert len(demo.stops()) == stops
    page.run(f"{element('text')}.blur(); {element('text')}.value = ''")
    page.press(" ")
    until(lambda: len(demo.stops()) > stops, "the space bar did nothing")
    assert halted(demo) <= HALT


def test_a_page_that_is_loaded_again_has_lost_nothing(demo: Demo, rested: Page) -> None:
    page = rested
    page.type(TEXT)
    page.press("Enter")
    page.wait_for(f"!!{element('plan')}.querySelector('.running')", "no plan")
    page.click(element("stop"))
    until(demo.still, "the arm does not come to rest")
    page.wait_for(f"{element('said')}.lastChild.textContent.startsWith('stopped')", "no answer")
    before, plan = page.said(), page.run(f"{element('plan')}.innerText")
    changes = page.run(f"{element('changes')}.innerText")
    page("Page.reload")
    page.wait_for(
        f"document.readyState === 'complete' && {element('said')}.childElementCount > 2", "nothing came"
    )
    assert page.said() == before
    assert page.run(f"{element('plan')}.innerText") == plan
    assert page.run(f"{element('changes')}.innerText") == changes
    # What was typed is there to be sent again.
    page.click(element("text"))
    for _ in range(2):  # the newest is the stop
        page.press("ArrowUp")
        if page.run(f"{element('text')}.value") == TEXT:
            break
    assert page.run(f"{element('text')}.value") == TEXT
    page.run(f"{element('text')}.value = ''")


def test_the_slider_makes_answers_late_and_the_arm_wait(demo: Demo, rested: Page) -> None:
    page = rested
    held = "Number(document.querySelector('[data-count=held] dd').textContent)"
    page.click(button("join", "hold"))
    page.wait_for(
        f"{button('join', 'hold')}.getAttribute('aria-pressed') === 'true'", "it is joined otherwise"
    )
    page.run(f"(s => {{ s.value = 400; s.dispatchEvent(new Event('input')); }})({element('delay')})")
    page.wait_for(f"{element('delay-said')}.textContent === '400 ms'", "no delay")
    before = page.run(held)
    page.click(button("try", TEXT))
    total = f"Number.parseFloat({element('chunk-said')}.textContent)"
    page.wait_for(f"{total} >= 400", "answers do not come later")
    # Standing still for each answer, as `hold` does: twelve ticks an answer.
    page.wait_for(f"{held} >= {before} + 24", "the arm does not wait")
    assert "kept back" in page.run(f"{element('legend')}.innerText")
    page.run(f"(s => {{ s.value = 0; s.dispatchEvent(new Event('input')); }})({element('delay')})")
    page.click(button("join", "rtc"))
    page.wait_for(f"{total} < 400", "answers come no sooner")


def test_two_viewers_see_the_same_and_either_stops(demo: Demo, rested: Page) -> None:
    page = rested
    with other(demo) as second:
        page.wait_for(f"{element('about')}.textContent.includes('2 pages look')", "nobody else is there")
        second.send(json.dumps({"do": "say", "text": TEXT}))
        page.wait_for(f"!!{element('plan')}.querySelector('.running')", "the page does not see it")
        until(demo.moving, "the arm does not move")
        second.send(json.dumps({"do": "stop"}))
        assert halted(demo) <= HALT
        page.wait_for(f"{element('state')}.textContent === 'ARMED'", "the page does not see the stop")


def test_a_flood_is_bounded_and_a_stop_passes_it(demo: Demo, rested: Page) -> None:
    page = rested
    page.click(button("try", TEXT))
    until(demo.moving, "the arm does not move")
    with other(demo) as flooder:
        begun = time.monotonic()
        for i in range(3000):
            flooder.send(json.dumps({"do": "say", "text": f"go on {i}"}))
        stops = len(demo.stops())
        page.click(element("stop"))
        until(lambda: len(demo.stops()) > stops, "the stop did not come")
        assert halted(demo) <= HALT
        seen, errors = 0, 0
        while time.monotonic() < begun + 20 and not (seen and errors):
            news = json.loads(told) if isinstance(told := flooder.recv(timeout=20), str) else {}
            errors += "too fast" in news.get("error", "")
            seen += any("go on" in row[2] for row in news.get("said", ()))
    assert errors
    # The loop went on ticking: commands came in every second of it.
    times, _ = demo.commands()
    assert np.diff(times[times > begun - 1]).max() < 1.0


def test_another_table(demo: Demo, rested: Page) -> None:
    page = rested
    before = page.run(f"{element('try')}.innerText")
    page.click(element("new"))
    page.wait_for(f"{element('seed')}.textContent === '4'", "the table is the same")
    page.wait_for(f"{element('try')}.innerText !== {json.dumps(before)}", "the suggestions are the same")
    page.click(element("new"))
    page.wait_for(f"{element('seed')}.textContent === '5'", "the table is the same")


def test_spoken_while_the_button_is_held(demo: Demo, rested: Page, tmp_path: Path) -> None:
    """The browser's own microphone, which hears a file; what was said is answered as if it had been typed."""
    voice = pytest.importorskip("runtime.voice")
    pytest.importorskip("pocketsphinx")
    for name, text in (("push", "push the yellow cylinder to the left"), ("stop", "stop")):
        file = DATA / f"{name}.wav"
        flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        flags += [f"--use-file-for-fake-audio-capture={file}%noloop"]
        page = Page(tmp_path / name, flags=flags)
        try:
            page.visit(f"{demo.url}#flat")
            page.ready()
            page.wait_for(f"!{element('mic')}.hidden", "there is no button to talk")
            for _ in range(3):  # a browser that is starved loses sound
                page.run(f"{element('mic')}.dispatchEvent(new PointerEvent('pointerdown'))")
                page.wait_for(f"{element('mic')}.getAttribute('aria-pressed') === 'true'", "it is not held")
                time.sleep(len(voice.samples(file)) / voice.RATE + 2.0)  # the microphone opens meanwhile
                page.run("dispatchEvent(new PointerEvent('pointerup'))")
                with suppress(AssertionError):
                    until(lambda page=page, text=text: text in page.run(LINES), "not yet", 15.0)
                    break
            assert text in page.run(LINES), page.said()
            assert not page.complaints
        finally:
            page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_its_screen(page: Page, width: int, tmp_path: Path) -> None:
    page("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=False)
    assert page.run("document.documentElement.scrollWidth") == width
    # What is needed at once is on the screen, whatever was scrolled to, and large enough for a thumb.
    for top in (0, 10_000):
        page.run(f"window.scrollTo(0, {top})")
        box = page.run(
            f"(b => [b.left, b.top, b.right, b.bottom])({element('stop')}.getBoundingClientRect())"
        )
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= 844
        assert box[2] - box[0] >= 100 and box[3] - box[1] >= 44
    page.picture(tmp_path / "page.png", whole=False)
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_the_scene_in_3d_follows_the_arm(demo: Demo, page: Page) -> None:
    pytest.importorskip("mjviser", reason="no 3D without the extra `console`")
    page("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    page.click(element("in-3d"))
    inside = f"{element('frame')}.contentDocument"
    page.wait_for(f"!!{inside}?.querySelector('canvas')", "no scene came")
    # It has the keys of the page: a space in the scene stops as well.
    page.wait_for(f"{inside}.readyState === 'complete' && !!{inside}.querySelector('style')", "not ready")
    stops = len(demo.stops())
    page.click(element("frame"))
    page.press(" ")
    until(lambda: len(demo.stops()) > stops, "the space bar did nothing")
    page.click(element("in-3d"))
    assert page.complaints == []


def test_control_outlives_its_console_and_says_so(demo: Demo, page: Page) -> None:
    """Last, because nobody is looked at any more afterwards."""
    os.kill(demo.console(), signal.SIGKILL)
    until(
        lambda: "the console has gone; the run goes on without it" in demo.out.read_text(), "nothing was said"
    )
    before = len(demo.commands()[0])
    until(lambda: len(demo.commands()[0]) > before + 30, "the loop has ended")
    page.wait_for(f"{element('state')}.textContent === 'no connection'", "the page does not know")
    assert not page.run(f"{element('trouble')}.hidden")
