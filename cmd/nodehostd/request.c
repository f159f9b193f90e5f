/* Parts of calls on their way to shards and back. */
#include "cmd/nodehostd/server.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nodehostd/command.h"
#include "cmd/nodehostd/shard_hosts.h"

void call_make_parts(struct call *call, uint32_t n)
{
    call->parts = must_alloc(calloc(n, sizeof *call->parts));
    call->n_parts = n;
    for (uint32_t i = 0; i < n; i++)
        call->parts[i].call = call;
}

/* ---- ended ---- */

/* Thread: any. */
static void post_ended(struct part *p)
{
    struct server *s = p->call->server;
    bool was_empty;

    p->next = NULL;
    pthread_mutex_lock(&s->ended_lock);
    was_empty = !s->ended_first;
    if (was_empty)
        s->ended_first = p;
    else
        s->ended_last->next = p;
    s->ended_last = p;
    pthread_mutex_unlock(&s->ended_lock);
    if (was_empty)
        uv_async_send(&s->ended_async);
}

/* Runs on a thread of the host: notes and wakes. What is too large for a reply is counted only. */
static void on_end(void *ctx, const struct nh_outcome *o)
{
    struct part *p = ctx;
    size_t all_bytes = __atomic_add_fetch(&p->call->answer_bytes, o->size_bytes, __ATOMIC_RELAXED);

    p->code = o->code;
    p->drop_reason = o->drop_reason;
    p->status = o->status;
    p->index = o->index;
    p->value = o->value;
    if (o->size_bytes && all_bytes <= CLIENT_REPLY_BYTES_MAX) {
        p->data = must_alloc(malloc(o->size_bytes));
        memcpy(p->data, o->data, o->size_bytes);
        p->size = o->size_bytes;
    }
    post_ended(p);
}

static void refuse_part(struct part *p, int code, const char *text)
{
    p->submit_code = code;
    p->data = must_alloc(strdup(text));
    p->size = strlen(text);
    post_ended(p); /* not at once: the call may still be making its other parts */
}

static void reply_too_large(struct call *call)
{
    if (call->command->kind == COMMAND_WRITE)
        reply_errorf(&call->reply, "ACKED it was applied; its answer has %zu bytes, the limit is %u", call->answer_bytes,
                     CLIENT_REPLY_BYTES_MAX);
    else
        reply_errorf(&call->reply, "ERR the answer has %zu bytes, the limit is %u: ask for fewer keys at once",
                     call->answer_bytes, CLIENT_REPLY_BYTES_MAX);
}

static void end_call(struct call *call)
{
    struct client *c = call->client;

    if (!call_put_off(call)) {
        if (c && call->answer_bytes > CLIENT_REPLY_BYTES_MAX)
            reply_too_large(call);
        else if (c)
            call->finish(call);
        call_done(call);
    }
    if (c)
        client_go_on(c);
}

void requests_take_ended(struct server *s)
{
    struct part *p, *next;

    pthread_mutex_lock(&s->ended_lock);
    p = s->ended_first;
    s->ended_first = s->ended_last = NULL;
    pthread_mutex_unlock(&s->ended_lock);
    for (; p; p = next) {
        struct call *call = p->call;

        next = p->next;
        if (++call->n_ended == call->n_parts)
            end_call(call);
    }
}

/* ---- on their way ---- */

