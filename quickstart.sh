#!/usr/bin/env bash
# NodeHost in a few minutes on Debian 12: installs packages, builds, starts three hosts with 1,000 shards, drives them with
# Redis's own tools, kills one host with -9, shows that nothing acknowledged is lost, restarts it. Exits 0 if all of it held.
#
#   ./quickstart.sh [--no-install]
set -euo pipefail
cd "$(dirname "$0")"

SHARDS=1000
KEYS_BEFORE=3000  # numbered keys written before the kill,
KEYS_DURING=3000  # while the host dies,
KEYS_AFTER=3000   # and after it
BUILD=build-release
NODEHOSTD=$BUILD/cmd/nodehostd/nodehostd

dir=$(mktemp -d "${TMPDIR:-/tmp}/nodehost-quickstart.XXXXXX")
demo="" restarted=""

cleanup() {
    local status=$?
    trap - EXIT INT TERM
    for pid in $restarted $demo; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in $restarted $demo; do
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$dir"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() {
    printf '\n== %s\n' "$1"
}

fail() {
    echo "quickstart: $1" >&2
    for log in "$dir"/*.log; do
        [ ! -s "$log" ] || { echo "--- $log" && tail -n 20 "$log"; } >&2
    done
    exit 1
}

# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
    local seconds=$1 what=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "$what did not happen within $seconds s"
        [ -z "$demo" ] || kill -0 "$demo" 2>/dev/null || fail "the demo ended"
        sleep 0.2
    done
}

# write_keys PORT: SETs key:N for each N on stdin and prints the N whose write was acknowledged. The ECHO before each SET
# names it, whatever the answers to others were.
write_keys() {
    awk '{ printf "ECHO %d\nSET key:%d value-%d\n", $1, $1, $1 }' | redis-cli -p "$1" 2>/dev/null |
        awk '/^[0-9]+$/ { n = $1; next } $0 == "OK" && n != "" { print n } { n = "" }'
}

# write_all PORT FIRST LAST: writes every key, again where a write was refused, and notes them as acknowledged.
write_all() {
    local port=$1 end=$((SECONDS + 30))
    seq "$2" "$3" >"$dir/wanted"
    while [ -s "$dir/wanted" ]; do
        [ $SECONDS -lt $end ] || fail "$(wc -l <"$dir/wanted") writes through port $port are still refused"
        write_keys "$port" <"$dir/wanted" >"$dir/written" || true
        cat "$dir/written" >>"$dir/acknowledged"
        grep -vxFf "$dir/written" "$dir/wanted" >"$dir/rest" || true
        mv "$dir/rest" "$dir/wanted"
    done
}

# lost_keys PORT: prints the acknowledged keys that a linearizable GET through this port does not find as written.
lost_keys() {
    sort -nu "$dir/acknowledged" >"$dir/expected"
    awk '{ printf "ECHO %d\nGET key:%d\n", $1, $1 }' "$dir/expected" | redis-cli -p "$1" 2>/dev/null |
        awk '/^[0-9]+$/ { n = $1; next } n != "" && $0 == "value-" n { print n } { n = "" }' | sort -n >"$dir/found"
    comm -23 <(sort "$dir/expected") <(sort "$dir/found")
}

check_keys() {
    local port lost
    for port in "$@"; do
        lost=$(lost_keys "$port" | wc -l)
        [ "$lost" -eq 0 ] || fail "$lost of $(wc -l <"$dir/expected") acknowledged keys are not readable through port $port"
        echo "port $port: all $(wc -l <"$dir/expected") acknowledged keys are there"
    done
}

say "packages and build"
[ "${1:-}" = --no-install ] || scripts/install-packages build run
if [ ! -f $BUILD/build.ninja ]; then
    meson setup $BUILD -Dbuildtype=release -Dtests=false >"$dir/build.log" || fail "meson setup failed"
fi
ninja -C $BUILD cmd/nodehostd/nodehostd cmd/machines/kv.so >"$dir/build.log" || fail "the build failed"
rm "$dir/build.log"
built=$SECONDS
echo "built in $built s"

say "three hosts, $SHARDS shards"
$NODEHOSTD demo --shards $SHARDS --dir "$dir/demo" >"$dir/demo.log" 2>&1 &
demo=$!
await 60 "a leader for every shard" test -s "$dir/demo/cluster.env"
# shellcheck disable=SC1091
. "$dir/demo/cluster.env"
: "${REDIS_PORT_1:?}" "${REDIS_PORT_2:?}" "${REDIS_PORT_3:?}" "${PID_3:?}" "${CONFIG_3:?}"
cat "$dir/demo.log"

say "redis-benchmark through host 1"
redis-benchmark -p "$REDIS_PORT_1" -t set,get,incr -n 100000 -P 16 -q 2>"$dir/benchmark.log" | tr '\r' '\n' | grep 'per second' |
    tee "$dir/benchmark" || fail "redis-benchmark failed"

say "numbered keys through host 1, read through the others"
write_all "$REDIS_PORT_1" 1 $KEYS_BEFORE
check_keys "$REDIS_PORT_2" "$REDIS_PORT_3"

say "kill -9 of host 3 while host 1 takes writes"
seq $((KEYS_BEFORE + 1)) $((KEYS_BEFORE + KEYS_DURING)) | write_keys "$REDIS_PORT_1" >>"$dir/acknowledged" &
writer=$!
sleep 0.5
kill -9 "$PID_3"
killed=$SECONDS
wait $writer
echo "acknowledged $(($(wc -l <"$dir/acknowledged") - KEYS_BEFORE)) of $KEYS_DURING meanwhile; the others got an error or no leader in time"
check_keys "$REDIS_PORT_1" "$REDIS_PORT_2"
write_all "$REDIS_PORT_2" $((KEYS_BEFORE + KEYS_DURING + 1)) $((KEYS_BEFORE + KEYS_DURING + KEYS_AFTER))
echo "$KEYS_AFTER more keys written through host 2 while host 3 is down"

say "restart of host 3"
echo "$NODEHOSTD --config $CONFIG_3"
$NODEHOSTD --config "$CONFIG_3" >"$dir/host3.log" 2>&1 &
restarted=$!
await 60 "an answer of host 3" redis-cli -p "$REDIS_PORT_3" PING
write_all "$REDIS_PORT_3" $((KEYS_BEFORE + KEYS_DURING + KEYS_AFTER + 1)) $((KEYS_BEFORE + KEYS_DURING + KEYS_AFTER + 100))
check_keys "$REDIS_PORT_3"
echo "each of these reads was answered by host 3's own replica, after it had applied all that was committed: it has caught up"

say "summary"
echo "3 hosts, $SHARDS shards; one host killed for $((SECONDS - killed)) s; $(wc -l <"$dir/expected") acknowledged writes, none lost"
sed 's/^ *//' "$dir/benchmark"
echo "total $SECONDS s, of which $built s for packages and build"
