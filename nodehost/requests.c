/* Requests: asynchronous, and the same waited for. */
#include "nodehost/host_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

/* Not before the timeout has passed. */
int host_deadline(struct nh_host *host, uint32_t timeout_ms, uint64_t *ret_ns, struct nh_error *err)
{
    if (timeout_ms == 0 || timeout_ms > NH_TIMEOUT_MS_MAX)
        return nh_error_set(err, NH_EINVAL, "a timeout of %" PRIu32 " ms, want 1 .. %u", timeout_ms, NH_TIMEOUT_MS_MAX);
    *ret_ns = host->runtime->ops->coarse_ns(host->runtime) + RUNTIME_COARSE_NS + (uint64_t)timeout_ms * 1000000u;
    return NH_OK;
}

int host_check_request(nh_completion_fn fn, const void *bytes, size_t size_bytes, struct nh_error *err)
{
    if (!fn)
        return nh_error_set(err, NH_EINVAL, "the completion function is NULL: nobody would learn how the request ended");
    if (!bytes && size_bytes > 0)
        return nh_error_set(err, NH_EINVAL, "%zu bytes at NULL", size_bytes);
    return NH_OK;
}

static int check_proposals(const struct nh_proposal *proposals, size_t n, struct nh_error *err)
{
    int r = NH_OK;

    if (n > UINT32_MAX)
        return nh_error_set(err, NH_ETOOBIG, "%zu proposals in one batch", n);
    if (!proposals && n > 0)
        return nh_error_set(err, NH_EINVAL, "%zu proposals at NULL", n);
    for (size_t i = 0; i < n && r == NH_OK; i++)
        r = host_check_request(proposals[i].fn, proposals[i].cmd, proposals[i].size_bytes, err);
    return r;
}

int nh_propose_batch(struct nh_host *host, uint64_t shard_id, const struct nh_proposal *proposals, size_t n, uint32_t timeout_ms,
                     struct nh_error *err)
{
    uint64_t deadline_ns = 0;
    int r = host_deadline(host, timeout_ms, &deadline_ns, err);

    if (r == NH_OK)
        r = check_proposals(proposals, n, err);
    return r < 0 ? r : engine_propose(host->engine, shard_id, proposals, n, deadline_ns, err);
}

int nh_propose(struct nh_host *host, uint64_t shard_id, const void *cmd, size_t size_bytes, uint32_t timeout_ms,
               nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    struct nh_proposal p = {cmd, size_bytes, fn, ctx};

    return nh_propose_batch(host, shard_id, &p, 1, timeout_ms, err);
}

static int read_async(struct nh_host *host, uint64_t shard_id, const void *query, size_t size_bytes, uint32_t timeout_ms,
                      nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    uint64_t deadline_ns = 0;
    int r = host_deadline(host, timeout_ms, &deadline_ns, err);

    if (r == NH_OK)
        r = host_check_request(fn, query, size_bytes, err);
    return r < 0 ? r : engine_read(host->engine, shard_id, query, size_bytes, deadline_ns, fn, ctx, err);
}

int nh_query(struct nh_host *host, uint64_t shard_id, const void *query, size_t size_bytes, uint32_t timeout_ms,
             nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    return read_async(host, shard_id, query || size_bytes > 0 ? query : "", size_bytes, timeout_ms, fn, ctx, err);
}

int nh_read_index(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, nh_completion_fn fn, void *ctx,
                  struct nh_error *err)
{
    return read_async(host, shard_id, NULL, 0, timeout_ms, fn, ctx, err);
}

int nh_lookup(struct nh_host *host, uint64_t shard_id, const void *query, size_t size_bytes, struct nh_writer *out,
              uint64_t *ret_value, struct nh_error *err)
{
    if (!out || !ret_value || (!query && size_bytes > 0))
        return nh_error_set(err, NH_EINVAL, "a lookup without query, or with no place for its answer");
    return engine_lookup(host->engine, shard_id, query ? query : "", size_bytes, out, ret_value, err);
}

/* ---- waiting ---- */

void nh_reply_deinit(struct nh_reply *r)
{
    free((void *)(uintptr_t)r->outcome.data);
    *r = (struct nh_reply){0};
}

void waiter_end(void *ctx, const struct nh_outcome *outcome)
{
    struct waiter *w = ctx;

    w->reply->outcome = *outcome;
    w->reply->outcome.data = outcome->size_bytes ? xmemdup(outcome->data, outcome->size_bytes) : NULL;
    pthread_mutex_lock(&w->lock);
    w->has_ended = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
}

int waiter_begin(struct waiter *w, struct nh_reply *reply, struct nh_error *err)
{
    int r = host_check_may_block(err);

    if (r == NH_OK && !reply)
        r = nh_error_set(err, NH_EINVAL, "the reply is NULL");
    if (r < 0)
        return r;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->ended, NULL);
    w->has_ended = false;
    w->reply = reply;
    return NH_OK;
}

/* Every accepted request ends, so this returns. */
int waiter_finish(struct waiter *w, int submitted)
{
    pthread_mutex_lock(&w->lock);
    while (submitted == NH_OK && !w->has_ended)
        pthread_cond_wait(&w->ended, &w->lock);
    pthread_mutex_unlock(&w->lock);
    pthread_cond_destroy(&w->ended);
    pthread_mutex_destroy(&w->lock);
    return submitted;
}

int nh_propose_sync(struct nh_host *host, uint64_t shard_id, const void *cmd, size_t size_bytes, uint32_t timeout_ms,
                    struct nh_reply *ret, struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_propose(host, shard_id, cmd, size_bytes, timeout_ms, waiter_end, &w, err));
}

int nh_query_sync(struct nh_host *host, uint64_t shard_id, const void *query, size_t size_bytes, uint32_t timeout_ms,
                  struct nh_reply *ret, struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_query(host, shard_id, query, size_bytes, timeout_ms, waiter_end, &w, err));
}

int nh_read_index_sync(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, struct nh_reply *ret, struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_read_index(host, shard_id, timeout_ms, waiter_end, &w, err));
}
