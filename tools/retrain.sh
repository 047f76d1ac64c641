#!/bin/sh
# Usage: tools/retrain.sh FOLDER
#
# Makes the shipped weights again, from nothing: runs the commands of docs/training.md one after another in
# FOLDER. A command that has ended is not run again; one that was interrupted starts anew, or where it can, as
# `takt train`, goes on. Each one's output and seconds are in FOLDER/log.
set -eu
cd "$(dirname "$0")/.."
self=retrain
. tools/shell.sh
[ $# -eq 1 ] || fail "say where: tools/retrain.sh FOLDER"
project=$PWD
[ -x .venv/bin/takt ] || fail "no .venv here: make setup"
mkdir -p "$1/log"
cd "$1"
PATH=$project/.venv/bin:$PATH
export MUJOCO_GL="${MUJOCO_GL:-egl}"

# The commands are the indented lines of the page's first part, each beginning with takt; a backslash goes on.
sed -n '/^# Your own data/q; s/^    //p' "$project/docs/training.md" | sed -e ':a' -e '/\\$/N; s/\\\n *//; ta' | grep '^takt ' >commands
number=0
while read -r command; do
    number=$((number + 1))
    log=log/$(printf '%02d' $number)
    # What has ended is known by its words, so that a changed command is run again.
    [ "$(sed -n 1p "$log.done" 2>/dev/null)" = "$command" ] && continue
    case $command in
        "takt demos "*) # half a data set is refused
            out=$(echo "$command" | cut -d' ' -f3)
            rm -rf "$out" ;;
        "takt export "*) rm -rf "$(echo "$command" | cut -d' ' -f4)" ;;
    esac
    echo "$self: $command"
    begun=$(date +%s)
    sh -c "$command" >"$log.out" 2>&1 </dev/null || { tail -n 5 "$log.out" >&2; fail "failed: $command"; }
    printf '%s\n%s s\n' "$command" "$(($(date +%s) - begun))" >"$log.done"
done <commands
echo "$self: done; seconds of each in $1/log"
