#!/usr/bin/python3
"""A host is down while its shards are written to; how does it catch up, and what do the clients notice?

    catch_up.py DIRECTORY [--gib N] [--value BYTES] [--shards N] [--rate N] [--nodehostd FILE] [--plugins DIR]

Three hosts; the third is killed; N GiB of new keys are written; then it starts again while a steady load goes on at `rate` SETs per second.
Prints: the time until its shards have applied what their leaders had committed when it started; the highest resident memory of each
process, less what it had before (bounded by buffers and the state itself, not by an image on top); and the 50th and 99th percentile of
the steady load's latency before, during and after.
"""
import argparse
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from cluster import HOSTS, Cluster  # noqa: E402


def memory(c, h, field):
    with open(f"/proc/{c.processes[h].pid}/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return 0


def as_dict(pairs):
    return {pairs[i].decode(): pairs[i + 1] for i in range(0, len(pairs), 2)} if isinstance(pairs, list) else \
        {k.decode(): v for k, v in pairs.items()}


class SteadyLoad(threading.Thread):
    """SETs one after another at a rate; notes each latency with its phase."""
    def __init__(self, c, rate, value):
        super().__init__(daemon=True)
        self.client, self.period, self.value = c.client(1), 1 / rate, b"x" * value
        self.phase, self.latencies, self.stopped = "before", {}, False

    def run(self):
        due, i = time.monotonic(), 0
        while not self.stopped:
            due += self.period
            time.sleep(max(0, due - time.monotonic()))
            begin = time.monotonic()
            self.client.set(f"steady-{i % 1000}", self.value)
            self.latencies.setdefault(self.phase, []).append(time.monotonic() - max(begin, due))
            i += 1

    def report(self, phase):
        l = sorted(self.latencies.get(phase, [0]))
        return f"p50 {1000 * l[len(l) // 2]:.2f} ms, p99 {1000 * l[int(len(l) * 0.99)]:.2f} ms ({len(l)} writes)"


def progress(c, h, shards):
    answers = [as_dict(c.client(h).execute_command("NH.SHARD", "INFO", s)) for s in range(1, shards + 1)]
    return [(int(a["commit"]), int(a["applied"])) for a in answers]


def await_caught_up(c, targets, shards):
    begin = time.monotonic()
    while time.monotonic() - begin < 900:
        try:
            if all(applied >= target for (_, applied), target in zip(progress(c, 3, shards), targets)):
                return time.monotonic() - begin
        except Exception:  # it is being started
            c.check_alive()
        time.sleep(0.1)
    raise AssertionError("it does not catch up")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("directory")
    p.add_argument("--gib", type=float, default=1)
    p.add_argument("--value", type=int, default=1024)
    p.add_argument("--shards", type=int, default=8)
    p.add_argument("--rate", type=int, default=500)
    p.add_argument("--nodehostd", default=os.environ.get("NODEHOSTD"))
    p.add_argument("--plugins", default=os.environ.get("NODEHOST_PLUGINS"))
    args = p.parse_args()
    writes = int(args.gib * 2**30 / args.value)
    c = Cluster(args.nodehostd, args.plugins, args.directory, args.shards, timeout_ms=60000,
                shard_options="quiesce: true, snapshot_entries: 20000, compaction_overhead: 1000")
    try:
        for h in HOSTS:
            c.start(h)
        c.await_leaders(60)
        c.kill(3)
        begin = time.monotonic()
        subprocess.run(["redis-benchmark", "-p", str(c.redis[1]), "-t", "set", "-d", str(args.value), "-r", str(10 * writes), "-n", str(writes),
                        "-c", "50", "-P", "32", "-q"], check=True, stdout=subprocess.DEVNULL)
        print(f"{args.gib} GiB in {writes} writes with one host down: {time.monotonic() - begin:.0f} s", flush=True)
        load = SteadyLoad(c, args.rate, args.value)
        load.start()
        time.sleep(15)
        before = {h: memory(c, h, "VmRSS") for h in (1, 2)}
        for h in (1, 2):
            with open(f"/proc/{c.processes[h].pid}/clear_refs", "w") as f:
                f.write("5")  # the peak begins anew
        load.phase = "during"
        targets = [commit for commit, _ in progress(c, 1, args.shards)]
        c.start(3)
        seconds = await_caught_up(c, targets, args.shards)
        load.phase = "after"
        time.sleep(15)
        load.stopped = True
        load.join()
        print(f"caught up after {seconds:.1f} s")
        for h in (1, 2):
            print(f"host {h} (sends): {before[h]:.0f} MiB before, highest meanwhile {memory(c, h, 'VmHWM'):.0f} MiB")
        print(f"host 3 (receives): {memory(c, 3, 'VmRSS'):.0f} MiB now, highest {memory(c, 3, 'VmHWM'):.0f} MiB")
        for phase in ("before", "during", "after"):
            print(f"{phase:7} {load.report(phase)}")
        return 0
    finally:
        c.close()


if __name__ == "__main__":
    sys.exit(main())
