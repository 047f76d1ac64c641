"""vla-evaluation-harness plays Takt's tabletop against a served policy.

pip install vla-eval
takt serve vla/bundles/nano --protocol vla-eval --mapping examples/mappings/vla_eval_tabletop.json
python examples/vla_eval_tabletop.py ws://127.0.0.1:8000 10
"""

import sys
from typing import Any

import gymnasium
import numpy as np
import vla_eval
from vla_eval.benchmarks.base import StepBenchmark, StepResult

import sim.tabletop.env  # noqa: F401  (registers takt/Tabletop-v0)


class Tabletop(StepBenchmark):
    render_backends = frozenset({"cpu", "gpu"})

    @classmethod
    def configure_render(cls, mode: str) -> dict[str, str]:
        return {}  # sim.gl has chosen

    def __init__(self, seed: int = 20000) -> None:
        super().__init__()
        self.seed, self.env = seed, gymnasium.make("takt/Tabletop-v0")

    def get_tasks(self) -> list[dict[str, Any]]:
        return [{"name": "tabletop"}]

    def reset(self, task: dict[str, Any]) -> Any:
        return self.env.reset(seed=self.seed + task["episode_idx"])[0]

    def step(self, action: dict[str, Any]) -> StepResult:
        seen, reward, ended, cut, info = self.env.step(action["actions"])
        return StepResult(seen, float(reward), ended or cut, info)

    def make_obs(self, raw_obs: Any, task: dict[str, Any]) -> dict[str, Any]:
        images = {name: np.ascontiguousarray(raw_obs[name]) for name in ("front", "wrist")}
        return {"images": images, "state": raw_obs["state"], "task_description": raw_obs["instruction"]}

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        return {"success": bool(step_result.info["success"])}

    def get_metadata(self) -> dict[str, Any]:
        return {"max_steps": 300}


if __name__ == "__main__":
    episodes = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    benchmark = {"benchmark": f"{__name__}:Tabletop", "episodes_per_task": episodes}
    (result,) = vla_eval.run(
        {"benchmarks": [benchmark], "render": "cpu"}, server_url=sys.argv[1], no_save=True, docker=False
    )
    print(f"mean success {result['mean_success']:.2f} of {episodes} episodes")
