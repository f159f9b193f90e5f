/* Looking at the cores of the harness, checking what Raft promises, and speaking for ghosts. */
#include "tests/unit/engine/raft_cluster.h"

#include "tests/unit/engine/raft_cluster_private.h"

/* ---- looking ---- */

struct raft_status cluster_status(const struct cluster *c, uint64_t id)
{
    struct raft_status s;

    REQUIRE(c->nodes[id].core, "replica %" PRIu64 " is down", id);
    raft_get_status(c->nodes[id].core, &s);
    return s;
}

struct raft_peer_status cluster_peer(const struct cluster *c, uint64_t leader, uint64_t peer)
{
    struct raft_peer_status peers[CLUSTER_MAX];
    size_t n = raft_get_peers(c->nodes[leader].core, peers, CLUSTER_MAX);

    for (size_t i = 0; i < n; i++)
        if (peers[i].replica_id == peer)
            return peers[i];
    REQUIRE(false, "no peer %" PRIu64, peer);
    return peers[0];
}

uint64_t cluster_leader(const struct cluster *c)
{
    uint64_t leader = 0, term = 0;

    for (uint64_t id = 1; id < CLUSTER_MAX; id++) {
        if (c->nodes[id].core && cluster_status(c, id).role == RAFT_LEADER && cluster_status(c, id).term > term) {
            leader = id;
            term = cluster_status(c, id).term;
        }
    }
    return leader;
}

uint32_t cluster_applied_times(const struct cluster *c, uint64_t id, uint64_t key)
{
    uint32_t n = 0;

    for (uint64_t i = c->nodes[id].base + 1; i <= c->nodes[id].machine; i++)
        n += nh_record_key(record_of(disk_at(&c->nodes[id], i))) == key;
    return n;
}

bool cluster_agrees(const struct cluster *c)
{
    const struct cluster_node *first = NULL;

    for (uint64_t id = 1; id < CLUSTER_MAX; id++) {
        const struct cluster_node *node = &c->nodes[id];

        if (!node->core)
            continue;
        if (!first)
            first = node;
        if (node->applied != cluster_status(c, id).last_index || disk_last(node) != disk_last(first))
            return false;
        for (uint64_t i = disk_last(node); i > node->base && i > first->base; i--)
            if (!same_entry(disk_at(node, i), disk_at(first, i)))
                return false;
    }
    return true;
}

/* ---- what Raft promises ---- */

/* Election safety, and leader completeness: a leader holds all that was ever committed. */
static void check_leader(struct cluster *c, const struct cluster_node *node, const struct raft_status *s)
{
    uint64_t *leader = &c->history.leader_of_term[s->term % 4096];

    REQUIRE(s->term < 4096, "too many terms");
    REQUIRE(*leader == 0 || *leader == node->id, "two leaders in term %" PRIu64 ": %" PRIu64 " and %" PRIu64, s->term, *leader,
            node->id);
    if (*leader == node->id)
        return;
    *leader = node->id;
    for (uint64_t i = 1; i <= c->history.committed.n; i++)
        REQUIRE(i < s->first_index || raft_term_at(node->core, i) == term_of(&c->history.committed.items[i - 1]),
                "leader %" PRIu64 " of term %" PRIu64 " lacks committed entry %" PRIu64, node->id, s->term, i);
}

static bool disk_holds(const struct cluster_node *node, uint64_t index, uint64_t term)
{
    return node->base >= index || (disk_last(node) >= index && term_of(disk_at(node, index)) == term);
}

/* A leader commits only what a majority of the disks has, of both halves if there are two. Not with ghosts: they have no disks.
 */
static void check_on_quorum(const struct cluster *c, const struct cluster_node *node, uint64_t index)
{
    const struct nh_membership *m = &node->membership;

    for (int half = 0; half < (m->joint ? 2 : 1); half++) {
        uint32_t n = 0, holders = 0;

        for (uint32_t i = 0; i < m->n_members; i++) {
            const struct nh_member *member = &m->members[i];
            const struct cluster_node *other = &c->nodes[member->replica_id];

            if (half ? !member->outgoing : member->kind != NH_MEMBER_VOTER && member->kind != NH_MEMBER_WITNESS)
                continue;
            if (disk_last(other) == 0 && !other->core)
                return;
            n++;
            holders += disk_holds(other, index, raft_term_at(node->core, index));
        }
        REQUIRE(holders >= n / 2 + 1, "replica %" PRIu64 " commits %" PRIu64 ", which %u of %u disks of half %d have", node->id,
                index, holders, n, half);
    }
}

/* A dropped proposal is never committed: looked at when either becomes known. */
void cluster_check_dropped(const struct cluster *c, uint64_t key, uint64_t index)
{
    uint64_t from = index ? index : 1, to = index ? index : c->history.committed.n;

    for (uint64_t i = from; i <= to && key; i++)
        REQUIRE(nh_record_key(record_of(&c->history.committed.items[i - 1])) != key,
                "key %" PRIu64 " was reported dropped and is committed", key);
}

static void add_committed(struct cluster *c, struct nh_block *block, uint32_t at)
{
    *PUSH(&c->history.committed) = (struct stored_entry){nh_block_ref(block), at};
    for (size_t i = 0; i < c->history.dropped_keys.n; i++)
        cluster_check_dropped(c, c->history.dropped_keys.items[i], c->history.committed.n);
}

