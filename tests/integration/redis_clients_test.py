#!/usr/bin/python3
"""What real Redis clients do, against three hosts: redis-cli (RESP2, RESP3, interactive, --cluster), redis-benchmark, redis-py.

    redis_clients_test.py DIRECTORY
"""
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import time

import redis

from cluster import HOSTS, check, run_tests, start_all

SHARDS = 100


def cli(port, *args, stdin=None):
    result = subprocess.run(["redis-cli", "-p", str(port), *args], input=stdin, capture_output=True, text=True, timeout=60)
    check(result.returncode == 0, f"redis-cli {args}: {result.stderr}")
    return result.stdout.strip()


def raw(port, data, until=None, seconds=10):
    """Sends bytes, returns what comes back until it contains `until`, or the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as s:
        s.sendall(data)
        answer = b""
        try:
            while until is None or until not in answer:
                got = s.recv(1 << 20)
                if not got:
                    break
                answer += got
        except socket.timeout:
            raise AssertionError(f"after {answer[:200]!r} nothing more came") from None
        return answer


def test_redis_cli(c):
    one, two, three = (c.redis[h] for h in HOSTS)
    check(cli(one, "SET", "greeting", "hello") == "OK", "SET")
    check(cli(two, "GET", "greeting") == "hello", "any host answers for any key")
    check(cli(three, "-3", "GET", "greeting") == "hello", "RESP3")
    check(cli(one, "-3", "HGETALL", "x").startswith("ERR unknown command 'HGETALL'"), "unknown commands say so")
    check("3 masters" in cli(one, "--cluster", "info", f"127.0.0.1:{one}"), "--cluster info")
    check("cluster_state:ok" in cli(two, "CLUSTER", "INFO"), "CLUSTER INFO")
    check(cli(two, "-3", "CONFIG", "GET", "save").splitlines()[0].endswith("save\" => \"\"") or
          "save" in cli(two, "-3", "CONFIG", "GET", "save"), "CONFIG GET")
    script = "SET a 1\nINCR a\nINCR a\nGET a\nPING\nECHO \"two words\"\n"
    check(cli(three, stdin=script).split("\n") == ["OK", "2", "3", "3", "PONG", "two words"], "commands from a pipe")
    check(cli(one, "NH.QUERY", "1", "x").startswith("0") or "ERR" in cli(one, "NH.QUERY", "1", "x"), "NH.QUERY")


def test_interactive(c):
    """The default start of redis-cli asks for COMMAND DOCS before it shows a prompt."""
    try:
        pid, fd = pty.fork()
    except OSError as e:  # a container without /dev/pts
        print(f"test_interactive is skipped, there is no terminal here: {e}")
        return
    if pid == 0:
        os.environ["TERM"] = "dumb"
        os.execvp("redis-cli", ["redis-cli", "-p", str(c.redis[1])])
    output, sent, end = b"", 0, time.monotonic() + 30
    steps = [b"set prompt yes\n", b"get prompt\n", b"quit\n"]
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                got = os.read(fd, 4096)
            except OSError:
                break
            if not got:
                break
            output += got
        elif sent < len(steps):
            os.write(fd, steps[sent])
            sent += 1
    os.waitpid(pid, 0)
    check(b'"yes"' in output, f"interactive redis-cli: {output!r}")


def test_benchmark(c):
    for h in HOSTS:
        result = subprocess.run(["redis-benchmark", "-p", str(c.redis[h]), "-t", "set,get,incr", "-n", "100000", "-P", "16", "-q"],
                                capture_output=True, text=True, timeout=300)
        lines = [l for l in result.stdout.replace("\r", "\n").split("\n") if "per second" in l]
        check(result.returncode == 0 and len(lines) == 3, f"redis-benchmark on host {h}: {result.stdout[-500:]} {result.stderr}")
        print(f"host {h}: " + "; ".join(l.strip() for l in lines))
    result = subprocess.run(["redis-benchmark", "-p", str(c.redis[1]), "-t", "mset,ping", "-n", "2000", "-r", "100000", "-q"],
                            capture_output=True, text=True, timeout=300)
    check(result.returncode == 0 and "MSET (10 keys)" in result.stdout, f"MSET over shards: {result.stdout[-300:]} {result.stderr}")


def test_commands(c):
    a, b = c.client(1), c.client(2)
    check(a.set("k", "1") and not a.set("k", "2", nx=True) and a.set("k", "3", xx=True) and not a.set("new", "x", xx=True), "NX, XX")
    check(b.get("k") == b"3" and a.set("k", "4", get=True) == b"3" and a.getset("k", "5") == b"4", "GET option, GETSET")
    check(a.setnx("k", "6") is False and a.append("k", "67") == 3 and b.strlen("k") == 3, "SETNX, APPEND, STRLEN")
    check(a.incr("k", 10) == 577 and a.decr("k", 7) == 570 and b.get("k") == b"570", "INCRBY, DECRBY")
    keys = {f"m:{i}": f"v{i}" for i in range(300)}
    check(a.mset(keys) and b.mget(list(keys)) == [v.encode() for v in keys.values()], "MSET and MGET keep the order of keys")
    check(b.exists(*keys) == 300 and a.delete(*list(keys)[:100], "none") == 100 and b.exists(*keys) == 200, "DEL, EXISTS")
    check(b.mget("m:0", "m:299", "m:1") == [None, b"v299", None], "MGET of missing keys")
    a.set("text", "abc")
    for bad in (("INCR", "text"), ("SET", "k"), ("SET", "k", "v", "EX", "10"), ("NOSUCH",), ("SELECT", "1"), ("GET",)):
        try:
            a.execute_command(*bad)
            raise AssertionError(f"{bad} was accepted")
        except redis.ResponseError as e:
            check(not str(e).startswith(("TIMEOUT", "CLUSTERDOWN")), f"{bad}: {e}")
    a.set("big", "9223372036854775807")
    try:
        a.incr("big")
        raise AssertionError("overflow was accepted")
    except redis.ResponseError as e:
        check("overflow" in str(e), str(e))
    big = os.urandom(1 << 20)
    check(a.set("blob", big) and b.get("blob") == big, "a value of a MiB")
    check(a.set("empty", "") and b.get("empty") == b"" and a.set(b"\x00\r\n", b"\r\n\x00") and b.get(b"\x00\r\n") == b"\r\n\x00", "any bytes")


def test_pipelines(c):
    """A client reads what it wrote, in one pipeline too."""
    for h in HOSTS:
        pipe = c.client(h).pipeline(transaction=False)
        for i in range(500):
            pipe.set("p", i)
            pipe.get("p")
            pipe.incr("p")
        answers = pipe.execute()
        for i in range(500):
            check(answers[3 * i:3 * i + 3] == [True, str(i).encode(), i + 1], f"pipeline on host {h}, step {i}: {answers[3 * i:3 * i + 3]}")


def test_pipeline_lengths(c):
    """Whatever the pipeline, its last command is answered: nothing waits for the next event of the loop."""
    set_one, long_reply = b"SET k v\r\n", b"CLUSTER SHARDS\r\n"
    lines_of = {set_one: 1, long_reply: raw(c.redis[2], long_reply + b"QUIT\r\n").count(b"\n") - 1}
    for n in range(1, 151):
        for commands in ([set_one] * n, [long_reply] * n + [set_one]):
            wanted = sum(lines_of[x] for x in commands)
            with socket.create_connection(("127.0.0.1", c.redis[2]), timeout=20) as s:
                s.sendall(b"".join(commands))
                lines = 0
                while lines < wanted:
                    try:
                        got = s.recv(1 << 20)
                    except socket.timeout:
                        raise AssertionError(f"{len(commands)} commands, {lines} of {wanted} lines, then nothing") from None
                    check(got, f"the connection ended after {lines} of {wanted} lines")
                    lines += got.count(b"\n")


def test_transactions_are_refused(c):
    """Nothing between MULTI and EXEC is applied, whether a client waits for QUEUED or not."""
    a, port = c.client(1), c.redis[1]
    a.set("tx", 5)
    pipe = a.pipeline()
    pipe.incr("tx")
    pipe.incr("tx")
    for refused in (pipe.execute, lambda: a.transaction(lambda p: p.incr("tx"), "tx"), lambda: a.transaction(lambda p: p.incr("tx"))):
        try:
            refused()
            raise AssertionError("a transaction was accepted")
        except redis.ResponseError as e:
            check("pipeline(transaction=False)" in str(e) and "{hash tag}" in str(e), str(e))
    check(a.get("tx") == b"5" and a.ping(), "a part of a transaction was applied")
    steps = ((b"INCR tx", b":6"), (b"EXEC", b"-ERR EXEC without MULTI"), (b"DISCARD", b"-ERR DISCARD without MULTI"), (b"UNWATCH", b"+OK"),
             (b"WATCH tx", b"-ERR there are no transactions"), (b"MULTI x", b"-ERR wrong number"),
             (b"MULTI", b"+OK"), (b"INCR tx", b"+QUEUED"), (b"GET tx", b"+QUEUED"), (b"UNWATCH", b"+QUEUED"), (b"PING", b"+QUEUED"),
             (b"NH.ONCE tx-token INCR tx", b"+QUEUED"), (b"CLIENT SETNAME tx", b"+QUEUED"), (b"NOSUCH", b"-ERR unknown command"),
             (b"GET", b"-ERR wrong number"), (b"MULTI", b"-ERR MULTI calls can not be nested"),
             (b"WATCH tx", b"-ERR WATCH inside MULTI is not allowed"), (b"EXEC", b"-EXECABORT Transaction discarded because"),
             (b"INCR tx", b":7"), (b"EXEC", b"-ERR EXEC without MULTI"),
             (b"MULTI", b"+OK"), (b"DEL tx", b"+QUEUED"), (b"DISCARD", b"+OK"), (b"INCR tx", b":8"), (b"CLIENT GETNAME", b"$-1"),
             (b"MULTI", b"+OK"), (b"DEL tx", b"+QUEUED"), (b"RESET", b"+RESET"), (b"EXEC", b"-ERR EXEC without MULTI"), (b"INCR tx", b":9"),
             (b"MULTI", b"+OK"), (b"DEL tx", b"+QUEUED"), (b"QUIT", b"+OK"))
    one_by_one = Slow(port)
    for command, answer in steps:
        one_by_one.send(command + b"\r\n")
        got = one_by_one.line()
        check(got.startswith(answer), f"{command}: {got}")
    one_by_one.close()
    a.set("tx", 5)
    at_once = raw(port, b"".join(command + b"\r\n" for command, _ in steps)).split(b"\r\n")
    check(len(at_once) == len(steps) + 1, f"{len(at_once) - 1} replies")
    for (command, answer), got in zip(steps, at_once):
        check(got.startswith(answer), f"in one piece: {command}: {got}")
    raw(port, b"MULTI\r\nDEL tx\r\n", until=b"+QUEUED\r\n")
    check(raw(port, b"EXEC\r\nQUIT\r\n").startswith(b"-ERR EXEC without MULTI") and a.get("tx") == b"9", "the state ends with its connection")


def test_cluster_client(c):
    client = redis.RedisCluster(host="127.0.0.1", port=c.redis[1])
    for i in range(200):
        client.set(f"cluster:{i}", i)
    check(all(client.get(f"cluster:{i}") == str(i).encode() for i in range(200)), "redis-py as a cluster client")


def test_introspection(c):
    a = c.client(1)
    check(cli(c.redis[1], "COMMAND", "COUNT") == str(len(a.command())), "COMMAND COUNT")
    check(a.command()["get"]["first_key_pos"] == 1, "COMMAND has real entries")
    check(a.execute_command("CLUSTER", "KEYSLOT", "foo") == 12182 and a.execute_command("CLUSTER", "KEYSLOT", "{foo}x") == 12182, "KEYSLOT")
    slots = a.execute_command("CLUSTER", "SLOTS")
    check(sum(s[1] - s[0] + 1 for s in slots) == 16384 if isinstance(slots, list) else len(slots) > 0, "CLUSTER SLOTS")
    check(len(a.execute_command("CLUSTER", "SHARDS")) == SHARDS, "CLUSTER SHARDS")
    nodes = cli(c.redis[1], "CLUSTER", "NODES").split("\n")
    check(len(nodes) == 3 and nodes[0].startswith(cli(c.redis[1], "CLUSTER", "MYID")) and "myself,master" in nodes[0], f"CLUSTER NODES: {nodes}")
    info = a.info("everything")
    check(info["cluster_enabled"] == 1 and info["shards"] == SHARDS and info["quarantined"] == 0, "INFO")
    check(a.client_setname("tester") and a.client_getname() == "tester" and a.client_id() > 0, "CLIENT")
    hello = raw(c.redis[1], b"HELLO 3\r\nQUIT\r\n")
    check(hello.startswith(b"%7\r\n") and b"+OK\r\n" in hello, f"HELLO 3: {hello!r}")
    check(raw(c.redis[1], b"HELLO 9\r\nQUIT\r\n").startswith(b"-NOPROTO"), "HELLO 9")


def test_limits(c):
    port = c.redis[1]
    for request, answer in ((b"*100000000\r\n", b"invalid multibulk length"),
                            (b"*1\r\n$99999999999\r\n", b"invalid bulk length"),
                            (b"*1\r\n$-5\r\n", b"invalid bulk length"),
                            (b"*1\r\nGET\r\n", b"expected '$'"),
                            (b"GET \"a\r\n", b"unbalanced quotes"),
                            (b"x" * 70000, b"too big inline request")):
        got = raw(port, request)
        check(got.startswith(b"-ERR Protocol error") and answer in got, f"{request[:40]!r}: {got!r}")
    check(raw(port, b"GET / HTTP/1.1\r\n", until=b"\r\n").startswith(b"-ERR wrong number"), "HTTP")
    args = [b"MGET"] + [b"k%d" % i for i in range(65535)]
    request = b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(x), x) for x in args)
    check(raw(port, request + b"QUIT\r\n", seconds=60).startswith(b"*65535\r\n"), "as many arguments as allowed")
    check(raw(port, b"*65537\r\n").startswith(b"-ERR Protocol error"), "one more")
    value = b"x" * (32 << 20)
    request = b"*3\r\n$3\r\nSET\r\n$4\r\nhuge\r\n$%d\r\n%s\r\n" % (len(value), value)
    check(raw(port, request, until=b"\r\n", seconds=60) == b"+OK\r\n", "the largest value")
    check(raw(port, b"*3\r\n$3\r\nSET\r\n$4\r\nhuge\r\n$%d\r\n" % (len(value) + 1)).startswith(b"-ERR Protocol error"), "one byte more")
    check(b"maximum allowed size" in raw(port, b"APPEND huge x\r\n", until=b"\r\n", seconds=60), "APPEND beyond the largest value")
    c.client(1).delete("huge")


def test_refused_requests_are_explained(c):
    """A client reads the error of a request that is too large, though it still sends when we know: no reset comes before it."""
    a, value = c.client(1), b"x" * (33 << 20)
    for request, limit in ((("SET", "k", value), "33554432 bytes"), (("MGET", *(b"%0100d" % i for i in range(65536))), "65536 arguments")) * 3:
        try:
            a.execute_command(*request)
            raise AssertionError("more than the limit was accepted")
        except redis.ResponseError as e:
            check(limit in str(e), str(e))
    result = subprocess.run(["redis-cli", "-p", str(c.redis[1]), "-x", "SET", "k"], input=value, capture_output=True, timeout=60)
    check(b"33554432 bytes" in result.stdout, f"redis-cli: {result}")
    check(raw(c.redis[1], b"*1\r\n$-5\r\nabc").endswith(b"\r\n"), "the connection ends for a client that does not close it")


REPLY_BYTES_MAX = 256 << 20


class Slow:
    """A client that sends, and reads when it is told to."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.buffer = self.socket.makefile("rb", 1 << 20)
        self.send(b"CLIENT ID\r\n")
        self.id = int(self.line()[1:])

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        line = self.buffer.readline()
        check(line.endswith(b"\r\n"), f"the connection ended after {line!r}")
        return line[:-2]

    def bulk(self):
        line = self.line()
        check(line.startswith(b"$"), f"a bulk string was expected, not {line[:200]!r}")
        value = self.buffer.read(int(line[1:]) + 2)
        check(len(value) == int(line[1:]) + 2, "the connection ended in a value")
        return value[:-2]

    def close(self):
        self.buffer.close()
        self.socket.close()


