"""The page in a real browser: nothing leaves the machine, nothing complains, films play, 3D shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("websockets", reason="the browser is driven over a WebSocket: pip install websockets")

from tests.sim.report.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
WIDTHS = (1280, 390)  # a desk and a phone


@pytest.fixture(scope="module")
def browser(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium") / "home")
    browser.open(folder / "report/report.html")
    yield browser
    browser.close()


def quiet(browser: Browser) -> bool:
    """Asked for nothing but the file and what is in it, and has nothing to complain of."""
    assert browser.complaints == []
    asked = [urlsplit(url) for url in browser.requests]
    assert {url.scheme for url in asked} <= {"file", "data", "blob"}
    assert [Path(url.path).name for url in asked if url.scheme == "file"] == ["report.html"]
    return True


def test_films_play_and_nothing_is_asked_for(browser: Browser) -> None:
    films = "[...document.querySelectorAll('video')]"
    assert browser.run(f"{films}.length") >= 2
    browser.wait(f"{films}.every(film => film.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA)")
    assert browser.run(f"{films}.every(film => film.videoWidth === 660 && film.duration > 0.5)")
    browser.run("document.querySelector('video').play()")
    browser.wait("document.querySelector('video').currentTime > 0.2")
    assert quiet(browser)


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_its_screen(browser: Browser, width: int, tmp_path: Path) -> None:
    browser("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    assert browser.run("document.documentElement.scrollWidth") == width
    # What is read stays at a size that can be read, and no two cells of a row of the table overlap.
    assert browser.run("[...document.querySelectorAll('.rates td')].every(c => parseFloat("
                       "getComputedStyle(c).fontSize) >= 12)")  # fmt: skip
    overlap = """[...document.querySelectorAll('.rates tbody tr')].some(row => {
        const boxes = [...row.cells].map(cell => cell.getBoundingClientRect()).filter(box => box.width);
        return boxes.some((a, i) => boxes.slice(i + 1).some(b => a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 1 && b.top < a.bottom - 1)); })"""
    assert browser.run(overlap) is False
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_colours_follow_the_reader(browser: Browser) -> None:
    def paper(scheme: str) -> str:
        browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        return browser.run("getComputedStyle(document.body).backgroundColor")

    assert paper("dark") != paper("light") == "rgb(255, 255, 255)"


@pytest.mark.slow
def test_an_episode_is_shown_in_3d(browser: Browser) -> None:
    pytest.importorskip("mjviser", reason="no 3D without the extra `report`")
    assert browser.run("document.querySelectorAll('[data-scene]').length") == 2
    browser.run("document.querySelector('[data-scene]').click()")
    inside = "document.querySelector('.stage iframe')?.contentDocument"
    browser.wait(f"!!{inside}?.querySelector('canvas')")
    # Its player has what was recorded: a slider for the time, as long as the episode.
    browser.wait(f"!!{inside}?.querySelector('[role=slider], input')")
    assert quiet(browser)
