#!/usr/bin/python3
"""The daemon as a process: options, refusals, LOADING, CLUSTERDOWN and TIMEOUT, clean ends, demo.

    daemon_test.py DIRECTORY
"""
import os
import resource
import signal
import socket
import subprocess
import time

import redis

from cluster import HOSTS, check, find_program, run_tests, start_all
from membership_test import info, retry

SHARDS = 20
MAX_CLIENTS = 50


def run(*args, timeout=60, cwd=None):
    nodehostd, _ = find_program()
    return subprocess.run([nodehostd, *args], capture_output=True, text=True, timeout=timeout, cwd=cwd)


def test_options(c):
    check(run("--version").stdout.startswith("nodehostd 0."), "--version")
    check("Examples:" in run("--help").stdout, "--help leads with examples")
    for args in (("--nonsense",), (), ("deno",), ("demo", "--shards", "0"), ("demo", "--shards", "16385"), ("demo", "x")):
        r = run(*args)
        check(r.returncode == 2 and "nodehostd --help" in r.stderr, f"{args}: {r}")


def test_check_config(c):
    r = run("--config", c.config(1), "--check-config")
    check(r.returncode == 0 and "good configuration" in r.stdout, str(r))
    bad = f"{c.dir}/bad.yaml"
    with open(c.config(1)) as f, open(bad, "w") as out:
        out.write(f.read().replace("count:", "cuont:"))
    r = run("--config", bad, "--check-config")
    check(r.returncode == 1 and f'{bad}:' in r.stderr and 'unknown key "cuont"' in r.stderr, str(r))
    with open(c.config(1)) as f, open(bad, "w") as out:
        out.write(f.read().replace(f"{c.dir}/data-1", f"{c.dir}/absent/data-1"))
    r = run("--config", bad, "--check-config")
    check(r.returncode == 1 and f'{bad}:1: host.data_dir is' in r.stderr and f'"{c.dir}/absent" to make it in' in r.stderr, str(r))
    r = run("--config", bad, "--plugin-dir", c.plugin_dir)
    check(r.returncode == 1 and f"{c.dir}/absent is not there, and is not made" in r.stderr, str(r))
    check(not os.path.exists(f"{c.dir}/absent"), "a parent was made")
    r = run("--config", f"{c.dir}/none.yaml")
    check(r.returncode == 1 and "none.yaml" in r.stderr, str(r))


def test_the_example_of_the_readme(c):
    with open(f"{os.path.dirname(__file__)}/../../README.md") as f:
        text = f.read().split("```yaml\n")[1].split("```")[0]
    os.mkdir(f"{c.dir}/newcomer")
    with open(f"{c.dir}/newcomer/h1.yaml", "w") as f:
        f.write(text)
    r = run("--config", "h1.yaml", "--check-config", cwd=f"{c.dir}/newcomer")
    check(r.returncode == 0, str(r))


def test_second_process_is_refused(c):
    r = run("--config", c.config(1), "--plugin-dir", c.plugin_dir)
    check(r.returncode == 1 and f"is in use by process {c.processes[1].pid}" in r.stderr, str(r))


def test_clients_are_limited(c):
    sockets = [socket.create_connection(("127.0.0.1", c.redis[3])) for _ in range(MAX_CLIENTS + 5)]
    answers = []
    for s in sockets:
        s.settimeout(10)
        try:
            s.sendall(b"PING\r\n")
            answers.append(s.recv(100))
        except ConnectionError:
            answers.append(b"-ERR max number of clients reached")
        except socket.timeout:
            raise AssertionError("no answer") from None
    for s in sockets:
        s.close()
    check(sum(a.startswith(b"+PONG") for a in answers) == MAX_CLIENTS, f"{answers}")
    check(sum(a.startswith(b"-ERR max number of clients") for a in answers) == 5, f"{answers}")
    time.sleep(0.2)
    check(c.client(3).ping(), "there is room again")


def test_info_names_the_allocator(c):
    with open(f"/proc/{c.processes[1].pid}/maps") as f:
        in_process = "libjemalloc" in f.read()
    name = c.client(1).info("memory")["mem_allocator"]
    check(name.startswith("jemalloc-5.") if in_process else name == "libc", name)


