#include "engine/raft/describe.h"

#include "engine/raft/describe_text.h"
#include "raftio/request.h"

static void put_keys(struct text *t, uint64_t first, uint64_t n)
{
    text_number(t, " keys ", first);
    if (n != 1)
        text_number(t, " n ", n);
}

/* ---- names ---- */

const char *raft_role_name(enum raft_role role)
{
    switch (role) {
    case RAFT_FOLLOWER: return "FOLLOWER";
    case RAFT_PRE_CANDIDATE: return "PRE_CANDIDATE";
    case RAFT_CANDIDATE: return "CANDIDATE";
    case RAFT_LEADER: return "LEADER";
    }
    return "UNKNOWN";
}

static const char *reason_name(int reason)
{
    switch (reason) {
    case NH_DROP_NO_LEADER: return "NO_LEADER";
    case NH_DROP_REFUSED: return "REFUSED";
    case NH_DROP_OVERLOADED: return "OVERLOADED";
    case NH_DROP_CONFIG_PENDING: return "CONFIG_PENDING";
    case NH_DROP_TRANSFERRING: return "TRANSFERRING";
    case NH_DROP_VOTERS_AWAY: return "VOTERS_AWAY";
    case NH_DROP_WITNESS: return "WITNESS";
    default: return "NONE";
    }
}

static const char *transfer_code_name(enum raft_transfer_code code)
{
    switch (code) {
    case RAFT_TRANSFER_DONE: return "DONE";
    case RAFT_TRANSFER_TIMED_OUT: return "TIMED_OUT";
    case RAFT_TRANSFER_REFUSED: return "REFUSED";
    }
    return "UNKNOWN";
}

static const char *transfer_reason_name(uint64_t reason)
{
    static const char *const names[] = {"OK", "NO_LEADER", "NO_VOTER", "REPLACED", "NOT_LEADER", "LOST_TARGET"};

    return reason < sizeof names / sizeof *names ? names[reason] : "UNKNOWN";
}

static const char *peer_kind_text(enum nh_member_kind kind)
{
    switch (kind) {
    case NH_MEMBER_VOTER: return "";
    case NH_MEMBER_NON_VOTING: return " non-voting";
    case NH_MEMBER_WITNESS: return " witness";
    case NH_MEMBER_LEAVING: return " leaving";
    case NH_MEMBER_LEAVING_WITNESS: return " leaving witness";
    }
    return " unknown";
}

static const char *peer_state_text(enum raft_peer_state state)
{
    switch (state) {
    case RAFT_PROBE: return " PROBE";
    case RAFT_REPLICATE: return " REPLICATE";
    case RAFT_SNAPSHOT: return " SNAPSHOT";
    }
    return " UNKNOWN";
}

/* ---- entries ---- */

static void put_payload(struct text *t, const struct nh_entry_view *e)
{
    if (e->payload_bytes == 0)
        return;
    text_char(t, ' ');
    text_quoted(t, e->payload, e->payload_bytes, RAFT_DESCRIBE_PAYLOAD_BYTES);
}

/* A forwarded proposal has neither index nor term yet. */
static void put_entry(struct text *t, const struct nh_entry_view *e)
{
    if (e->index || e->term)
        text_position(t, "", e->index, e->term);
    else
        text_put(t, "-");
    switch (e->type) {
    case NH_ENTRY_APPLICATION: break;
    case NH_ENTRY_CONFIG_CHANGE: text_put(t, " CONFIG"); break;
    case NH_ENTRY_ENCODED: text_put(t, " ENCODED"); break;
    case NH_ENTRY_METADATA: text_put(t, " METADATA"); break;
    default: text_number(t, " type ", e->type); break;
    }
    if (e->flags & NH_RECORD_SESSION)
        text_two(t, " session ", e->client_id, ":", e->series_id);
    if (e->type != NH_ENTRY_CONFIG_CHANGE || !raft_text_change(t, e->payload, e->payload_bytes))
        put_payload(t, e);
}

static void put_runs(struct text *t, const struct nh_run *runs, uint32_t n_runs)
{
    uint64_t n = 0;

    if (n_runs == 0)
        return;
    text_put(t, " entries [");
    for (uint32_t i = 0; i < n_runs; i++) {
        for (uint32_t at = runs[i].from; at < runs[i].to; at++) {
            struct nh_entry_view e;

            if (n++ >= RAFT_DESCRIBE_ENTRIES)
                continue;
            nh_record_view(runs[i].block->data + runs[i].block->offsets[at], &e);
            text_put(t, n > 1 ? ", " : "");
            put_entry(t, &e);
        }
    }
    if (n > RAFT_DESCRIBE_ENTRIES) {
        text_number(t, ", and ", n - RAFT_DESCRIBE_ENTRIES);
        text_put(t, " more");
    }
    text_char(t, ']');
}

/* ---- messages ---- */

static void put_replicate_resp(struct text *t, const struct nh_message *m)
{
    text_number(t, m->reject ? " rejects " : " accepts ", m->log_index);
    if (m->reject)
        text_position(t, " hint ", m->hint, m->log_term);
    text_number(t, " commit ", m->commit);
}

