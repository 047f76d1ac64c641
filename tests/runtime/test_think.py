"""How many candidates, who takes one: words of a command line, and the judges that need no simulator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import think
from runtime.think import JUDGES, MOST, WORLDLY, Thinking
from tests import fakes
from vla.contract import Prefix, Request, TaktError

SPEC = fakes.arm_spec()
SHAPE = (SPEC.chunk_length, SPEC.actions.size)
NOTHING = np.zeros(SPEC.chunk_length, bool)


def asked(prefix: Prefix | None = None) -> Request:
    return Request(fakes.observation(SPEC), prefix)


@given(st.integers(1, MOST), st.sampled_from(JUDGES))
def test_what_is_written_is_read_back(count: int, judge: str) -> None:
    assert think.parse(f"{count}:{judge}") == Thinking(count, judge)
    assert think.parse(str(count)) == Thinking(count, "coherence")


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "4:", ":critic", "4:nobody", "4:critic:world", "four"])
def test_nonsense_is_refused_with_what_is_valid(text: str) -> None:
    with pytest.raises(TaktError, match=r"1 to 64.*coherence, critic, refuse, world"):
        think.parse(text)


def test_a_server_has_no_simulator() -> None:
    assert think.served(None) is None and think.served("4:critic") == Thinking(4, "critic")
    for judge in WORLDLY:
        with pytest.raises(TaktError, match="only takt eval has; valid: coherence, critic"):
            think.served(f"4:{judge}")


def test_coherence_takes_what_goes_on_with_the_plan() -> None:
    judge = think.judge_of(Thinking(3), SPEC, {})
    rng = np.random.default_rng(0)
    plan = rng.normal(size=SHAPE)
    draws = plan + np.array([0.3, -0.01, 0.1])[:, None, None]
    weights = (np.arange(SPEC.chunk_length) < 4).astype(np.float32)
    assert np.argmin(judge(draws, asked(Prefix(plan, weights)), NOTHING, dict)) == 1
    # Without a plan the draw in the middle of the others.
    assert np.argmin(judge(draws, asked(), NOTHING, dict)) == 2


class Sum:
    """A critic that likes the largest sum of actions and memory, and sees all of a batch at once."""

    inputs = {"actions": ("float32", (None, *SHAPE)), "memory_goal": ("float32", (None, 1))}
    outputs = ["score"]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert feeds["memory_goal"].shape[0] == feeds["actions"].shape[0]
        return {"score": feeds["actions"].sum((1, 2)) + feeds["memory_goal"][:, 0]}


@given(st.permutations(list(range(5))))
def test_the_critic_takes_what_is_worth_most_wherever_it_stands(order: list[int]) -> None:
    judge = think.judge_of(Thinking(5, "critic"), SPEC, {"critic": Sum()})
    draws = np.array(order, float)[:, None, None] * np.ones(SHAPE)
    bad = judge(draws, asked(), NOTHING, lambda: {"memory_goal": np.zeros((1, 1), np.float32)})
    assert bad.shape == (5,) and order[int(np.argmin(bad))] == 4


def test_a_judge_that_is_not_there_is_named() -> None:
    with pytest.raises(TaktError, match=r"no critic.*takt export --critic"):
        think.judge_of(Thinking(4, "critic"), SPEC, {})
    with pytest.raises(TaktError, match="'world' plays chunks in a simulator"):
        think.judge_of(Thinking(4, "world"), SPEC, {})(np.zeros((4, *SHAPE)), asked(), NOTHING, dict)
