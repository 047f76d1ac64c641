"""Episodes to look at from all sides: viser's own client, which plays back what it would have been sent.

The client is one file without requests of its own. The page holds it once, packed, and puts it into a frame
together with the episode that a reader asks for.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import re
from pathlib import Path

from sim.gl import mujoco
from sim.report.markup import Markup, tag
from sim.report.replay import Replay
from vla.contract import TaktError

SCRIPT = Path(__file__).with_name("scene3d.js")
EYE, AT, FOVY = (0.62, -0.5, 0.44), (0.2, 0.0, 0.05), 0.72  # [m], [rad]: near the camera for people
_DATA = re.compile(r'__VISER_EMBED_DATA__="([A-Za-z0-9+/=]*)"')
_MARK = '__VISER_EMBED_DATA__="@"'


def record(replays: list[Replay]) -> tuple[str, dict[int, str]]:
    """The client, with a mark where an episode goes; by its index each episode, viser's format in base64.

    Raises:
        TaktError: what this needs is not installed.
    """
    try:
        import viser
        from mjviser.scene import ViserMujocoScene
    except ModuleNotFoundError as error:
        raise TaktError(f"no {error.name} here: pip install 'takt-vla[report]'") from None
    client = ""
    scenes: dict[int, str] = {}
    # A server that nobody asks: what it would send is what is recorded; where it listens need not be told.
    with contextlib.redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        for replay in replays:
            server.scene.reset()
            server.scene.set_up_direction("+z")
            server.initial_camera.position, server.initial_camera.look_at = EYE, AT
            server.initial_camera.fov = FOVY
            scene = ViserMujocoScene(server, replay.model, num_envs=1)
            scene.camera_tracking_enabled = False
            scene.site_groups_visible = [False] * len(scene.site_groups_visible)
            scene._sync_visibilities()
            data = mujoco.MjData(replay.model)
            recorder = None
            for state in replay.states:
                mujoco.mj_setState(replay.model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
                mujoco.mj_forward(replay.model, data)
                scene.update_from_mjdata(data)
                recorder = recorder or server.get_scene_serializer()
                recorder.insert_sleep(float(1 / replay.fps))
            assert recorder is not None
            page = recorder.as_html()
            found = _DATA.search(page)
            if found is None:
                raise TaktError(f"viser {viser.__version__} writes pages that this version cannot take apart")
            scenes[replay.index] = found[1]
            client = _DATA.sub(lambda _: _MARK, page, count=1)
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()
    return client, scenes


def embed(client: str, scenes: dict[int, str]) -> Markup:
    """The elements that hold them, which show nothing, and the script that does."""
    packed = base64.b64encode(gzip.compress(client.encode(), 9, mtime=0)).decode()
    held = [("viser", packed), *((f"scene-{i}", scene) for i, scene in scenes.items())]
    kept = [tag("script", Markup(data), type="text/plain", id=name) for name, data in held]
    return Markup("".join(kept) + tag("script", Markup(SCRIPT.read_text())))


def stage(index: int, title: str, about: str) -> Markup:
    """Where an episode will be shown, with the button that does."""
    button = tag("button", "show in 3D", type="button", data_scene=f"scene-{index}", data_title=title)
    said = tag("p", tag("strong", title), tag("br"), tag("span", about, class_="soft"))
    return tag("div", said, tag("div", button, class_="stage"), class_="around")
