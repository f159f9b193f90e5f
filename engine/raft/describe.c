#include "engine/raft/describe.h"

#include "raftio/request.h"

/* ---- text, cut at its capacity (the core has no stdio) ---- */

struct text {
    char *buf;
    size_t cap, n; /* n: of the whole text, may be above cap */
};

static void put_char(struct text *t, char c)
{
    if (t->n + 1 < t->cap)
        t->buf[t->n] = c;
    t->n++;
}

static void put(struct text *t, const char *s)
{
    for (; *s; s++)
        put_char(t, *s);
}

static void put_u64(struct text *t, uint64_t v)
{
    char digits[20];
    size_t n = 0;

    do
        digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n > 0)
        put_char(t, digits[--n]);
}

static void put_number(struct text *t, const char *label, uint64_t v)
{
    put(t, label);
    put_u64(t, v);
}

static void put_nonzero(struct text *t, const char *label, uint64_t v)
{
    if (v)
        put_number(t, label, v);
}

static void put_two(struct text *t, const char *label, uint64_t a, const char *between, uint64_t b)
{
    put_number(t, label, a);
    put_number(t, between, b);
}

static void put_position(struct text *t, const char *label, uint64_t index, uint64_t term)
{
    put_two(t, label, index, "/", term);
}

static void put_keys(struct text *t, uint64_t first, uint64_t n)
{
    put_number(t, " keys ", first);
    if (n != 1)
        put_number(t, " n ", n);
}

static size_t finish(struct text *t)
{
    if (t->cap > 0)
        t->buf[t->n < t->cap ? t->n : t->cap - 1] = '\0';
    return t->n;
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
    default: return "NONE";
    }
}

/* ---- entries ---- */

static void put_byte(struct text *t, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";

    if (c == '"' || c == '\\') {
        put_char(t, '\\');
        put_char(t, (char)c);
    } else if (c == '\n') {
        put(t, "\\n");
    } else if (c >= ' ' && c <= '~') {
        put_char(t, (char)c);
    } else {
        put(t, "\\x");
        put_char(t, hex[c >> 4]);
        put_char(t, hex[c & 15]);
    }
}

static void put_payload(struct text *t, const struct nh_entry_view *e)
{
    uint32_t n = e->payload_bytes < RAFT_DESCRIBE_PAYLOAD_BYTES ? e->payload_bytes : RAFT_DESCRIBE_PAYLOAD_BYTES;

    if (n == 0)
        return;
    put(t, " \"");
    for (uint32_t i = 0; i < n; i++)
        put_byte(t, e->payload[i]);
    put(t, n < e->payload_bytes ? "\"..." : "\"");
}

/* A forwarded proposal has neither index nor term yet. */
static void put_entry(struct text *t, const struct nh_entry_view *e)
{
    if (e->index || e->term)
        put_position(t, "", e->index, e->term);
    else
        put(t, "-");
    switch (e->type) {
    case NH_ENTRY_APPLICATION: break;
    case NH_ENTRY_CONFIG_CHANGE: put(t, " config"); break;
    case NH_ENTRY_ENCODED: put(t, " encoded"); break;
    case NH_ENTRY_METADATA: put(t, " metadata"); break;
    default: put_number(t, " type ", e->type); break;
    }
    if (e->flags & NH_RECORD_SESSION)
        put_two(t, " session ", e->client_id, ":", e->series_id);
    put_payload(t, e);
}

static void put_runs(struct text *t, const struct nh_run *runs, uint32_t n_runs)
{
    uint64_t n = 0;

    if (n_runs == 0)
        return;
    put(t, " entries [");
    for (uint32_t i = 0; i < n_runs; i++) {
        for (uint32_t at = runs[i].from; at < runs[i].to; at++) {
            struct nh_entry_view e;

            if (n++ >= RAFT_DESCRIBE_ENTRIES)
                continue;
            nh_record_view(runs[i].block->data + runs[i].block->offsets[at], &e);
            put(t, n > 1 ? ", " : "");
            put_entry(t, &e);
        }
    }
    if (n > RAFT_DESCRIBE_ENTRIES) {
        put_number(t, ", and ", n - RAFT_DESCRIBE_ENTRIES);
        put(t, " more");
    }
    put_char(t, ']');
}

