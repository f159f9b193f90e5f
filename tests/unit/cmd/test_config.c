/* Every error of a configuration, with the line it names. */
#include "cmd/nodehostd/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/nodehostd/buffer.h"

static const char good[] = "host:   { id: 1, data_dir: data/h1, deployment_id: 1 }\n"
                           "raft:   { listen: \"127.0.0.1:7101\", rtt_ms: 100 }\n"
                           "redis:  { listen: \"127.0.0.1:6379\" }\n"
                           "peers:\n"
                           "  - { id: 1, raft: \"127.0.0.1:7101\", redis: \"127.0.0.1:6379\" }\n"
                           "  - { id: 2, raft: \"127.0.0.1:7102\", redis: \"127.0.0.1:6380\" }\n"
                           "  - { id: 3, raft: \"127.0.0.1:7103\", redis: \"127.0.0.1:6381\" }\n"
                           "shards:\n"
                           "  - { first: 1, count: 1000, machine: kv, replicas: [1, 2, 3], election_rtt: 10, heartbeat_rtt: 1,\n"
                           "      check_quorum: true, pre_vote: false, quiesce: true }\n"
                           "  - first: 20000\n"
                           "    count: 5\n"
                           "    machine: counter\n"
                           "    replicas: [1, 3]\n";
static char path[] = "/tmp/nodehost-config.XXXXXX";
static struct nh_error err;

static void setup(void)
{
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    close(fd);
}

static void teardown(void)
{
    unlink(path);
}

TestSuite(config, .init = setup, .fini = teardown);

static int load(const char *text, struct config **ret)
{
    FILE *f = fopen(path, "w");

    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
    return config_load(path, ret, &err);
}

/* The good text with one piece replaced. */
static void expect(const char *from, const char *to, unsigned line, const char *error)
{
    const char *at = strstr(good, from);
    char text[4096], where[300];
    struct config *c = NULL;

    cr_assert(at, "%s", from);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    cr_assert_eq(load(text, &c), NH_EINVAL, "'%s' was accepted", to);
    cr_assert(strstr(err.text, error), "'%s': %s", to, err.text);
    snprintf(where, sizeof where, "%s:%u: ", path, line);
    cr_assert_eq(strncmp(err.text, where, strlen(where)), 0, "'%s': line %u: %s", to, line, err.text);
}

Test(config, a_good_one_is_read_with_its_defaults)
{
    struct config *c = NULL;

    cr_assert_eq(load(good, &c), 0, "%s", err.text);
    cr_assert(c->host.id == 1 && c->peers_count == 3 && c->shards_count == 2);
    cr_assert(c->shards[0].count == 1000 && c->shards[0].replicas_count == 3 && config_is_on(c->shards[0].quiesce, false));
    cr_assert(config_is_on(c->shards[0].check_quorum, false) && !config_is_on(c->shards[0].pre_vote, true) &&
              config_is_on(c->shards[1].pre_vote, true));
    cr_assert(c->shards[1].election_rtt == 10 && c->shards[1].heartbeat_rtt == 1 && !config_is_on(c->shards[1].quiesce, false));
    cr_assert(c->redis.timeout_ms == 5000 && c->redis.max_clients == 10000);
    cr_assert(config_has_replica(&c->shards[1], 3) && !config_has_replica(&c->shards[1], 2));
    cr_assert_str_eq(config_find_peer(c, 2)->redis, "127.0.0.1:6380");
    cr_assert_null(config_find_peer(c, 9));
    cr_assert(config_is_on(c->raft.polling, true) && !config_is_on(c->raft.polling, false), "not told");
    config_free(c);
}

