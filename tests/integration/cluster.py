"""Starts nodehostd processes for tests, three and those that join: configurations, ports, kill -9, restart. Needs python3-redis."""
import argparse
import os
import random
import signal
import socket
import subprocess
import time

import redis

HOSTS = (1, 2, 3)


def check(condition, text):
    if not condition:
        raise AssertionError(text)


PORT_MIN = 10000


def free_ports(n):
    """Below those that the kernel gives to outgoing connections: one of these takes the port of a host that is not started yet, or is
    stopped for a while, for as long as it lives. Of any that are free if there are few below."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        end = int(f.read().split()[0])
    pick = random.SystemRandom()
    sockets = []
    for _ in range(1000):
        if len(sockets) == n:
            break
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", pick.randrange(PORT_MIN, end) if end > 2 * PORT_MIN else 0))
            sockets.append(s)
        except OSError:
            s.close()  # somebody has it
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    check(len(ports) == n, f"{len(ports)} free ports of {n}")
    return ports


class Cluster:
    """What `sections` puts before the shards: HOST in it is the id of each host, DIRECTORY the directory."""

    def __init__(self, nodehostd, plugin_dir, directory, shards, timeout_ms=5000, max_clients=10000, joining=(),
                 shard_options="quiesce: true", machine="kv", sections=""):
        self.nodehostd, self.plugin_dir, self.dir, self.shards, self.machine = nodehostd, plugin_dir, directory, shards, machine
        hosts = HOSTS + tuple(joining)
        ports = free_ports(2 * len(hosts))
        self.raft = dict(zip(hosts, ports))
        self.redis = dict(zip(hosts, ports[len(hosts):]))
        self.processes = {}
        for h in hosts:
            with open(self.config(h), "w") as f:
                f.write(f'host:   {{ id: {h}, data_dir: "{directory}/data-{h}" }}\n'
                        f'raft:   {{ listen: "127.0.0.1:{self.raft[h]}", rtt_ms: 100, log_workers: {"yes" if h == 2 else "no"}, '
                        f'polling: {"no" if h == 3 else "yes"} }}\n'
                        f'redis:  {{ listen: "127.0.0.1:{self.redis[h]}", timeout_ms: {timeout_ms}, max_clients: {max_clients} }}\npeers:\n')
                for p in hosts:
                    f.write(f'  - {{ id: {p}, raft: "127.0.0.1:{self.raft[p]}", redis: "127.0.0.1:{self.redis[p]}" }}\n')
                replicas, join = ([1, 2, 3], "") if h in HOSTS else ([h], ", join: true")
                f.write(sections.replace("HOST", str(h)).replace("DIRECTORY", str(directory)))
                f.write(f"shards:\n  - {{ first: 1, count: {shards}, machine: {machine}, replicas: {replicas}, election_rtt: 10,\n"
                        f"      heartbeat_rtt: 1, check_quorum: true, pre_vote: true, {shard_options}{join} }}\n")

    def config(self, h):
        return f"{self.dir}/host-{h}.yaml"

    def log(self, h):
        return f"{self.dir}/host-{h}.log"

    def start(self, h, *options, descriptors=None, **env):
        """descriptors: as many as the process may have; env: more of the environment."""
        limited = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
        with open(self.log(h), "a") as log:
            self.processes[h] = subprocess.Popen(
                [*limited, self.nodehostd, "--config", self.config(h), "--plugin-dir", self.plugin_dir, *options], stdout=log, stderr=log,
                env=dict(os.environ, **env), restore_signals=False)  # a limit of file sizes is an error, not SIGXFSZ

    def kill(self, h):
        process = self.processes.pop(h)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, h, timeout=60):
        """A clean stop; returns the exit code."""
        self.processes[h].send_signal(signal.SIGTERM)
        return self.processes.pop(h).wait(timeout)

    def client(self, h, timeout=20):
        return redis.Redis(port=self.redis[h], socket_timeout=timeout, socket_connect_timeout=timeout)

    def check_alive(self, hosts=None):
        """hosts None: all that were started, and neither killed nor stopped since."""
        for h in hosts or list(self.processes):
            code = self.processes[h].poll()
            if code is not None:
                raise AssertionError(f"host {h} has ended with {code}:\n{self.tail(h)}")

    def whole_log(self, h):
        with open(self.log(h), errors="replace") as f:
            return f.read()

    def tail(self, h):
        with open(self.log(h), errors="replace") as f:
            return "".join(f.readlines()[-30:])

    def leaderless(self, h):
        """Shards without a leader as host h knows it; all of them while it does not answer."""
        try:
            info = self.client(h, 2).info("everything")
        except (redis.RedisError, OSError):
            return self.shards
        if info["loading"]:
            return self.shards
        return int(info["leaderless"]) + self.shards - int(info["shards"])

    def await_leaders(self, seconds, hosts=HOSTS):
        """Seconds until every shard has a leader on each of the hosts."""
        begin = time.monotonic()
        left = {}
        while time.monotonic() - begin < seconds:
            left = {h: self.leaderless(h) for h in hosts}
            if not any(left.values()):
                return time.monotonic() - begin
            self.check_alive(hosts)
            time.sleep(0.1)
        raise AssertionError(f"after {seconds} s shards without a leader, by host: {left}")

    def close(self):
        for p in self.processes.values():
            if p.poll() is None:
                p.kill()
                p.wait()


def find_program():
    """nodehostd and its plugin directory, from the environment that meson sets."""
    return os.environ["NODEHOSTD"], os.environ["NODEHOST_PLUGINS"]


def run_tests(tests, shards, prepare, **options):
    """The main program of most tests: makes a cluster with these options, and has `prepare` start it; runs the tests on it, one after the
    other; the hosts that run then have to end cleanly. Arguments: [--machine NAME] DIRECTORY."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--machine", default="kv")
    args = parser.parse_args()
    nodehostd, plugins = find_program()
    cluster = Cluster(nodehostd, plugins, args.directory, shards, machine=args.machine, **options)
    try:
        prepare(cluster)
        for f in tests:
            begin = time.monotonic()
            f(cluster)
            cluster.check_alive()
            print(f"{f.__name__}: ok, {time.monotonic() - begin:.1f} s", flush=True)
        for h in list(cluster.processes):
            check(cluster.stop(h) == 0, f"host {h} does not end cleanly:\n{cluster.tail(h)}")
    finally:
        cluster.close()
    print(f"ok: {len(tests)} tests")


def start_all(c, hosts=HOSTS):
    for h in hosts:
        c.start(h)
    c.await_leaders(30, hosts)
