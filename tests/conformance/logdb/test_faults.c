/* Failed writes fence the store; what was acknowledged survives kill -9. */
#include "tests/conformance/logdb/fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

TestSuite(faults, .init = fixture_init, .fini = fixture_deinit, .timeout = 120);

static void nothing(void *ctx)
{
    (void)ctx;
}

static void expect_fenced(void)
{
    const struct nh_bootstrap b = {.join = true};
    struct nh_snapshot s = make_snapshot(SHARD, 1, 1);
    struct nh_update u = make_update(SHARD, REPLICA, 1, 1, 1), snapshot = {.shard_id = SHARD, .replica_id = REPLICA};

    snapshot.snapshot = &s;
    cr_assert_eq(save(&u, 1, 1), NH_EFENCED);
    cr_assert_eq(save(&u, 1, 2), NH_EFENCED, "every worker");
    cr_assert_eq(f.ops->save_bootstrap(f.db, SHARD, REPLICA, &b, &f.err), NH_EFENCED);
    cr_assert_eq(f.ops->remove_entries_to(f.db, SHARD, REPLICA, 1, &f.err), NH_EFENCED);
    cr_assert_eq(f.ops->compact_entries_to(f.db, SHARD, REPLICA, 1, nothing, NULL, &f.err), NH_EFENCED);
    cr_assert_eq(f.ops->save_snapshots(f.db, &snapshot, 1, &f.err), NH_EFENCED);
    cr_assert_eq(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err), NH_EFENCED);
    cr_assert_eq(f.ops->import_snapshot(f.db, &s, REPLICA, &f.err), NH_EFENCED);
    update_deinit(&u);
}

/* Files may not grow beyond a limit that the log soon reaches: write(2) fails with EFBIG, as it would on a full disk. */
Test(faults, after_a_failed_write_every_write_is_refused_and_reads_go_on)
{
    struct rlimit old, low;
    uint64_t last = 0;
    int r = NH_OK;

    if (fixture_skip_in_memory("it writes no file"))
        return;
    signal(SIGXFSZ, SIG_IGN);
    must_save_entries(SHARD, REPLICA, 1, 10, 1);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = (struct rlimit){.rlim_cur = f.options ? 48u << 10 : 2u << 20, .rlim_max = old.rlim_max}; /* options make files short */
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
    for (last = 10; last < 10 + 200 && r == NH_OK; last++) {
        struct nh_run run = {.block = make_block_sized(last + 1, 1, 1, 64 * 1024), .from = 0, .to = 1};
        struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .runs = &run, .n_runs = 1};

        r = save(&u, 1, 1);
        nh_block_unref(run.block);
    }
    cr_assert_eq(r, NH_EIO, "12 MiB were saved under a limit: %s", f.err.text);
    last--; /* the one that failed */
    expect_fenced();
    expect_bounds(SHARD, REPLICA, 1, last);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    expect_fenced(); /* space is back, but what the disk holds is not known */
    fixture_reopen();
    {
        struct nh_raft_state s;

        /* The failed save may or may not be there; nothing else may be missing. */
        expect_ok(f.ops->read_raft_state(f.db, SHARD, REPLICA, &s, &f.err));
        cr_assert(s.last_index == last || s.last_index == last + 1, "%lu after %lu", s.last_index, last);
        must_save_entries(SHARD, REPLICA, s.last_index + 1, 1, 1);
    }
}

/* It is the process that must live: what a store writes beside its data, for whoever looks for the cause, fails as well. */
Test(faults, a_store_on_a_full_disk_closes_and_is_refused_until_there_is_space)
{
    const struct nh_logdb_config config = {.struct_size = sizeof config,
                                           .dir = f.dir,
                                           .n_workers = N_WORKERS,
                                           .options = f.options,
                                           .services = nh_plugin_services()};
    struct rlimit old, full;
    struct nh_update u;
    int r;

    if (fixture_skip_in_memory("it writes no file"))
        return;
    u = make_update(SHARD, REPLICA, 2, 1, 1);
    signal(SIGXFSZ, SIG_IGN);
    must_save_entries(SHARD, REPLICA, 1, 1, 1);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    full = (struct rlimit){.rlim_cur = 1, .rlim_max = old.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &full), 0);
    r = save(&u, 1, 1);
    fixture_close();
    cr_assert_lt(f.ops->open(&config, &f.db, &f.err), 0, "a store was opened that can write nothing");
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    fixture_open();
    expect_bounds(SHARD, REPLICA, 1, r == NH_OK ? 2 : 1);
    update_deinit(&u);
}

/* ---- kill -9 ---- */

#define N_ROUNDS 20
#define N_SHARDS 3u
#define N_KEPT   40u

TestSuite(kill, .init = fixture_init_closed, .fini = fixture_deinit, .timeout = 120);

struct ack {
    uint64_t shard_id;
    uint64_t last;
    uint64_t term; /* of the hard state and of the last entry: goes up with every save */
};

/* The last shard keeps all of its log, the others the end of it. */
static void remove_sometimes(uint64_t i, uint64_t last, uint64_t *seed)
{
    if (i + 1 == N_SHARDS || last <= N_KEPT || below(seed, 8) > 0)
        return;
    MUST(f.ops->remove_entries_to(f.db, SHARD + i, REPLICA, last - N_KEPT, &f.err) == NH_OK, "%s", f.err.text);
}

