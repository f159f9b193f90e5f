#!/usr/bin/python3
"""NH.SHARD against real processes: leaders are moved, a host joins, is promoted, takes over, another one is removed, under load.

    membership_test.py DIRECTORY
"""
import threading
import time

import redis

from cluster import HOSTS, check, run_tests, start_all

SHARDS = 4


def as_dict(pairs):
    return {pairs[i].decode(): pairs[i + 1] for i in range(0, len(pairs), 2)} if isinstance(pairs, list) else \
        {k.decode(): v for k, v in pairs.items()}


def info(c, h, shard):
    answer = as_dict(c.client(h).execute_command("NH.SHARD", "INFO", shard))
    answer["members"] = {as_dict(m)["id"]: as_dict(m) for m in answer["members"]}
    answer["peers"] = {as_dict(p)["id"]: as_dict(p) for p in answer["peers"]}
    return answer


def retry(seconds, ask, again=("TRYAGAIN", "CLUSTERDOWN", "LOADING")):
    """Until it returns something true, or is over; what promises that nothing happened is tried again."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer = ask()
            if answer:
                return answer
        except redis.ResponseError as e:
            if not str(e).startswith(again) or time.monotonic() > end:
                raise
        except redis.ConnectionError:
            pass  # it is being started
        check(time.monotonic() < end, f"not within {seconds} s")
        time.sleep(0.1)


def refused(c, h, words, *args):
    def ask():
        try:
            c.client(h).execute_command("NH.SHARD", *args)
        except redis.ResponseError as e:
            if str(e).startswith("TRYAGAIN"):
                raise
            check(words in str(e), f"{args}: {e}")
            return True
        raise AssertionError(f"{args} was accepted")
    retry(20, ask)


class Writer(threading.Thread):
    """Counts on one key, and notes what was acknowledged."""

    def __init__(self, c, hosts):
        super().__init__(daemon=True)
        self.c, self.hosts, self.stopping, self.acknowledged, self.unknown, self.failure = c, hosts, False, 0, 0, None

    def run(self):
        i = 0
        while not self.stopping:
            try:
                self.c.client(self.hosts[i % len(self.hosts)]).incr("counter")
                self.acknowledged += 1
            except (redis.TimeoutError, redis.ConnectionError):
                self.unknown += 1
            except redis.ResponseError as e:
                if str(e).startswith("TIMEOUT"):
                    self.unknown += 1
                elif not str(e).startswith(("TRYAGAIN", "CLUSTERDOWN")):
                    self.failure = str(e)
                    return
            i += 1


def test_info(c):
    i = info(c, 1, 1)
    check(set(i["members"]) == {1, 2, 3} and all(m["kind"] == b"voter" for m in i["members"].values()), f"INFO: {i}")
    check(i["members"][2]["address"].decode() == f"127.0.0.1:{c.raft[2]}" and i["leader"] in (1, 2, 3), f"INFO: {i}")
    check(set(info(c, i["leader"], 1)["peers"]) == {1, 2, 3} - {i["leader"]}, "a leader tells of its peers")
    refused(c, 1, "no replica on this host", "INFO", 999)
    refused(c, 1, "syntax error", "NONSENSE", 1)
    refused(c, 1, "must be a number", "INFO", "x")


def test_transfer(c):
    for shard in range(1, SHARDS + 1):
        for target in HOSTS:
            for asked in HOSTS:
                retry(20, lambda: c.client(asked).execute_command("NH.SHARD", "TRANSFER", shard, target) == b"OK")
                check(info(c, asked, shard)["leader"] == target, f"shard {shard}: {target} leads, as host {asked} sees it")
    refused(c, 1, "not a voter", "TRANSFER", 1, 9)


def test_trace(c):
    """A core can be watched: with --trace its messages are in the log, as in the golden traces."""
    check(c.stop(3) == 0, "a clean stop")
    c.start(3, "--trace")
    c.await_leaders(30)
    c.client(1).set("traced", 1)
    retry(20, lambda: "component=raft" in c.whole_log(3) and " REPLICATE term " in c.whole_log(3))
    check(c.stop(3) == 0, "a clean stop")
    c.start(3)
    c.await_leaders(30)


def test_membership(c):
    """Host 4 joins all shards under load, is promoted and leads; host 1 is removed and stops its replicas."""
    writer = Writer(c, [2, 3])
    c.client(1).set("counter", 0)
    writer.start()
    c.start(4)
    for shard in range(1, SHARDS + 1):
        added = retry(20, lambda: c.client(2).execute_command("NH.SHARD", "ADD", shard, 4, f"127.0.0.1:{c.raft[4]}", "NONVOTING"))
        refused(c, 2, "membership has changed", "REMOVE", shard, 4, "IF", added - 1)
        refused(c, 2, "member already", "ADD", shard, 4, f"127.0.0.1:{c.raft[4]}", "NONVOTING")
        retry(20, lambda: info(c, 4, shard)["members"].get(4, {}).get("kind") == b"nonvoting")
        retry(20, lambda: c.client(3).execute_command("NH.SHARD", "PROMOTE", shard, 4, "IF", added))
        # Host 3 has applied the promotion; whoever leads may be behind, and knows no such voter until then.
        retry(60, lambda: c.client(3).execute_command("NH.SHARD", "TRANSFER", shard, 4) == b"OK",
              ("TRYAGAIN", "CLUSTERDOWN", f"shard {shard}: the target is not a voter"))
        retry(20, lambda: c.client(4).execute_command("NH.SHARD", "REMOVE", shard, 1))
        refused(c, 4, "may not return", "ADD", shard, 1, f"127.0.0.1:{c.raft[1]}")
    retry(30, lambda: int(c.client(1).info("everything")["shards"]) == 0)
    writer.stopping = True
    writer.join(30)
    check(writer.failure is None, writer.failure)
    check(writer.acknowledged > 0, "the load went on")
    for h in (2, 3, 4):
        value = int(retry(20, lambda h=h: c.client(h).get("counter")))
        check(writer.acknowledged <= value <= writer.acknowledged + writer.unknown,
              f"host {h}: {writer.acknowledged} acknowledged, {writer.unknown} unknown, {value} counted")
    print(f"{writer.acknowledged} acknowledged writes while members came and went, {writer.unknown} unknown")


def ask_and_ping(c, h, *command):
    """The answer; what comes next on the connection has to be the answer to the next command."""
    connection = redis.Connection(port=c.redis[h], socket_timeout=20)
    connection.send_command(*command)
    answer = connection.read_response()
    connection.send_command("PING")
    pong = connection.read_response()
    connection.disconnect()
    check(pong == b"PONG", f"after {command} PING is answered by {pong}")
    return answer


def slots_of(c, h):
    """[(first, last, master, {replicas})] by CLUSTER SLOTS, hosts as ports."""
    return [(s[0], s[1], s[2][1], {r[1] for r in s[3:]}) for s in ask_and_ping(c, h, "CLUSTER", "SLOTS")]


def shards_of(c, h):
    """The same by CLUSTER SHARDS."""
    found = []
    for shard in map(as_dict, ask_and_ping(c, h, "CLUSTER", "SHARDS")):
        nodes = [as_dict(n) for n in shard["nodes"]]
        masters = [n["port"] for n in nodes if n["role"] == b"master"]
        check(len(masters) == 1, f"host {h}: {nodes}")
        found.append((*shard["slots"], masters[0], {n["port"] for n in nodes} - set(masters)))
    return found


def test_cluster_commands(c):
    """Old hosts and the new one name the members of today and the leader, whatever their configurations say."""
    for leader in (4, 2):
        for shard in range(1, SHARDS + 1):
            retry(20, lambda: c.client(4).execute_command("NH.SHARD", "TRANSFER", shard, leader) == b"OK")
        others = {c.redis[h] for h in (2, 3, 4) if h != leader}
        size = 16384 // SHARDS
        expected = [(i * size, (i + 1) * size - 1, c.redis[leader], others) for i in range(SHARDS)]
        for h in (2, 3, 4):
            retry(20, lambda: all(info(c, h, shard)["leader"] == leader for shard in range(1, SHARDS + 1)))
            check(slots_of(c, h) == expected, f"CLUSTER SLOTS of host {h}: {slots_of(c, h)}")
            check(shards_of(c, h) == expected, f"CLUSTER SHARDS of host {h}: {shards_of(c, h)}")


def answer_of(c, h, *command):
    """An error's text, or the answer; as they come, no client follows MOVED."""
    connection = redis.Connection(port=c.redis[h], socket_timeout=20)
    connection.send_command(*command)
    try:
        return connection.read_response()
    except redis.ResponseError as e:
        return str(e)
    finally:
        connection.disconnect()


