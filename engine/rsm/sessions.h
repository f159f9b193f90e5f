/* engine/rsm/sessions.h - registered clients and what they have had answered: exactly-once proposals.
 *
 * A session is opened and closed by entries of the log, and its table is changed by applied entries alone, so that it is the
 * same on all replicas; it is part of every snapshot. A proposal of a session carries (client_id, series_id, responded_to)
 * (raftio/entry.h): series ids count a client's proposals from 1; everything up to responded_to has been answered and its results
 * may be forgotten. An entry that was applied before is not applied again: its result is taken from here (thesis 6.3).
 *
 *     series_id   SESSION_OPEN    opens it; the payload is a u32, little-endian, 1 .. SESSIONS_MAX: how many sessions the
 *                                 shard may hold from now on
 *                 SESSION_CLOSE   closes it
 *                 1 ..            a proposal; responded_to is below it
 *
 * The table is an LRU: an opening evicts those whose last entry is the oldest until no more are held than it says. A session
 * keeps at most SESSION_RESULTS_MAX results; the one of the lowest series id gives way. A client that has one proposal under way
 * at a time never notices. One that has left a gap that far behind cannot be told any more whether an entry of the gap was
 * applied: it is not, and the answer is UNKNOWN.
 *
 * The table after a sequence of entries does not depend on how many of them were checked before they were kept. Which entries are
 * applied does not depend on what is known of results, only what is answered: so replicas of builds with other limits may be
 * mixed, and a table may come from their images.
 *
 * Encoding, version 1 (docs/FORMATS.md): sessions from the least to the most recently used, results by series id: equal tables
 * have equal bytes.
 *
 * Threads: the apply worker of the replica. Errors: ECORRUPT (decode).
 */
#ifndef NH_ENGINE_RSM_SESSIONS_H
#define NH_ENGINE_RSM_SESSIONS_H

#include "engine/rsm/image.h"
#include "raftio/entry.h"
#include "raftio/machine.h"

#define SESSION_OPEN  (UINT64_MAX - 1)
#define SESSION_CLOSE UINT64_MAX
/* A larger result is not kept: a repetition is answered as ACKED. Nor is one that has more than its share of
 * SESSIONS_ROOM_BYTES, when it comes, among the results that are in the table then. So up to 1,024 results may have 64 KiB each.
 */
#define SESSION_RESULT_BYTES_MAX (64u * 1024u)
#define SESSIONS_ROOM_BYTES      (64u * 1024u * 1024u)
#define SESSION_RESULTS_MAX      256u
#define SESSIONS_DEFAULT         4096u
#define SESSIONS_MAX             65536u
/* No table keeps more bytes of results: in the order in which they came the i-th has at most ROOM / i, and n of them
 * ROOM * (1 + ln(n / 1024)), 10.8 ROOM for the most results that can be. */
#define SESSIONS_KEPT_BYTES_MAX (11ull * SESSIONS_ROOM_BYTES)

struct sessions;

struct sessions *sessions_new(void);
void sessions_free(struct sessions *s); /* takes NULL */

enum session_verdict {
    SESSION_OPENED,   /* *ret is {client_id}. Opening it again while it is open: the same, its results stay. */
    SESSION_CLOSED,   /* *ret is {client_id} */
    SESSION_APPLY,    /* new: apply it, then sessions_keep */
    SESSION_IN_BATCH, /* it is being applied: nothing was kept yet. Keep first, then ask again. */
    SESSION_REPEATED, /* applied before: *ret is its result, valid until the next call */
    SESSION_ACKED,    /* applied before, and its result is not kept any more */
    SESSION_UNKNOWN,  /* no such session, or a gap that it has forgotten (above): surely not applied now, perhaps before */
    SESSION_INVALID,  /* client_id 0, series_id 0 or not above responded_to, or an opening without its number; changes nothing */
};

/* What is to be done with an entry that has session words. Forgets results up to its responded_to and makes the session the most
 * recently used. *ret is set by OPENED, CLOSED and REPEATED. */
enum session_verdict sessions_check(struct sessions *s, const struct nh_entry_view *e, struct nh_result *ret);
/* The result of an entry for which sessions_check said APPLY; copied; in the order of the entries. NULL: it was applied, but its
 * result is not known (an on-disk machine that was ahead at start): a repetition is answered as ACKED. Does nothing if the
 * session has been closed or evicted since, or the result has given way. */
void sessions_keep(struct sessions *s, uint64_t client_id, uint64_t series_id, const struct nh_result *result);

size_t sessions_count(const struct sessions *s);
/* A new allocation; the caller frees it. No entry may be between APPLY and keep. */
uint8_t *sessions_encode(const struct sessions *s, size_t *ret_size_bytes);
/* *ret: a new table, from all bytes of the source. It keeps at most kept_bytes_max of results (SESSIONS_KEPT_BYTES_MAX: an image
 * of a build without that limit may have more), so memory is bounded whatever the source has. Errors: also those of the source.
 */
int sessions_decode(const struct image_source *source, uint64_t kept_bytes_max, struct sessions **ret, struct nh_error *err);

#endif
