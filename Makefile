# What people and CI do with this tree; each target sets up what it needs by itself.
#
#   make demo INSTRUCTION="put the green cube in the white bowl"
#   make test ARGS="-k planner"
#   make setup PYTHON=python3.12

PYTHON ?= python3
INSTRUCTION ?= put the red cube in the blue bowl
ARGS ?=
TORCH_INDEX ?=
export PYTHON INSTRUCTION TORCH_INDEX

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1|/p' Makefile | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

demo: ## obey INSTRUCTION in simulation, without a window (installs no torch)
	@tools/setup.sh .venv-demo cpu,sim
	@tools/gl.sh
	@.venv-demo/bin/takt demo --headless --instruction "$$INSTRUCTION"

page: ## the same on a page: type instructions, watch, stop, make it slower
	@tools/setup.sh .venv-page cpu,sim,console
	@tools/gl.sh
	@.venv-page/bin/takt demo

setup: ## make .venv: the takt command and everything the tests need
	@tools/setup.sh .venv cpu,openvino,tensorrt-rtx,sim,robot,data,jpeg,protocols,report,console,torch,hub,ray,voice,whisper,dev
	@tools/gl.sh

parity: ## make .venv-parity, with the LeRobot that tests/parity compares with
	@tools/parity.sh

metaworld: ## make .venv-metaworld, with the simulator of takt eval --suite metaworld
	@tools/metaworld.sh

test: setup parity metaworld ## run the tests, all or those of ARGS
	@tools/test.sh $(ARGS)

check: setup ## lint, check the format, check the types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

bench: setup parity ## run benchmarks/, which write benchmarks/results/*.json; *_gpu.py where there is a GPU
	@set -e; for script in benchmarks/[a-z]*.py; do \
	    case $$script in *_gpu.py) command -v nvidia-smi >/dev/null || continue ;; esac; \
	    echo "$$script"; .venv/bin/python "$$script"; done

clean: ## remove what the targets above have made
	rm -rf .venv .venv-demo .venv-page .venv-parity .venv-metaworld build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo page setup parity metaworld test check bench clean
