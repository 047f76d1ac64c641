"""The gymnasium side of the tabletop."""

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

import sim.tabletop.env  # noqa: F401  (registers it)
from sim.tabletop import expert


def test_passes_gymnasiums_own_checker():
    env = gymnasium.make("takt/Tabletop-v0", render_mode="rgb_array")
    check_env(env.unwrapped)
    env.close()


def test_the_expert_earns_the_reward_through_the_gymnasium_interface():
    env = gymnasium.make("takt/Tabletop-v0")
    env.reset(seed=3)
    total = 0.0
    for _ in range(300):
        action = np.clip(expert.act(env.unwrapped.world), env.action_space.low, env.action_space.high)
        _, reward, ended, cut, _ = env.step(action.astype(np.float32))
        total += reward
        if ended or cut:
            break
    env.close()
    assert ended
    assert total == 1.0
