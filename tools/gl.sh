#!/bin/sh
# Makes off-screen rendering possible: MuJoCo draws the cameras' frames with EGL or OSMesa, which no
# Python package brings. Says in a line what it found or did.
#
#   PYTHON  the interpreter that looks, python3 by default
set -eu
cd "$(dirname "$0")/.."
self=gl
. tools/shell.sh
python=${PYTHON:-python3}
packages="libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"

if [ "$(uname -s)" != Linux ]; then
    echo "gl: $(uname -s) brings its own"
elif found=$("$python" tools/find_gl.py); then
    echo "gl: $found is here"
elif command -v apt-get >/dev/null; then
    apt_install $packages # the list is meant to split
    found=$("$python" tools/find_gl.py) || fail "still nothing renders: takt doctor tells more"
    echo "gl: $found is here now"
else
    fail "no EGL and no apt-get here: install Mesa's EGL with its drivers (Fedora: mesa-libEGL mesa-dri-drivers)"
fi