Test(config, unknown_and_missing_keys_and_wrong_types)
{
    expect("rtt_ms: 100", "rtt: 100", 2, "unknown key \"rtt\"");
    expect("    machine: counter\n", "    machine: counter\n    snapshot_entry: 10\n", 14, "unknown key \"snapshot_entry\"");
    expect("data_dir: data/h1, ", "", 1, "key \"data_dir\" is missing");
    expect("id: 1, data_dir", "id: one, data_dir", 1, "id is \"one\": write a whole number");
    expect("replicas: [1, 3]", "replicas: 3", 14, "SEQUENCE");
    expect("quiesce: true", "quiesce: maybe", 10, "quiesce is \"maybe\": write true or false");
    expect("shards:\n", "shards: [\n", 8, "libyaml");
    expect("host:   { id: 1,", "host:   { id: 1, id: 2,", 1, "already seen");
}

Test(config, ranges)
{
    expect("id: 1, data_dir", "id: 0, data_dir", 1, "give a number from 1");
    expect("data_dir: data/h1", "data_dir: \"\"", 1, "host.data_dir is empty");
    expect("rtt_ms: 100", "rtt_ms: 10001", 2, "raft.rtt_ms is 10001: give a number from 1 to 10000");
    expect("rtt_ms: 100", "step_workers: 65", 2, "raft.step_workers is 65");
    expect("rtt_ms: 100", "log_workers: maybe", 2, "log_workers is \"maybe\": write true or false");
    expect("rtt_ms: 100", "polling: 0", 2, "polling is \"0\": write true or false");
    expect("quiesce: true", "quiesce: True", 10, "quiesce is \"True\": write true or false");
    expect("listen: \"127.0.0.1:6379\" }", "listen: \"127.0.0.1:6379\", timeout_ms: 3600001 }", 3, "redis.timeout_ms");
    expect("listen: \"127.0.0.1:6379\" }", "listen: \"127.0.0.1:6379\", max_clients: 1000001 }", 3, "redis.max_clients");
    expect("count: 1000", "count: 0", 9, "count is 0");
    expect("count: 1000", "count: 16385", 8, "only 16384 slots");
    expect("first: 20000", "first: 0", 11, "first is 0");
}

static const char raft_line[] = "raft:   { listen: \"127.0.0.1:7101\", rtt_ms: 100 }\n";
static const char machine_line[] = "    machine: counter\n";

Test(config, a_number_with_anything_but_its_digits_is_refused_as_it_was_written)
{
    expect(machine_line, "    machine: counter\n    snapshot_bytes: 256 MiB\n", 14,
           "snapshot_bytes is \"256 MiB\": write a whole number of bytes, digits 0 to 9 alone");
    expect(raft_line, "raft: { listen: \"127.0.0.1:7101\" }\nsnapshots: { send_bytes_per_s: 100MB }\n", 3,
           "send_bytes_per_s is \"100MB\": write a whole number of bytes per second,");
    expect("listen: \"127.0.0.1:6379\" }", "listen: \"127.0.0.1:6379\", timeout_ms: 5s }", 3,
           "timeout_ms is \"5s\": write a whole number of milliseconds,");
    expect(machine_line, "    machine: counter\n    snapshot_entries: 100,000\n", 14, "snapshot_entries is \"100,000\": write");
    expect("rtt_ms: 100", "rtt_ms: 0.5", 2, "rtt_ms is \"0.5\": write a whole number of milliseconds,");
    expect("id: 1, data_dir", "id: 010, data_dir", 1, "id is \"010\": write a whole number, digits 0 to 9 alone");
    expect("- { id: 2,", "- { id: 0x2,", 6, "id is \"0x2\"");
    expect(machine_line, "    machine: counter\n    compaction_overhead: -1\n", 14, "compaction_overhead is \"-1\"");
    expect("count: 5", "count: +5", 12, "count is \"+5\"");
    expect("count: 5", "count: 1_000", 12, "count is \"1_000\"");
    expect("count: 5", "count: \" 5\"", 12, "count is \" 5\"");
    expect("count: 5", "count: \"5\\0\"", 12, "count is \"5\"");
    expect("count: 5", "count: 00", 12, "count is \"00\"");
    expect("count: 5", "count:", 12, "count is \"\"");
    expect("election_rtt: 10,", "election_rtt: 1s,", 9, "election_rtt is \"1s\": write a whole number of ticks,");
    expect("replicas: [1, 3]", "replicas: [1, 03]", 14, "replicas is \"03\"");
    expect("replicas: [1, 3]", "replicas:\n    - 1\n    - 3 # good\n    - 3;", 17, "replicas is \"3;\"");
}

