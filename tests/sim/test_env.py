"""The gymnasium side of the tabletop."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim.tabletop.env  # noqa: F401  (registers it)
from sim.tabletop import expert, instructions
from sim.tabletop.meaning import held_out


@pytest.fixture
def env():
    made = gymnasium.make("takt/Tabletop-v0")
    yield made
    made.close()


def test_passes_gymnasiums_own_checker():
    env = gymnasium.make("takt/Tabletop-v0", render_mode="rgb_array")
    check_env(env.unwrapped)
    env.close()


def test_the_expert_earns_the_reward_through_the_gymnasium_interface(env):
    verbs = set()
    for seed in range(5):
        _, info = env.reset(seed=seed)
        assert not info["success"]
        verbs.add(env.unwrapped.world.task.verb)
        total = 0.0
        for _ in range(300):
            action = np.clip(expert.act(env.unwrapped.world), env.action_space.low, env.action_space.high)
            _, reward, ended, cut, info = env.step(action.astype(np.float32))
            total += reward
            if ended or cut:
                break
        assert ended and not cut
        assert total == 1.0
        assert info["success"]
    assert len(verbs) >= 2


def test_an_arm_that_rests_earns_nothing(env):
    env.reset(seed=1)
    here = env.unwrapped.world.joints()
    assert [env.step(here)[1:3] for _ in range(10)] == [(0.0, False)] * 10


def test_the_words_are_the_tasks_and_the_seeds(env):
    for seed in range(10):
        seen, info = env.reset(seed=seed)
        task = env.unwrapped.world.task
        assert instructions.parse(seen["instruction"]) == task
        assert info["task"] == instructions.canonical(task)
        again, _ = env.reset(seed=seed)
        assert again["instruction"] == seen["instruction"]
        np.testing.assert_array_equal(again["front"], seen["front"])
        assert env.observation_space.contains(seen)


def test_words_may_be_replaced_and_the_task_stays(env):
    env.reset(seed=2)
    task = env.unwrapped.world.task
    seen, _ = env.reset(seed=2, options={"instruction": "do as you were told"})
    assert seen["instruction"] == "do as you were told"
    assert env.unwrapped.world.task == task


@pytest.mark.parametrize("split", ["seen", "phrasings", "combinations"])
def test_a_split_decides_what_is_asked(split):
    env = gymnasium.make("takt/Tabletop-v0", split=split)
    for seed in range(10):
        env.reset(seed=seed)
        assert held_out(env.unwrapped.world.task) == (split == "combinations")
    env.close()


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="phrasings"):
        gymnasium.make("takt/Tabletop-v0", split="unseen")
