/* transport/loopback/loopback.h - an ITransport inside one process: hosts find each other by address in a hub.
 *
 * Without a policy each transport has one thread that calls its handlers; a batch goes straight into the receiver's queue.
 *
 * With a policy (the simulator) there is no thread at all. Whatever is sent becomes a *parcel*, which is handed to
 * policy->on_send; from then on the parcel belongs to the policy, which delivers, duplicates, delays or drops it in any
 * order it likes, on the one thread on which everything runs. Handlers are called inside loopback_deliver and loopback_drop,
 * never inside send_batch: so on_send must not call these two.
 *
 * Batches go through the real codec, encoded by the sender and decoded at delivery; share_blocks skips that and hands the
 * blocks over by reference, for speed.
 *
 * Limits are those of the config, with the defaults of the TCP transport; bytes count until a parcel is delivered or dropped.
 *
 * Differences from TCP: a batch for a host that is not there is reported at once, without an attempt to connect; a
 * receiver that closes reports everything that was in its queue; a refused chunk is known to its sender.
 */
#ifndef NH_TRANSPORT_LOOPBACK_LOOPBACK_H
#define NH_TRANSPORT_LOOPBACK_LOOPBACK_H

#include "raftio/transport.h"

#define LOOPBACK_SEND_QUEUE_BYTES_DEFAULT (64u * 1024u * 1024u)
#define LOOPBACK_FRAME_BYTES_DEFAULT      (NH_ENTRY_PAYLOAD_MAX + 1024u * 1024u)

struct loopback_hub;
struct loopback_parcel;

struct loopback_policy {
    void *ctx;
    /* Takes over everything that is sent (transferred). NULL: threads deliver. */
    void (*on_send)(void *ctx, struct loopback_parcel *parcel);
    bool share_blocks; /* no codec */
};

/* `policy` is copied; NULL: threads and codec. */
struct loopback_hub *loopback_hub_new(const struct loopback_policy *policy);
/* Every transport on it must be closed, every parcel delivered or dropped. Takes NULL. */
void loopback_hub_free(struct loopback_hub *hub);
/* The hub that nh_transport_loopback() uses from now on; NULL: one of its own, without policy. Not thread-safe; no transport
 * may be open on the former one. */
void loopback_hub_set_default(struct loopback_hub *hub);

/* The table; its `open` is loopback_open with the default hub. */
const struct nh_transport_ops *nh_transport_loopback(void);
/* Makes a transport on this hub. Errors: EINVAL. A second transport of the same address is refused by start (EIO). */
int loopback_open(struct loopback_hub *hub, const struct nh_transport_config *config,
                  const struct nh_transport_handlers *handlers, struct nh_transport **ret, struct nh_error *err);

/* ---- parcels: for a policy ---- */

const char *loopback_parcel_source(const struct loopback_parcel *p);
const char *loopback_parcel_target(const struct loopback_parcel *p);
size_t loopback_parcel_bytes(const struct loopback_parcel *p); /* encoded */
bool loopback_parcel_is_chunk(const struct loopback_parcel *p);
/* Receivers of the messages, in order; borrowed. NULL for a chunk. */
const struct nh_replica_info *loopback_parcel_to(const struct loopback_parcel *p, uint32_t *ret_n);

/* Gives the parcel to whoever has the target's address now. If nobody has, or a host of another deployment, it is dropped
 * and reported. Consumes the parcel. */
void loopback_deliver(struct loopback_parcel *p);
/* A second parcel with the same content; counts towards no limit and is never reported. */
struct loopback_parcel *loopback_duplicate(const struct loopback_parcel *p);
/* Loses it. With `report` the sender hears of every message, unless it was closed meanwhile. A lost chunk ends its snapshot
 * connection. Consumes the parcel. */
void loopback_drop(struct loopback_parcel *p, bool report);

#endif