def bind_everywhere(c, h):
    """Host h listens at every interface; what others call it stays."""
    with open(c.config(h)) as f:
        text = f.read()
    for port in (c.raft[h], c.redis[h]):
        text = text.replace(f'listen: "127.0.0.1:{port}"', f'listen: "127.0.0.1:{port}", bind: "0.0.0.0:{port}"')
    with open(c.config(h), "w") as f:
        f.write(text)


def answers_at(address, port):
    try:
        socket.create_connection((address, port), timeout=10).close()
        return True
    except ConnectionRefusedError:
        return False


def test_bind(c):
    """Host 3 is bound to every interface (127.0.0.2 is one of this machine too), host 1 to its address alone."""
    for ports in (c.raft, c.redis):
        check(answers_at("127.0.0.2", ports[3]) and answers_at("127.0.0.1", ports[3]), "host 3 is not where it is bound")
        check(not answers_at("127.0.0.2", ports[1]), "host 1 is where it should not be")
    check(c.client(3).set("bound", "yes") and c.client(1).get("bound") == b"yes", "SET, GET")
    info = str(c.client(1).execute_command("NH.SHARD", "INFO", "1"))
    check(f"127.0.0.1:{c.raft[3]}" in info and "0.0.0.0" not in info, f"host 3 has another name: {info}")


def test_missing_machine_is_refused(c):
    r = run("--config", c.config(1), "--plugin-dir", c.dir)
    check(r.returncode == 1 and "kv.so" in r.stderr, str(r))


def test_without_quorum(c):
    """Two of three are gone: nothing is applied without a majority, and the answers say what is known."""
    a = c.client(1)
    check(a.set("q", "1"), "SET")
    c.kill(2)
    c.kill(3)
    answers = set()
    for _ in range(8):
        try:
            a.set("q", "2")
            raise AssertionError("a write was acknowledged without a majority")
        except redis.ResponseError as e:
            answers.add(str(e).split()[0])
        try:
            a.get("q")
            raise AssertionError("a read was answered without a majority")
        except redis.ResponseError as e:
            answers.add(str(e).split()[0])
    check(answers <= {"TIMEOUT", "CLUSTERDOWN", "TRYAGAIN"} and "CLUSTERDOWN" in answers, f"answers {answers}")
    c.start(2)
    c.start(3)
    c.await_leaders(30)
    check(a.get("q") in (b"1", b"2") and a.set("q", "3") and c.client(3).get("q") == b"3", "after the return of the others")


