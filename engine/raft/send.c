/* Filling the update: messages and reports.
 *
 * Where a message goes decides what it may promise. `send` leaves at once, so it must not promise anything that a crash
 * could take back; `send_after_save` leaves when all that this replica knows now is durable.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>

static void fill(const struct raft *r, struct nh_message *m, enum nh_message_type type, uint64_t to)
{
    assert(to != NH_NO_REPLICA && to != r->options.replica_id);
    *m = (struct nh_message){
        .type = type,
        .shard_id = r->options.shard_id,
        .to = to,
        .from = r->options.replica_id,
        .term = r->term,
    };
}

struct nh_message *raft_send_now(struct raft *r, enum nh_message_type type, uint64_t to)
{
    struct nh_message *m = RAFT_PUSH(&r->out->send);

    fill(r, m, type, to);
    return m;
}

struct nh_message *raft_send_after_save(struct raft *r, enum nh_message_type type, uint64_t to)
{
    struct nh_message *m = RAFT_PUSH(&r->out->send_after_save);

    fill(r, m, type, to);
    return m;
}

/* An answer that promises nothing but the term it carries. */
struct nh_message *raft_send_reply(struct raft *r, enum nh_message_type type, uint64_t to)
{
    return raft_state_saved(r) ? raft_send_now(r, type, to) : raft_send_after_save(r, type, to);
}

void raft_report_dropped(struct raft *r, bool is_read, int reason, uint64_t first_key, uint64_t n_keys)
{
    *RAFT_PUSH(&r->out->dropped) = (struct raft_dropped){is_read, reason, first_key, n_keys};
}