static struct shard_queue *queue_of(struct server *s, uint64_t shard_id)
{
    uint32_t low = 0, high = s->n_kv;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (s->kv_shards[mid] == shard_id)
            return &s->kv_queues[mid];
        if (s->kv_shards[mid] < shard_id)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static struct part *part_of(const struct nh_proposal *proposal)
{
    return proposal->ctx;
}

static void propose(struct server *s, uint64_t shard_id, const struct nh_proposal *proposals, size_t n)
{
    struct nh_error err = {0};
    int r = nh_propose_batch(s->host, shard_id, proposals, n, s->config->redis.timeout_ms, &err);

    /* A batch that is accepted may end before we are here: its parts must not be touched any more. */
    for (size_t i = 0; r < 0 && i < n; i++)
        refuse_part(part_of(&proposals[i]), r, err.text);
}

static void propose_queue(struct server *s, struct shard_queue *q)
{
    if (q->n > 0)
        propose(s, q->shard_id, q->items, q->n);
    q->n = q->bytes = 0;
}

void part_propose(struct part *p)
{
    struct server *s = p->call->server;
    struct nh_proposal proposal = {p->cmd.data, p->cmd.size, on_end, p};
    struct shard_queue *q = queue_of(s, p->shard_id);

    if (!q) { /* a shard of another machine, or none */
        propose(s, p->shard_id, &proposal, 1);
        return;
    }
    if (q->n == q->cap) {
        q->cap = q->cap ? q->cap * 2 : 16;
        q->items = must_alloc(realloc(q->items, q->cap * sizeof *q->items));
    }
    if (q->bytes + p->cmd.size > SHARD_QUEUE_BYTES)
        propose_queue(s, q);
    q->items[q->n++] = proposal;
    q->bytes += p->cmd.size;
    if (!q->dirty) {
        q->dirty = true;
        q->next_dirty = s->dirty;
        s->dirty = q;
    }
}

void requests_flush(struct server *s)
{
    struct shard_queue *next;

    for (struct shard_queue *q = s->dirty; q; q = next) {
        next = q->next_dirty;
        propose_queue(s, q);
        q->dirty = false;
    }
    s->dirty = NULL;
}

void part_query(struct part *p)
{
    struct server *s = p->call->server;
    struct nh_error err = {0};
    int r;

    p->is_query = true;
    r = nh_query(s->host, p->shard_id, p->cmd.data, p->cmd.size, s->config->redis.timeout_ms, on_end, p, &err);
    if (r < 0)
        refuse_part(p, r, err.text);
}

void call_ask_again(struct call *call)
{
    call->put_off = false;
    call->asked_again = true;
    call->answer_bytes = call->n_ended = 0;
    for (uint32_t i = 0; i < call->n_parts; i++) {
        call->parts[i].submit_code = 0;
        part_query(&call->parts[i]);
    }
}

void part_change_membership(struct part *p, const struct nh_config_change *change)
{
    struct server *s = p->call->server;
    struct nh_error err = {0};
    int r = nh_change_membership(s->host, p->shard_id, change, s->config->redis.timeout_ms, on_end, p, &err);

    if (r < 0)
        refuse_part(p, r, err.text);
}

void part_transfer(struct part *p, uint64_t target)
{
    struct nh_error err = {0};
    int r = nh_transfer_leader(p->call->server->host, p->shard_id, target, on_end, p, &err);

    if (r < 0)
        refuse_part(p, r, err.text);
}

void part_look_at_peers(struct part *p)
{
    struct nh_error err = {0};
    int r = nh_get_peers(p->call->server->host, p->shard_id, on_end, p, &err);

    if (r < 0)
        refuse_part(p, r, err.text);
}

/* ---- sessions and snapshots ---- */

static void flush_shard(struct server *s, uint64_t shard_id)
{
    struct shard_queue *q = queue_of(s, shard_id);

    if (q)
        propose_queue(s, q);
}

void part_open_session(struct part *p, uint64_t client_id)
{
    struct server *s = p->call->server;
    struct nh_error err = {0};
    int r = nh_open_session(s->host, p->shard_id, client_id, s->config->redis.timeout_ms, on_end, p, &err);

    if (r < 0)
        refuse_part(p, r, err.text);
}

void part_close_session(struct part *p, uint64_t client_id)
{
    struct server *s = p->call->server;
    struct nh_error err = {0};
    int r = nh_close_session(s->host, p->shard_id, client_id, s->config->redis.timeout_ms, on_end, p, &err);

    if (r < 0)
        refuse_part(p, r, err.text);
}

void part_propose_in_session(struct part *p, const struct nh_session_step *step)
{
    struct server *s = p->call->server;
    struct nh_error err = {0};
    int r;

    flush_shard(s, p->shard_id);
    r = nh_propose_in_session(s->host, p->shard_id, step, p->cmd.data, p->cmd.size, s->config->redis.timeout_ms, on_end, p, &err);
    if (r < 0)
        refuse_part(p, r, err.text);
}

void part_snapshot(struct part *p)
{
    struct nh_error err = {0};
    int r = nh_request_snapshot(p->call->server->host, p->shard_id, NH_NEVER, on_end, p, &err);

    if (r < 0)
        refuse_part(p, r, err.text);
}

void part_export(struct part *p, const char *directory)
{
    struct nh_error err = {0};
    int r = nh_export_snapshot(p->call->server->host, p->shard_id, directory, on_end, p, &err);

    if (r < 0)
        refuse_part(p, r, err.text);
}

/* ---- what a failure means to the client (README: "What an answer means") ---- */

enum fate { FATE_DONE, FATE_NOT_APPLIED, FATE_UNKNOWN };

static enum fate fate_of(const struct part *p)
{
    if (p->submit_code < 0)
        return FATE_NOT_APPLIED;
    switch (p->code) {
    case NH_REQUEST_COMPLETED: return FATE_DONE;
    case NH_REQUEST_REJECTED:
    case NH_REQUEST_DROPPED: return FATE_NOT_APPLIED;
    default: return FATE_UNKNOWN;
    }
}

/* Where to ask for a shard that has no replica here, as "host:port". False: the configuration names no host. */
static bool find_elsewhere(struct server *s, uint64_t shard_id, char out[NH_ADDRESS_BYTES + 8])
{
    char host[NH_ADDRESS_BYTES];
    struct shard_hosts h;
    uint16_t port;

    s->next_place++;
    shard_hosts_find(s, shard_id, &h);
    if (h.is_here || h.n == 0 || !config_split_address(h.hosts[0]->redis, host, &port))
        return false;
    snprintf(out, NH_ADDRESS_BYTES + 8, "%s:%u", host, port);
    return true;
}

/* Cluster clients follow MOVED to its address; there is no room for more words in it. `why`: for the others. */
static void reply_not_here(struct call *call, const struct part *p, const char *why)
{
    char address[NH_ADDRESS_BYTES + 8];
    bool found = find_elsewhere(call->server, p->shard_id, address);

    if (found && p->n_keys > 0)
        reply_errorf(&call->reply, "MOVED %u %s", p->slot, address);
    else if (found)
        reply_errorf(&call->reply, "ERR %s: ask %s; nothing was applied", why, address);
    else
        reply_errorf(&call->reply, "%s %s; nothing was applied", p->n_keys > 0 ? "CLUSTERDOWN" : "ERR", why);
}

static void reply_witness_here(struct call *call, const struct part *p)
{
    char why[80];

    snprintf(why, sizeof why, "shard %" PRIu64 " has only a witness on this host", p->shard_id);
    reply_not_here(call, p, why);
}

/* What this host has of a shard that it cannot answer for; NULL: it can. */
static const char *find_lack(const struct server *s, uint64_t shard_id)
{
    struct nh_shard_info info;
    int r = nh_get_shard_info(s->host, shard_id, &info, NULL);

    if (r == NH_ENOTFOUND)
        return "no replica";
    return r == NH_OK && info.witness ? "only a witness" : NULL;
}

bool call_reply_elsewhere(struct call *call)
{
    char address[NH_ADDRESS_BYTES + 8];

    for (uint32_t i = 0; call->n_parts > 1 && i < call->n_parts; i++) {
        uint64_t shard_id = call->parts[i].shard_id;
        const char *lack = find_lack(call->server, shard_id);
        bool found;

        if (!lack)
            continue;
        found = find_elsewhere(call->server, shard_id, address);
        reply_errorf(&call->reply,
                     "CROSSSLOT the keys are in several shards, of which shard %" PRIu64 " has %s on this host%s%s; nothing was "
                     "applied",
                     shard_id, lack, found ? ": for it ask " : "", found ? address : "");
        return true;
    }
    return false;
}

static void reply_submit_error(struct call *call, const struct part *p)
{
    const char *prefix = "ERR";

    if (p->submit_code == NH_ENOTFOUND) {
        reply_not_here(call, p, p->data);
        return;
    }
    switch (p->submit_code) {
    case NH_EBUSY:
    case NH_ECLOSED: prefix = "TRYAGAIN"; break;
    case NH_EFENCED:
    case NH_EQUARANTINED: prefix = "MISCONF"; break;
    default: break;
    }
    reply_errorf(&call->reply, "%s %s; nothing was applied", prefix, p->data);
}

static const char *drop_text(int reason)
{
    switch (reason) {
    case NH_DROP_OVERLOADED: return "is overloaded";
    case NH_DROP_TRANSFERRING: return "is being given to another leader";
    case NH_DROP_VOTERS_AWAY:
        return "has witnesses, and too few of its voters are there to change its members: start them, or import the shard";
    default: return "refused it, its leader moved";
    }
}

static void reply_not_applied(struct call *call, const struct part *p)
{
    if (p->submit_code < 0)
        reply_submit_error(call, p);
    else if (p->code == NH_REQUEST_REJECTED)
        reply_errorf(&call->reply, "ERR shard %" PRIu64 " rejected it; nothing was applied", p->shard_id);
    else if (p->drop_reason == NH_DROP_WITNESS)
        reply_witness_here(call, p);
    else if (p->drop_reason == NH_DROP_NO_LEADER)
        reply_errorf(&call->reply, "CLUSTERDOWN shard %" PRIu64 " had no leader for %u ms; nothing was applied", p->shard_id,
                     call->server->config->redis.timeout_ms);
    else
        reply_errorf(&call->reply, "TRYAGAIN shard %" PRIu64 " %s; nothing was applied", p->shard_id, drop_text(p->drop_reason));
}

static void reply_unknown_fate(struct call *call, const struct part *p)
{
    bool writes = call->command->kind == COMMAND_WRITE;

    if (p->code == NH_REQUEST_TIMEOUT)
        reply_errorf(&call->reply, "TIMEOUT shard %" PRIu64 " gave no answer within %u ms%s", p->shard_id,
                     call->server->config->redis.timeout_ms, writes ? "; it may have been applied, or may be later" : "");
    else
        reply_errorf(&call->reply, "TIMEOUT shard %" PRIu64 ": its replica here was stopped%s", p->shard_id,
                     writes ? "; it may have been applied" : "");
}

bool part_reply_failure(struct call *call, const struct part *p)
{
    enum fate fate = fate_of(p);

    if (fate == FATE_UNKNOWN)
        reply_unknown_fate(call, p);
    else if (fate == FATE_NOT_APPLIED)
        reply_not_applied(call, p);
    return fate != FATE_DONE;
}

bool part_reply_refusal(struct call *call, const struct part *p)
{
    if (p->submit_code < 0 || p->code != NH_REQUEST_REJECTED)
        return false;
    reply_errorf(&call->reply, "ERR shard %" PRIu64 ": %.*s; nothing was changed", p->shard_id,
                 (int)(p->size < 512 ? p->size : 512), p->data ? p->data : "");
    return true;
}

bool call_reply_failure(struct call *call)
{
    const struct part *refused = NULL, *unknown = NULL;
    uint32_t n_done = 0;

    for (uint32_t i = 0; i < call->n_parts; i++) {
        const struct part *p = &call->parts[i];

        switch (fate_of(p)) {
        case FATE_DONE: n_done++; break;
        case FATE_NOT_APPLIED: refused = p; break;
        case FATE_UNKNOWN: unknown = p; break;
        }
    }
    if (unknown)
        reply_unknown_fate(call, unknown);
    else if (refused && n_done > 0 && call->command->kind == COMMAND_WRITE)
        reply_errorf(&call->reply, "TIMEOUT applied in %u of %u shards, not in shard %" PRIu64, n_done, call->n_parts,
                     refused->shard_id);
    else if (refused)
        reply_not_applied(call, refused);
    return unknown || refused;
}
