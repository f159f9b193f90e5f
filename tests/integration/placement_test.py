#!/usr/bin/python3
"""Four hosts, and no shard on all of them: hosts send clients to those that have the shard of their keys.

    placement_test.py DIRECTORY
"""
import redis

from cluster import check, run_tests
from membership_test import as_dict, ask_and_ping, retry, shards_of, slots_of

SHARDS = 4
ALL = (1, 2, 3, 4)
PLACES = {1: (1, 2, 3), 2: (1, 2, 3), 3: (2, 3, 4), 4: (2, 3, 4)}


def place_shards(c):
    for h in ALL:
        with open(c.config(h)) as f:
            text = f.read()
        with open(c.config(h), "w") as f:
            f.write(text[:text.index("shards:")] + "shards:\n"
                    "  - { first: 1, count: 2, machine: kv, replicas: [1, 2, 3] }\n"
                    "  - { first: 3, count: 2, machine: kv, replicas: [2, 3, 4] }\n")


def start(c, hosts):
    def is_ready(h):
        i = c.client(h).info("everything")
        return not i["loading"] and i["leaderless"] == 0 and i["shards"] == i["shards_configured"]
    for h in hosts:
        c.start(h)
    for h in hosts:
        retry(30, lambda h=h: is_ready(h))


def slot_of(c, key):
    return c.client(1).execute_command("CLUSTER", "KEYSLOT", key)