def test_fenced(c):
    """Host 3 cannot write any more (its files may not grow): it says so to whoever looks, leads nothing, and names others for every slot."""
    c.client(3).set("before", "yes")
    retry(20, lambda: c.client(3).execute_command("NH.SHARD", "TRANSFER", 1, 3) == b"OK")
    healthy = c.client(3).info("everything")
    check(healthy["aof_last_write_status"] == "ok" and healthy["log_store"] == "ok" and healthy["leaders"] > 0, f"{healthy}")
    resource.prlimit(c.processes[3].pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for i in range(1000):
        try:
            c.client(3, 5).set(f"fence-{i}", "x")
            c.client(1, 5).set(f"fence-{i}", "x")
        except redis.ResponseError:
            pass
        if c.client(3).info("everything").get("log_store") != "ok":
            break
    info = c.client(3).info("everything")
    check(info["log_store"] == "failed" and info["aof_last_write_status"] == "err" and info["leaders"] == 0, f"{info}")
    for command in (("PING",), ("GET", "before"), ("SET", "before", "no")):
        try:
            answer = c.client(3).execute_command(*command)
        except redis.ResponseError as e:
            check(str(e).startswith("MISCONF"), f"{command}: {e}")
        else:
            raise AssertionError(f"{command}: {answer}")
    for slots in c.client(3).execute_command("CLUSTER", "SLOTS"):
        check({node[1] for node in slots[2:]} == {c.redis[1], c.redis[2]}, f"{slots}")
    c.kill(3)
    c.start(3)
    c.await_leaders(30)
    check(c.client(3).ping() and c.client(3).get("before") == b"yes" and c.client(3).info("everything")["log_store"] == "ok", "a restart")


def test_other_members_are_refused(c):
    """The configuration may not contradict what is stored."""
    check(c.stop(2) == 0, c.tail(2))
    with open(c.config(2)) as f:
        text = f.read()
    with open(f"{c.dir}/other.yaml", "w") as f:
        f.write(text.replace("replicas: [1, 2, 3]", "replicas: [1, 2]"))
    r = run("--config", f"{c.dir}/other.yaml", "--plugin-dir", c.plugin_dir)
    check(r.returncode == 1 and "was started with members" in r.stderr, str(r))
    with open(f"{c.dir}/other.yaml", "w") as f:
        f.write(text.replace("id: 2, data_dir", "id: 2, deployment_id: 7, data_dir"))
    r = run("--config", f"{c.dir}/other.yaml", "--plugin-dir", c.plugin_dir)
    check(r.returncode == 1 and "belongs to deployment 1, not to 7" in r.stderr, str(r))
    c.start(2)
    c.await_leaders(30)


def test_another_layout_is_refused(c):
    """With another list of shards the keys would be looked for elsewhere. What an earlier version left has no list and gets one."""
    layout = f"{c.dir}/data-2/LAYOUT"
    check(c.stop(2) == 0, c.tail(2))
    with open(c.config(2)) as f:
        text = f.read()
    section = text[text.index("  - { first: 1,"):]
    for other in (text.replace(f"count: {SHARDS}", f"count: {SHARDS + 1}"),
                  text + section.replace("first: 1,", "first: 100,"),
                  text.replace(f"count: {SHARDS}", f"count: {SHARDS - 1}")):
        with open(f"{c.dir}/other.yaml", "w") as f:
            f.write(other)
        r = run("--config", f"{c.dir}/other.yaml", "--plugin-dir", c.plugin_dir)
        check(r.returncode == 1 and f"the keys are in kv shards 1-{SHARDS}; the configuration has 1-" in r.stderr, str(r))
    with open(layout, "rb") as f:
        first = f.read()
    os.unlink(layout)
    c.start(2)
    c.await_leaders(30)
    with open(layout, "rb") as f:
        check(f.read() == first, "the list of shards is written again")
    numbers = {h: c.client(h).info("nodehost")["kv_layout"] for h in HOSTS}
    check(len(set(numbers.values())) == 1, f"INFO: {numbers}")


def test_a_host_with_another_first_list_is_alone(c):
    """A host that has no list yet cannot see that its own is wrong. The others do not talk to it, so it serves no key."""
    layout = f"{c.dir}/data-2/LAYOUT"
    check(c.stop(2) == 0, c.tail(2))
    with open(c.config(2)) as f:
        text = f.read()
    os.rename(layout, layout + ".right")
    with open(c.config(2), "w") as f:
        f.write(text.replace(f"count: {SHARDS}", f"count: {SHARDS - 1}"))
    c.start(2)
    deadline = time.monotonic() + 60
    while "another layout of the data" not in c.tail(2):
        check(time.monotonic() < deadline, c.tail(2))
        time.sleep(0.1)
    check(int(c.client(2).info("nodehost")["leaders"]) == 0, "who is alone leads nothing")
    check(c.client(1).set("{alone}key", "value"), "the others go on")
    check(c.stop(2) == 0, c.tail(2))
    os.rename(layout + ".right", layout)
    with open(c.config(2), "w") as f:
        f.write(text)
    c.start(2)
    c.await_leaders(30)


def test_a_stop_gives_leaders_away(c):
    """Nobody has to wait for an election: when the process is gone, another one leads, and says so at once."""
    for h in HOSTS:
        check(c.stop(h) == 0, c.tail(h))
        others = [o for o in HOSTS if o != h]
        for shard in range(1, SHARDS + 1):
            leaders = {info(c, o, shard)["leader"] for o in others}
            check(leaders - {0, h}, f"shard {shard} after the stop of host {h}: {leaders}")
        c.start(h)
        c.await_leaders(30)


def is_quiet(c, shard, leader):
    """Whether every host knows this leader and the shard is quiet; if not, has another leader replaced."""
    infos = [info(c, h, shard) for h in HOSTS]
    if any(i["leader"] != leader for i in infos):
        c.client(leader).execute_command("NH.SHARD", "TRANSFER", shard, leader)
    return all(i["leader"] == leader and i["quiesced"] for i in infos)


def test_hosts_share_what_a_stop_gives_away(c):
    """Quiet shards are given away too, and, as the others are equally far, not all to one of them."""
    retry(60, lambda: all([is_quiet(c, shard, 1) for shard in range(1, SHARDS + 1)]), ("TRYAGAIN", "TIMEOUT", "CLUSTERDOWN"))
    check(c.stop(1) == 0, c.tail(1))
    leaders = {shard: info(c, 2, shard)["leader"] for shard in range(1, SHARDS + 1)}
    check({2, 3} <= set(leaders.values()), f"leaders: {leaders}")
    c.start(1)
    c.await_leaders(30)


class Demo:
    """nodehostd demo in a directory, as a context: its processes are gone afterwards."""

    def __init__(self, c, log, *options):
        self.dir, self.log, self.options = f"{c.dir}/demo", f"{c.dir}/{log}", options

    def __enter__(self):
        nodehostd, _ = find_program()
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([nodehostd, "demo", *self.options, "--dir", self.dir], stdout=log, stderr=log)
        try:
            for _ in range(600):
                if os.path.exists(f"{self.dir}/cluster.env"):
                    break
                check(self.process.poll() is None, self.said())
                time.sleep(0.1)
            with open(f"{self.dir}/cluster.env") as f:
                self.env = dict(line.strip().split("=", 1) for line in f)
        except BaseException:
            self.process.terminate()
            self.process.wait(60)
            raise
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        check(code == 0, f"demo ends with {code}: {self.said()}")
        for n in (1, 2, 3):
            check(not os.path.exists(f"/proc/{self.env[f'PID_{n}']}"), f"host {n} of the demo still runs")
        check(not os.path.exists(f"{self.dir}/cluster.env"), "processes that have ended are named")

    def said(self):
        with open(self.log) as f:
            return f.read()

    def client(self, n):
        return redis.Redis(port=int(self.env[f"REDIS_PORT_{n}"]), socket_timeout=20)

    def ports(self):
        return [self.env[f"REDIS_PORT_{n}"] for n in (1, 2, 3)]


def test_demo(c):
    with Demo(c, "demo.log", "--shards", "10") as demo:
        ports, client = demo.ports(), demo.client(1)
        check(client.set("a", "b"), "demo SET")
        os.kill(int(demo.env["PID_3"]), signal.SIGKILL)
        for _ in range(200):
            if "host 3 has ended" in demo.said():
                break
            time.sleep(0.1)
        check(demo.process.poll() is None and "host 3 has ended" in demo.said(), "a dead host is reported, the demo goes on")
        check(client.get("a") == b"b", "demo GET")
        r = run("demo", "--dir", demo.dir)
        check(r.returncode == 1 and "another demo runs" in r.stderr, str(r))
        check(client.get("a") == b"b" and os.path.exists(f"{demo.dir}/cluster.env"), "the demo is not disturbed by a second one")
    configs = [open(f"{demo.dir}/host-{n}.yaml").read() for n in (1, 2, 3)]
    r = run("demo", "--shards", "11", "--dir", demo.dir)
    check(r.returncode == 1 and "has 10 shards, not 11: leave out --shards" in r.stderr, str(r))
    check(configs == [open(f"{demo.dir}/host-{n}.yaml").read() for n in (1, 2, 3)], "a refused demo changes configurations")
    with Demo(c, "again.log") as demo:
        check(demo.ports() == ports, f"{ports} are {demo.ports()} now")
        check(demo.client(2).get("a") == b"b", "GET after the second start")
        check("10 shards, 3 replicas each" in demo.said(), demo.said())
    with open(f"{demo.dir}/host-2.yaml", "w") as f:
        f.write(configs[1].replace("replicas: [1, 2, 3]", "replicas: [1, 2]"))
    r = run("demo", "--dir", demo.dir)
    check(r.returncode == 1 and "host-2.yaml is not as demo has written it" in r.stderr, str(r))


def prepare(c):
    bind_everywhere(c, 3)
    start_all(c)


if __name__ == "__main__":
    run_tests((test_options, test_check_config, test_the_example_of_the_readme, test_second_process_is_refused, test_clients_are_limited,
               test_info_names_the_allocator, test_bind, test_missing_machine_is_refused, test_without_quorum, test_fenced,
               test_other_members_are_refused, test_another_layout_is_refused,
               test_a_host_with_another_first_list_is_alone, test_a_stop_gives_leaders_away,
               test_hosts_share_what_a_stop_gives_away, test_demo),
              SHARDS, prepare, timeout_ms=1500, max_clients=MAX_CLIENTS)
