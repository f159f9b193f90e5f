#!/usr/bin/python3
"""Snapshots, sessions and imports with real processes: compaction and restart, joining by snapshot, a shard without majority.

    snapshot_test.py DIRECTORY [--machine kv-disk]
"""
import os
import shutil
import struct
import subprocess
import time

import redis

from cluster import HOSTS, check, run_tests, start_all
from membership_test import Writer, info, refused, retry

SHARDS = 2
SNAPSHOT_ENTRIES = 200
OVERHEAD = 20
TRANSIENT = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "TIMEOUT")


def keys_of(c, n):
    """n keys per shard."""
    found = {shard: [] for shard in range(1, SHARDS + 1)}
    i = 0
    while any(len(k) < n for k in found.values()):
        slot = c.client(1).execute_command("CLUSTER", "KEYSLOT", f"key-{i}")
        shard = 1 + slot * SHARDS // 16384
        if len(found[shard]) < n:
            found[shard].append(f"key-{i}")
        i += 1
    return found


def fill(c, h, keys, rounds):
    """Each key counts the rounds; answers are awaited in pipelines."""
    for _ in range(rounds):
        def write():
            pipe = c.client(h).pipeline(transaction=False)
            for key in keys:
                pipe.incr(key)
            return pipe.execute()
        retry(20, write)


def kv_command(*args):
    """A command of the machine kv (docs/FORMATS.md)."""
    words = [a.encode() if isinstance(a, str) else a for a in args]
    return struct.pack("<BxxxI", 1, len(words)) + b"".join(struct.pack("<I", len(w)) + w for w in words)


def refuses_to_repeat(c):
    """A snapshot is made, and a second one of the same state is not. False: the state changed in between, as when somebody else came to
    lead. What was proposed here is applied here, and all before it; a snapshot that was due by itself just then is the first one."""
    retry(20, lambda: c.client(1).execute_command("NH.PROPOSE", 1, kv_command("INCR", "snapshots")), again=TRANSIENT)
    try:
        made = c.client(1).execute_command("NH.SNAPSHOT", 1)
        check(info(c, 1, 1)["snapshot"] == made, "NH.SNAPSHOT answers its index")
        c.client(1).execute_command("NH.SNAPSHOT", 1)
        return False
    except redis.ResponseError as e:
        check("nothing was applied since" in str(e) or "is being made" in str(e), str(e))
        return "nothing" in str(e)


def test_compaction(c):
    """Logs stay short, and a restart finds everything in a snapshot and the rest of the log."""
    c.keys = keys_of(c, 10)
    for keys in c.keys.values():
        fill(c, 2, keys, 60)
    c.rounds = 60
    for h in HOSTS:
        for shard in c.keys:
            retry(20, lambda h=h, shard=shard: info(c, h, shard)["snapshot"] > 0)
            retry(20, lambda h=h, shard=shard: info(c, h, shard)["first"] > 1)
            i = info(c, h, shard)
            check(i["first"] <= i["snapshot"] - OVERHEAD + 1 <= i["last"] + 1, f"host {h}: {i}")
    check(any(refuses_to_repeat(c) for _ in range(5)), "a second snapshot of the same state was made")
    for h in HOSTS:
        c.kill(h)
    start_all(c, HOSTS)
    check_counts(c, HOSTS)


def check_counts(c, hosts):
    for h in hosts:
        for keys in c.keys.values():
            values = retry(20, lambda h=h, keys=keys: c.client(h).mget(keys))
            check([int(v) for v in values] == [c.rounds] * len(keys), f"host {h}: {values}, {c.rounds} rounds")


def again(c, h, first, *command):
    """Sent again, it has the same answer. A machine that keeps its own state may be back with the state and without the answers."""
    try:
        answer = c.client(h).execute_command(*command)
    except redis.ResponseError as e:
        check(c.machine == "kv-disk" and str(e).startswith("ACKED"), f"{command}: {e}")
    else:
        check(answer == first if not isinstance(first, list) else answer[1:] == first[1:], f"{command}: {answer}, first {first}")


def test_sessions(c):
    """NH.ONCE and NH.PROPOSE ... SESSION, sent again across kill -9 of everything, are applied once."""
    once = retry(20, lambda: c.client(1).execute_command("NH.ONCE", "order-17", "INCRBY", "sold", 5), again=TRANSIENT)
    check(once == 5, f"NH.ONCE: {once}")
    session = retry(20, lambda: c.client(1).execute_command("NH.SESSION", "OPEN", 1), again=TRANSIENT)
    step = ("NH.PROPOSE", 1, kv_command("APPEND", "story", "once"), "SESSION", session, "SEQ")
    first = retry(20, lambda: c.client(1).execute_command(*step, 1), again=TRANSIENT)
    for round in range(2):
        for h in HOSTS:
            again(c, h, 5, "NH.ONCE", "order-17", "INCRBY", "sold", 5)
            again(c, h, first, *step, 1)
        if round == 0:
            retry(10, lambda: c.client(1).execute_command("NH.SNAPSHOT", 1))
            for h in HOSTS:
                c.kill(h)
            start_all(c, HOSTS)
    check(int(c.client(1).get("sold")) == 5, "applied once")
    story = c.client(2).execute_command("NH.QUERY", 1, kv_command("GET", "story"))
    check(story[2] == b"once", f"{story}")
    check(c.client(2).execute_command("NH.ONCE", "p-1", "NH.PROPOSE", 1, kv_command("APPEND", "story", "!"))[2] is not None, "any machine")
    check_session_errors(c, session, step)


