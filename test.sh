#!/usr/bin/env bash
# Installs what is missing, builds and runs every suite; the last line is `N passed, N failed`.
#
#   ./test.sh                 everything: about ten minutes on two cores
#   ./test.sh --fast          only the ASan + UBSan build: no TSan, no integration tests
#   ./test.sh --suite NAME    only one of: unit conformance sim stress fuzz lint integration
#   ./test.sh --seeds N       that many seeds of the simulator
#   ./test.sh --no-install    leave the system's packages alone
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit "$1"
}

suite="" install=yes fast=no
while [ $# -gt 0 ]; do
    case $1 in
    --suite) suite=${2:?--suite needs a name}; shift ;;
    --seeds) export NH_SIM_SEEDS=${2:?--seeds needs a number}; shift ;;
    --no-install) install=no ;;
    --fast) fast=yes ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
    shift
done

# What a build is for: its suites. Threads are tested by the thread sanitizer, whole processes at full speed.
declare -A suites=(
    [build-asan]="unit conformance sim stress fuzz lint"
    [build-tsan]="stress"
    [build-release]="integration"
)
declare -A options=(
    [build-asan]="-Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dfailpoints=true"
    [build-tsan]="-Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false"
    [build-release]="-Dbuildtype=release"
)
tested=()

fail() {
    echo "$1" >&2
    echo "0 passed, 1 failed"
    exit 1
}

# Configures a new build directory, or brings the options of an old one up to date.
configure() {
    local dir=$1 verb=setup log=$1.log
    [ ! -f "$dir/build.ninja" ] || verb=configure
    # shellcheck disable=SC2086
    meson $verb "$dir" ${options[$dir]} -Dwerror=true -Dtests=true >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        fail "configuring $dir failed"
    }
    rm -f "$log"
}

# Builds what the wanted suites of a build need, and runs them.
run() {
    local dir=$1 name args=()
    for name in ${suites[$dir]}; do
        if [ -z "$suite" ] || [ "$suite" = "$name" ]; then
            args+=(--suite "$name")
        fi
    done
    [ ${#args[@]} -gt 0 ] || return 0
    echo "== $dir: ${args[*]}"
    tested+=("$dir")
    configure "$dir"
    rm -f "$dir"/meson-logs/testlog.*
    # A longer simulation has no time limit.
    [ -z "${NH_SIM_SEEDS:-}" ] || args+=(--timeout-multiplier 0)
    [ "$dir" != build-tsan ] || args+=(--timeout-multiplier 4)
    meson test -C "$dir" --print-errorlogs "${args[@]}" || true # the logs tell
}

[ $install = no ] || scripts/install-packages build run test || fail "packages are missing"
run build-asan
if [ $fast = no ]; then
    run build-tsan
    run build-release
fi
[ ${#tested[@]} -gt 0 ] || fail "there is no suite $suite"
python3 tests/summary.py "${tested[@]}"
