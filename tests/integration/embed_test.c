/* Three hosts in one program, as somebody who embeds the library would write it: RocksDB, TCP, a machine of its own.
 * Uses the public headers only. argv[1]: a directory that it may fill.
 *
 * Proposals through every host, linearizable reads on every host, one host closed and opened again, listeners, refusals.
 */
#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodehost/nodehost.h"
#include "tests/addresses.h"

#define N_HOSTS    3u
#define N_SHARDS   4u
#define TIMEOUT_MS 20000u
#define PROPOSE_MS 2000u

#define MUST(call)                                                                   \
    do {                                                                             \
        int must_r = (call);                                                         \
        if (must_r < 0) {                                                            \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, err.text); \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)
#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

static struct nh_error err;

/* ---- a machine: a sum ---- */

struct nh_machine {
    uint64_t sum;
};

static int sum_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *e)
{
    (void)args;
    *ret = calloc(1, sizeof **ret);
    *ret_applied = 0;
    return *ret ? NH_OK : nh_error_set(e, NH_ENOMEM, "no memory");
}

static int sum_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *e)
{
    (void)e;
    for (size_t i = 0; i < n; i++) {
        m->sum += strtoull(entries[i].cmd, NULL, 10);
        entries[i].result.value = m->sum;
    }
    return NH_OK;
}

static int sum_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                      struct nh_error *e)
{
    if (size_bytes != 3 || memcmp(query, "sum", 3) != 0)
        return nh_error_set(e, NH_EINVAL, "ask for the sum");
    *ret_value = m->sum;
    return out->write(out->ctx, "sum", 3);
}

static void sum_close(struct nh_machine *m)
{
    free(m);
}

static uint64_t sum_hash(struct nh_machine *m)
{
    return m->sum;
}

static const struct nh_machine_ops sum = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof(struct nh_machine_ops),
    .name = "sum",
    .version = "1",
    .open = sum_open,
    .update = sum_update,
    .lookup = sum_lookup,
    .close = sum_close,
    .hash = sum_hash,
};

/* ---- hosts ---- */

struct listening {
    uint32_t n_ready, n_leader, n_shut_down; /* atomic */
};

static struct nh_host *hosts[N_HOSTS];
static struct listening listening[N_HOSTS];
static char dirs[N_HOSTS][512], addresses[N_HOSTS][ADDRESS_SIZE];
static struct nh_member members[N_HOSTS];
static uint64_t expected[N_SHARDS + 1];

static void on_leader(void *ctx, const struct nh_leader_info *info)
{
    struct nh_reply reply = {0};
    struct listening *l = ctx;

    __atomic_add_fetch(&l->n_leader, 1, __ATOMIC_RELAXED);
    /* A listener must not block: the host says so instead of hanging. */
    CHECK(nh_propose_sync(hosts[l - listening], info->shard_id, "1", 2, 10, &reply, NULL) == NH_EDEADLOCK);
}

static void on_ready(void *ctx, const struct nh_replica_info *info)
{
    (void)info;
    __atomic_add_fetch(&((struct listening *)ctx)->n_ready, 1, __ATOMIC_RELAXED);
}

static void on_shut_down(void *ctx)
{
    __atomic_add_fetch(&((struct listening *)ctx)->n_shut_down, 1, __ATOMIC_RELAXED);
}

static int try_open(uint32_t i, uint64_t host_id, struct nh_host **ret)
{
    struct nh_raft_event_listener raft = {.struct_size = sizeof raft, .ctx = &listening[i], .leader_updated = on_leader};
    struct nh_system_event_listener system = {.struct_size = sizeof system,
                                              .ctx = &listening[i],
                                              .replica_ready = on_ready,
                                              .host_shutting_down = on_shut_down};
    struct nh_host_config c = NH_HOST_CONFIG_INIT;

    c.host_id = host_id;
    c.data_dir = dirs[i];
    c.address = addresses[i];
    c.rtt_ms = 20;
    c.step_workers = 2;
    c.raft_listener = &raft;
    c.system_listener = &system;
    return nh_host_open(&c, ret, &err);
}

