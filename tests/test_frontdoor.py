"""The front door: every command answers, and what a user can mend is told in one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
import tyro

from vla import __main__ as frontdoor
from vla.contract import TaktError

ROOT = Path(__file__).parent.parent


def takt(*args: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own; skips the test where the command's extra is not installed."""
    done = subprocess.run(
        [sys.executable, "-m", "vla", *args], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    if "is not installed: pip install" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


@pytest.mark.parametrize("name", frontdoor.COMMANDS)
def test_every_command_answers_help(name: str) -> None:
    done = takt(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: takt {name}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", frontdoor.COMMANDS)
def test_every_command_refuses_an_unknown_flag_in_one_line(name: str) -> None:
    done = takt(name, "--no-such-flag")
    assert done.returncode == 2
    assert one_line(done.stderr).endswith(f"(takt {name} --help)")


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_alone_it_prints_the_table(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert frontdoor.main(args) == 0
    out = capsys.readouterr().out
    assert all(name in out and text in out for name, (_, text) in frontdoor.COMMANDS.items())


def test_the_version_needs_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert frontdoor.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("takt ")


def test_an_unknown_command_names_the_valid_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert frontdoor.main(["evl"]) == 2
    said = one_line(capsys.readouterr().err)
    assert "did you mean 'eval'?" in said
    assert all(name in said for name in frontdoor.COMMANDS)


def test_the_table_alone_loads_no_command() -> None:
    code = """
import sys
from vla.__main__ import main
main(["--help"])
loaded = {name.partition(".")[0] for name in sys.modules}
sys.exit(bool(loaded & {"runtime", "sim", "robot_io", "export", "torch", "tyro", "mujoco"}))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


@dataclass
class Fake:
    """Do as told."""

    what: Annotated[str, tyro.conf.Positional]
    """The thing to do."""
    times: int = 1
    """How often."""
    kind: Literal["a", "b"] = "a"
    """Which."""

    def run(self) -> int:
        if self.what == "error":
            raise TaktError("the bundle is broken: export it again")
        if self.what == "interrupt":
            raise KeyboardInterrupt
        if self.what in ("torch", "numpy_of_theirs"):
            raise ModuleNotFoundError(f"No module named '{self.what}.nn'", name=f"{self.what}.nn")
        print(self.what * self.times)
        return self.times


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fake_command")
    module.Command = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_command", module)
    monkeypatch.setitem(frontdoor.COMMANDS, "fake", ("fake_command", "for a test"))


@pytest.mark.usefixtures("fake")
def test_a_command_is_run_and_its_status_returned(capsys: pytest.CaptureFixture[str]) -> None:
    assert frontdoor.main(["fake", "ha", "--times", "3"]) == 3
    assert capsys.readouterr().out == "hahaha\n"


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("error", 1, "takt: the bundle is broken: export it again"),
        ("torch", 1, "takt: torch is not installed: pip install 'takt-vla[torch]'"),
        ("interrupt", 130, ""),
    ],
)
def test_an_error_is_one_line(what: str, status: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert frontdoor.main(["fake", what]) == status
    assert capsys.readouterr().err.strip() == words


@pytest.mark.usefixtures("fake")
def test_a_module_that_no_extra_brings_is_a_defect_and_shown_as_one() -> None:
    with pytest.raises(ModuleNotFoundError):
        frontdoor.main(["fake", "numpy_of_theirs"])


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["The thing to do."]),
        (["x", "--tims", "3"], ["--tims"]),
        (["x", "--times", "three"], ["--times", "three"]),
        (["x", "--times"], ["--times"]),
        (["x", "--kind", "c"], ["'c'", "--kind", "'a', 'b'"]),
        (["x", "y"], ["y"]),
    ],
)
def test_what_cannot_be_parsed_is_one_line(
    args: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert frontdoor.main(["fake", *args]) == 2
    said = one_line(capsys.readouterr().err)
    assert said.endswith("(takt fake --help)")
    assert all(word in said for word in words)
    assert not set(said) & set("╭│─╰")


def test_a_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        f"{sys.executable} -u -m vla --help | true", shell=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == ""


def one_line(text: str) -> str:
    """The only line of `text`, which is the front door's."""
    (line,) = text.splitlines()
    assert line.startswith("takt: ")
    return line
