#!/usr/bin/python3
"""Does the space of old entries really return? Many writes to few keys, with snapshots by themselves, and the disk watched.

    disk_use.py DIRECTORY [--writes N] [--value BYTES] [--keys N] [--shards N] [--snapshot-bytes N] [--nodehostd FILE] [--plugins DIR]

Starts three hosts, loads them with redis-benchmark, prints a line every few seconds, then the highest use per host beside
what is allowed: 3 x the live data plus the configured log (entries since a snapshot, and the overhead, of all shards). Then kills all
hosts, starts them again and tells how long that took, and how many entries lay behind the snapshots.
"""
import argparse
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from cluster import HOSTS, Cluster  # noqa: E402

OVERHEAD_ENTRIES = 1000
RECORD_BYTES = 40 + 60  # of an entry, around its value: record header, the command's words and key


def du(directory):
    total = 0
    for root, _, names in os.walk(directory):
        for n in names:
            try:
                total += os.stat(os.path.join(root, n)).st_blocks * 512
            except FileNotFoundError:
                pass  # removed meanwhile
    return total


def watch(c, stop, peaks):
    begin = time.monotonic()
    while not stop.wait(2):
        used = {h: du(f"{c.dir}/data-{h}") for h in HOSTS}
        for h in HOSTS:
            peaks[h] = max(peaks.get(h, 0), used[h])
        print(f"{time.monotonic() - begin:7.0f} s  " + "  ".join(f"host {h}: {used[h] / 2**20:7.0f} MiB" for h in HOSTS), flush=True)


def load(c, args):
    # Unique keys first, so that the live data is there from the beginning; then the rest.
    command = ["redis-benchmark", "-p", str(c.redis[1]), "-t", "set", "-d", str(args.value), "-r", str(args.keys), "-n", str(args.writes),
               "-c", "50", "-P", "32", "-q"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return out.stdout.strip().splitlines()[-1]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("directory")
    p.add_argument("--writes", type=int, default=24_000_000)
    p.add_argument("--value", type=int, default=1024)
    p.add_argument("--keys", type=int, default=200_000)
    p.add_argument("--shards", type=int, default=8)
    p.add_argument("--snapshot-bytes", type=int, default=32 << 20)
    p.add_argument("--nodehostd", default=os.environ.get("NODEHOSTD"))
    p.add_argument("--plugins", default=os.environ.get("NODEHOST_PLUGINS"))
    args = p.parse_args()
    c = Cluster(args.nodehostd, args.plugins, args.directory, args.shards, timeout_ms=60000,
                shard_options=f"quiesce: true, snapshot_bytes: {args.snapshot_bytes}, snapshot_entries: 1000000000, "
                              f"compaction_overhead: {OVERHEAD_ENTRIES}")
    peaks, stop = {}, threading.Event()
    try:
        for h in HOSTS:
            c.start(h)
        c.await_leaders(60)
        watcher = threading.Thread(target=watch, args=(c, stop, peaks))
        watcher.start()
        begin = time.monotonic()
        rate = load(c, args)
        seconds = time.monotonic() - begin
        stop.set()
        watcher.join()
        entry = args.value + RECORD_BYTES
        live = args.keys * entry
        log = args.shards * (args.snapshot_bytes + OVERHEAD_ENTRIES * entry)
        allowed = 3 * live + log
        print(f"{args.writes} writes of {args.value} bytes in {seconds:.0f} s ({rate})")
        print(f"written per host {args.writes * entry / 2**30:.1f} GiB; live {live / 2**20:.0f} MiB, configured log {log / 2**20:.0f} MiB, "
              f"allowed {allowed / 2**20:.0f} MiB, highest {max(peaks.values()) / 2**20:.0f} MiB")
        for h in HOSTS:
            c.kill(h)
        for h in HOSTS:
            c.start(h)
        print(f"restart of all after kill -9: every shard has a leader and its state after {c.await_leaders(300):.1f} s")
        for h in HOSTS:
            c.stop(h)
        return 0 if max(peaks.values()) <= allowed else 1
    finally:
        stop.set()
        c.close()


if __name__ == "__main__":
    sys.exit(main())
