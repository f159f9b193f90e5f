/* engine/peers.h - where the messages of a replica go, and what is known about the other ends.
 *
 * A replica remembers for each member (and each stranger that wrote to it: one that joins does not know its members yet) the peer
 * of its worker's outbox. Addresses come from the registry and are asked for again when the membership changes.
 *
 * Threads: the replica's step worker. Errors: none; a message to nowhere is dropped, as on a network.
 */
#ifndef NH_ENGINE_PEERS_H
#define NH_ENGINE_PEERS_H

#include "engine/inbound.h"
#include "engine/step_worker.h"

/* Sends a message of this replica to its receiver, by way of the outbox; moved: the source is not to be released. */
void peers_send(struct step_worker *w, struct replica *r, struct nh_message *message);
/* Remembers where a message came from, if its sender is not known otherwise. */
void peers_learn(struct step_worker *w, struct replica *r, const struct inbound_message *m);
/* A message to this member was lost. */
void peers_unreachable(struct step_worker *w, struct replica *r, uint64_t peer_id);
/* The transport did not take this message of the replica. A forwarded proposal is surely not applied then: dropped. */
void peers_lost(struct step_worker *w, struct replica *r, const struct nh_message *message);
/* A leader is known, and a request to it would not be lost at once. */
bool peers_leader_is_reachable(struct step_worker *w, struct replica *r);
/* The leader's host is back: what waited goes on. */
void peers_back(struct step_worker *w, struct replica *r, const struct outbox_peer *peer);
/* The leader's host is silent: wakes the replica if it is quiet and its leader lives at `peer`. */
void peers_silent(struct step_worker *w, struct replica *r, const struct outbox_peer *peer);

/* Tells the registry who the members are from now on, and where. */
void peers_register(struct step_worker *w, struct replica *r, const struct nh_membership *m);
/* Where a member lives; NULL: nobody knows. Valid while the worker runs. */
const char *peers_address(struct step_worker *w, struct replica *r, uint64_t replica_id);

#endif