def persist(f, *args):
    """The result of what may be repeated: on a busy machine large writes are late, and leaders move."""
    for left in range(20, -1, -1):
        try:
            return f(*args)
        except redis.ResponseError as e:
            if left == 0 or not str(e).startswith(("TIMEOUT", "TRYAGAIN", "CLUSTERDOWN")):
                raise


def await_rest(c, client):
    """Until the host does no more for this client; gives the bytes that wait in it for the client."""
    before, quiet = None, 0
    while quiet < 10:
        time.sleep(0.05)
        mine = [x for x in c.client(1).client_list() if int(x["id"]) == client.id]
        check(mine, "the connection was cut")
        now = (c.client(1).info("nodehost")["reads_answered"], mine[0]["omem"])
        before, quiet = now, quiet + 1 if now == before else 0
    return int(before[1])


def test_large_replies(c):
    """MGET over several shards, up to the largest reply and one byte past it: an error, and the connection lives."""
    a, size = c.client(1, 120), 1 << 20
    keys = [f"part:{i}" for i in range(16)]
    for i, key in enumerate(keys):
        persist(a.set, key, bytes([i]) * size)
    check(persist(a.mget, keys * 2) == [bytes([i]) * size for i in range(16)] * 2, "the answers of several shards in the order of the keys")
    persist(a.set, "rest", b"x" * size)
    asked = [*(keys * 16)[:255], "rest"]
    try:
        persist(a.mget, asked)
        raise AssertionError("more than the largest reply was answered")
    except redis.ResponseError as e:
        check(f"the limit is {REPLY_BYTES_MAX}" in str(e) and "fewer keys" in str(e), str(e))
        over = int(str(e).split(" has ")[1].split()[0]) - REPLY_BYTES_MAX
    persist(a.set, "rest", b"x" * (size - over))
    values = persist(a.mget, asked)
    check(len(values) == 256 and values[16] == bytes(size) and values[255] == b"x" * (size - over), "the largest reply")
    persist(a.set, "rest", b"x" * (size - over + 1))
    client = Slow(c.redis[1])
    client.send(b"MGET " + " ".join(asked).encode() + b"\r\nGET greeting-of-none\r\nPING\r\n")
    check(client.line().startswith(b"-ERR the answer has %d bytes" % (REPLY_BYTES_MAX + 1)), "one byte past it")
    check([client.line(), client.line()] == [b"$-1", b"+PONG"], "the connection lives")
    client.close()
    persist(a.delete, *keys, "rest")


