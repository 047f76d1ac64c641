#!/bin/sh
# Makes .venv-parity, with the LeRobot that tests/parity asks. Run again, it returns at once.
#
#   PYTHON       the interpreter, python3 by default; LeRobot wants 3.10 or newer
#   TORCH_INDEX  a further package index to take torch from
set -eu
cd "$(dirname "$0")/.."
self=parity
. tools/shell.sh
venv=.venv-parity
stamp=$venv/.takt-parity
wanted=$( (echo "$PWD"; cat constraints/parity.txt) | cksum)
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || exit 0
echo "parity: installing LeRobot into $venv (minutes the first time)"
"${PYTHON:-python3}" -m venv --clear "$venv"
# LeRobot asks for more than its policies need, and pins torch: what they import is listed instead.
quietly "$venv/bin/python" -m pip install --disable-pip-version-check \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r constraints/parity.txt ||
    fail "pip failed, see above"
quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps lerobot==0.4.4 \
    torchvision==0.28.0 || fail "pip failed, see above"
echo "$wanted" >"$stamp"
