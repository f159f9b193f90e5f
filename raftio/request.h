/* raftio/request.h - how a request ends.
 *
 * Every accepted request (proposal, read) ends exactly once, by one call of its completion function. The outcome says
 * whether the effect is known:
 *
 *     COMPLETED   applied (proposal) or answered (read)                                known
 *     REJECTED    reached the machine's surroundings and was refused there             known: not applied (but see `status`)
 *     DROPPED     was never and will never be in any log: safe to retry                known: not applied
 *     TIMEOUT     the deadline passed                                                  unknown: may still be applied
 *     TERMINATED  the replica was stopped or quarantined, or the host closed           unknown (proposals)
 */
#ifndef NH_RAFTIO_REQUEST_H
#define NH_RAFTIO_REQUEST_H

#include "raftio/status.h"

#include <stddef.h>

NH_BEGIN_DECLS

enum nh_request_code {
    NH_REQUEST_COMPLETED = 1,
    NH_REQUEST_REJECTED = 2,
    NH_REQUEST_DROPPED = 3,
    NH_REQUEST_TIMEOUT = 4,
    NH_REQUEST_TERMINATED = 5,
};

/* Why a request was dropped; for error texts. */
enum nh_drop_reason {
    NH_DROP_NONE = 0,
    NH_DROP_NO_LEADER = 1,      /* no leader known until the deadline */
    NH_DROP_REFUSED = 2,        /* the leader refused it: leadership moved */
    NH_DROP_OVERLOADED = 3,     /* what the leader has not committed, or not applied, is at its limit */
    NH_DROP_CONFIG_PENDING = 4, /* a configuration change: the one before it is not applied yet */
    NH_DROP_TRANSFERRING = 5,   /* the leadership is being given away */
    NH_DROP_VOTERS_AWAY =
        6, /* a configuration change of a shard with witnesses: a majority of those who have its data must be there */
    NH_DROP_WITNESS = 7, /* our replica is a witness, which has no data and asks nobody: ask a host of another member */
};
#define NH_DROP_REASON_MAX 7

struct nh_outcome {
    int code;        /* enum nh_request_code */
    int drop_reason; /* enum nh_drop_reason */
    /* COMPLETED read whose lookup failed: the machine's negative code; `data` is its text.
     * REJECTED proposal of a session:
     *
     *     NH_ESESSION  no such session (never opened, closed, evicted), or it has forgotten this number:
     *                  not applied now; whether it was before, nobody knows
     *     NH_EACKED    applied before, and its result is not kept any more: the client had acknowledged it
     *     NH_EINVAL    the numbers make no sense (responded_to not below series_id): not applied
     *
     * Else 0. */
    int status;
    uint64_t index;   /* log index of the entry, or read index; 0 if none */
    uint64_t value;   /* the machine's number */
    const void *data; /* the machine's bytes; borrowed for the call */
    size_t size_bytes;
};

/* Runs on an engine thread, exactly once per accepted request, never inside the submitting call, never after the host's
 * close has returned. Must not block; blocking functions of the host answer NH_EDEADLOCK here. */
typedef void (*nh_completion_fn)(void *ctx, const struct nh_outcome *outcome);

/* One of a batch. */
struct nh_proposal {
    const void *cmd; /* copied */
    size_t size_bytes;
    nh_completion_fn fn;
    void *ctx;
};

NH_END_DECLS
#endif