static void start_shards(uint32_t i, bool restart)
{
    for (uint64_t shard = 1; shard <= N_SHARDS; shard++) {
        struct nh_replica_config c = NH_REPLICA_CONFIG_INIT;

        c.shard_id = shard;
        c.replica_id = i + 1;
        c.machine = &sum;
        c.members = restart ? NULL : members;
        c.n_members = restart ? 0 : N_HOSTS;
        MUST(nh_host_start_replica(hosts[i], &c, &err));
    }
}

/* ---- the journey ---- */

static uint64_t read_sum(uint32_t host, uint64_t shard)
{
    struct nh_reply reply = {0};
    uint64_t value;

    MUST(nh_query_sync(hosts[host], shard, "sum", 3, TIMEOUT_MS, &reply, &err));
    CHECK(reply.outcome.code == NH_REQUEST_COMPLETED && reply.outcome.status == 0);
    CHECK(reply.outcome.size_bytes == 3 && memcmp(reply.outcome.data, "sum", 3) == 0);
    value = reply.outcome.value;
    nh_reply_deinit(&reply);
    return value;
}

/* As a careful client does it: what was dropped is proposed again, a little later, as it may be refused at once until an election
 * ends; if the outcome is unknown it looks first. */
static void add(uint32_t host, uint64_t shard, unsigned n)
{
    struct nh_reply reply = {0};
    bool done = false;
    char cmd[16];
    int size = snprintf(cmd, sizeof cmd, "%u", n) + 1;

    for (int tries = 0; !done; tries++) {
        CHECK(tries < 100);
        MUST(nh_propose_sync(hosts[host], shard, cmd, (size_t)size, PROPOSE_MS, &reply, &err));
        if (reply.outcome.code == NH_REQUEST_COMPLETED)
            CHECK(reply.outcome.value == expected[shard] + n);
        else
            CHECK(reply.outcome.code == NH_REQUEST_DROPPED || reply.outcome.code == NH_REQUEST_TIMEOUT);
        done = reply.outcome.code == NH_REQUEST_COMPLETED ||
               (reply.outcome.code == NH_REQUEST_TIMEOUT && read_sum(host, shard) == expected[shard] + n);
        if (reply.outcome.code == NH_REQUEST_DROPPED)
            usleep(20000);
        nh_reply_deinit(&reply);
    }
    expected[shard] += n;
}

static void expect_sum(uint32_t host, uint64_t shard)
{
    CHECK(read_sum(host, shard) == expected[shard]);
}

static void write_and_read(uint32_t n_hosts)
{
    for (unsigned n = 1; n <= 20; n++)
        for (uint64_t shard = 1; shard <= N_SHARDS; shard++)
            add(n % n_hosts, shard, n);
    for (uint32_t i = 0; i < n_hosts; i++)
        for (uint64_t shard = 1; shard <= N_SHARDS; shard++)
            expect_sum(i, shard);
}

static void check_refusals(void)
{
    struct nh_replica_config c = NH_REPLICA_CONFIG_INIT;
    struct nh_reply reply = {0};
    struct nh_host *second;
    struct nh_membership m;

    CHECK(try_open(0, 1, &second) == NH_ELOCKED);
    CHECK(strstr(err.text, "is in use by process "));
    c.shard_id = 1;
    c.replica_id = 1;
    c.machine = &sum;
    CHECK(nh_host_start_replica(hosts[0], &c, &err) == NH_EEXIST);
    CHECK(nh_propose_sync(hosts[0], 77, "1", 2, 100, &reply, &err) == NH_ENOTFOUND);
    CHECK(nh_propose_sync(hosts[0], 1, "1", 2, 0, &reply, &err) == NH_EINVAL);
    MUST(nh_query_sync(hosts[0], 1, "what", 4, TIMEOUT_MS, &reply, &err));
    CHECK(reply.outcome.status == NH_EINVAL && reply.outcome.size_bytes == strlen("ask for the sum"));
    nh_reply_deinit(&reply);
    MUST(nh_get_membership(hosts[0], 1, &m, &err));
    CHECK(m.n_members == N_HOSTS && m.config_change_id == 1);
    nh_membership_deinit(&m);
}