/* Who writes 0 means something by it: none, at once, without end. It was taken for the default. */
Test(config, a_zero_that_would_be_the_default_is_refused)
{
    expect(machine_line, "    machine: counter\n    snapshot_entries: 0\n", 14,
           "snapshot_entries is 0: give a number above 0, or leave the key out, which means the default");
    expect(machine_line, "    machine: counter\n    compaction_overhead: 0\n", 14, "compaction_overhead is 0: give");
    expect(machine_line, "    machine: counter\n    election_rtt: 0\n", 14, "election_rtt is 0: give");
    expect("rtt_ms: 100", "rtt_ms: 0", 2, "rtt_ms is 0: give");
    expect("deployment_id: 1", "deployment_id: 0", 1, "deployment_id is 0: give");
    expect("listen: \"127.0.0.1:6379\" }", "listen: \"127.0.0.1:6379\", timeout_ms: 0 }", 3, "timeout_ms is 0: give");
}

Test(config, a_number_that_is_too_large_is_refused)
{
    expect("rtt_ms: 100", "rtt_ms: 4294967296", 2, "Invalid");
    expect("count: 5", "count: 18446744073709551616", 12, "Invalid");
    expect("count: 5", "count: 100000000000000000000000000000000000000000", 12, "Invalid");
    expect("replicas: [1, 3]", "replicas: [1, 18446744073709551617]", 14, "Invalid");
}

Test(config, every_good_form_of_a_number_is_read)
{
    static const char text[] = "host: { id: \"1\", data_dir: h1, deployment_id: '7' }\n"
                               "raft:\n"
                               "  listen: 127.0.0.1:7101\n"
                               "  rtt_ms: 100 # milliseconds\n"
                               "redis: { listen: \"127.0.0.1:6379\" }\n"
                               "snapshots: { send_bytes_per_s: 0 }\n"
                               "peers:\n"
                               "  - { id: 1, raft: \"127.0.0.1:7101\", redis: \"127.0.0.1:6379\" }\n"
                               "shards:\n"
                               "- first: 1\n"
                               "  count: !!int 10\n"
                               "  machine: kv\n"
                               "  replicas:\n"
                               "  - 1\n"
                               "  priority: 4294967295\n"
                               "  snapshot_bytes: 18446744073709551615\n"
                               "  snapshot_entries:\n"
                               "    1000000\n";
    struct config *c = NULL;

    cr_assert_eq(load(text, &c), 0, "%s", err.text);
    cr_assert(c->host.id == 1 && c->host.deployment_id == 7 && c->raft.rtt_ms == 100 && c->snapshots.send_bytes_per_s == 0);
    cr_assert(c->shards[0].count == 10 && c->shards[0].replicas[0] == 1 && c->shards[0].priority == UINT32_MAX);
    cr_assert(c->shards[0].snapshot_bytes == UINT64_MAX && c->shards[0].snapshot_entries == 1000000);
    config_free(c);
}

/* Numbers are looked for in the tree with aliases resolved, which may be very much larger than the file. */
Test(config, aliases_are_refused_soon)
{
    struct buffer text = {0};
    struct config *c = NULL;

    expect("rtt_ms: 100", "rtt_ms: &n 100, step_workers: *n", 2, "");
    buffer_add_text(&text, "shards:\n- &a { first: 1");
    for (int i = 0; i < 50000; i++)
        buffer_add_text(&text, ", k: 1");
    buffer_add_text(&text, " }\n");
    for (int i = 0; i < 80000; i++)
        buffer_add_text(&text, "- *a\n");
    cr_assert_leq(text.size, CONFIG_FILE_BYTES_MAX);
    cr_assert_eq(config_parse("aliases", text.data, text.size, &c, &err), NH_EINVAL);
    buffer_deinit(&text);
}