def check_session_errors(c, session, step):
    def fails(words, *command):
        try:
            answer = retry(20, lambda: c.client(3).execute_command(*command) or "nothing")
        except redis.ResponseError as e:
            check(str(e).startswith(words), f"{command}: {e}")
        else:
            raise AssertionError(f"{command}: {answer}")
    check(c.client(3).execute_command(*step, 2, "ACKED", 1)[1] is not None, "the next one")
    fails("ACKED", *step, 1)
    fails("SESSION must be above 0, SEQ must be above 0 and above ACKED", *step, 3, "ACKED", 5)
    fails("syntax", "NH.PROPOSE", 1, "x", "SESSION", session)
    fails("syntax", "NH.SESSION", "RENEW", 1, 1)
    fails("the keys are in several shards", "NH.ONCE", "t", "DEL", c.keys[1][0], c.keys[2][0])
    fails("not a command that writes", "NH.ONCE", "t", "GET", "x")
    fails("wrong number", "NH.ONCE", "t", "INCR")
    fails("the token", "NH.ONCE", "", "INCR", "x")
    check(c.client(3).execute_command("NH.SESSION", "CLOSE", 1, session) == b"OK", "closed")
    fails("NOSESSION", *step, 3)
    fails("NOSESSION", "NH.SESSION", "CLOSE", 1, session)
    check(c.client(3).execute_command("NH.ONCE", "t-2", "DEL", "{a}1", "{a}2") == 0, "several keys of one shard")


class Once(Writer):
    """Counts on one key by tokens, each sent until it is answered."""

    def run(self):
        clients = {h: c for h, c in ((h, self.c.client(h, 3)) for h in self.hosts)}
        i = 0
        while not self.stopping:
            for attempt in range(1000):
                try:
                    clients[self.hosts[(i + attempt) % len(self.hosts)]].execute_command("NH.ONCE", f"token-{i}", "INCR", "exactly")
                    self.acknowledged += 1
                    break
                except (redis.TimeoutError, redis.ConnectionError):
                    time.sleep(0.05)
                except redis.ResponseError as e:
                    if str(e).startswith("ACKED") and self.c.machine == "kv-disk":
                        self.acknowledged += 1
                        break
                    if not str(e).startswith(TRANSIENT):
                        self.failure = str(e)
                        return
                    time.sleep(0.05)
            i += 1


def test_join_by_snapshot(c):
    """Host 4 joins shards whose first entries are gone, under load, while a host is killed: nothing is lost, tokens count once."""
    writer, once = Writer(c, [1, 2]), Once(c, [1, 2, 3])
    c.client(1).set("counter", 0)
    writer.start()
    once.start()
    c.start(4)
    for shard in c.keys:
        retry(20, lambda: c.client(1).execute_command("NH.SHARD", "ADD", shard, 4, f"127.0.0.1:{c.raft[4]}", "NONVOTING"))
        retry(30, lambda: info(c, 4, shard)["snapshot"] > 0)
        retry(30, lambda: c.client(1).execute_command("NH.SHARD", "PROMOTE", shard, 4))
    c.kill(3)
    time.sleep(2)
    c.start(3)
    c.await_leaders(30, (1, 2, 3, 4))
    for w in (writer, once):
        w.stopping = True
    for w in (writer, once):
        w.join(40)
        check(not w.is_alive() and w.failure is None, w.failure)
    for h in (1, 2, 3, 4):
        value = int(retry(20, lambda h=h: c.client(h).get("counter")))
        check(writer.acknowledged <= value <= writer.acknowledged + writer.unknown,
              f"host {h}: {writer.acknowledged} acknowledged, {writer.unknown} unknown, {value} counted")
        exactly = int(retry(20, lambda h=h: c.client(h).get("exactly")))
        check(exactly == once.acknowledged, f"host {h}: {once.acknowledged} tokens, {exactly} counted")
    check_counts(c, (1, 2, 3, 4))
    print(f"{writer.acknowledged} writes and {once.acknowledged} tokens while host 4 joined by snapshot")


