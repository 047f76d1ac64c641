# Sourced by the scripts beside it; $self names the one that does.

fail() {
    echo "$self: $*" >&2
    exit 1
}

# Runs a command with its output kept back; shows the end of it only where it fails.
quietly() {
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs Debian packages, or says what an administrator would have to do.
apt_install() {
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || fail "ask an administrator for: apt-get install $*"
    echo "$self: installing $*"
    quietly as_root apt-get update || fail "apt-get update failed"
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
        fail "apt-get install $* failed"
}