Test(config, snapshots)
{
    struct config *c = NULL;
    char text[4096];
    const char *at = strstr(good, "peers:");

    expect(machine_line, "    machine: counter\n    snapshots_kept: 65\n", 14,
           "snapshots_kept is 65: give a number from 1 to 64");
    expect(machine_line, "    machine: counter\n    sessions_max: 65537\n", 14, "sessions_max is 65537");
    expect(machine_line, "    machine: counter\n    automatic_snapshots: no\n    snapshot_bytes: 7\n", 14, "mean nothing");
    expect(raft_line, "raft: { listen: \"127.0.0.1:7101\" }\nsnapshots: { dir: images }\n", 3,
           "snapshots.dir is \"images\": write an absolute");
    expect(raft_line, "raft: { listen: \"127.0.0.1:7101\" }\nsnapshots: { export_dir: \"\" }\n", 3, "write an absolute");
    expect(raft_line, "raft: { listen: \"127.0.0.1:7101\" }\nsnapshots: { workers: 17 }\n", 3, "snapshots.workers is 17");
    expect(raft_line, "raft: { listen: \"127.0.0.1:7101\" }\nsnapshots: { streams_max: 1025 }\n", 3,
           "snapshots.streams_max is 1025");
    snprintf(text, sizeof text,
             "%.*ssnapshots: { dir: /i, export_dir: /e, workers: 1, streams_max: 2, send_bytes_per_s: 3 }\n%s"
             "    snapshot_entries: 4\n    snapshot_bytes: 5\n    compaction_overhead: 6\n    snapshots_kept: 7\n"
             "    compress_snapshots: yes\n    pin_machine: true\n    sessions_max: 8\n",
             (int)(at - good), good, at);
    cr_assert_eq(load(text, &c), 0, "%s", err.text);
    cr_assert_str_eq(c->snapshots.dir, "/i");
    cr_assert_str_eq(c->snapshots.export_dir, "/e");
    cr_assert(c->snapshots.workers == 1 && c->snapshots.streams_max == 2 && c->snapshots.send_bytes_per_s == 3);
    cr_assert(c->shards[1].snapshot_entries == 4 && c->shards[1].snapshot_bytes == 5 && c->shards[1].compaction_overhead == 6);
    cr_assert(c->shards[1].snapshots_kept == 7 && c->shards[1].sessions_max == 8);
    cr_assert(config_is_on(c->shards[1].compress_snapshots, false) && config_is_on(c->shards[1].pin_machine, false));
    cr_assert(config_is_kv(&c->shards[0]) && !config_is_kv(&c->shards[1]));
    config_free(c);
}

Test(config, addresses)
{
    expect("listen: \"127.0.0.1:7101\"", "listen: \"127.0.0.1\"", 2, "write \"host:port\"");
    expect("listen: \"127.0.0.1:6379\"", "listen: \"127.0.0.1:0\"", 3, "write \"host:port\"");
    expect("raft: \"127.0.0.1:7102\"", "raft: \"127.0.0.1:99999\"", 6, "write \"host:port\"");
    expect("raft: \"127.0.0.1:7102\"", "raft: \"::1:7102\"", 6, "IPv6 in brackets");
    expect("listen: \"127.0.0.1:7101\"", "listen: \"127.0.0.1:7777\"", 2, "but peers call this host 127.0.0.1:7101");
    expect("listen: \"127.0.0.1:6379\"", "listen: \"127.0.0.1:7777\"", 3, "but peers say 127.0.0.1:6379");
}