/* Saves for ever, each shard with its worker, sometimes truncating, and tells of every save that returned. */
static void run_saver(int out)
{
    uint64_t seed = (uint64_t)getpid();
    struct nh_raft_state known[N_SHARDS] = {{.last_index = 0}};

    fixture_open();
    for (uint64_t i = 0; i < N_SHARDS; i++)
        f.ops->read_raft_state(f.db, SHARD + i, REPLICA, &known[i], NULL);
    for (;;) {
        uint64_t i = below(&seed, N_SHARDS), last = known[i].last_index;
        uint64_t back = below(&seed, 8) == 0 ? below(&seed, 10) : 0;
        uint32_t n = (uint32_t)(1 + below(&seed, 30));
        uint64_t first = back <= last ? last + 1 - back : 1;
        struct nh_update u = make_update(SHARD + i, REPLICA, first, n, ++known[i].state.term);
        struct ack ack;

        u.has_state = true;
        u.state = known[i].state;
        MUST(save(&u, 1, (uint32_t)(1 + i)) == NH_OK, "%s", f.err.text);
        update_deinit(&u);
        known[i].last_index = first + n - 1;
        ack = (struct ack){SHARD + i, known[i].last_index, known[i].state.term};
        MUST(write(out, &ack, sizeof ack) == sizeof ack, "write");
        remove_sometimes(i, known[i].last_index, &seed);
    }
}

/* One save may have reached the disk without an acknowledgement: it is there as a whole, or not at all. Once seen after a
 * restart it counts as acknowledged. */
static void check_shard(struct ack *ack)
{
    struct nh_raft_state s = {.last_index = 0};
    struct collected c;
    uint64_t term = 0;
    int r = f.ops->read_raft_state(f.db, ack->shard_id, REPLICA, &s, &f.err);

    if (ack->last == 0 && r == NH_ENOTFOUND)
        return;
    MUST(r == NH_OK, "%s", f.err.text);
    MUST(s.state.term == ack->term || s.state.term == ack->term + 1, "state %lu, acknowledged %lu", s.state.term, ack->term);
    MUST(s.state.term != ack->term || s.last_index == ack->last, "ends at %lu, acknowledged %lu", s.last_index, ack->last);
    MUST(collect(ack->shard_id, REPLICA, s.first_index, s.last_index + 1, SIZE_MAX, &c) == NH_OK, "%s", f.err.text);
    MUST(c.n == s.last_index + 1 - s.first_index, "%u entries of %lu to %lu", c.n, s.first_index, s.last_index);
    for (size_t at = 0; at < c.size_bytes; at += nh_record_bytes(c.bytes + at))
        term = nh_record_term(c.bytes + at);
    MUST(term == s.state.term, "the last entry has term %lu, the state %lu", term, s.state.term);
    collected_deinit(&c);
    *ack = (struct ack){ack->shard_id, s.last_index, s.state.term};
}

/* Checks in a process of its own, and brings back what is there now. */
static void check_survivors(struct ack acks[N_SHARDS])
{
    const size_t size = N_SHARDS * sizeof acks[0];
    int fds[2], status;
    pid_t pid;

    cr_assert_eq(pipe(fds), 0);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        fixture_open();
        for (uint64_t i = 0; i < N_SHARDS; i++)
            check_shard(&acks[i]);
        fixture_close();
        _exit(write(fds[1], acks, size) == (ssize_t)size ? 0 : 1);
    }
    close(fds[1]);
    cr_assert_eq(read(fds[0], acks, size), (ssize_t)size, "the check failed: see stderr");
    close(fds[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Kills a saver at a random time; acks[] gets the newest acknowledgement of every shard. The store is opened in child
 * processes only: what lives in threads of the parent would be missing in a fork. */
static void run_and_kill(struct ack acks[N_SHARDS], uint64_t *seed)
{
    int fds[2], status;
    struct ack ack;
    pid_t pid;

    cr_assert_eq(pipe(fds), 0);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        close(fds[0]);
        run_saver(fds[1]);
    }
    close(fds[1]);
    cr_assert_eq(read(fds[0], &ack, sizeof ack), (ssize_t)sizeof ack, "the saver saved nothing");
    acks[ack.shard_id - SHARD] = ack;
    nanosleep(&(struct timespec){.tv_nsec = (long)below(seed, 40 * 1000 * 1000)}, NULL);
    kill(pid, SIGKILL);
    while (read(fds[0], &ack, sizeof ack) == (ssize_t)sizeof ack)
        acks[ack.shard_id - SHARD] = ack;
    close(fds[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the saver failed by itself: %d", status);
}

Test(kill, what_was_acknowledged_survives)
{
    struct ack acks[N_SHARDS];
    uint64_t seed = (uint64_t)getpid();

    if (fixture_skip_in_memory("its disk is the memory of the process; see tests/unit/logdb/test_memory_disk.c"))
        return;
    for (uint64_t i = 0; i < N_SHARDS; i++)
        acks[i] = (struct ack){.shard_id = SHARD + i};
    for (int round = 0; round < N_ROUNDS; round++) {
        run_and_kill(acks, &seed);
        check_survivors(acks);
    }
}
