"""The other side: a simulator in its own Python environment, a script that its interpreter runs.

    PYTHON host.py FD PARENT WORLD.py [JSON options]

Takt is not installed there. This file, runtime/messages.py and the worlds need the standard library, numpy,
and what the world itself imports. A world is a class `World` in a file:

    World(**options)          builds the simulator; what it raises is what the user reads
    packages                  names of distributions whose versions belong into a report
    reset(request)            a dict of JSON -> (fields, state of shape (S,)); fields may have "instruction"
    step(action)              shape (A,) -> (state, success, over), one control step on
    frames({name: [h, w]})    name -> uint8 (h, w, 3)
    expert()                  the scripted expert's action for now, shape (A,)
    places()                  optional: (K, 4) x, y, z [m] and 1 where there is such a thing; {name: (K, 3)}
                              u, v across the frame, -1 .. 1 rightwards and downwards, and the same 1
    close()

Requests are answered one after the other; one that raises is answered by its error, and the host goes on.
The host ends when the process that started it ends, however it does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import signal
import socket
import sys
import traceback
from typing import Any

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def load(path: str, name: str) -> Any:
    """The module in the file `path`: by its place, so that no folder of ours is searched for packages."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


messages = load(os.path.join(HERE, "..", "..", "runtime", "messages.py"), "takt_messages")


def follow(parent: int) -> None:
    """End with the process `parent`, even when that is killed (Linux); see runtime/spawn.py."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def versions(packages: Any) -> dict:
    """Of the interpreter and of what is installed of these packages."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def answer(world: Any, request: dict, arrays: dict) -> tuple:
    """(fields, arrays) that answer a request."""
    what = request["do"]
    if what == "reset":
        fields, state = world.reset(request["with"])
        return fields, {"state": np.asarray(state, np.float32)}
    if what == "step":
        # As many control steps as the clock has gone on; an episode that is over takes no more of them.
        success = over = False
        for action in arrays["actions"]:
            state, success, over = world.step(action)
            if over or (success and request["ends"]):
                break
        fields = {"success": bool(success), "over": bool(over)}
        return fields, {"state": np.asarray(state, np.float32)}
    if what == "frames":
        return {}, {name: np.asarray(f, np.uint8) for name, f in world.frames(request["sizes"]).items()}
    if what == "expert":
        return {}, {"action": np.asarray(world.expert(), np.float64)}
    if what == "places":
        places, points = world.places()
        return {}, {"": np.asarray(places, np.float32)} | {
            name: np.asarray(each, np.float32) for name, each in points.items()
        }
    raise ValueError(f"no request {what!r}")


def report(error: BaseException) -> dict:
    """What the other side is told of an exception; its traceback goes to the log."""
    traceback.print_exc()
    sys.stderr.flush()
    return {"error": f"{type(error).__name__}: {error}"}


def main(fd: int, parent: int, path: str, options: str = "{}") -> int:
    follow(parent)
    # What a simulator prints goes to the log: nothing but messages may be on the socket.
    os.dup2(2, 1)
    link = socket.socket(fileno=fd)
    try:
        world = load(path, "takt_world").World(**json.loads(options))
        messages.send(link, {"ready": True, "versions": versions(world.packages)})
    except Exception as error:
        messages.send(link, report(error))
        return 1
    while True:
        try:
            request, arrays = messages.receive(link)
        except messages.Closed:
            break
        try:
            fields, given = answer(world, request, arrays)
        except Exception as error:
            fields, given = report(error), {}
        messages.send(link, fields, given)
    world.close()
    return 0


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose files must not stand in for packages of the same name
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