static void check_infos(void)
{
    struct nh_host_info info;
    uint64_t leader, term;

    nh_get_host_info(hosts[0], &info);
    CHECK(info.host_id == 1 && info.n_shards == N_SHARDS && info.n_leaderless == 0 && info.n_quarantined == 0);
    CHECK(info.saves > 0 && info.messages_sent > 0 && strcmp(info.logdb_name, "rocksdb") == 0);
    MUST(nh_get_leader(hosts[0], 1, &leader, &term, &err));
    CHECK(leader >= 1 && leader <= N_HOSTS && term > 0);
}

static uint64_t find_leader(uint64_t shard)
{
    uint64_t leader = NH_NO_LEADER, term;

    while (leader == NH_NO_LEADER)
        MUST(nh_get_leader(hosts[0], shard, &leader, &term, &err));
    return leader;
}

static void expect_outcome(int code, struct nh_reply *reply, const char *words)
{
    CHECK(reply->outcome.code == code);
    if (words)
        CHECK(reply->outcome.size_bytes == strlen(words) && memcmp(reply->outcome.data, words, strlen(words)) == 0);
    nh_reply_deinit(reply);
}

/* Retried while the leader is new or the change before is not applied. */
static void change_membership(uint32_t host, const struct nh_config_change *change, int code, const char *words)
{
    struct nh_reply reply = {0};

    MUST(nh_change_membership_sync(hosts[host], 1, change, TIMEOUT_MS, &reply, &err));
    for (int i = 0; i < 100 && reply.outcome.code == NH_REQUEST_DROPPED; i++) {
        nh_reply_deinit(&reply);
        usleep(20000);
        MUST(nh_change_membership_sync(hosts[host], 1, change, TIMEOUT_MS, &reply, &err));
    }
    expect_outcome(code, &reply, words);
}

/* Makes a replica lead, and know it: the others may hear of it first. On a machine that is short of time a transfer can end
 * before it comes about, another one or an election can come between, and who is asked may believe for a moment that the target
 * leads that did so before. */
static void make_leader(uint32_t asked, uint64_t shard, uint64_t target)
{
    struct nh_reply reply = {0};
    bool leads = false;

    for (int tries = 0; !leads; tries++) {
        CHECK(tries < 1000);
        if (tries > 0)
            usleep(20000);
        MUST(nh_transfer_leader_sync(hosts[asked], shard, target, &reply, &err));
        leads = reply.outcome.code == NH_REQUEST_COMPLETED;
        nh_reply_deinit(&reply);
        if (!leads)
            continue;
        MUST(nh_verify_leader_sync(hosts[target - 1], shard, TIMEOUT_MS, &reply, &err));
        leads = reply.outcome.code == NH_REQUEST_COMPLETED;
        nh_reply_deinit(&reply);
    }
}

/* Who leads everything gives all of it away, and then leads nothing. */
static void check_hand_over(void)
{
    uint32_t n_led = 0, n_left = 0;

    for (int tries = 0; n_led < N_SHARDS || n_left > 0; tries++) {
        CHECK(tries < 100);
        for (uint64_t shard = 1; shard <= N_SHARDS; shard++)
            make_leader(0, shard, 2);
        MUST(nh_hand_over_leaders(hosts[1], TIMEOUT_MS, &n_led, &n_left, &err));
        CHECK(n_led <= N_SHARDS && n_left <= N_SHARDS);
    }
}

static void *hand_over_often(void *arg)
{
    for (int i = 0; i < 10; i++) {
        uint32_t n_led = 0, n_left = 0;

        CHECK(nh_hand_over_leaders(hosts[1], i % 2 ? TIMEOUT_MS : 0, &n_led, &n_left, NULL) == NH_OK);
    }
    return arg;
}

