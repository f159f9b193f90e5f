#!/usr/bin/python3
"""kill -9 at every named point of the snapshot and compaction path, with real processes: nothing acknowledged is lost, states are equal.

    failpoint_test.py DIRECTORY

Needs a nodehostd that was built with -Dfailpoints=true. The third host dies at each point in turn, while it makes a snapshot or takes one
over, and is started again. Each write has a key of its own; in the end every key is read through every host, which answers from its
own machine.
"""
import argparse
import signal
import time

import redis

from cluster import HOSTS, Cluster, find_program

SHARDS = 2
# In the order in which they come. Both when an image is made here and when one is received.
COMMIT = ["snapshot_image_synced", "snapshot_record_written", "snapshot_record_synced", "snapshot_directory_synced", "snapshot_renamed",
          "snapshot_committed"]
MAKING = COMMIT + ["snapshot_recorded", "log_compacted", "snapshot_pruned"]
TAKING_OVER = COMMIT + ["snapshot_installed", "snapshot_recovered"]


class Load:
    """Acknowledged writes: key -> value."""

    def __init__(self, c):
        self.c, self.acked, self.n = c, {}, 0

    def write(self, count):
        """Batches through host 1; what fails is not counted, and may be there or not."""
        for _ in range(count // 50):
            keys = [f"key-{self.n + i}" for i in range(50)]
            self.n += 50
            try:
                pipe = self.c.client(1).pipeline(transaction=False)
                for k in keys:
                    pipe.set(k, "value of " + k)
                for k, answer in zip(keys, pipe.execute(raise_on_error=False)):
                    if answer is True:
                        self.acked[k] = "value of " + k
            except (redis.RedisError, OSError):
                time.sleep(0.1)

    def check(self, hosts=HOSTS):
        keys = sorted(self.acked)
        for h in hosts:
            for at in range(0, len(keys), 500):
                part = keys[at:at + 500]
                pipe = self.c.client(h, 60).pipeline(transaction=False)
                for k in part:
                    pipe.get(k)
                for k, answer in zip(part, pipe.execute()):
                    if answer is None or answer.decode() != self.acked[k]:
                        raise AssertionError(f"{k} through host {h}: {answer}, acknowledged was {self.acked[k]!r}")


def await_death(c, h, point, load):
    end = time.monotonic() + 120
    while c.processes[h].poll() is None:
        if time.monotonic() > end:
            raise AssertionError(f"host {h} does not come by {point}:\n{c.tail(h)}")
        load.write(100)
    if c.processes[h].returncode != -signal.SIGKILL:
        raise AssertionError(f"at {point} host {h} ended with {c.processes[h].returncode}:\n{c.tail(h)}")


def die_while_making(c, load, point, count):
    c.stop(3)
    c.start(3, NODEHOST_FAILPOINT=f"{point}:{count}")
    await_death(c, 3, point, load)
    c.start(3)


def die_while_taking_over(c, load, point):
    c.kill(3)
    load.write(1500)  # the others remove from their logs what it lacks
    c.start(3, NODEHOST_FAILPOINT=f"{point}:1")
    await_death(c, 3, point, load)
    c.start(3)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("directory")
    args = p.parse_args()
    c = Cluster(*find_program(), args.directory, SHARDS, timeout_ms=20000,
                shard_options="quiesce: true, snapshot_entries: 200, compaction_overhead: 10")
    load = Load(c)
    try:
        for h in HOSTS:
            c.start(h)
        c.await_leaders(60)
        load.write(500)
        for i, point in enumerate(MAKING):
            die_while_making(c, load, point, 1 + i % 2)
            c.await_leaders(60)
        for point in TAKING_OVER:
            die_while_taking_over(c, load, point)
            c.await_leaders(60)
        load.check()
        for h in HOSTS:
            c.kill(h)
        for h in HOSTS:
            c.start(h)
        c.await_leaders(60)
        load.check()
        for h in HOSTS:
            code = c.stop(h)
            if code != 0:
                raise AssertionError(f"host {h} ended with {code}:\n{c.tail(h)}")
        print(f"{len(load.acked)} acknowledged writes, {len(MAKING) + len(TAKING_OVER)} deaths, nothing lost")
    finally:
        c.close()


if __name__ == "__main__":
    main()
