/* What a test asks of the cores of the harness. */
#include "tests/unit/engine/raft_cluster.h"

#include "raftio/codec.h"
#include "tests/unit/engine/raft_cluster_private.h"

void cluster_campaign(struct cluster *c, uint64_t id)
{
    struct raft_event ev = {.type = RAFT_EV_CAMPAIGN};

    cluster_step(c, id, &ev);
    cluster_settle(c);
}

void cluster_elect(struct cluster *c, uint64_t id)
{
    cluster_campaign(c, id);
    REQUIRE(cluster_status(c, id).role == RAFT_LEADER, "replica %" PRIu64 " does not lead", id);
}

uint64_t cluster_propose(struct cluster *c, uint64_t id, uint32_t n, uint32_t payload_bytes)
{
    struct block_builder b = {0};
    uint64_t first = c->next_key;
    char *payload = xcalloc(1, payload_bytes + 1);
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {.records = &b, .first_key = first, .n_keys = n}};

    for (uint32_t i = 0; i < n; i++) {
        struct block_record rec = {.origin = (uint32_t)id,
                                   .key = c->next_key++,
                                   .payload = payload,
                                   .payload_bytes = payload_bytes};

        block_builder_add(&b, &rec);
    }
    free(payload);
    cluster_step(c, id, &ev);
    REQUIRE(b.n == 0, "the builder was not emptied");
    block_builder_deinit(&b);
    return first;
}

uint64_t cluster_propose_config(struct cluster *c, uint64_t id, const struct nh_config_change *change)
{
    struct block_builder b = {0};
    uint8_t payload[1024];
    struct block_record rec = {.type = NH_ENTRY_CONFIG_CHANGE,
                               .origin = (uint32_t)id,
                               .key = c->next_key++,
                               .payload = payload,
                               .payload_bytes = (uint32_t)config_change_encode(change, payload, sizeof payload)};
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {.records = &b, .first_key = rec.key, .n_keys = 1}};

    REQUIRE(rec.payload_bytes <= sizeof payload, "a long change");
    block_builder_add(&b, &rec);
    cluster_step(c, id, &ev);
    block_builder_deinit(&b);
    return rec.key;
}

uint64_t cluster_propose_changes(struct cluster *c, uint64_t id, enum nh_config_transition transition,
                                 struct nh_member_change *changes, uint32_t n)
{
    struct nh_config_change change = {.type = NH_CONFIG_CHANGE_MANY,
                                      .transition = transition,
                                      .n_changes = n,
                                      .changes = changes};

    return cluster_propose_config(c, id, &change);
}

uint64_t cluster_propose_leave(struct cluster *c, uint64_t id)
{
    return cluster_propose_config(c, id, &(struct nh_config_change){.type = NH_CONFIG_LEAVE_JOINT});
}

struct nh_member_change cluster_change(enum nh_config_change_type type, enum nh_member_kind kind, uint64_t member)
{
    return (struct nh_member_change){type, make_member(member, kind)};
}

uint64_t cluster_propose_change(struct cluster *c, uint64_t id, bool add, uint64_t member)
{
    struct nh_config_change change = {.type = add ? NH_CONFIG_ADD_MEMBER : NH_CONFIG_REMOVE_MEMBER,
                                      .member = make_member(member, NH_MEMBER_VOTER)};

    return cluster_propose_config(c, id, &change);
}

void cluster_transfer(struct cluster *c, uint64_t id, uint64_t target)
{
    struct raft_event ev = {.type = RAFT_EV_TRANSFER, .transfer = {.target = target, .key = 7}};

    cluster_step(c, id, &ev);
}

uint64_t cluster_read(struct cluster *c, uint64_t id)
{
    uint64_t low = c->next_key++;
    struct raft_event ev = {.type = RAFT_EV_READ, .read = {.low = low, .high = id}};

    *PUSH(&c->history.asked) = (struct raft_read){low, id, c->history.committed.n};
    cluster_step(c, id, &ev);
    return low;
}
