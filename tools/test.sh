#!/bin/sh
# Usage: tools/test.sh [ARGS OF PYTEST]
#
# The tests: those that ARGS choose, or all. What only computes is shared out between processes, a file to
# each; what shows how processes, sockets and clocks behave has the machine to itself.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ $# -eq 0 ] || exec $python -m pytest "$@"

status=0
# A thread each, or the processes would fight for the cores; each takes about 1 GB.
cores=$(nproc)
OMP_NUM_THREADS=1 $python -m pytest -n $((cores < 4 ? cores : 4)) --dist loadfile \
    tests/export tests/parity tests/sim tests/vla --ignore tests/sim/console || status=1
$python -m pytest tests/runtime tests/robot_io tests/sim/console tests/test_*.py || status=1
exit $status
