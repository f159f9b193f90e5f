/* engine/controls.h - wishes to one replica that are neither proposals nor reads: transfer, campaign, forget, look at peers, make
 * a snapshot (which goes on to the apply worker).
 *
 * They wait in the replica's inbox, the step worker gives them to the core in order. A transfer ends when the core says how; the
 * others at once. Every control ends exactly once, TERMINATED if the replica stops before.
 *
 * Outcomes: COMPLETED; for a look at the peers `data` is an array of struct nh_peer_info (empty unless this replica leads).
 * REJECTED: a transfer that was refused, `data` says why. TIMEOUT: a transfer that did not come about within two election
 * timeouts; it may still.
 *
 * They begin in engine_transfer and the three beside it (engine/engine.h), on any thread; what is here runs on the step worker.
 */
#ifndef NH_ENGINE_CONTROLS_H
#define NH_ENGINE_CONTROLS_H

#include "engine/replica.h"

/* Controls that may wait for one replica. */
#define CONTROLS_MAX 64u

enum control_type { CONTROL_TRANSFER, CONTROL_CAMPAIGN, CONTROL_FORGET_LEADER, CONTROL_LOOK_AT_PEERS, CONTROL_SNAPSHOT };

struct control {
    struct queue_node node;
    enum control_type type;
    uint64_t target;
    uint64_t key;      /* of a transfer in the core */
    char *export_dir;  /* of a snapshot; owned; NULL: none */
    uint64_t overhead; /* of a snapshot */
    struct request request;
};

/* Gives what waits to the core. */
void controls_step(struct step_worker *w, struct replica *r);
/* The core says how transfers ended. */
void controls_obey(struct replica *r, const struct raft_update *out);
/* Ends all that the step worker has, waiting or begun. */
void controls_terminate(struct replica *r);
void controls_end(struct queue *controls, int code); /* thread: a worker */

#endif
