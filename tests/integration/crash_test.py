#!/usr/bin/python3
"""kill -9 under write load: no acknowledged write is lost, no read is stale, no other process falls over.

    crash_test.py [--rounds N] [--shards N] DIRECTORY

Rounds of: writers on all hosts, a random host killed with SIGKILL and started again; afterwards every acknowledged write is read
back (linearizable GET) through each host. Then all three are killed at once and started again: the same. Each writer owns its keys
and never writes a number twice, so a read must show the last acknowledged number, or one whose outcome was unknown; never
another, and never one that was refused with the promise that nothing was applied. Writers check that while all this goes on.
"""
import argparse
import random
import threading
import time

import redis

from cluster import HOSTS, Cluster, find_program

WRITERS = 6
KEYS_PER_WRITER = 200


PROMISES = ("CLUSTERDOWN", "TRYAGAIN", "LOADING", "MISCONF")  # nothing was or will be applied


class History:
    """What one writer knows about its keys."""

    def __init__(self):
        self.last, self.acked, self.unknown = 0, {}, {}

    def allowed(self, key):
        return {self.acked.get(key, 0)} | self.unknown.get(key, set())


class Writer(threading.Thread):
    """Writes 1, 2, 3, ... to its keys in turn."""

    def __init__(self, cluster, number, stop, history):
        super().__init__(daemon=True)
        self.cluster, self.number, self.stop_event, self.history = cluster, number, stop, history
        self.n_acked, self.n_refused, self.n_unknown, self.violations = 0, 0, 0, []
        self.random = random.Random(number)

    def pick(self):
        return self.cluster.client(self.random.choice(HOSTS), 12)

    def write(self, client, key):
        self.history.last += 1
        try:
            client.set(key, self.history.last)
            self.history.acked[key] = self.history.last
            self.n_acked += 1
            return True
        except (redis.RedisError, OSError) as e:
            if isinstance(e, redis.ResponseError) and str(e).startswith(PROMISES):
                self.n_refused += 1
            else:
                self.n_unknown += 1
                self.history.unknown.setdefault(key, set()).add(self.history.last)
            return False

    def read(self, client, key):
        allowed = self.history.allowed(key)
        try:
            value = int(client.get(key) or 0)
        except (redis.RedisError, OSError):
            return False
        if value not in allowed:
            self.violations.append(f"{key}: read {value}, allowed {sorted(allowed)}")
        return True

    def run(self):
        client = self.pick()
        while not self.stop_event.is_set():
            good = self.write(client, f"w{self.number}:{self.history.last % KEYS_PER_WRITER}")
            if good and self.history.last % 3 == 0:
                good = self.read(client, f"w{self.number}:{self.random.randrange(KEYS_PER_WRITER)}")
            if not good:
                client = self.pick()
                time.sleep(0.01)


def check_all(cluster, histories):
    """Reads every key through each host. Returns how many were read."""
    n = 0
    for h in HOSTS:
        client = cluster.client(h, 30)
        for number, history in enumerate(histories):
            keys = [f"w{number}:{k}" for k in range(KEYS_PER_WRITER)]
            for key, value in zip(keys, client.mget(keys)):
                n += 1
                if int(value or 0) not in history.allowed(key):
                    raise AssertionError(f"host {h}: {key} is {value}, allowed {sorted(history.allowed(key))}")
    return n


def run_writers(cluster, histories, seconds, action):
    """Writers for `seconds`, `action` in the middle."""
    stop = threading.Event()
    writers = [Writer(cluster, i, stop, history) for i, history in enumerate(histories)]
    for w in writers:
        w.start()
    time.sleep(seconds / 2)
    action()
    time.sleep(seconds / 2)
    stop.set()
    for w in writers:
        w.join(60)
        if w.violations:
            raise AssertionError("stale or impossible reads: " + "; ".join(w.violations[:5]))
    return (f"{sum(w.n_acked for w in writers)} acknowledged, {sum(w.n_refused for w in writers)} refused, "
            f"{sum(w.n_unknown for w in writers)} unknown")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("directory")
    args = parser.parse_args()
    print(f"seed {args.seed}")
    dice = random.Random(args.seed)
    nodehostd, plugins = find_program()
    cluster = Cluster(nodehostd, plugins, args.directory, args.shards)
    try:
        for h in HOSTS:
            cluster.start(h)
        print(f"{args.shards} shards have leaders {cluster.await_leaders(10):.1f} s after the last start")
        histories = [History() for _ in range(WRITERS)]
        for round_number in range(args.rounds):
            victim = dice.choice(HOSTS)
            one_round(cluster, histories, victim, f"round {round_number + 1}, host {victim} killed")
        for h in HOSTS:
            cluster.kill(h)
        for h in HOSTS:
            cluster.start(h)
        seconds = cluster.await_leaders(60)
        print(f"all killed and started again: leaders after {seconds:.1f} s, {check_all(cluster, histories)} reads, none lost")
        run_writers(cluster, histories, 2, lambda: None)
        check_all(cluster, histories)
        for h in HOSTS:
            code = cluster.stop(h)
            if code != 0:
                raise AssertionError(f"host {h} ended with {code} on SIGTERM:\n{cluster.tail(h)}")
    finally:
        cluster.close()
    print("ok: zero lost, zero stale")


def one_round(cluster, histories, victim, title):
    others = [h for h in HOSTS if h != victim]
    totals = run_writers(cluster, histories, 3, lambda: cluster.kill(victim))
    cluster.check_alive(others)
    cluster.start(victim)
    cluster.await_leaders(60)
    print(f"{title}: {totals}; {check_all(cluster, histories)} reads checked", flush=True)


if __name__ == "__main__":
    main()