/* ---- messages ---- */

static void put_replicate_resp(struct text *t, const struct nh_message *m)
{
    put_number(t, m->reject ? " rejects " : " accepts ", m->log_index);
    if (m->reject)
        put_position(t, " hint ", m->hint, m->log_term);
    put_number(t, " commit ", m->commit);
}

static void put_round(struct text *t, const struct nh_message *m)
{
    put_number(t, " commit ", m->commit);
    put_nonzero(t, " round ", m->hint);
    put_nonzero(t, ":", m->hint_high);
}

static void put_read_resp(struct text *t, const struct nh_message *m)
{
    put_two(t, " context ", m->hint, ":", m->hint_high);
    if (m->reject)
        put(t, " dropped");
    else
        put_number(t, " index ", m->log_index);
}

static void put_vote_resp(struct text *t, const struct nh_message *m)
{
    put(t, m->reject ? " refuses" : " grants");
    if (m->reject)
        put_position(t, " commit ", m->commit, m->log_term);
}

/* A type that the core does not speak: whatever it has. */
static void put_other(struct text *t, const struct nh_message *m)
{
    put(t, m->reject ? " reject" : "");
    if (m->log_index || m->log_term)
        put_position(t, " log ", m->log_index, m->log_term);
    put_nonzero(t, " commit ", m->commit);
    put_nonzero(t, " hint ", m->hint);
    put_nonzero(t, " hint_high ", m->hint_high);
    if (m->snapshot)
        put_position(t, " snapshot ", m->snapshot->index, m->snapshot->term);
    put_runs(t, m->runs, m->n_runs);
}

static void put_fields(struct text *t, const struct nh_message *m)
{
    switch (m->type) {
    case NH_MSG_REPLICATE:
        put_position(t, " after ", m->log_index, m->log_term);
        put_number(t, " commit ", m->commit);
        put_runs(t, m->runs, m->n_runs);
        break;
    case NH_MSG_REPLICATE_RESP: put_replicate_resp(t, m); break;
    case NH_MSG_REQUEST_VOTE:
    case NH_MSG_REQUEST_PRE_VOTE:
        put_position(t, " last ", m->log_index, m->log_term);
        put(t, m->hint == 1 ? " transfer" : "");
        break;
    case NH_MSG_REQUEST_VOTE_RESP:
    case NH_MSG_REQUEST_PRE_VOTE_RESP: put_vote_resp(t, m); break;
    case NH_MSG_HEARTBEAT:
    case NH_MSG_HEARTBEAT_RESP: put_round(t, m); break;
    case NH_MSG_READ_INDEX: put_two(t, " context ", m->hint, ":", m->hint_high); break;
    case NH_MSG_READ_INDEX_RESP: put_read_resp(t, m); break;
    case NH_MSG_QUIESCE:
        put_position(t, " last ", m->log_index, m->log_term);
        put_number(t, " commit ", m->commit);
        break;
    case NH_MSG_PROPOSE:
        put_keys(t, m->hint, m->hint_high);
        put_runs(t, m->runs, m->n_runs);
        break;
    case NH_MSG_PROPOSE_RESP:
        put(t, m->reject ? " dropped" : "");
        put_keys(t, m->hint, m->hint_high);
        break;
    default: put_other(t, m); break;
    }
}

static void put_message(struct text *t, const struct nh_message *m)
{
    put_two(t, "", m->from, "->", m->to);
    put_char(t, ' ');
    put(t, nh_message_type_name(m->type));
    put_number(t, " term ", m->term);
    put_fields(t, m);
}

/* ---- updates ---- */

static void put_part(struct text *t, const char *s)
{
    put(t, t->n > 0 ? " | " : "");
    put(t, s);
}

