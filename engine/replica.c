#include "engine/replica.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "engine/controls.h"
#include "engine/engine_private.h"
#include "engine/step_worker.h"
#include "raftio/support/memory.h"

/* ---- life ---- */

struct replica *replica_ref(struct replica *r)
{
    __atomic_add_fetch(&r->refs, 1, __ATOMIC_RELAXED);
    return r;
}

static void free_changes(struct queue *changes)
{
    struct queue_node *node;

    while ((node = queue_pop(changes))) {
        struct membership_change *c = container_of(node, struct membership_change, node);

        nh_membership_deinit(&c->membership);
        free(c);
    }
}

void snapshot_note_free(struct snapshot_note *note)
{
    nh_snapshot_deinit(&note->record);
    nh_message_deinit(&note->install);
    free(note);
}

static void free_notes(struct queue *notes)
{
    struct queue_node *node;

    while ((node = queue_pop(notes)))
        snapshot_note_free(container_of(node, struct snapshot_note, node));
}

void first_save_free(struct first_save *s)
{
    if (s)
        run_list_deinit(&s->runs);
    free(s);
}

void replica_unref(struct replica *r)
{
    if (!r || __atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    assert(r->n_reads == 0 && r->n_handed == 0 && !r->reads && r->n_saves == 0 && r->lent == LENT_NOT && queue_empty(&r->parked));
    assert(r->queries_bytes == 0);
    rsm_free(r->rsm);
    raft_free(r->raft);
    block_builder_deinit(&r->proposals);
    block_builder_deinit(&r->spare_proposals);
    request_ring_deinit(&r->ring);
    first_save_free(r->first_save);
    free_changes(&r->changes);
    free_notes(&r->notes);
    if (r->boot_snapshot)
        nh_snapshot_deinit(r->boot_snapshot);
    free(r->boot_snapshot);
    free(r->failure);
    free(r->kept);
    free(r->unreachable);
    free(r->peers);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* With r->lock held: true if the caller must post the notification. */
static bool must_notify(struct replica *r)
{
    bool must = !r->notified;

    __atomic_store_n(&r->notified, true, __ATOMIC_RELAXED);
    return must;
}

static void post_notification(struct replica *r)
{
    replica_ref(r); /* of the item, dropped by its taker */
    step_worker_post(r->step, &r->notify);
}

/* ---- requests in ---- */

static int refuse(const struct replica *r, struct nh_error *err)
{
    switch (r->refusal) {
    case NH_ECLOSED: return nh_error_set(err, NH_ECLOSED, "shard %" PRIu64 ": its replica is being stopped", r->shard_id);
    case NH_EQUARANTINED:
        return nh_error_set(err, NH_EQUARANTINED, "shard %" PRIu64 ": its replica is in quarantine", r->shard_id);
    default: return nh_error_set(err, r->refusal, "shard %" PRIu64 ": %s", r->shard_id, nh_status_text(r->refusal));
    }
}

/* The next ones would be those of the host's next start, to be used again by that. */
static int check_keys(const struct replica *r, uint64_t next, size_t n, struct nh_error *err)
{
    uint64_t end = (r->engine->config.incarnation + 1) << REPLICA_KEY_SHIFT;

    if (n <= end - next)
        return NH_OK;
    return nh_error_set(err, NH_EBUSY, "shard %" PRIu64 ": all keys of this start of the host are used: restart the host",
                        r->shard_id);
}

/* With r->lock held. */
static int admit(const struct replica *r, size_t n, size_t bytes, struct nh_error *err)
{
    const struct engine_config *c = &r->engine->config;
    uint64_t pending = (uint64_t)r->ring.n_pending + r->n_reads;

    if (r->refusal != NH_OK)
        return refuse(r, err);
    if (n > c->max_pending_per_replica || pending > c->max_pending_per_replica - n)
        return nh_error_set(err, NH_EBUSY, "shard %" PRIu64 ": %" PRIu64 " requests are pending, the limit is %" PRIu32,
                            r->shard_id, pending, c->max_pending_per_replica);
    if (r->ring.next - r->ring.base + n > (uint64_t)c->max_pending_per_replica * REQUESTS_WINDOW_FACTOR)
        return nh_error_set(err, NH_EBUSY, "shard %" PRIu64 ": an old request is still pending", r->shard_id);
    if (bytes > c->max_inbox_bytes || r->proposals.size_bytes > c->max_inbox_bytes - bytes)
        return nh_error_set(err, NH_EBUSY, "shard %" PRIu64 ": %zu bytes of proposals are waiting, the limit is %" PRIu64,
                            r->shard_id, r->proposals.size_bytes, c->max_inbox_bytes);
    return check_keys(r, r->ring.next, n, err);
}

static void add_proposals(struct replica *r, const struct engine_proposal_kind *kind, const struct nh_proposal *proposals,
                          size_t n, uint64_t deadline_ns)
{
    struct block_record rec = {
        .type = (uint8_t)kind->type,
        .origin = (uint32_t)r->replica_id,
        .client_id = kind->session.client_id,
        .series_id = kind->session.series_id,
        .responded_to = kind->session.responded_to,
    };

    for (const struct nh_proposal *p = proposals; p < proposals + n; p++) {
        int rc;

        rec.key = r->ring.next;
        rec.payload = p->cmd;
        rec.payload_bytes = (uint32_t)p->size_bytes;
        rc = block_builder_add(&r->proposals, &rec);
        assert(rc == NH_OK); /* sizes were checked against smaller limits */
        (void)rc;
        request_ring_add(&r->ring, &(struct request){p->fn, p->ctx, deadline_ns});
    }
    r->has_special |= kind->type == NH_ENTRY_CONFIG_CHANGE;
    if (deadline_ns < r->earliest_ns)
        r->earliest_ns = deadline_ns;
}

/* What the leaders of this host have not committed is kept in memory, and by their followers too. */
static int check_uncommitted(const struct engine *e, struct nh_error *err)
{
    if (__atomic_load_n(&e->uncommitted_bytes, __ATOMIC_RELAXED) <= e->config.max_uncommitted_bytes)
        return NH_OK;
    return nh_error_set(err, NH_EBUSY, "the leaders of this host have more than %" PRIu64 " bytes uncommitted",
                        e->config.max_uncommitted_bytes);
}

/* Together, not one after the other as they are used behind the lock: with thousands of shards each has left the cache. */
static NH_PEEKS void prefetch_room(const struct replica *r)
{
    prefetch(r->proposals.data, RUN_PREFETCH_RECORDS_BYTES);
    prefetch(r->proposals.offsets, 1);
    request_ring_prefetch_next(&r->ring);
}

/* What would not fit into an empty inbox either is not to be tried again. */
static int check_sizes(const struct engine_config *c, const struct nh_proposal *proposals, size_t n, size_t *ret_bytes,
                       struct nh_error *err)
{
    size_t bytes = 0;

    for (size_t i = 0; i < n; i++) {
        if (proposals[i].size_bytes > NH_ENTRY_PAYLOAD_MAX)
            return nh_error_set(err, NH_ETOOBIG, "a proposal of %zu bytes, the limit is %u", proposals[i].size_bytes,
                                NH_ENTRY_PAYLOAD_MAX);
        bytes += NH_RECORD_HEADER_BYTES + NH_RECORD_ALIGN + proposals[i].size_bytes;
    }
    if (n > c->max_pending_per_replica)
        return nh_error_set(err, NH_ETOOBIG, "%zu proposals at once, the limit is %" PRIu32, n, c->max_pending_per_replica);
    if (n > 1 && bytes > c->max_inbox_bytes) /* one alone may be of any allowed size */
        return nh_error_set(err, NH_ETOOBIG, "proposals of %zu bytes at once, the limit is %" PRIu64, bytes, c->max_inbox_bytes);
    *ret_bytes = bytes;
    return NH_OK;
}

int replica_propose(struct replica *r, const struct engine_proposal_kind *kind, const struct nh_proposal *proposals, size_t n,
                    uint64_t deadline_ns, struct nh_error *err)
{
    size_t bytes = 0;
    bool notify = false;
    int rc = check_sizes(&r->engine->config, proposals, n, &bytes, err);

    if (rc == NH_OK)
        rc = check_uncommitted(r->engine, err);
    if (rc < 0)
        return rc;
    prefetch_room(r);
    pthread_mutex_lock(&r->lock);
    rc = admit(r, n, r->proposals.n == 0 && n == 1 ? 0 : bytes, err);
    if (rc == NH_OK && n > 0) {
        block_builder_reserve(&r->proposals, (uint32_t)n, bytes); /* or as far as it is needed, if that is too much */
        add_proposals(r, kind, proposals, n, deadline_ns);
        notify = must_notify(r);
    }
    pthread_mutex_unlock(&r->lock);
    if (notify)
        post_notification(r);
    return rc;
}

/* With r->lock held. One alone may be of any allowed size. */
static int admit_query(const struct replica *r, size_t size_bytes, struct nh_error *err)
{
    uint64_t max = r->engine->config.max_inbox_bytes;

    if (size_bytes == 0 || r->queries_bytes == 0 || (r->queries_bytes <= max && size_bytes <= max - r->queries_bytes))
        return NH_OK;
    return nh_error_set(err, NH_EBUSY, "shard %" PRIu64 ": %zu bytes of queries are pending, the limit is %" PRIu64, r->shard_id,
                        r->queries_bytes, max);
}

void replica_forget_queries(struct replica *r, const struct read_batch *b)
{
    r->queries_bytes -= b->queries_bytes;
}

void replica_free_reads(struct replica *r, struct read_batch *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&r->lock);
    replica_forget_queries(r, b);
    pthread_mutex_unlock(&r->lock);
    read_batch_free(b);
}

int replica_read(struct replica *r, const void *query, size_t size_bytes, const struct request *request, struct nh_error *err)
{
    bool notify = false;
    int rc;

    if (size_bytes > NH_ENTRY_PAYLOAD_MAX)
        return nh_error_set(err, NH_ETOOBIG, "a query of %zu bytes, the limit is %u", size_bytes, NH_ENTRY_PAYLOAD_MAX);
    pthread_mutex_lock(&r->lock);
    rc = admit(r, 1, 0, err);
    if (rc == NH_OK)
        rc = admit_query(r, size_bytes, err);
    if (rc == NH_OK && r->n_handed >= r->engine->config.max_pending_per_replica) /* their reads have ended, they have not */
        rc = nh_error_set(err, NH_EBUSY, "shard %" PRIu64 ": %" PRIu32 " batches of reads wait for its machine", r->shard_id,
                          r->n_handed);
    if (rc == NH_OK && !r->reads)
        rc = check_keys(r, r->next_read, 1, err);
    if (rc == NH_OK) {
        if (!r->reads)
            r->reads = read_batch_new(r->next_read++);
        read_batch_add(r->reads, request, query, size_bytes);
        r->queries_bytes += size_bytes;
        r->n_reads++;
        notify = must_notify(r);
    }
    pthread_mutex_unlock(&r->lock);
    if (notify)
        post_notification(r);
    return rc;
}

int replica_add_control(struct replica *r, struct control *c, struct nh_error *err)
{
    bool notify = false;
    int rc = NH_OK;

    pthread_mutex_lock(&r->lock);
    if (r->refusal != NH_OK)
        rc = refuse(r, err);
    else if (r->n_wishes >= CONTROLS_MAX)
        rc = nh_error_set(err, NH_EBUSY, "shard %" PRIu64 ": %u wishes are waiting", r->shard_id, r->n_wishes);
    if (rc == NH_OK) {
        queue_push(&r->wishes, &c->node);
        r->n_wishes++;
        notify = must_notify(r);
    }
    pthread_mutex_unlock(&r->lock);
    if (notify)
        post_notification(r);
    return rc;
}

void replica_get_status(struct replica *r, struct engine_replica_status *ret)
{
    pthread_mutex_lock(&r->lock);
    *ret = r->status;
    ret->pending_requests = r->ring.n_pending + r->n_reads;
    pthread_mutex_unlock(&r->lock);
}

/* ---- requests out ---- */

/* So many turns without proposals, and the arrays for them are freed: an idle replica has none. */
#define TURNS_WITHOUT_PROPOSALS 8u
/* Larger ones are not kept for later. */
#define SPARE_BYTES_MAX 8192u

/* With r->lock held. */
static void take_proposals(struct replica *r, struct inbox *ret)
{
    r->n_without_proposals = 0;
    ret->proposals = r->proposals;
    ret->proposals.is_reused = true;
    ret->first_key = r->ring.next - r->proposals.n;
    ret->has_expired = r->has_expired;
    ret->has_special = r->has_special;
    r->proposals = r->spare_proposals;
    r->spare_proposals = (struct block_builder){0};
    r->has_expired = r->has_special = false;
}

void replica_reuse_proposals(struct replica *r, struct inbox *in)
{
    assert(!r->spare_proposals.data); /* it took its place in the inbox */
    in->proposals.n = 0;
    in->proposals.size_bytes = 0;
    if (in->proposals.cap_bytes > SPARE_BYTES_MAX)
        block_builder_deinit(&in->proposals);
    r->spare_proposals = in->proposals;
    in->proposals = (struct block_builder){0};
}

/* Without the lock, as most turns are for messages. If what was applied has a change that is still in the inbox, this is seen
 * too: replica_post_applied says so first. */
bool replica_look_at_inbox(struct replica *r, uint64_t *ret_applied)
{
    bool is_long_without =
        r->n_without_proposals < TURNS_WITHOUT_PROPOSALS && ++r->n_without_proposals == TURNS_WITHOUT_PROPOSALS;

    *ret_applied = __atomic_load_n(&r->applied, __ATOMIC_ACQUIRE);
    return __atomic_load_n(&r->notified, __ATOMIC_RELAXED) || r->has_waiting || is_long_without;
}

void replica_take_inbox(struct replica *r, bool with_proposals, struct inbox *ret)
{
    *ret = (struct inbox){0};
    pthread_mutex_lock(&r->lock);
    if (r->is_notified)
        __atomic_store_n(&r->notified, false, __ATOMIC_RELAXED);
    r->is_notified = false;
    ret->applied = r->applied;
    ret->failed = r->failure != NULL;
    queue_splice(&ret->changes, &r->changes);
    queue_splice(&ret->notes, &r->notes);
    ret->reads = r->reads;
    r->reads = NULL;
    if (r->state != REPLICA_STARTING) { /* else they wait here, where they are counted */
        queue_splice(&ret->wishes, &r->wishes);
        r->n_wishes = 0;
    }
    if (r->proposals.n == 0 && r->n_without_proposals == TURNS_WITHOUT_PROPOSALS) {
        block_builder_deinit(&r->proposals);
        block_builder_deinit(&r->spare_proposals);
    } else if (r->proposals.n > 0 && with_proposals) {
        take_proposals(r, ret);
    }
    r->has_waiting = r->proposals.n > 0 || r->n_wishes > 0;
    pthread_mutex_unlock(&r->lock);
}

uint64_t replica_pending_range(struct replica *r, uint64_t *key, uint64_t end)
{
    uint64_t at = *key, range_end;

    pthread_mutex_lock(&r->lock);
    while (at < end && !request_ring_is_pending(&r->ring, at))
        at++;
    for (range_end = at; range_end < end && request_ring_is_pending(&r->ring, range_end);)
        range_end++;
    pthread_mutex_unlock(&r->lock);
    *key = at;
    return at < end ? range_end : 0;
}

/* Requests that were taken under the lock, to be ended outside of it. */
#define ENDING_MAX 64u
struct ending {
    struct request requests[ENDING_MAX];
    size_t n;
};

static void end_all(struct ending *e, int code, int drop_reason)
{
    for (size_t i = 0; i < e->n; i++)
        request_end(&e->requests[i], code, drop_reason);
    e->n = 0;
}

void replica_end_proposals(struct replica *r, uint64_t first_key, uint64_t n, int code, int drop_reason)
{
    uint64_t key = first_key, end = first_key + n;
    struct ending e = {0};

    while (key < end) {
        pthread_mutex_lock(&r->lock);
        if (key < r->ring.base)
            key = r->ring.base;
        if (end > r->ring.next) /* keys from outside need not be ours */
            end = r->ring.next;
        for (; key < end && e.n < ENDING_MAX; key++)
            if (request_ring_take(&r->ring, key, &e.requests[e.n]))
                e.n++;
        pthread_mutex_unlock(&r->lock);
        end_all(&e, code, drop_reason);
    }
}

void replica_end_reads(struct replica *r, struct read_batch *b, uint64_t expired_at_ns, int code, int drop_reason)
{
    struct request request;
    uint32_t n = 0;

    for (size_t at = 0; read_batch_take(b, &at, expired_at_ns, &request); n++)
        request_end(&request, code, drop_reason);
    if (n == 0)
        return;
    pthread_mutex_lock(&r->lock);
    r->n_reads -= n;
    pthread_mutex_unlock(&r->lock);
}

/* With r->lock held: takes what has expired, from *key on. Proposals that the core never saw are surely not applied. False: no
 * more; true: the arrays are full. */
static bool take_expired(struct replica *r, uint64_t now_ns, uint64_t *key, struct ending *timed_out, struct ending *dropped)
{
    uint64_t first_waiting = r->ring.next - r->proposals.n;
    struct request request;

    while (timed_out->n < ENDING_MAX && dropped->n < ENDING_MAX) {
        struct ending *e = timed_out;

        if (!request_ring_take_expired(&r->ring, key, now_ns, &request))
            return false;
        if (*key > first_waiting) { /* *key is behind the one that was taken */
            e = dropped;
            r->has_expired = true;
        }
        e->requests[e->n++] = request;
    }
    return true;
}

/* With r->lock held: frees the records of expired proposals at the front of the inbox once they are half of it, so that a shard
 * without leader does not fill its inbox with requests that nobody waits for. */
static void trim_inbox(struct replica *r)
{
    struct block_builder *b = &r->proposals, kept = {0};
    uint32_t n_expired = 0;
    int rc = NH_OK;

    while (n_expired < b->n && !request_ring_is_pending(&r->ring, r->ring.next - b->n + n_expired))
        n_expired++;
    if (n_expired < b->n - n_expired || n_expired == 0)
        return;
    if (n_expired < b->n)
        rc = block_builder_add_encoded(&kept, b->data + b->offsets[n_expired], b->size_bytes - b->offsets[n_expired], NULL);
    assert(rc == NH_OK); /* they are our own records */
    (void)rc;
    block_builder_deinit(b);
    *b = kept;
}

void replica_expire(struct replica *r, uint64_t now_ns)
{
    struct ending timed_out = {0}, dropped = {0};
    uint64_t key = 0;
    bool more = true;

    while (more) {
        pthread_mutex_lock(&r->lock);
        more = take_expired(r, now_ns, &key, &timed_out, &dropped);
        if (!more)
            trim_inbox(r);
        pthread_mutex_unlock(&r->lock);
        end_all(&timed_out, NH_REQUEST_TIMEOUT, NH_DROP_NONE);
        end_all(&dropped, NH_REQUEST_DROPPED, NH_DROP_NO_LEADER);
    }
    pthread_mutex_lock(&r->lock);
    r->earliest_ns = request_ring_earliest(&r->ring);
    pthread_mutex_unlock(&r->lock);
}

uint64_t replica_earliest(struct replica *r)
{
    uint64_t earliest;

    pthread_mutex_lock(&r->lock);
    earliest = r->earliest_ns;
    pthread_mutex_unlock(&r->lock);
    return earliest;
}

void replica_terminate(struct replica *r, int code)
{
    struct queue wishes = {0};
    struct read_batch *reads;
    uint64_t first, n;

    pthread_mutex_lock(&r->lock);
    r->refusal = code;
    queue_splice(&wishes, &r->wishes);
    r->n_wishes = 0;
    reads = r->reads;
    r->reads = NULL;
    first = r->ring.base;
    n = r->ring.next - first;
    block_builder_deinit(&r->proposals);
    r->has_expired = r->has_special = false;
    pthread_mutex_unlock(&r->lock);
    controls_end(&wishes, NH_REQUEST_TERMINATED);
    replica_end_proposals(r, first, n, NH_REQUEST_TERMINATED, NH_DROP_NONE);
    if (reads)
        replica_end_reads(r, reads, UINT64_MAX, NH_REQUEST_TERMINATED, NH_DROP_NONE);
    replica_free_reads(r, reads);
}

void replica_post_applied(struct replica *r, uint64_t applied, struct queue *changes, const char *failure)
{
    bool must;

    pthread_mutex_lock(&r->lock);
    must = r->awaits_applied || failure || !queue_empty(changes);
    queue_splice(&r->changes, changes);
    if (failure && !r->failure)
        r->failure = xstrdup(failure);
    must = must && must_notify(r);
    r->status.applied_index = applied;
    __atomic_store_n(&r->applied, applied, __ATOMIC_RELEASE); /* behind the notification of its changes */
    pthread_mutex_unlock(&r->lock);
    if (must)
        post_notification(r);
}

void replica_post_failure(struct replica *r, const char *failure)
{
    bool must;

    pthread_mutex_lock(&r->lock);
    if (!r->failure)
        r->failure = xstrdup(failure);
    must = must_notify(r);
    pthread_mutex_unlock(&r->lock);
    if (must)
        post_notification(r);
}

void replica_post_note(struct replica *r, const struct snapshot_note *note)
{
    struct snapshot_note *copy = xmemdup(note, sizeof *note);
    bool must;

    pthread_mutex_lock(&r->lock);
    queue_push(&r->notes, &copy->node);
    must = must_notify(r);
    pthread_mutex_unlock(&r->lock);
    if (must)
        post_notification(r);
}

uint64_t replica_snapshot_index(struct replica *r)
{
    uint64_t index;

    pthread_mutex_lock(&r->lock);
    index = r->status.snapshot_index;
    pthread_mutex_unlock(&r->lock);
    return index;
}

void replica_set_snapshot_index(struct replica *r, uint64_t index)
{
    pthread_mutex_lock(&r->lock);
    r->status.snapshot_index = index;
    pthread_mutex_unlock(&r->lock);
}

void replica_snapshot_dir(const struct replica *r, struct snapshot_dir *ret)
{
    const struct engine *e = r->engine;
    int rc = snapshot_dir_name(ret, e->config.files, e->snapshot_root, r->shard_id, r->replica_id, NULL);

    assert(rc == NH_OK); /* its length was checked when it was made */
    (void)rc;
}