static void put_round(struct text *t, const struct nh_message *m)
{
    text_number(t, " commit ", m->commit);
    text_nonzero(t, " round ", m->hint);
    text_nonzero(t, " lease ", m->hint_high);
}

static void put_request_vote(struct text *t, const struct nh_message *m)
{
    text_position(t, " last ", m->log_index, m->log_term);
    text_put(t, m->hint == 1 ? " transfer" : "");
    text_nonzero(t, " priority ", m->hint_high);
}

static void put_snapshot(struct text *t, const struct nh_snapshot *s)
{
    text_position(t, " snapshot ", s->index, s->term);
    text_put(t, s->witness ? " witness" : "");
    text_put(t, " members ");
    raft_text_membership(t, &s->membership);
}

static void put_install_snapshot(struct text *t, const struct nh_message *m)
{
    if (m->snapshot)
        put_snapshot(t, m->snapshot);
    text_number(t, " commit ", m->commit);
}

static void put_leader_transfer(struct text *t, const struct nh_message *m)
{
    if (m->reject) {
        text_put(t, " refused ");
        text_put(t, transfer_reason_name(m->hint));
    } else {
        text_number(t, " target ", m->hint);
    }
    text_number(t, " key ", m->hint_high);
}

static void put_read_resp(struct text *t, const struct nh_message *m)
{
    text_two(t, " context ", m->hint, ":", m->hint_high);
    if (m->reject)
        text_put(t, " dropped");
    else
        text_number(t, " index ", m->log_index);
}

static void put_vote_resp(struct text *t, const struct nh_message *m)
{
    text_put(t, m->reject ? " refuses" : " grants");
    if (m->reject)
        text_position(t, " commit ", m->commit, m->log_term);
}

/* A type that the core does not speak: whatever it has. */
static void put_other(struct text *t, const struct nh_message *m)
{
    text_put(t, m->reject ? " reject" : "");
    if (m->log_index || m->log_term)
        text_position(t, " log ", m->log_index, m->log_term);
    text_nonzero(t, " commit ", m->commit);
    text_nonzero(t, " hint ", m->hint);
    text_nonzero(t, " hint_high ", m->hint_high);
    if (m->snapshot)
        put_snapshot(t, m->snapshot);
    put_runs(t, m->runs, m->n_runs);
}

static void put_fields(struct text *t, const struct nh_message *m)
{
    switch (m->type) {
    case NH_MSG_REPLICATE:
        text_position(t, " after ", m->log_index, m->log_term);
        text_number(t, " commit ", m->commit);
        put_runs(t, m->runs, m->n_runs);
        break;
    case NH_MSG_REPLICATE_RESP: put_replicate_resp(t, m); break;
    case NH_MSG_REQUEST_VOTE:
    case NH_MSG_REQUEST_PRE_VOTE: put_request_vote(t, m); break;
    case NH_MSG_REQUEST_VOTE_RESP:
    case NH_MSG_REQUEST_PRE_VOTE_RESP: put_vote_resp(t, m); break;
    case NH_MSG_HEARTBEAT:
    case NH_MSG_HEARTBEAT_RESP: put_round(t, m); break;
    case NH_MSG_READ_INDEX: text_two(t, " context ", m->hint, ":", m->hint_high); break;
    case NH_MSG_READ_INDEX_RESP: put_read_resp(t, m); break;
    case NH_MSG_QUIESCE:
        text_position(t, " last ", m->log_index, m->log_term);
        text_number(t, " commit ", m->commit);
        break;
    case NH_MSG_PROPOSE:
        put_keys(t, m->hint, m->hint_high);
        put_runs(t, m->runs, m->n_runs);
        break;
    case NH_MSG_PROPOSE_RESP:
        text_put(t, m->reject ? " dropped" : "");
        put_keys(t, m->hint, m->hint_high);
        break;
    case NH_MSG_INSTALL_SNAPSHOT: put_install_snapshot(t, m); break;
    case NH_MSG_LEADER_TRANSFER: put_leader_transfer(t, m); break;
    case NH_MSG_RATE_LIMIT: text_put(t, m->hint ? " stop" : " go on"); break;
    default: put_other(t, m); break;
    }
}

static void put_message(struct text *t, const struct nh_message *m)
{
    text_two(t, "", m->from, "->", m->to);
    text_char(t, ' ');
    text_put(t, nh_message_type_name(m->type));
    text_number(t, " term ", m->term);
    put_fields(t, m);
}

/* ---- updates ---- */

static void put_part(struct text *t, const char *s)
{
    text_put(t, t->n > 0 ? " | " : "");
    text_put(t, s);
}

static void put_save(struct text *t, const struct raft_update *u)
{
    if (u->save_id == 0)
        return;
    put_part(t, "save ");
    text_u64(t, u->save_id);
    text_put(t, u->must_sync ? "" : " unsynced");
    if (u->has_state) {
        text_number(t, " term ", u->state.term);
        text_number(t, " vote ", u->state.vote);
        text_number(t, " commit ", u->state.commit);
    }
    if (u->snapshot)
        put_snapshot(t, u->snapshot);
    put_runs(t, u->runs.runs, u->runs.n);
}