def kv_command(*args):
    """As the machine takes it (cmd/machines/kv_command.h)."""
    return struct.pack("<II", 1, len(args)) + b"".join(struct.pack("<I", len(x)) + x for x in args)


def test_large_answers_of_one_shard(c):
    a, quarter = c.client(1, 120), b"x" * ((16 << 20) - 3)
    for i in range(2):  # of the largest answer: u32 n, and u32 size of each value
        persist(a.execute_command, "NH.ONCE", f"quarter:{i}", "NH.PROPOSE", 1, kv_command(b"append", b"half", quarter))
    for stale in ([], ["STALE"]):
        answer = persist(a.execute_command, "NH.QUERY", 1, kv_command(b"mget", b"half", b"half"), *stale)[2]
        check(len(answer) == 64 << 20, f"the largest answer{stale}")
        for keys in ([b"half"] * 3, [b"half", b"half", b"none"]):
            try:
                persist(a.execute_command, "NH.QUERY", 1, kv_command(b"mget", *keys), *stale)
                raise AssertionError(f"a larger one was answered{stale}")
            except redis.ResponseError as e:
                check("has more than 67108864 bytes" in str(e) and "fewer keys" in str(e), str(e))
    persist(a.execute_command, "NH.PROPOSE", 1, kv_command(b"del", b"half"))