def test_witness(c):
    """Host 5 has a witness of one shard: it sends clients of that one to a member that has the data."""
    def in_shard(key):
        return 1 + c.client(2).execute_command("CLUSTER", "KEYSLOT", key) * SHARDS // 16384
    here = next(k for k in map(str, range(1000)) if in_shard(k) == 1)
    there = next(k for k in map(str, range(1000)) if in_shard(k) == 2)
    c.start(5)
    retry(20, lambda: c.client(2).execute_command("NH.SHARD", "ADD", 1, 5, f"127.0.0.1:{c.raft[5]}", "WITNESS"))
    retry(20, lambda: info(c, 5, 1)["members"].get(5, {}).get("kind") == b"witness" and info(c, 5, 1)["leader"])
    retry(20, lambda: c.client(2).set(here, "a"))
    others = {c.redis[h] for h in (2, 3, 4)}
    for command in (("GET", here), ("SET", here, "b"), ("MGET", here), ("MSET", here, "b"), ("DEL", here),
                    ("NH.ONCE", "t", "SET", here, "b")):
        words = answer_of(c, 5, *command).split()
        check(words[0] == "MOVED" and int(words[2].split(":")[1]) in others, f"{command}: {words}")
    for command in (("NH.PROPOSE", 1, "x"), ("NH.QUERY", 1, "x"), ("NH.ONCE", "t", "NH.PROPOSE", 1, "b"),
                    ("NH.SHARD", "REMOVE", 1, 5)):
        e = answer_of(c, 5, *command)
        check(e.startswith("shard 1 has only a witness on this host: ask 127.0.0.1:") and e.endswith("nothing was applied"), f"{command}: {e}")
    for command in (("MSET", there, "b", here, "b"), ("MGET", there, here)):
        e = answer_of(c, 5, *command)
        check(e.startswith("CROSSSLOT") and "shard 1 has only a witness on this host: for it ask 127.0.0.1:" in e, f"{command}: {e}")
    check({*slots_of(c, 5)[0][3], slots_of(c, 5)[0][2]} == others, f"{slots_of(c, 5)}")
    check(c.client(3).get(here) == b"a", "nothing was applied")
    retry(20, lambda: c.client(2).execute_command("NH.SHARD", "REMOVE", 1, 5))
    check(c.stop(5) == 0, c.tail(5))


def test_restart(c):
    """All four again: who was removed learns it anew, the others go on; two of the three voters are enough."""
    for h in (1, 2, 3, 4):
        c.kill(h)
    for h in (1, 2, 3, 4):
        c.start(h)
    c.await_leaders(30, (2, 3, 4))
    retry(30, lambda: int(c.client(1).info("everything")["shards"]) == 0)
    c.kill(2)
    # What was on its way to host 2 when it died is of unknown fate: setting it again does no harm.
    retry(20, lambda: c.client(4).set("after", "all"), again=("TRYAGAIN", "CLUSTERDOWN", "TIMEOUT"))
    check(c.client(3).get("after") == b"all", "read by another one")
    check(set(info(c, 4, 1)["members"]) == {2, 3, 4}, "the membership stays")
    c.start(2)
    c.await_leaders(30, (2, 3, 4))


if __name__ == "__main__":
    run_tests((test_info, test_transfer, test_trace, test_membership, test_cluster_commands, test_witness, test_restart),
              SHARDS, start_all, joining=(4, 5))
