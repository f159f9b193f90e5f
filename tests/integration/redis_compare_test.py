#!/usr/bin/python3
"""The same random commands for a host and for a real redis-server: the replies are equal, byte for byte, but for what README says.

    redis_compare_test.py [--seed N] [--commands N] [--machine kv|kv-disk] DIRECTORY

Debian's redis-tools have the server, by another name: it is told by its first argument. Commands of the connection and of hosts are not compared, as their replies tell of the host.
"""
import argparse
import random
import shutil
import socket
import subprocess
import time

from cluster import HOSTS, Cluster, find_program, free_ports

SERVER = shutil.which("redis-server") or shutil.which("redis-check-rdb")
KEYS = (b"", b"a", b"b", b"k\x00\xff", b"{t}1", b"{t}2", b"{}x", b"\r\n", b"x" * 300)
VALUES = (b"", b"0", b"1", b"-1", b"10", b"-0", b"007", b"+5", b" 5", b"5 ", b"1.5", b"1e3", b"0x10", b"5\x00", b"5\x007", b"\x00", b"-",
          b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808", b"-9223372036854775809", b"9" * 30, b"abc",
          b"\x00\xff\r\n", b"v" * 70000, b"NX", b"nil")
ONE_KEY = (b"GET", b"STRLEN", b"INCR", b"DECR")
MANY_KEYS = (b"MGET", b"EXISTS", b"DEL")
KEY_AND_VALUE = (b"SETNX", b"GETSET", b"APPEND", b"INCRBY", b"DECRBY")
OTHERS = (b"SET", b"SET", b"SET", b"MSET", b"ECHO", b"NOSUCH", b"")


class Commands:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def key(self):
        return self.random.choice(KEYS)

    def value(self):
        return self.random.choice(VALUES) if self.random.random() < 0.8 else b"%d" % self.random.randint(-2**63, 2**63)

    def options(self):
        """Of SET, each once: the error of others is our own."""
        options = [self.random.choice((b"NX", b"xX")), b"GET"][:self.random.randrange(3)]
        self.random.shuffle(options)
        return options

    def arguments(self, name):
        if name in ONE_KEY:
            return [self.key()]
        if name in MANY_KEYS:
            return [self.key() for _ in range(self.random.randint(1, 5))]
        if name in KEY_AND_VALUE:
            return [self.key(), self.value()]
        if name == b"SET":
            return [self.key(), self.value(), *self.options()]
        if name == b"MSET":
            return [x for _ in range(self.random.randint(1, 4)) for x in (self.key(), self.value())]
        return [self.value() for _ in range(1 if name == b"ECHO" else self.random.randrange(4))]

    def next(self):
        name = self.random.choice(ONE_KEY + MANY_KEYS + KEY_AND_VALUE + OTHERS)
        arguments = self.arguments(name)
        if name != b"SET" and arguments and self.random.random() < 0.05:
            arguments.pop()
        elif name != b"SET" and self.random.random() < 0.05:
            arguments.append(self.value())
        return [self.random.choice((name, name.lower())), *arguments]


def encode(args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(x), x) for x in args)


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.file = self.socket.makefile("rb")

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise AssertionError(f"the connection has ended: {line}")
        if line[:1] == b"$" and line[:2] != b"$-":
            return line + self.file.read(int(line[1:]) + 2)
        if line[:1] == b"*":
            return line + b"".join(self.reply() for _ in range(int(line[1:])))
        return line


def hello(clients, version):
    for c in clients:
        c.socket.sendall(encode([b"HELLO", version]))
        line = c.file.readline()
        for _ in range(int(line[1:]) * (2 if line[:1] == b"%" else 1)):
            c.reply()


def compare(commands, ours, redis, n):
    for _ in range(n // 20):
        if commands.random.random() < 0.05:
            hello((ours, redis), commands.random.choice((b"2", b"3")))
        batch = [commands.next() for _ in range(20)]
        for c in (ours, redis):
            c.socket.sendall(b"".join(map(encode, batch)))
        for args in batch:
            a, b = ours.reply(), redis.reply()
            if a != b:
                raise AssertionError(f"{[x[:60] for x in args]}: {a[:200]}, Redis answers {b[:200]}")


def await_writes(client):
    for _ in range(60):
        client.socket.sendall(encode([b"DEL", *KEYS]))
        if client.reply()[:1] == b":":
            return
        time.sleep(0.5)
    raise AssertionError("no write is answered")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", type=int, default=4000)
    parser.add_argument("--machine", default="kv")
    parser.add_argument("directory")
    args = parser.parse_args()
    if not SERVER:
        raise SystemExit("neither redis-server nor redis-tools are installed: scripts/install-packages test")
    cluster, port = Cluster(*find_program(), args.directory, 4, machine=args.machine), free_ports(1)[0]
    server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", args.directory],
                              executable=SERVER, stdout=subprocess.DEVNULL)
    try:
        for h in HOSTS:
            cluster.start(h)
        cluster.await_leaders(30)
        ours = Client(cluster.redis[1])
        await_writes(ours)
        compare(Commands(args.seed), ours, Client(port), args.commands)
        cluster.check_alive()
    finally:
        server.kill()
        server.wait()
        cluster.close()
    print(f"ok: {args.commands} commands, seed {args.seed}")


if __name__ == "__main__":
    main()