/* The address is our name in the records of every shard. */
Test(config, an_address_that_means_every_interface_is_refused_but_to_listen_at)
{
    static const char *const wildcards[] = {"0.0.0.0:7101",          "[::]:7101", "[0:0::0]:7101",
                                            "[::ffff:0.0.0.0]:7101", "0:7101",    "0x0.0:7101"};
    char from[64], to[64];

    for (size_t i = 0; i < sizeof wildcards / sizeof wildcards[0]; i++) {
        snprintf(to, sizeof to, "listen: \"%s\"", wildcards[i]);
        expect("listen: \"127.0.0.1:7101\"", to, 2, "where nobody can reach a host");
        expect("listen: \"127.0.0.1:7101\"", to, 2, "as raft.bind");
        expect("listen: \"127.0.0.1:6379\"", to, 3, "as redis.bind");
        for (unsigned peer = 1; peer <= 3; peer++) {
            snprintf(from, sizeof from, "\"127.0.0.1:%u\", redis", 7100 + peer);
            snprintf(to, sizeof to, "\"%s\", redis", wildcards[i]);
            expect(from, to, 4 + peer, "raft is \"");
            expect(from, to, 4 + peer, "where nobody can reach a host: write the address that other hosts and clients use");
        }
        snprintf(to, sizeof to, "redis: \"%s\"", wildcards[i]);
        expect("redis: \"127.0.0.1:6380\"", to, 6, "redis is \"");
    }
}

Test(config, another_address_to_listen_at)
{
    static const char from[] = "raft:   { listen: \"127.0.0.1:7101\", rtt_ms: 100 }\n"
                               "redis:  { listen: \"127.0.0.1:6379\" }\n";
    const char *at = strstr(good, from);
    struct config *c = NULL;
    char text[4096];

    expect("rtt_ms: 100", "bind: everywhere", 2, "raft.bind is \"everywhere\": write \"host:port\"");
    expect("\"127.0.0.1:6379\" }", "\"127.0.0.1:6379\", bind: \"0.0.0.0\" }", 3,
           "redis.bind is \"0.0.0.0\": write \"host:port\"");
    expect("rtt_ms: 100", "bind: \"127.0.0.1:6379\"", 2, "would both listen at 127.0.0.1:6379");
    expect("\"127.0.0.1:6379\" }", "\"127.0.0.1:6379\", bind: \"127.0.0.1:7101\" }", 3, "would both listen at 127.0.0.1:7101");
    cr_assert_eq(load(good, &c), 0, "%s", err.text);
    cr_assert(!c->raft.bind && !c->redis.bind);
    config_free(c);
    cr_assert(at);
    snprintf(text, sizeof text,
             "%.*sraft: { listen: \"127.0.0.1:7101\", bind: \"0.0.0.0:7101\" }\n"
             "redis: { listen: \"127.0.0.1:6379\", bind: \"[::]:16379\" }\n%s",
             (int)(at - good), good, at + strlen(from));
    cr_assert_eq(load(text, &c), 0, "%s", err.text);
    cr_assert_str_eq(c->raft.listen, "127.0.0.1:7101");
    cr_assert_str_eq(c->raft.bind, "0.0.0.0:7101");
    cr_assert_str_eq(c->redis.bind, "[::]:16379");
    config_free(c);
}

Test(config, lease_reads_need_check_quorum)
{
    struct config *c = NULL;
    char text[4096];

    expect("check_quorum: true", "check_quorum: false, lease_reads: true", 10, "lease_reads needs check_quorum");
    expect(machine_line, "    machine: counter\n    check_quorum: no\n    lease_reads: yes\n", 15,
           "lease_reads needs check_quorum");
    snprintf(text, sizeof text, "%s    lease_reads: true\n", good);
    cr_assert_eq(load(text, &c), 0, "%s", err.text);
    config_free(c);
}

Test(config, references)
{
    expect("id: 1, data_dir", "id: 7, data_dir", 1, "no peer has this id");
    expect("- { id: 2,", "- { id: 3,", 7, "two peers have the id 3");
    expect("raft: \"127.0.0.1:7102\"", "raft: \"127.0.0.1:7103\"", 7, "have the same address");
    expect("raft: \"127.0.0.1:7102\"", "raft: \"127.0.0.1:6380\"", 6, "one address for raft and redis");
    expect("replicas: [1, 3]", "replicas: [1, 4]", 14, "replica 4 is no peer");
    expect("replicas: [1, 3]", "replicas: [1, 1]", 14, "named twice");
    expect("replicas: [1, 3]", "replicas: []", 14, "replicas is empty");
    expect("first: 20000", "first: 1000", 11, "overlap");
    expect("machine: counter", "machine: ../counter", 13, "use a name of up to 31");
    expect("election_rtt: 10, heartbeat_rtt: 1", "election_rtt: 10, heartbeat_rtt: 5", 9, "more than twice");
}