def test_few_descriptors(c):
    """Clients cannot take those that the log store needs: it would be fenced by a file that it cannot open."""
    c.kill(3)
    c.start(3, descriptors=400)
    c.await_leaders(30)
    sockets = [socket.create_connection(("127.0.0.1", c.redis[3])) for _ in range(500)]
    served = 0
    for s in sockets:
        s.settimeout(20)
        try:
            s.sendall(b"PING\r\n")
            served += s.recv(100) == b"+PONG\r\n"
        except ConnectionError:
            pass
    check(150 < served <= 200, f"{served} clients are served with 400 descriptors")
    check(len(os.listdir(f"/proc/{c.processes[3].pid}/fd")) < 350, "there are some left")
    for s in sockets:
        s.close()
    c.kill(3)
    c.start(3)
    c.await_leaders(30)


def test_slow_readers(c):
    """Whoever asks for much at once and reads later gets all of it, in order; it is not all in memory meanwhile."""
    a = c.client(1, 120)
    for i in range(10):
        persist(a.set, f"slow:{i}", bytes([i]) * (300 << 10))
    client = Slow(c.redis[1])  # as from a pool: small commands before have widened its window
    for _ in range(20):
        client.send(b"GET none\r\n" * 100)
        check([client.line() for _ in range(100)] == [b"$-1"] * 100, "small commands")
    client.send(b"".join(b"GET slow:%d\r\n" % (i % 10) for i in range(1000)) + b"SET slow:end 1\r\nGET slow:end\r\n")
    waiting = await_rest(c, client)
    check(waiting <= 72 << 20, f"{waiting} bytes wait for a client that does not read")
    for i in range(1000):
        check(client.bulk() == bytes([i % 10]) * (300 << 10), f"reply {i}")
    check([client.line(), client.bulk()] == [b"+OK", b"1"], "what follows them")
    client.close()
    for i in range(2):
        persist(a.set, f"slow:{i}", bytes([i]) * (20 << 20))
    client = Slow(c.redis[1])  # as it comes
    client.send(b"".join(b"GET slow:%d\r\n" % (i % 2) for i in range(16)) + b"PING\r\n")
    waiting = await_rest(c, client)
    check(waiting <= (64 << 20) + 3 * (21 << 20), f"{waiting} bytes wait for a client that does not read")
    for i in range(16):
        check(client.bulk() == bytes([i % 2]) * (20 << 20), f"large reply {i}")
    check(client.line() == b"+PONG", "what follows them")
    client.close()
    persist(a.delete, *(f"slow:{i}" for i in range(10)))


