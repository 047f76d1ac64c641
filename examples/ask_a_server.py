"""A policy server is a `Policy`: ask it for one chunk.

takt serve vla/bundles/nano --bind tcp://127.0.0.1:5555 &
python examples/ask_a_server.py tcp://127.0.0.1:5555
"""

import sys

import numpy as np

from runtime.client import RemotePolicy
from vla.contract import Observation

with RemotePolicy(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555") as policy:
    spec = policy.spec
    frames = {c.name: np.full((c.height, c.width, 3), 128, np.uint8) for c in spec.cameras}
    state = np.zeros(len(spec.state), np.float32)
    chunk = policy.infer(Observation(0.0, state, frames, "put the red cube in the blue bowl"))
    names = ", ".join(spec.actions.names)
    print(f"{spec.name}: {len(chunk.actions)} rows, {chunk.dt:.2f} s apart, of {names}")
    print("milliseconds:", {stage: round(1e3 * s, 2) for stage, s in chunk.stages.items()})
