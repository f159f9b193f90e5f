#include "tests/unit/logdb/lives.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/wait.h>
#include <unistd.h>

#include "logdb/rocksdb/store.h"

const uint64_t ones[100] = {[0 ... 99] = 1};

void run_and_die(void (*fn)(void))
{
    int status;
    pid_t pid = fork();

    cr_assert_geq(pid, 0);
    if (pid == 0) {
        fixture_open();
        fn();
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "see stderr");
}

void make_tables(void)
{
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    char *message = NULL;

    rocksdb_flush(f.db->db, options, &message);
    MUST(!message, "%s", message);
    rocksdb_flushoptions_destroy(options);
}

void move_horizon(void)
{
    MUST(store_move_horizon(f.db, &f.err) == NH_OK, "%s", f.err.text);
}

void save_in_child(const struct nh_update *u, size_t n)
{
    MUST(save(u, n, 1) == NH_OK, "%s", f.err.text);
}

void save_entries(uint64_t first, uint32_t n, uint64_t term)
{
    struct nh_update u = make_update(SHARD, REPLICA, first, n, term);

    save_in_child(&u, 1);
    update_deinit(&u);
}

void save_sized(uint64_t first, uint32_t n, uint64_t term, uint32_t payload_bytes)
{
    struct nh_run run = {.block = make_block_sized(first, n, term, payload_bytes), .to = n};
    struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .runs = &run, .n_runs = 1};

    save_in_child(&u, 1);
    nh_block_unref(run.block);
}

void save_singly(uint64_t first, uint64_t last, uint64_t term)
{
    for (uint64_t i = first; i <= last; i++)
        save_entries(i, 1, term);
}

void check_log(uint64_t shard_id, uint64_t first, uint64_t last, const uint64_t *terms)
{
    struct nh_raft_state s;
    struct collected c;
    size_t at = 0;

    MUST(f.ops->read_raft_state(f.db, shard_id, REPLICA, &s, &f.err) == NH_OK, "%s", f.err.text);
    MUST(s.first_index == first && s.last_index == last, "%" PRIu64 " to %" PRIu64 ", and not %" PRIu64 " to %" PRIu64,
         s.first_index, s.last_index, first, last);
    MUST(collect(shard_id, REPLICA, first, last + 1, SIZE_MAX, &c) == NH_OK, "%s", f.err.text);
    for (uint64_t i = first; i <= last; i++, at += nh_record_bytes(c.bytes + at)) {
        MUST(at < c.size_bytes && nh_record_index(c.bytes + at) == i, "entry %" PRIu64, i);
        MUST(nh_record_term(c.bytes + at) == *terms++, "entry %" PRIu64 " has term %" PRIu64, i, nh_record_term(c.bytes + at));
    }
    MUST(at == c.size_bytes, "%zu of %zu", at, c.size_bytes);
    collected_deinit(&c);
}

void damage_record(uint64_t at)
{
    char path[512];
    uint8_t byte;
    int fd;

    snprintf(path, sizeof path, "%s/wal/%016x.segment", f.dir, 1u);
    fd = open(path, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}
