#!/usr/bin/python3
"""The machine of docs/MACHINES.md, built from what stands there alone, in a cluster: tutorial_test.py ROOT BUILD DIRECTORY."""
import pathlib
import sys

from cluster import HOSTS, Cluster, find_program
from membership_test import check, info, retry

ROOT = pathlib.Path(sys.argv[1])
sys.path.append(str(ROOT / "tests/conformance/machine"))
from tutorial import Tutorial  # noqa: E402

COMMAND = "any bytes"
N_COMMANDS = 100
SNAPSHOT_ENTRIES = 40


def start_all(c):
    for h in HOSTS:
        c.start(h)
    c.await_leaders(30)


def check_state(c, n):
    """It counts commands and their bytes; every host answers."""
    for h in HOSTS:
        answer = retry(20, lambda h=h: c.client(h).execute_command("NH.QUERY", 1, "?"))
        check(answer[1:] == [n, (n * len(COMMAND)).to_bytes(8, "little")], f"host {h} after {n} commands: {answer}")


def test_commands(c):
    for i in range(N_COMMANDS):
        h = HOSTS[i % len(HOSTS)]
        answer = retry(20, lambda h=h: c.client(h).execute_command("NH.PROPOSE", 1, COMMAND))
        check(answer[1:] == [i + 1, b""], f"command {i + 1}: {answer}")
    check_state(c, N_COMMANDS)


def test_restart(c):
    """It is back from a snapshot and the log behind it."""
    for h in HOSTS:
        retry(20, lambda h=h: info(c, h, 1)["snapshot"] > 0)
        c.kill(h)
    start_all(c)
    check_state(c, N_COMMANDS)


def main():
    build, directory = map(pathlib.Path, sys.argv[2:])
    plugins = directory / "plugins"
    plugins.mkdir()
    Tutorial(ROOT, build).build_with_cc(plugins)
    (plugins / "mine.so").chmod(0o755)
    c = Cluster(find_program()[0], plugins, directory, 1, machine="mine", shard_options=f"snapshot_entries: {SNAPSHOT_ENTRIES}")
    try:
        start_all(c)
        test_commands(c)
        test_restart(c)
        for h in HOSTS:
            check(c.stop(h) == 0, f"host {h} does not end cleanly:\n{c.tail(h)}")
    finally:
        c.close()
    print("ok: the machine of the tutorial in a cluster")


if __name__ == "__main__":
    main()