def keys_of(c):
    """By shard, two keys of different slots."""
    found = {shard: [] for shard in PLACES}
    i = 0
    while any(len(k) < 2 for k in found.values()):
        found[1 + slot_of(c, f"key-{i}") * SHARDS // 16384].append(f"key-{i}")
        i += 1
    return found


def host_at(c, port):
    return next(h for h in ALL if c.redis[h] == port)


def refusal(c, h, *command):
    """The error that is answered, and nothing else; what is asked next on its connection has an answer too."""
    connection = redis.Connection(port=c.redis[h], socket_timeout=20)
    connection.send_command(*command)
    try:
        answer = connection.read_response()
    except redis.ResponseError as e:
        connection.send_command("PING")
        check(connection.read_response() == b"PONG", f"host {h}, {command}: no PONG behind {e}")
        return e
    finally:
        connection.disconnect()
    raise AssertionError(f"host {h}, {command}: {answer!r}")


def moved(c, h, *command):
    """The slot and the host of -MOVED."""
    words = str(refusal(c, h, *command)).split()
    check(len(words) == 3 and words[0] == "MOVED" and words[2].startswith("127.0.0.1:"), f"host {h}, {command}: {words}")
    return int(words[1]), host_at(c, int(words[2].split(":")[1]))


def test_keys_elsewhere(c):
    """One hop: a host that has no replica names one that has."""
    for shard, places in PLACES.items():
        key = c.keys[shard][0]
        for h in places:
            check(retry(20, lambda: c.client(h).set(key, h)) and c.client(h).get(key) == b"%d" % h, f"host {h}, shard {shard}")
        for h in set(ALL) - set(places):
            for command in (("GET", key), ("SET", key, "x"), ("MGET", key), ("MSET", key, "x"), ("DEL", key),
                            ("NH.ONCE", "token", "SET", key, "x")):
                slot, place = moved(c, h, *command)
                check(slot == slot_of(c, key) and place in places, f"host {h}, {command}: {slot}, {place}")
                check(c.client(place).get(key) == b"%d" % places[-1], f"shard {shard} by host {place}")


def test_shards_elsewhere(c):
    """Commands that name a shard are answered in words."""
    for command in (("NH.PROPOSE", 3, "x"), ("NH.QUERY", 3, "x"), ("NH.SHARD", "INFO", 3), ("NH.SNAPSHOT", 3),
                    ("NH.ONCE", "token", "NH.PROPOSE", 3, "x")):
        e = str(refusal(c, 1, *command))
        check(e.startswith("shard 3 has no replica on this host: ask 127.0.0.1:"), f"{command}: {e}")
        check(host_at(c, int(e.split(";")[0].split(":")[-1])) in PLACES[3], f"{command}: {e}")
    check("no replica on this host" in str(refusal(c, 1, "NH.SHARD", "INFO", 999)), "a shard of nobody")


def test_keys_of_several_shards(c):
    """All or nothing, if it is known before: no part is applied when another one cannot be."""
    here, here_too, there = c.keys[1][0], c.keys[2][0], c.keys[3][0]
    for h in (2, 3):
        check(c.client(h).mset({here: "a", here_too: "b", there: "c"}) and c.client(h).mget(here, there) == [b"a", b"c"], "who has all")
    check(c.client(1).mset({here: "d", here_too: "e"}) and c.client(1).exists(here, here_too) == 2, "who has both")
    for command in (("MSET", here, "x", there, "x"), ("DEL", here, there), ("MGET", here, there), ("EXISTS", there, here),
                    ("MGET", there, c.keys[4][0])):
        e = str(refusal(c, 1, *command))
        check(e.startswith("CROSSSLOT ") and "has no replica on this host: for it ask 127.0.0.1:" in e and e.endswith("nothing was applied"),
              f"{command}: {e}")
    check(c.client(2).mget(here, here_too, there) == [b"d", b"e", b"c"], "nothing was applied")


def test_tables(c):
    """Every slot has a place that has its shard, whoever is asked."""
    for h in ALL:
        for table in (slots_of(c, h), shards_of(c, h)):
            check([t[:2] for t in table] == [(i * 4096, i * 4096 + 4095) for i in range(SHARDS)], f"host {h}: {table}")
            for shard, (_, _, master, others) in zip(PLACES, table):
                check(sorted({host_at(c, p) for p in {master} | others}) == list(PLACES[shard]), f"host {h}, shard {shard}: {table}")
        n = 0
        for line in ask_and_ping(c, h, "CLUSTER", "NODES").decode().splitlines():
            fields = line.split()
            for slots in fields[8:]:
                first, last = map(int, slots.split("-"))
                n += last - first + 1
                for shard in range(1 + first // 4096, 2 + last // 4096):
                    check(host_at(c, int(fields[1].split("@")[0].split(":")[1])) in PLACES[shard], line)
        check(n == 16384, f"host {h}: {n} slots in CLUSTER NODES")
        check(b"cluster_state:ok" in ask_and_ping(c, h, "CLUSTER", "INFO"), f"host {h}: CLUSTER INFO")


def test_cluster_client(c):
    for h in ALL:
        client = redis.RedisCluster(host="127.0.0.1", port=c.redis[h])
        for i in range(100):
            client.set(f"cluster:{i}", f"{h}:{i}")
        check(all(client.get(f"cluster:{i}") == f"{h}:{i}".encode() for i in range(100)), f"redis-py as a cluster client of host {h}")


def test_removed_replica(c):
    """A host whose replica was removed is one that has none."""
    key = c.keys[1][0]
    retry(20, lambda: c.client(2).execute_command("NH.SHARD", "REMOVE", 1, 3))
    retry(20, lambda: int(c.client(3).info("everything")["shards"]) == 3)
    _, place = moved(c, 3, "GET", key)
    check(place in (1, 2) and c.client(place).get(key) == b"d", f"host {place} has the key")
    for h in (1, 2, 3):
        retry(20, lambda h=h: {*slots_of(c, h)[0][3], slots_of(c, h)[0][2]} == {c.redis[1], c.redis[2]})


def test_removed_replica_after_restart(c):
    """The file of its host names those that have the shard today; it may split a section for that."""
    check(c.stop(3) == 0, c.tail(3))
    with open(c.config(3)) as f:
        text = f.read()
    with open(c.config(3), "w") as f:
        f.write(text.replace("first: 1, count: 2,", "first: 2, count: 1,") +
                "  - { first: 1, count: 1, machine: kv, replicas: [2] }\n")
    start(c, (3,))
    check({moved(c, 3, "GET", c.keys[1][0])[1] for _ in range(3)} == {2}, "whom the file names")
    check(retry(20, lambda: c.client(3).get(c.keys[2][0])) == b"e", "the other shards are as before")


def test_dead_host(c):
    """Who asks again is sent to another host; to one that is known to be gone nobody is sent."""
    key = c.keys[3][0]

    def named():
        return {moved(c, 1, "GET", key)[1] for _ in range(6)}
    retry(20, lambda: named() == {2, 3, 4})
    c.kill(3)
    retry(20, lambda: named() == {2, 4})
    nodes = {host_at(c, int(n[1].split("@")[0].split(":")[1])): n for n in map(str.split, ask_and_ping(c, 1, "CLUSTER", "NODES").decode().splitlines())}
    check(nodes[3][2] == "master,fail?" and nodes[3][7] == "disconnected", f"{nodes}")
    check(nodes[2][2] == "master" and nodes[2][7] == "connected" and nodes[1][2] == "myself,master", f"{nodes}")
    health = {as_dict(n)["port"]: as_dict(n)["health"] for s in ask_and_ping(c, 1, "CLUSTER", "SHARDS") for n in as_dict(s)["nodes"]}
    check(health == {c.redis[h]: b"fail" if h == 3 else b"online" for h in ALL}, f"{health}")
    check({s[2] for s in slots_of(c, 1)[2:]} <= {c.redis[2], c.redis[4]}, f"{slots_of(c, 1)}")
    check(retry(20, lambda: c.client(4).get(key), again=("TRYAGAIN", "CLUSTERDOWN", "TIMEOUT")) is not None, "two of three are enough")


def prepare(c):
    place_shards(c)
    start(c, ALL)
    c.keys = keys_of(c)


if __name__ == "__main__":
    run_tests((test_keys_elsewhere, test_shards_elsewhere, test_keys_of_several_shards, test_tables, test_cluster_client,
               test_removed_replica, test_removed_replica_after_restart, test_dead_host), SHARDS, prepare, joining=(4,))
