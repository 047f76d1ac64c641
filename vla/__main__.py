"""The front door: `takt COMMAND ...`. A table of commands, each loaded when it is called.

A command is a module with a dataclass `Command`: its fields are the flags, its docstrings the help,
and `run()` does the work and returns the exit status. The table holds names, not imports, so that
`takt run` on a robot never loads torch, and the folders below never see the ones above.

Exit status: 0 done, 1 failed, 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.metadata
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vla.contract import TaktError


class Runnable(Protocol):
    """What every command's dataclass is, whatever its flags."""

    def run(self) -> int:
        """Do the work; the exit status."""


COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("sim.demo", "type an instruction, watch the arm and its latency budget"),
    "run": ("runtime.run", "obey an instruction with a policy on a robot"),
    "record": ("runtime.record", "keep episodes that a policy or a leader arm makes, whatever happens"),
    "replay": ("runtime.replay", "a recorded episode on a robot, and how well it tracks"),
    "dataset": ("runtime.collect", "recorded episodes as a LeRobotDataset"),
    "calibrate": ("robot_io.calibrate", "where an arm's joints begin, end and have their middle"),
    "eval": ("sim.evaluate", "success over episodes, with the policy's latency simulated"),
    "serve": ("runtime.serve", "answer robots over the network with a policy"),
    "keys": ("runtime.keys", "who may speak with a policy server over a network"),
    "export": ("export.command", "turn a checkpoint into a verified bundle"),
    "bench": ("export.bench", "bundles side by side: latency, memory, action error, success"),
    "build": ("export.tensorrt", "TensorRT engines of a bundle, on the machine that will run them"),
    "train": ("vla.train", "demonstrations in, checkpoint out"),
    "demos": ("sim.demos", "make or relabel demonstrations in simulation"),
    "budget": ("runtime.plan", "whether a rate holds with measured latencies, and what the planner will do"),
    "report": ("export.report", "a run's budget or a bench as a picture, an evaluation as a page"),
    "doctor": ("runtime.doctor", "what works on this machine, and what to do about the rest"),
}

# The optional third-party modules and the extra that brings each.
EXTRAS = {
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "cuda": "tensorrt",
    "mujoco": "sim",
    "gymnasium": "sim",
    "viser": "console",
    "mjviser": "console",
    "torch": "torch",
    "onnx": "torch",
    "onnxscript": "torch",
    "safetensors": "torch",
    "cv2": "robot",
    "pyarrow": "data",
    "av": "data",
    "PIL": "data",
    "simplejpeg": "jpeg",
    "websockets": "protocols",
    "ray": "ray",
    "matplotlib": "report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Errors become one line, never a traceback, where a user can act."""
    args = list(sys.argv[1:] if argv is None else argv)
    fill_streams()
    if threading.current_thread() is threading.main_thread():
        # A service manager's way to stop: it ends as Ctrl-C does, with everything closed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = dispatch(args)
        sys.stdout.flush()  # a closed pipe shows itself here, and not in the interpreter's shutdown
        return status
    except TaktError as error:
        return complain(str(error), status=1)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        return complain(f"{missing} is not installed: pip install 'takt-vla[{EXTRAS[missing]}]'", status=1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone, as in `takt --help | head -1`. What is still buffered must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # A file or folder that the user named, or a full disk.
        return complain(f"{error.filename or 'input or output'}: {error.strerror or error}", status=1)


def fill_streams() -> None:
    """Give a process that was started without standard streams (`takt run ... <&-`) empty ones.

    Python has None there; and the next file opened would take their numbers, for children to write into.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open as long as the process)


def dispatch(args: list[str]) -> int:
    """Find the command that `args` name and run it with the rest of them."""
    if not args or args[0] in ("-h", "--help"):
        print(table())
        return 0
    name, *rest = args
    if name == "--version":
        print(f"takt {version()}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        return complain(f"no command {name!r}{hint} valid: {', '.join(COMMANDS)}", status=2)
    command = parse(name, rest)
    if isinstance(command, int):
        return command
    for flag in ("json", "video", "trace"):
        check_writable(f"--{flag}", getattr(command, flag, None))
    folder = getattr(command, "report", None)
    check_writable("--report", folder / "report.json" if isinstance(folder, Path) else None)
    return command.run()


def check_writable(flag: str, path: Path | None) -> None:
    """Make room for a result before the work that leads to it, so that nothing is lost at the end.

    Raises:
        TaktError: nothing can be written there.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TaktError(f"{flag} {path}: {error.strerror}; choose another place") from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise TaktError(f"{flag} {path} cannot be written; choose another place")


def parse(name: str, args: list[str]) -> Runnable | int:
    """The command with its flags filled in, or the exit status when it printed help or cannot be parsed."""
    import tyro  # 0.1 s that `takt --version` need not wait for

    command_type = importlib.import_module(COMMANDS[name][0]).Command
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(command_type, prog=f"takt {name}", args=args)
    except SystemExit as stop:
        if not stop.code:
            return 0
        return complain(f"{unbox(errors.getvalue())} (takt {name} --help)", status=2)


def unbox(text: str) -> str:
    """The parser's framed message as one line.

    ╭─ Unrecognized options ──────────────╮
    │ Unrecognized options: --sed         │      ->  Unrecognized options: --sed
    │ ─────────────────────────────────── │
    │ For full helptext, run takt --help  │
    ╰─────────────────────────────────────╯
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip("│┃ ") for line in text.splitlines()]
    words = []
    for line in lines:
        if line.startswith(("╭", "╰", "┏", "┗")):
            continue
        if line.startswith(("─", "━")):
            break  # below the first rule stand the help text and where to find more of it
        words.append(line)
    return " ".join(" ".join(words).split()) or " ".join(" ".join(lines).split())


def table() -> str:
    """Every command with its line of help."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {help_line}" for name, (_, help_line) in COMMANDS.items()]
    head = ["Takt: a runtime that keeps a robot's beat while a vision-language-action policy thinks.", ""]
    return "\n".join([*head, "usage: takt COMMAND [--help] ...", "", *rows])


def version() -> str:
    """The installed distribution's version."""
    try:
        return importlib.metadata.version("takt-vla")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def complain(message: str, status: int) -> int:
    """One line on stderr; gives the status back."""
    print(f"takt: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
