"""MuJoCo chooses its GL platform once, when it is first imported: ours, before any test imports it."""

import importlib.util

if importlib.util.find_spec("mujoco"):
    import sim.gl  # noqa: F401