static void learn_commit(struct cluster *c, const struct cluster_node *node, const struct raft_status *s)
{
    while (c->history.committed.n < s->commit_index) {
        uint64_t index = c->history.committed.n + 1;
        struct run_list runs = {0};

        if (s->role == RAFT_LEADER)
            check_on_quorum(c, node, index);
        if (raft_cached_runs(node->core, index, index + 1, &runs)) {
            add_committed(c, runs.runs[0].block, runs.runs[0].from);
            run_list_deinit(&runs);
            continue;
        }
        add_committed(c, disk_at(node, index)->block, disk_at(node, index)->at);
    }
    if (s->commit_index >= s->first_index)
        REQUIRE(raft_term_at(node->core, s->commit_index) == term_of(&c->history.committed.items[s->commit_index - 1]),
                "replica %" PRIu64 " commits another entry %" PRIu64, node->id, s->commit_index);
}

void cluster_check(struct cluster *c)
{
    for (uint64_t id = 1; id < CLUSTER_MAX; id++) {
        struct raft_status s;

        if (!c->nodes[id].core)
            continue;
        raft_get_status(c->nodes[id].core, &s);
        learn_commit(c, &c->nodes[id], &s);
        if (s.role == RAFT_LEADER)
            check_leader(c, &c->nodes[id], &s);
    }
}

/* Log matching: where two logs have the same term at an index, they are the same up to there. */
void cluster_check_logs_match(const struct cluster *c)
{
    for (uint64_t a = 1; a < CLUSTER_MAX; a++)
        for (uint64_t b = a + 1; b < CLUSTER_MAX; b++) {
            bool agree = false;
            uint64_t last;

            if (!c->nodes[a].core || !c->nodes[b].core)
                continue;
            last = cluster_status(c, a).last_index;
            for (uint64_t i = last; i >= cluster_status(c, a).first_index && i >= cluster_status(c, b).first_index; i--) {
                bool same = raft_term_at(c->nodes[a].core, i) == raft_term_at(c->nodes[b].core, i);

                REQUIRE(same || !agree, "logs of %" PRIu64 " and %" PRIu64 " differ at %" PRIu64 " below an entry that agrees", a,
                        b, i);
                agree |= same;
            }
        }
}

/* ---- speaking for a ghost ---- */

struct nh_message cluster_message(enum nh_message_type type, uint64_t from, uint64_t to, uint64_t term)
{
    return (struct nh_message){.type = type, .shard_id = SHARD, .from = from, .to = to, .term = term};
}

struct nh_message cluster_candidacy(enum nh_message_type type, uint64_t from, uint64_t term, uint64_t log_term,
                                    uint64_t log_index)
{
    struct nh_message m = cluster_message(type, from, 1, term);

    m.log_term = log_term;
    m.log_index = log_index;
    return m;
}

void cluster_add_entries(struct nh_message *m, const uint64_t *terms, uint32_t n)
{
    struct run_list runs = {.runs = m->runs, .n = m->n_runs, .cap = m->n_runs};
    uint64_t next = runs.n ? nh_run_last(&runs.runs[runs.n - 1]) + 1 : m->log_index + 1;

    for (uint32_t i = 0; i < n; i++) {
        struct nh_block *block = make_block(next + i, terms[i], NH_ENTRY_APPLICATION, terms[i] * 1000 + next + i);

        run_list_add(&runs, block, 0, 1);
        nh_block_unref(block);
    }
    m->runs = runs.runs;
    m->n_runs = runs.n;
}

void cluster_add_proposals(struct nh_message *m, uint64_t first_key, uint32_t n, uint32_t payload_bytes)
{
    struct block_builder b = {0};
    struct run_list runs = {0};
    struct nh_block *block;
    char *payload = xcalloc(1, payload_bytes + 1);

    for (uint32_t i = 0; i < n; i++) {
        struct block_record rec = {.origin = (uint32_t)m->from,
                                   .key = first_key + i,
                                   .payload = payload,
                                   .payload_bytes = payload_bytes};

        block_builder_add(&b, &rec);
    }
    free(payload);
    block = block_unsealed(&b);
    run_list_add(&runs, block, 0, n);
    nh_block_unref(block);
    m->hint = first_key;
    m->hint_high = n;
    m->runs = runs.runs;
    m->n_runs = runs.n;
}

void cluster_inject(struct cluster *c, struct nh_message m)
{
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};

    cluster_step(c, m.to, &ev);
    nh_message_deinit(&m);
}

const struct nh_message *cluster_sent(const struct cluster *c, enum nh_message_type type, uint64_t to)
{
    for (size_t i = c->ghosts.n; i > 0; i--)
        if (c->ghosts.items[i - 1].type == (uint32_t)type && (to == 0 || c->ghosts.items[i - 1].to == to))
            return &c->ghosts.items[i - 1];
    return NULL;
}

uint32_t cluster_count_sent(const struct cluster *c, enum nh_message_type type, uint64_t to)
{
    uint32_t n = 0;

    for (size_t i = 0; i < c->ghosts.n; i++)
        n += c->ghosts.items[i].type == (uint32_t)type && (to == 0 || c->ghosts.items[i].to == to);
    return n;
}

void cluster_forget_sent(struct cluster *c)
{
    drop_messages(c->ghosts.items, c->ghosts.n);
    c->ghosts.n = 0;
}