/* Several give away what comes back meanwhile. Who waits not at all has left before his requests end. */
static void check_hand_overs_at_once(void)
{
    enum { N = 3 };
    pthread_t threads[N];

    for (int i = 0; i < N; i++)
        CHECK(pthread_create(&threads[i], NULL, hand_over_often, NULL) == 0);
    for (int i = 0; i < 10; i++) {
        struct nh_reply reply = {0};

        MUST(nh_transfer_leader_sync(hosts[0], 1 + (uint64_t)i % N_SHARDS, 2, &reply, &err));
        nh_reply_deinit(&reply);
    }
    for (int i = 0; i < N; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

/* Nor does a close mind that leaders are being given away. */
static void close_while_handing_over(uint32_t i)
{
    uint32_t n_led, n_left;

    for (uint64_t shard = 1; shard <= N_SHARDS; shard++)
        make_leader(0, shard, i + 1);
    MUST(nh_hand_over_leaders(hosts[i], 0, &n_led, &n_left, &err));
    nh_host_close(hosts[i]);
}

/* A leader probes its peers until they have answered once. Who has just been elected waits for that answer. */
static void await_peers(uint64_t leader)
{
    struct nh_reply reply = {0};
    uint32_t n_replicating = 0;

    for (int tries = 0; n_replicating < N_HOSTS - 1; tries++) {
        const struct nh_peer_info *peers;

        CHECK(tries < 1000);
        MUST(nh_get_peers_sync(hosts[leader - 1], 1, &reply, &err));
        CHECK(reply.outcome.size_bytes == (N_HOSTS - 1) * sizeof *peers);
        peers = reply.outcome.data;
        n_replicating = 0;
        for (uint32_t i = 0; i < N_HOSTS - 1; i++)
            n_replicating += peers[i].state == NH_PEER_REPLICATE;
        nh_reply_deinit(&reply);
        usleep(1000);
    }
}

/* Every function of "membership and leadership", over real sockets. */
static void check_leadership(void)
{
    struct nh_reply reply = {0};
    struct nh_shard_info info;
    uint64_t leader;

    for (uint64_t target = 1; target <= N_HOSTS; target++)
        make_leader(target % N_HOSTS, 1, target);
    check_hand_over();
    make_leader(1, 1, 1); /* the first host, which is asked who leads: of another leader it may hear later than that one itself */
    MUST(nh_transfer_leader_sync(hosts[0], 1, 77, &reply, &err));
    expect_outcome(NH_REQUEST_REJECTED, &reply, "the target is not a voter of this shard that can lead");
    leader = find_leader(1);
    MUST(nh_verify_leader_sync(hosts[leader % N_HOSTS], 1, TIMEOUT_MS, &reply, &err));
    expect_outcome(NH_REQUEST_REJECTED, &reply, "our replica does not lead");
    await_peers(leader);
    MUST(nh_get_peers_sync(hosts[leader % N_HOSTS], 1, &reply, &err));
    CHECK(reply.outcome.size_bytes == 0);
    nh_reply_deinit(&reply);
    for (uint32_t i = 0; i < N_HOSTS; i++) {
        MUST(nh_barrier_sync(hosts[i], 1, TIMEOUT_MS, &reply, &err));
        CHECK(reply.outcome.index > 0);
        expect_outcome(NH_REQUEST_COMPLETED, &reply, NULL);
    }
    MUST(nh_campaign(hosts[leader - 1], 1, &err));
    MUST(nh_forget_leader(hosts[leader - 1], 1, &err));
    MUST(nh_get_shard_info(hosts[leader - 1], 1, &info, &err));
    CHECK(!info.joint && info.transferee == 0);
}

static void check_membership(void)
{
    struct nh_config_change c = {.type = NH_CONFIG_ADD_MEMBER};
    struct nh_member_change two[2] = {{NH_CONFIG_ADD_MEMBER, {.replica_id = 8, .address = "127.0.0.1:8"}},
                                      {NH_CONFIG_REMOVE_MEMBER, {.replica_id = 9}}};
    struct nh_config_change many = {.type = NH_CONFIG_CHANGE_MANY, .n_changes = 2, .changes = two};
    struct nh_reply reply = {0};
    struct nh_membership m;

    CHECK(nh_change_membership_sync(hosts[0], 1, &c, TIMEOUT_MS, &reply, &err) == NH_EINVAL);
    /* What no replica could decode would stop all of them; it does not get that far. */
    c.member = (struct nh_member){.replica_id = 9, .address = "127.0.0.1:\n"};
    CHECK(nh_change_membership_sync(hosts[0], 1, &c, TIMEOUT_MS, &reply, &err) == NH_EINVAL);
    c.member = (struct nh_member){.replica_id = 9, .kind = NH_MEMBER_LEAVING, .address = "127.0.0.1:9"};
    CHECK(nh_change_membership_sync(hosts[0], 1, &c, TIMEOUT_MS, &reply, &err) == NH_EINVAL);
    c.member = (struct nh_member){.replica_id = 9, .kind = NH_MEMBER_NON_VOTING, .address = "127.0.0.1:9"};
    change_membership(0, &c, NH_REQUEST_COMPLETED, NULL);
    change_membership(1, &c, NH_REQUEST_REJECTED, "this replica is a member already");
    two[0].member.kind = NH_MEMBER_NON_VOTING;
    change_membership(2, &many, NH_REQUEST_COMPLETED, NULL);
    do { /* joint, and left by itself; who had no vote is gone at once */
        MUST(nh_barrier_sync(hosts[0], 1, TIMEOUT_MS, &reply, &err));
        nh_reply_deinit(&reply);
        MUST(nh_get_membership(hosts[0], 1, &m, &err));
        c.config_change_id = m.joint;
        CHECK(m.n_members == N_HOSTS + 1 && m.members[N_HOSTS].replica_id == 8);
        nh_membership_deinit(&m);
    } while (c.config_change_id);
    c = (struct nh_config_change){.type = NH_CONFIG_REMOVE_MEMBER, .member = {.replica_id = 8}};
    change_membership(0, &c, NH_REQUEST_COMPLETED, NULL);
}

/* All replicas end with the same state. */
static void check_hashes(void)
{
    for (uint64_t shard = 1; shard <= N_SHARDS; shard++) {
        uint64_t hash, applied;

        for (uint32_t i = 0; i < N_HOSTS; i++) {
            expect_sum(i, shard);
            MUST(nh_get_machine_hash(hosts[i], shard, &hash, &applied, &err));
            CHECK(hash == expected[shard]);
        }
    }
}

int main(int argc, char **argv)
{
    struct nh_host *other;

    CHECK(argc == 2 && find_addresses(addresses, N_HOSTS));
    for (uint32_t i = 0; i < N_HOSTS; i++) {
        snprintf(dirs[i], sizeof dirs[i], "%s/h%u", argv[1], i + 1);
        members[i].replica_id = i + 1;
        strcpy(members[i].address, addresses[i]);
    }
    for (uint32_t i = 0; i < N_HOSTS; i++)
        MUST(try_open(i, i + 1, &hosts[i]));
    for (uint32_t i = 0; i < N_HOSTS; i++)
        start_shards(i, false);
    write_and_read(3);
    check_refusals();
    check_infos();
    check_leadership();
    check_membership();
    check_hand_overs_at_once();

    close_while_handing_over(2);
    CHECK(listening[2].n_ready == N_SHARDS && listening[2].n_leader > 0 && listening[2].n_shut_down == 1);
    write_and_read(2);
    CHECK(try_open(2, 9, &other) == NH_EMISMATCH);
    CHECK(strstr(err.text, "belongs to host 3, not to host 9"));
    MUST(try_open(2, 3, &hosts[2]));
    start_shards(2, true);
    write_and_read(3);

    make_leader(0, 1, 2); /* so that those who stay have to elect */
    MUST(nh_host_stop_replica(hosts[1], 1, &err));
    CHECK(nh_host_stop_replica(hosts[1], 1, &err) == NH_ENOTFOUND);
    for (uint32_t i = 0; i < 2; i++)
        add(0, 1, 5);
    {
        struct nh_replica_config c = NH_REPLICA_CONFIG_INIT;

        c.shard_id = 1;
        c.replica_id = 2;
        c.machine = &sum;
        MUST(nh_host_start_replica(hosts[1], &c, &err));
    }
    check_hashes();
    for (uint32_t i = 0; i < N_HOSTS; i++)
        nh_host_close(hosts[i]);
    printf("all shards agree on all hosts\n");
    return 0;
}
