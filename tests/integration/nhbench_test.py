#!/usr/bin/python3
"""nhbench as a process: each mode for a moment, with tiny numbers. What it prints makes sense, and wrong options are refused.

    nhbench_test.py DIRECTORY
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from cluster import HOSTS as CLUSTER_HOSTS, Cluster, find_program

TINY = ("--shards", "3", "--in-flight", "32", "--seconds", "0.5", "--warm-up", "0.2", "--json")
HOSTS = 3


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def nhbench(directory, *args, timeout=120):
    return subprocess.run([os.environ["NHBENCH"], *args], capture_output=True, text=True, timeout=timeout, cwd=directory)


def measure(directory, *args):
    r = nhbench(directory, *args)
    check(r.returncode == 0, f"{args}: {r}")
    check(os.listdir(directory) == [], f"{args} left {os.listdir(directory)}")
    return json.loads(r.stdout)


def check_latencies(latencies):
    steps = [latencies[k] for k in ("p50_us", "p90_us", "p99_us", "p999_us", "max_us")]
    check(steps == sorted(steps) and steps[0] >= 0, f"percentiles are in order: {latencies}")
    check(latencies["mean_us"] <= latencies["max_us"], f"{latencies}")


def check_run(j, reads=False, writes=True):
    check(j["ops_per_second"] > 0 and j["ops_per_cpu_second"] > 0, "there is throughput")
    check((j["writes"]["count"] > 0) == writes and (j["reads"]["count"] > 0) == reads, f"{j['writes']} {j['reads']}")
    check_latencies(j["writes"])
    check_latencies(j["reads"])
    check(len(j["processes"]) == HOSTS, "every process reports")
    for p in j["processes"]:
        check(p["ops"] > 0 and p["peak_rss_bytes"] > 1 << 20, f"{p}")
    check(sum(p["ops"] for p in j["processes"]) == j["writes"]["count"] + j["reads"]["count"], "the sum is right")
    check(j["errors"] == 0, f"errors: {j['errors']}")
    check(j["leads"] == j["options"]["shards"], "every shard is led where it should be")
    if writes:
        check(j["entries_per_save"] >= 1 and j["entries_per_apply"] >= 1 and j["proposals_per_call"] >= 1, "batches hold something")


def test_noop(d):
    j = measure(d, "run", *TINY)
    check_run(j)
    check(j["options"]["durable"] and j["synced_saves_per_op"] > 0, "it is durable")


def test_one_by_one(d):
    j = measure(d, "run", *TINY, "--one-by-one")
    check_run(j)
    check(j["proposals_per_call"] == 1, "one by one")


def test_chained(d):
    j = measure(d, "run", *TINY, "--in-flight", "1", "--chained")
    check_run(j)
    check(j["options"]["chained"] and j["proposals_per_call"] == 1, "one after the other")
    r = nhbench(d, "run", *TINY, "--chained")
    check(r.returncode != 0 and "--in-flight 1" in r.stderr, f"{r.returncode} {r.stderr}")


def test_kv_with_reads(d):
    for mode in ("readindex", "lease", "stale"):
        check_run(measure(d, "run", *TINY, "--machine", "kv", "--read-share", "0.5", "--read-mode", mode), reads=True)


def test_only_reads(d):
    check_run(measure(d, "run", *TINY, "--read-share", "1"), reads=True, writes=False)


def test_plot(d):
    r = nhbench(d, "plot", *TINY[:-1], "--out", "charts", "--in-flights", "1,8", "--shard-counts", "1,3")
    charts = os.path.join(d, "charts")
    check(r.returncode == 0 and sorted(os.listdir(charts)) == ["latency-throughput.svg", "shards-throughput.svg"], f"{r}")
    check(r.stdout.count("ops/s") == 4, f"a line for each point: {r.stdout}")
    for name in os.listdir(charts):
        root = xml.etree.ElementTree.parse(os.path.join(charts, name)).getroot()
        lines = [e for e in root.iter() if e.tag.endswith("polyline")]
        check(len(lines) == 2 and all(len(e.get("points").split()) == 2 for e in lines), f"{name}: two curves of two points")
        check("nhbench plot --shards 3" in "".join(root.itertext()), f"{name}: the command is below it")
    shutil.rmtree(charts)
    check(os.listdir(d) == [], f"left: {os.listdir(d)}")
    r = nhbench(d, "plot", "--in-flights", "1,x")
    check(r.returncode == 2 and "--in-flights takes" in r.stderr, f"{r}")


def test_remote(d):
    c = Cluster(*find_program(), tempfile.mkdtemp(dir=os.path.dirname(d)), 5)
    try:
        for h in CLUSTER_HOSTS:
            c.start(h)
        c.await_leaders(60)
        hosts = ",".join(f"127.0.0.1:{c.redis[h]}" for h in CLUSTER_HOSTS)
        for payload in ("0", "16", "100000"):
            j = measure(d, "remote", "--hosts", hosts, "--clients", "5", "--pipeline", "7", "--load-threads", "2", "--read-share", "0.5",
                        "--payload", payload, "--keys", "100", "--seconds", "0.5", "--warm-up", "0.2", "--json")
            check(j["writes"]["count"] > 0 and j["reads"]["count"] > 0 and j["errors"] == 0, f"{j}")
            check_latencies(j["writes"])
            check_latencies(j["reads"])
    finally:
        c.close()
    r = nhbench(d, "remote", "--hosts", hosts)
    check(r.returncode == 1 and "connect to 127.0.0.1" in r.stderr, f"{r}")


def test_sessions(d):
    check_run(measure(d, "run", *TINY, "--sessions"))


def test_fixed_rate(d):
    j = measure(d, "run", *TINY, "--rate", "200")
    check_run(j)
    check(j["ops_per_second"] < 1.2 * HOSTS * 200, f"not more than was asked for: {j['ops_per_second']}")


def test_few_requests_and_many_shards(d):
    j = measure(d, "run", *TINY, "--shards", "30", "--in-flight", "3", "--load-threads", "2")
    check_run(j)


def test_memory_log_store(d):
    j = measure(d, "run", *TINY, "--log-store", "memory")
    check_run(j)
    check(not j["options"]["durable"], "and it says so")


def test_pinned(d):
    check_run(measure(d, "run", *TINY, "--pin", "0:0:0"))


def test_large_payload(d):
    check_run(measure(d, "run", *TINY, "--payload", "65536", "--machine", "kv"))


def test_limits(d):
    j = measure(d, "run", *TINY, "--limit")
    check_run(j)
    for name in ("file", "rocksdb", "store", "loopback"):
        check(j["limits"][name]["entries_per_second"] > 0 and j["limits"][name]["run_fraction"] > 0, f"{name}: {j['limits']}")


def test_restart(d):
    j = measure(d, "run", *TINY, "--restart")
    check_run(j)
    check(0 < j["restart"]["all_started_seconds"] <= j["restart"]["all_lead_seconds"] < 60, f"{j['restart']}")
    r = nhbench(d, "run", *TINY[:-1], "--restart")
    check(r.returncode == 0 and "after kill -9" in r.stdout, f"{r}")
    r = nhbench(d, "run", *TINY, "--restart", "--log-store", "memory")
    check(r.returncode == 2 and "keeps something" in r.stderr, f"{r}")


def test_directory_of_ones_own(d):
    own = os.path.join(d, "own")
    r = nhbench(d, "run", *TINY, "--dir", own)
    check(r.returncode == 0 and os.listdir(own) == [], f"it is emptied: {r}")
    with open(os.path.join(own, "precious"), "w") as f:
        f.write("x")
    r = nhbench(d, "run", *TINY, "--dir", own)
    check(r.returncode == 1 and "not an empty directory" in r.stderr, f"{r}")
    check(os.listdir(own) == ["precious"], "what is not ours stays")
    os.unlink(os.path.join(own, "precious"))
    os.rmdir(own)


def test_idle(d):
    j = measure(d, "idle", "--shards", "20", "--warm-up", "2", "--seconds", "1", "--json")
    for kind in ("start", "restart"):
        check(0 < j[kind]["all_started_seconds"] <= j[kind]["all_lead_seconds"] < 60, f"{kind}: {j[kind]}")
    check(len(j["processes"]) == HOSTS and j["wire_bytes_per_second"] >= 0, "every process reports")
    for p in j["processes"]:
        check(p["rss_bytes"] > 1 << 20 and 0 <= p["quiesced"] <= 20 and p["switches_per_second"] > 0, f"{p}")


def test_table(d):
    r = nhbench(d, "run", *TINY[:-1])
    check(r.returncode == 0 and "ops per CPU second" in r.stdout and "peak RSS" in r.stdout, f"{r}")
    check("ops/s" in r.stderr or "\n" in r.stderr, "a progress line")


def test_wrong_options(d):
    for args, text in (((), "a command is missing"), (("fly",), "unknown command"), (("run", "--shards", "0"), "--shards takes"),
                       (("run", "--payload", "x"), "--payload takes"), (("run", "--read-share", "1.5"), "--read-share takes"),
                       (("run", "--machine", "sql"), "noop kv"), (("run", "--nonsense"), "nonsense"), (("run", "x"), "unknown word"),
                       (("remote",), "--hosts is missing"), (("guard",), "--against is missing"), (("run", "--pin", "0:1"), "three lists"), (("run", "--spread", "odd"), "even"), (("run", "--pin", "0:1-0:1"), "three lists"), (("run", "--sessions", "--read-share", "0.5"), "--sessions cannot")):
        r = nhbench(d, *args)
        check(r.returncode == 2 and text in r.stderr, f"{args}: {r}")


def test_failures_are_told(d):
    r = nhbench(d, "run", *TINY, "--machine", "kv", "--plugins", d)
    check(r.returncode == 1 and "kv.so" in r.stderr, f"{r}")
    r = nhbench(d, "run", *TINY, "--log-store", "/nowhere.so")
    check(r.returncode == 1 and "/nowhere.so" in r.stderr, f"{r}")
    r = nhbench(d, "run", *TINY, "--log-store-options", "no_such_thing=1")
    check(r.returncode == 1 and "no_such_thing" in r.stderr, f"{r}")
    r = nhbench(d, "guard", "--against", "no-such-commit", "--source", os.path.dirname(os.path.abspath(__file__)))
    check(r.returncode == 2 and "has failed" in r.stderr, f"{r}")
    check(os.listdir(d) == [], "nothing is left behind")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--only", help="names with this in them")
    p.add_argument("directory")
    a = p.parse_args()
    directory = os.path.join(a.directory, "work")
    os.mkdir(directory)
    for name, test in sorted(globals().items()):
        if name.startswith("test_") and (not a.only or a.only in name):
            print(name, flush=True)
            test(directory)
    print("all passed")


if __name__ == "__main__":
    sys.exit(main())