static void put_messages(struct text *t, const char *label, const struct nh_message *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        put_part(t, label);
        put_message(t, &items[i]);
    }
}

static void put_requests(struct text *t, const struct raft_update *u)
{
    for (size_t i = 0; i < u->reads.n; i++) {
        put_part(t, "read ");
        text_two(t, "", u->reads.items[i].low, ":", u->reads.items[i].high);
        text_number(t, " at ", u->reads.items[i].index);
    }
    for (size_t i = 0; i < u->dropped.n; i++) {
        const struct raft_dropped *d = &u->dropped.items[i];

        put_part(t, "dropped");
        if (d->is_read)
            text_number(t, " read ", d->first_key);
        else
            put_keys(t, d->first_key, d->n_keys);
        text_char(t, ' ');
        text_put(t, reason_name(d->reason));
    }
}

static void put_transfers(struct text *t, const struct raft_update *u)
{
    for (size_t i = 0; i < u->transfers.n; i++) {
        const struct raft_transfer_end *e = &u->transfers.items[i];

        put_part(t, "transfer ");
        text_u64(t, e->key);
        text_char(t, ' ');
        text_put(t, transfer_code_name(e->code));
        if (e->reason != RAFT_TRANSFER_OK) {
            text_char(t, ' ');
            text_put(t, transfer_reason_name(e->reason));
        }
    }
}

static void put_fetches(struct text *t, const struct raft_update *u)
{
    for (size_t i = 0; i < u->fetches.n; i++) {
        put_part(t, "fetch");
        text_two(t, " ", u->fetches.items[i].low, "..", u->fetches.items[i].high - 1);
        text_number(t, " for ", u->fetches.items[i].peer);
    }
}

static void put_update(struct text *t, const struct raft_update *u)
{
    put_save(t, u);
    put_messages(t, "send ", u->send.items, u->send.n);
    put_messages(t, "send after save ", u->send_after_save.items, u->send_after_save.n);
    if (u->apply_first) {
        put_part(t, "apply ");
        text_two(t, "", u->apply_first, "..", u->apply_last);
    }
    put_requests(t, u);
    put_fetches(t, u);
    put_transfers(t, u);
    if (u->removed)
        put_part(t, "removed");
    if (u->leader_changed) {
        put_part(t, u->leader_id ? "leader " : "no leader");
        if (u->leader_id)
            text_u64(t, u->leader_id);
        text_number(t, " in term ", u->term);
    }
}

/* ---- entry points ---- */

size_t raft_describe_entry(const struct nh_entry_view *e, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    put_entry(&t, e);
    return text_end(&t);
}

size_t raft_describe_membership(const struct nh_membership *m, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    raft_text_membership(&t, m);
    return text_end(&t);
}

size_t raft_describe_message(const struct nh_message *m, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    put_message(&t, m);
    return text_end(&t);
}

size_t raft_describe_update(const struct raft_update *u, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    put_update(&t, u);
    return text_end(&t);
}

size_t raft_describe_status(const struct raft_status *s, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    text_put(&t, raft_role_name(s->role));
    text_number(&t, " term ", s->term);
    text_number(&t, " vote ", s->vote);
    text_number(&t, " leader ", s->leader_id);
    text_two(&t, " log ", s->first_index, "..", s->last_index);
    text_number(&t, " commit ", s->commit_index);
    text_number(&t, " applied ", s->applied_index);
    if (s->saved_index != s->last_index)
        text_number(&t, " saved ", s->saved_index);
    if (s->handed_index != s->applied_index)
        text_number(&t, " handed ", s->handed_index);
    text_nonzero(&t, " uncommitted_bytes ", s->uncommitted_bytes);
    text_nonzero(&t, " snapshot ", s->snapshot_index);
    text_put(&t, s->joint ? " joint" : "");
    text_put(&t, s->pending_config ? " config_pending" : "");
    text_nonzero(&t, " transferee ", s->transferee);
    text_put(&t, s->lease_held ? " lease" : "");
    text_put(&t, s->overloaded ? " overloaded" : "");
    text_put(&t, s->quiesced ? " quiesced" : "");
    text_nonzero(&t, " ignored ", s->ignored_messages);
    text_nonzero(&t, " truncated ", s->truncated_suffixes);
    text_nonzero(&t, " stale_saves ", s->stale_saves);
    return text_end(&t);
}

size_t raft_describe_peer(const struct raft_peer_status *p, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    text_number(&t, "peer ", p->replica_id);
    text_put(&t, peer_kind_text(p->kind));
    text_put(&t, p->outgoing ? " outgoing" : "");
    text_put(&t, peer_state_text(p->state));
    text_number(&t, " match ", p->match);
    text_number(&t, " next ", p->next);
    text_nonzero(&t, " inflight ", p->inflight_messages);
    text_nonzero(&t, " pending ", p->pending_snapshot);
    text_put(&t, p->active ? " active" : "");
    text_put(&t, p->paused ? " paused" : "");
    text_put(&t, p->overloaded ? " overloaded" : "");
    return text_end(&t);
}
