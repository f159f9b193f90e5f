#!/usr/bin/env python3
"""Tests the tester: breaks one promise of the engine after another and requires that the simulator notices.

    tests/sim/mutants.py [--seeds N] [NAME ...]

Works on a copy of the tree. Exits 1 if a mutant survives, or if the line that it
changes is no longer there (then bring the list up to date).
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

# name, file, what stands there, what the mutant makes of it
MUTANTS = [
    ("acks leave before the save", "engine/drive.c", "if (r->last_batch)", "if (0)"),
    ("own match before the save", "engine/drive.c", "r->last_batch = w->open;",
     "r->last_batch = w->open; r->saved_id = out->save_id; step_worker_again(w, r);"),
    ("failed save counts", "engine/step_worker.c", "if (b->result == NH_OK && r->state", "if (r->state"),
    ("failed save does not fence", "engine/step_worker.c", "engine_fence(w->engine, b->err.text);", ";"),
    ("read before it is applied", "engine/reads.c", "if (b->index > r->handed)", "if (0)"),
    ("read without a quorum", "engine/raft/read.c", "    if (read.index) {\n        lead->heartbeat_wanted = true;",
     "    if (read.index) {\n        for (uint32_t q = 0; q < lead->n_peers; q++)\n"
     "            lead->peers[q].acked_round = lead->round;\n        lead->heartbeat_wanted = true;"),
    ("read before an own entry is committed", "engine/raft/read.c",
     "read.index = raft_own_term_committed(r) ? r->log.commit : 0;", "read.index = r->log.commit;"),
    ("timeout reported as dropped", "engine/replica.c", "end_all(&timed_out, NH_REQUEST_TIMEOUT", "end_all(&timed_out, NH_REQUEST_DROPPED"),
    ("expired proposals are proposed", "engine/drive.c", "if (whole && !in->has_expired)", "if (whole)"),
    ("copies of a forwarded batch are taken", "engine/raft/propose.c", "if (m->hint <= mark->key)", "if (0)"),
    ("keys begin anew after a restart", "engine/engine.c", "e->config.incarnation << KEY_SHIFT | 1", "(uint64_t)1 << KEY_SHIFT | 1"),
    ("keys begin anew within a life", "engine/engine.c", "used ? used->next_proposal : first", "first"),
    ("vote is not saved", "engine/raft/collect.c", ".vote = r->vote, .commit", ".vote = 0, .commit"),
    ("a minority commits", "engine/raft/quorum.c", "return values[n - raft_quorum(n)];", "return values[n - (raft_quorum(n) > 1 ? raft_quorum(n) - 1 : 1)];"),
    ("votes for shorter logs", "engine/raft/election.c",
     "if (!free_to_vote || !raft_log_is_behind_or_equal(&r->log, m->log_term, m->log_index) ||\n", "if (!free_to_vote ||\n"),
]


def copy_tree(root, to):
    shutil.copytree(root, to, ignore=shutil.ignore_patterns("build*", ".git", "__pycache__"))


def try_mutant(tree, build, seeds, mutant):
    name, file, old, new = mutant
    path = tree / file
    text = path.read_text()
    if text.count(old) < 1:
        return f"{name}: {file} has no such line any more"
    path.write_text(text.replace(old, new, 1))
    try:
        if subprocess.run(["ninja", "-C", build, "tests/sim/run"], capture_output=True, check=False).returncode:
            return f"{name}: does not build"
        run = subprocess.run([build / "tests/sim/run", "--seeds", str(seeds)], capture_output=True, text=True, check=False)
    finally:
        path.write_text(text)
    if run.returncode == 0:
        return f"{name}: SURVIVES {seeds} seeds"
    print(f"{name}: {(run.stderr.strip().splitlines() or ['killed'])[0]}", flush=True)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4000)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    failures = []
    with tempfile.TemporaryDirectory() as tmp:
        tree, build = pathlib.Path(tmp) / "tree", pathlib.Path(tmp) / "build"
        copy_tree(root, tree)
        subprocess.run(["meson", "setup", build, tree, "-Dbuildtype=debugoptimized"], check=True, capture_output=True)
        for mutant in MUTANTS:
            if not args.names or mutant[0] in args.names:
                failures.append(try_mutant(tree, build, args.seeds, mutant))
    failures = [f for f in failures if f]
    for f in failures:
        print(f, file=sys.stderr)
    print(f"{len(MUTANTS) - len(failures)} of {len(MUTANTS)} mutants are noticed")
    sys.exit(bool(failures))


main()