static void put_save(struct text *t, const struct raft_update *u)
{
    if (u->save_id == 0)
        return;
    put_part(t, "save ");
    put_u64(t, u->save_id);
    put(t, u->must_sync ? "" : " unsynced");
    if (u->has_state) {
        put_number(t, " term ", u->state.term);
        put_number(t, " vote ", u->state.vote);
        put_number(t, " commit ", u->state.commit);
    }
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
        put_two(t, "", u->reads.items[i].low, ":", u->reads.items[i].high);
        put_number(t, " at ", u->reads.items[i].index);
    }
    for (size_t i = 0; i < u->dropped.n; i++) {
        const struct raft_dropped *d = &u->dropped.items[i];

        put_part(t, "dropped");
        if (d->is_read)
            put_number(t, " read ", d->first_key);
        else
            put_keys(t, d->first_key, d->n_keys);
        put_char(t, ' ');
        put(t, reason_name(d->reason));
    }
}

static void put_fetches(struct text *t, const struct raft_update *u)
{
    for (size_t i = 0; i < u->fetches.n; i++) {
        put_part(t, "fetch");
        put_two(t, " ", u->fetches.items[i].low, "..", u->fetches.items[i].high - 1);
        put_number(t, " for ", u->fetches.items[i].peer);
    }
}

static void put_update(struct text *t, const struct raft_update *u)
{
    put_save(t, u);
    put_messages(t, "send ", u->send.items, u->send.n);
    put_messages(t, "send after save ", u->send_after_save.items, u->send_after_save.n);
    if (u->apply_first) {
        put_part(t, "apply ");
        put_two(t, "", u->apply_first, "..", u->apply_last);
    }
    put_requests(t, u);
    put_fetches(t, u);
    if (u->leader_changed) {
        put_part(t, u->leader_id ? "leader " : "no leader");
        if (u->leader_id)
            put_u64(t, u->leader_id);
        put_number(t, " in term ", u->term);
    }
}

/* ---- entry points ---- */

size_t raft_describe_entry(const struct nh_entry_view *e, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    put_entry(&t, e);
    return finish(&t);
}

size_t raft_describe_message(const struct nh_message *m, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    put_message(&t, m);
    return finish(&t);
}

size_t raft_describe_update(const struct raft_update *u, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    put_update(&t, u);
    return finish(&t);
}

size_t raft_describe_status(const struct raft_status *s, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    put(&t, raft_role_name(s->role));
    put_number(&t, " term ", s->term);
    put_number(&t, " vote ", s->vote);
    put_number(&t, " leader ", s->leader_id);
    put_two(&t, " log ", s->first_index, "..", s->last_index);
    put_number(&t, " commit ", s->commit_index);
    put_number(&t, " applied ", s->applied_index);
    if (s->saved_index != s->last_index)
        put_number(&t, " saved ", s->saved_index);
    if (s->handed_index != s->applied_index)
        put_number(&t, " handed ", s->handed_index);
    put_nonzero(&t, " uncommitted_bytes ", s->uncommitted_bytes);
    put(&t, s->quiesced ? " quiesced" : "");
    put_nonzero(&t, " ignored ", s->ignored_messages);
    put_nonzero(&t, " truncated ", s->truncated_suffixes);
    put_nonzero(&t, " stale_saves ", s->stale_saves);
    return finish(&t);
}

size_t raft_describe_peer(const struct raft_peer_status *p, char *buf, size_t cap)
{
    struct text t = {.buf = buf, .cap = cap};

    put_number(&t, "peer ", p->replica_id);
    put(&t, p->kind == NH_MEMBER_NON_VOTING ? " non-voting" : p->kind == NH_MEMBER_WITNESS ? " witness" : "");
    put(&t, p->state == RAFT_PROBE ? " PROBE" : " REPLICATE");
    put_number(&t, " match ", p->match);
    put_number(&t, " next ", p->next);
    put_nonzero(&t, " inflight ", p->inflight_messages);
    put(&t, p->active ? " active" : "");
    put(&t, p->paused ? " paused" : "");
    return finish(&t);
}
