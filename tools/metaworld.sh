#!/bin/sh
# Makes .venv-metaworld, with the Meta-World that `takt eval --suite metaworld` runs. Run again, it returns at
# once.
#
#   PYTHON       the interpreter, python3 by default; 3.10 or newer
set -eu
cd "$(dirname "$0")/.."
self=metaworld
. tools/shell.sh
venv=.venv-metaworld
stamp=$venv/.takt-metaworld
wanted=$( (echo "$PWD"; cat constraints/metaworld.txt) | cksum)
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || exit 0
echo "metaworld: installing Meta-World into $venv (a minute the first time)"
"${PYTHON:-python3}" -m venv --clear "$venv"
quietly "$venv/bin/python" -m pip install --disable-pip-version-check -r constraints/metaworld.txt ||
    fail "pip failed, see above"
echo "$wanted" >"$stamp"