def led_by(c, h, prefix):
    """A key whose shard host h leads."""
    slots = c.client(1).execute_command("CLUSTER SLOTS")
    for i in range(1000):
        key = f"{prefix}:{i}"
        slot = int(c.client(1).execute_command("CLUSTER KEYSLOT", key))
        if any(begin <= slot <= end and hosts[0][1] == c.redis[h] for begin, end, *hosts in slots):
            return key
    raise AssertionError(f"host {h} leads nothing")


def ask_with_an_early_answer_late(c, near, far):
    """16 calls, of which the third waits for host 2. Gives the client, and the bytes that wait for it."""
    client = Slow(c.redis[1])
    c.processes[2].send_signal(signal.SIGSTOP)  # it takes less than an election: what it is asked is answered later
    client.send(b"GET %b\r\nGET %b\r\nMGET %b %b\r\n" % (near, near, near, far) + b"GET %b\r\n" % near * 13)
    time.sleep(0.4)
    c.processes[2].send_signal(signal.SIGCONT)
    return client, await_rest(c, client)


def test_slow_reader_whose_early_answer_is_late(c):
    """The most that waits: two replies that leave, one that is first then and always kept, and as much behind it as is held."""
    a, value = c.client(1, 120), b"v" * (20 << 20)
    for _ in range(5):  # leaders may move, and then nothing is late
        near, far = led_by(c, 1, "early").encode(), led_by(c, 2, "late").encode()
        persist(a.set, near, value)
        client, waiting = ask_with_an_early_answer_late(c, near, far)
        check(waiting <= (64 << 20) + 3 * (21 << 20), f"{waiting} bytes wait for a client that does not read")
        for i in range(16):
            if i == 2:
                check(client.line() == b"*2", "the late answer is in its place")
            check(client.bulk() == value, f"large reply {i}")
            if i == 2:
                check(client.line() == b"$-1", "what host 2 leads is not there")
        client.close()
        persist(a.delete, near)
        if waiting >= 120 << 20:
            return
    raise AssertionError(f"only {waiting} bytes waited: no early answer was late")