def test_wiped_host(c):
    """Host 3 loses its disk. Its replicas are removed; it comes back as host 5, by snapshot."""
    c.kill(3)
    shutil.rmtree(f"{c.dir}/data-3")
    for shard in c.keys:
        retry(20, lambda: c.client(1).execute_command("NH.SHARD", "REMOVE", shard, 3))
    c.start(5)
    for shard in c.keys:
        retry(20, lambda: c.client(1).execute_command("NH.SHARD", "ADD", shard, 5, f"127.0.0.1:{c.raft[5]}"))
    for keys in c.keys.values():
        fill(c, 4, keys, 5)
    c.rounds += 5
    for shard in c.keys:
        retry(30, lambda: info(c, 5, shard)["snapshot"] > 0)
        refused(c, 1, "may not return", "ADD", shard, 3, f"127.0.0.1:{c.raft[3]}")
    check_counts(c, (1, 2, 4, 5))


def run_import(c, h, shard, path, members, *options):
    words = [c.nodehostd, "import", "--config", c.config(h), "--shard", str(shard), "--from", path, *options]
    for m in members:
        words += ["--member", f"{m}@127.0.0.1:{c.raft[m]}"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return done.returncode, done.stdout.decode()


def test_import(c):
    """Three of four voters are lost. The one that is left exports its shards; it and two new hosts form them anew."""
    exports = {}
    for h in (2, 4, 5):
        c.kill(h)
    for shard in c.keys:
        _, exports[shard] = c.client(1, 40).execute_command("NH.SNAPSHOT", shard, "EXPORT", "last")
        check(os.path.exists(exports[shard] + b"/image") and exports[shard].startswith(f"{c.dir}/exports-1/last/".encode()), exports)
    try:
        c.client(1).execute_command("NH.SNAPSHOT", 1, "EXPORT", "../other")
        raise AssertionError("an export left its directory")
    except redis.ResponseError as e:
        check("the name of an export" in str(e), str(e))
    try:
        c.client(1).execute_command("NH.SNAPSHOT", 1, "EXPORT", "last")  # nothing can be written meanwhile
        raise AssertionError("an export took the place of another")
    except redis.ResponseError as e:
        check("choose another directory" in str(e), str(e))
    members = (1, 6, 7)
    path = {s: p.decode() for s, p in exports.items()}
    code, text = run_import(c, 1, 1, path[1], members)
    check(code == 1 and "in use by process" in text, text)
    check(c.stop(1) == 0, "a clean stop")
    check_refusals(c, path, members)
    for h in members:
        for shard in c.keys:
            code, text = run_import(c, h, shard, path[shard], members)
            check(code == 0 and "is imported" in text, text)
    with open(c.config(1)) as f:
        text = f.read().replace("replicas: [1, 2, 3]", "join: true, replicas: [1]")
    with open(c.config(1), "w") as f:
        f.write(text)
    start_all(c, members)
    check_counts(c, members)
    for keys in c.keys.values():
        fill(c, 7, keys, 3)
    c.rounds += 3
    check_counts(c, members)
    check(set(info(c, 6, 1)["members"]) == set(members), "the new members")
    again(c, 6, 5, "NH.ONCE", "order-17", "INCRBY", "sold", 5)  # tokens are imported, too
    check(int(c.client(7).get("sold")) == 5, "applied once")
    for h in members:
        c.kill(h)
    start_all(c, members)
    check_counts(c, members)


def check_refusals(c, path, members):
    def fails(words, *args):
        code, text = run_import(c, *args)
        check(code == 1 and words in text, f"{args}: {code}: {text}")
    fails("is an export of shard 1, not of shard 2", 6, 2, path[1], members)
    fails("among the members", 6, 1, path[1], (1, 7))
    fails("was removed from the shard", 6, 1, path[1], (6, 3))
    check(run_import(c, 6, 1, path[1], (6, 6))[0] == 1, "a member twice")
    check(run_import(c, 6, 1, path[1], ())[0] == 2, "no member")
    for address, words in ((f"0.0.0.0:{c.raft[7]}", "where nobody can reach it"), (f"127.0.0.1:{c.raft[4]}", "peers call this host")):
        fails(words, 6, 1, path[1], (1, 6), "--nonvoting", f"7@{address}")
    check(not os.path.exists(f"{c.dir}/data-6"), "a refusal makes nothing")
    code, text = run_import(c, 6, 1, path[1], members, "--dry-run")
    check(code == 0 and "nothing was changed" in text and "replica 5 never returns" in text, text)
    check(not os.path.exists(f"{c.dir}/data-6"), "a dry run makes nothing")


if __name__ == "__main__":
    run_tests((test_compaction, test_sessions, test_join_by_snapshot, test_wiped_host, test_import), SHARDS, start_all, joining=(4, 5, 6, 7),
              sections='snapshots: { export_dir: "DIRECTORY/exports-HOST" }\n',
              shard_options=f"snapshot_entries: {SNAPSHOT_ENTRIES}, compaction_overhead: {OVERHEAD}, compress_snapshots: true")
