/* Sessions: opening, closing, and proposals with a number. */
#include "nodehost/host_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>

#include "engine/rsm/sessions.h"

static_assert(NH_SERIES_ID_MAX == SESSION_OPEN - 1 && NH_SESSION_WINDOW == SESSION_RESULTS_MAX,
              "the same numbers inside and outside");

uint64_t nh_session_new_id(struct nh_host *host)
{
    uint64_t id = 0;

    (void)host;
    while (id == 0)
        if (getrandom(&id, sizeof id, 0) != sizeof id) /* short or interrupted: again; it cannot fail for good on Linux */
            id = 0;
    return id;
}

static int check(struct nh_host *host, uint64_t client_id, uint32_t timeout_ms, uint64_t *ret_deadline_ns, struct nh_error *err)
{
    int r = host_deadline(host, timeout_ms, ret_deadline_ns, err);

    if (r == NH_OK && client_id == 0)
        r = nh_error_set(err, NH_EINVAL, "client_id is 0: take one from nh_session_new_id");
    return r;
}

static int propose(struct nh_host *host, uint64_t shard_id, struct engine_session session, const struct nh_proposal *p,
                   uint32_t timeout_ms, struct nh_error *err)
{
    const struct engine_proposal_kind kind = {.type = NH_ENTRY_APPLICATION, .session = session};
    uint64_t deadline_ns = 0;
    int r = check(host, session.client_id, timeout_ms, &deadline_ns, err);

    if (r == NH_OK)
        r = host_check_request(p->fn, p->cmd, p->size_bytes, err);
    return r < 0 ? r : engine_propose_as(host->engine, shard_id, kind, p, deadline_ns, err);
}

int nh_open_session(struct nh_host *host, uint64_t shard_id, uint64_t client_id, uint32_t timeout_ms, nh_completion_fn fn,
                    void *ctx, struct nh_error *err)
{
    uint64_t deadline_ns = 0;
    int r = check(host, client_id, timeout_ms, &deadline_ns, err);

    if (r == NH_OK)
        r = host_check_request(fn, NULL, 0, err);
    return r < 0 ? r : engine_open_session(host->engine, shard_id, client_id, deadline_ns, fn, ctx, err);
}

int nh_close_session(struct nh_host *host, uint64_t shard_id, uint64_t client_id, uint32_t timeout_ms, nh_completion_fn fn,
                     void *ctx, struct nh_error *err)
{
    const struct engine_session closing = {client_id, SESSION_CLOSE, 0};
    const struct nh_proposal p = {.cmd = "", .fn = fn, .ctx = ctx};

    return propose(host, shard_id, closing, &p, timeout_ms, err);
}

static int check_step(const struct nh_session_step *s, struct nh_error *err)
{
    if (!s)
        return nh_error_set(err, NH_EINVAL, "the step is NULL");
    if (s->series_id == 0 || s->series_id > NH_SERIES_ID_MAX)
        return nh_error_set(err, NH_EINVAL, "series_id %" PRIu64 ": numbers begin with 1", s->series_id);
    if (s->responded_to >= s->series_id)
        return nh_error_set(err, NH_EINVAL, "responded_to %" PRIu64 " is not below series_id %" PRIu64, s->responded_to,
                            s->series_id);
    return NH_OK;
}

int nh_propose_in_session(struct nh_host *host, uint64_t shard_id, const struct nh_session_step *step, const void *cmd,
                          size_t size_bytes, uint32_t timeout_ms, nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    const struct nh_proposal p = {cmd, size_bytes, fn, ctx};
    struct engine_session session;
    int r = check_step(step, err);

    if (r < 0)
        return r;
    session = (struct engine_session){step->client_id, step->series_id, step->responded_to};
    return propose(host, shard_id, session, &p, timeout_ms, err);
}

/* ---- waiting ---- */

int nh_open_session_sync(struct nh_host *host, uint64_t shard_id, uint64_t client_id, uint32_t timeout_ms, struct nh_reply *ret,
                         struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_open_session(host, shard_id, client_id, timeout_ms, waiter_end, &w, err));
}

int nh_close_session_sync(struct nh_host *host, uint64_t shard_id, uint64_t client_id, uint32_t timeout_ms, struct nh_reply *ret,
                          struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_close_session(host, shard_id, client_id, timeout_ms, waiter_end, &w, err));
}

int nh_propose_in_session_sync(struct nh_host *host, uint64_t shard_id, const struct nh_session_step *step, const void *cmd,
                               size_t size_bytes, uint32_t timeout_ms, struct nh_reply *ret, struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    if (r < 0)
        return r;
    return waiter_finish(&w, nh_propose_in_session(host, shard_id, step, cmd, size_bytes, timeout_ms, waiter_end, &w, err));
}