def test_slow_readers_of_former_values(c):
    """Writes cannot be asked again: no more of them are taken than may have their answers kept."""
    a, value = c.client(1, 120), b"v" * (2 << 20)
    for request in (b"SET former x NX GET\r\n", b"NH.ONCE former:%d SET former x NX GET\r\n"):
        persist(a.set, "former", value)
        client = Slow(c.redis[1])  # as in test_slow_readers
        for _ in range(20):
            client.send(b"GET none\r\n" * 100)
            check([client.line() for _ in range(100)] == [b"$-1"] * 100, "small commands")
        client.send(b"".join(request % i if b"%d" in request else request for i in range(300)))
        waiting = await_rest(c, client)
        check(waiting <= 72 << 20, f"{waiting} bytes wait for a client that does not read")
        for i in range(300):
            check(client.bulk() == value, f"reply {i}")
        client.close()
    persist(a.delete, "former")


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def test_bad_clients(c):
    """Clients that do not read, do not finish, go away, or send noise: the others do not notice."""
    port, good = c.redis[1], c.client(1)
    pid = c.processes[1].pid
    good.set("blob", os.urandom(1 << 20))
    deaf = socket.create_connection(("127.0.0.1", port))
    deaf.setblocking(False)
    request = b"*2\r\n$3\r\nGET\r\n$4\r\nblob\r\n" * 5000
    try:
        deaf.send(request)
    except BlockingIOError:
        pass
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
    for s in slow:
        s.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1000000\r\nabc")
    for i in range(100):
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"*3\r\n$3\r\nSET\r\n$4\r\ngone\r\n$1\r\n%d\r\n" % (i % 10) * 100)
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(os.urandom(2000))
    for i in range(200):
        check(good.set("well", i) and int(good.get("well")) == i, "a good client beside bad ones")
    check(memory_kib(pid) < 600 * 1024, f"{memory_kib(pid)} KiB with a client that does not read")
    for s in [deaf, *slow]:
        s.close()
    check(good.ping() and int(good.info()["connected_clients"]) < 300, "they are forgotten")


HELLO_OF_NOBODY = bytes.fromhex("4e48461a01010000000000000000000000000000a0c70a83")  # a frame without payload


def test_strangers_at_the_raft_port(c):
    """Whoever connects and says nothing gives way to who comes: hosts could not connect while enough of them were there."""
    silent = [socket.create_connection(("127.0.0.1", c.raft[1])) for _ in range(1100)]
    with socket.create_connection(("127.0.0.1", c.raft[1])) as s:
        s.settimeout(20)
        s.sendall(HELLO_OF_NOBODY)
        answer = s.recv(100)
    check(answer[:6] == b"NHF\x1a\x01\x02", f"{answer}: a hello is answered, if only with a refusal")
    for s in silent:
        s.close()


if __name__ == "__main__":
    run_tests([f for name, f in sorted(globals().items()) if name.startswith("test_")], SHARDS, start_all)
