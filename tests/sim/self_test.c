#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/sim.h"

#define TEXT_BYTES 1024u

static bool in_child;

bool self_test_runs(void)
{
    return in_child;
}

/* What the child says before it ends, and its status. */
static int run_child(void (*violate)(void), char *text)
{
    int ends[2], status = 0;
    size_t n = 0;
    ssize_t got;
    pid_t child;

    fflush(NULL);
    if (pipe(ends) < 0 || (child = fork()) < 0) {
        perror("self-test");
        exit(2);
    }
    if (child == 0) {
        in_child = true;
        dup2(ends[1], STDERR_FILENO);
        violate();
        _exit(0);
    }
    close(ends[1]);
    while (n < TEXT_BYTES - 1 && (got = read(ends[0], text + n, TEXT_BYTES - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void self_test_expect(const char *text, void (*violate)(void))
{
    char said[TEXT_BYTES];
    int status = run_child(violate, said);

    if (status != 1 || !strstr(said, text))
        sim_fail("self-test: want \"%s\", got status %d and \"%s\"", text, status, said);
}

void self_test_begin(uint32_t n_hosts)
{
    sim = (struct sim){.verbose = sim.verbose, .now_ns = 1000 * SIM_MS, .options = {.n_hosts = n_hosts, .n_shards = 1}};
    oracle_init();
    disks_init();
    client_init();
    for (uint32_t i = 0; i < n_hosts; i++)
        host_init(i);
}

void self_test_save(uint32_t host, uint64_t index, uint64_t term, uint64_t id, struct nh_state state)
{
    struct sim_host *h = sim.hosts[host];
    struct nh_logdb_config config = {.struct_size = sizeof config,
                                     .dir = h->disk_name,
                                     .n_workers = 1,
                                     .services = nh_plugin_services()};
    struct sim_command c = {.id = id, .shard = 1, .size_bytes = sizeof c};
    struct block_builder b = {0};
    struct nh_update update = {
        .shard_id = 1, .replica_id = host + 1, .has_state = true, .must_sync = true, .state = state, .n_runs = 1};
    struct nh_run run;

    if (nh_logdb_memory()->open(&config, &h->logdb, NULL) < 0 ||
        block_builder_add(&b, &(struct block_record){.type = NH_ENTRY_APPLICATION, .payload = &c, .payload_bytes = sizeof c}) < 0)
        sim_fail("self-test: no disk, or no record");
    run = (struct nh_run){block_seal(&b, term, index), 0, 1};
    update.runs = &run;
    if (nh_logdb_memory()->save_raft_state(h->logdb, &update, 1, 1, NULL) < 0)
        sim_fail("self-test: not saved");
    nh_block_unref(run.block);
    nh_logdb_memory()->close(h->logdb);
}

void self_test_end(void)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_deinit(i);
    client_deinit();
    disks_deinit();
    oracle_deinit();
}
