# common.sh: read by the other scripts with `source`. Where things are, how to say things, how to build.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${QUIRE_BUILD_DIR:-$root/build}
case $build in /*) ;; *) build=$root/$build ;; esac
cache=${XDG_CACHE_HOME:-${HOME:-$root/build}/.cache}/quire
jobs=$(nproc 2>/dev/null || echo 2)

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# step NAME COMMAND...: runs a command with its output in a log; says how long it took, and shows the log's end when it
# failed.
step() {
    local name=$1 log status=0 start=$SECONDS
    shift
    mkdir -p "$build/logs"
    log=$build/logs/${name//[^a-zA-Z0-9]/_}.log
    printf '%-44s' "$name"
    "$@" >"$log" 2>&1 || status=$?
    if [ $status -eq 0 ]; then
        printf '%5d s\n' $((SECONDS - start))
    else
        printf '%5d s  FAILED\n' $((SECONDS - start))
        tail -n 60 "$log" | sed 's/^/    /'
        say "    (all of it: $log)"
    fi
    return $status
}

# configure_and_build FOLDER CMAKE_ARGUMENT...
configure_and_build() {
    local folder=$1
    shift
    local arguments=(-S "$root" -B "$folder")
    if has ninja; then
        arguments+=(-G Ninja)
    fi
    if has ccache; then
        arguments+=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    fi
    cmake "${arguments[@]}" "$@" && cmake --build "$folder" --parallel "$jobs"
}

# fetch_wheels FOLDER PACKAGE...: puts packages of PyPI there, as they come, and installs nothing.
fetch_wheels() {
    local folder=$1 pip=(python3 -m pip)
    shift
    if ! "${pip[@]}" --version; then
        python3 -m venv "$folder/venv" || return
        pip=("$folder/venv/bin/pip")
    fi
    "${pip[@]}" download --disable-pip-version-check --no-deps --only-binary :all: -d "$folder" "$@"
}
