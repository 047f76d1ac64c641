"""The tabletop as a gymnasium environment, driven by the scripted expert.

python examples/gymnasium_expert.py
"""

import gymnasium
import numpy as np

import sim.tabletop.env  # noqa: F401  (registers takt/Tabletop-v0)
from sim.tabletop import expert

env = gymnasium.make("takt/Tabletop-v0")
for seed in range(5):
    observation, info = env.reset(seed=seed)
    ended = cut = False
    ticks = 0
    while not (ended or cut):
        action = expert.act(env.unwrapped.world).astype(np.float32)
        low, high = env.action_space.low, env.action_space.high
        observation, reward, ended, cut, info = env.step(np.clip(action, low, high))
        ticks += 1
    print(f"{observation['instruction']!r}: {'done' if ended else 'not done'} after {ticks / 30:.1f} s")
env.close()