/* `line` 0: all its directories are there, or can be made. */
static void examine(const char *dirs, unsigned line, const char *error)
{
    char text[4096], where[300];
    FILE *f = fopen(path, "w");

    snprintf(text, sizeof text, "%s\n%s", dirs, strstr(good, "raft:"));
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
    cr_assert_eq(config_examine(path, &err), line ? NH_EINVAL : 0, "%s: %s", dirs, err.text);
    snprintf(where, sizeof where, "%s:%u: ", path, line);
    cr_assert(!line || strncmp(err.text, where, strlen(where)) == 0, "%s: %s", dirs, err.text);
    cr_assert(!line || strstr(err.text, error), "%s: %s", dirs, err.text);
}

/* Parents are not made: on a disk that is not mounted they would be somewhere else. */
Test(config, a_directory_without_a_parent_is_noticed_when_it_is_examined)
{
    char base[] = "/tmp/nodehost-places.XXXXXX";
    FILE *f;

    cr_assert(mkdtemp(base) && chdir(base) == 0 && mkdir("there", 0700) == 0);
    f = fopen("file", "w");
    cr_assert(f && fclose(f) == 0);
    examine("host: { id: 1, data_dir: new }", 0, "");
    examine("host: { id: 1, data_dir: there }", 0, "");
    examine("host: { id: 1, data_dir: there/new/ }", 0, "");
    examine("host: { id: 1, data_dir: absent/new }", 1, "host.data_dir is \"absent/new\", but there is no directory \"absent\"");
    examine("host: { id: 1, data_dir: absent/new }", 1, "that is not made, as it may belong on a disk that is not mounted");
    examine("host: { id: 1, data_dir: file/new }", 1, "there is no directory \"file\"");
    examine("host: { id: 1, data_dir: file }", 1, "host.data_dir is \"file\", which is no directory: name another");
    examine("host: { id: 1, data_dir: new//, wal_dir: new/wal }", 0, "");
    examine("host: { id: 1, data_dir: new1, wal_dir: new/wal }", 1, "host.wal_dir is \"new/wal\", but");
    examine("host: { id: 1, data_dir: new, wal_dir: new1/wal }", 1, "host.wal_dir is \"new1/wal\", but");
    examine("host: { id: 1, data_dir: new }\nsnapshots: { dir: /tmp/., export_dir: /tmp/. }", 0, "");
    examine("host: { id: 1, data_dir: new }\nsnapshots: { dir: /absent/x }", 2, "snapshots.dir is \"/absent/x\", but");
    examine("host: { id: 1, data_dir: new }\nsnapshots: { export_dir: /absent/x }", 2,
            "snapshots.export_dir is \"/absent/x\", but");
    cr_assert(access("new", F_OK) < 0 && rmdir("there") == 0 && unlink("file") == 0 && rmdir(base) == 0);
}

Test(config, files_that_are_no_configuration)
{
    struct config *c = NULL;
    char *large;

    cr_assert_eq(load("", &c), NH_EINVAL);
    cr_assert(strstr(err.text, ":1: the file is empty"), "%s", err.text);
    cr_assert_eq(load("just text", &c), NH_EINVAL);
    large = malloc(CONFIG_FILE_BYTES_MAX + 2);
    memset(large, '#', CONFIG_FILE_BYTES_MAX + 1);
    large[CONFIG_FILE_BYTES_MAX + 1] = 0;
    cr_assert_eq(load(large, &c), NH_EINVAL);
    cr_assert(strstr(err.text, "larger than"), "%s", err.text);
    free(large);
    cr_assert_eq(config_load("/nonexistent/h1.yaml", &c, &err), NH_EIO);
    cr_assert(strstr(err.text, "open /nonexistent/h1.yaml: No such file"), "%s", err.text);
}
