/* nodehost/events.h - from the workers to the listeners: a bounded queue and one thread.
 *
 * A worker that has something to tell copies it into the queue and goes on; the event thread calls the listeners, one event after
 * another. When the queue is full the newest events are dropped and counted. Without listeners nothing is queued.
 *
 * A send of a snapshot that was told to have started is told to have ended, once: its end has a place in the queue, full or not,
 * and the end of one whose start was dropped is dropped, too. As many sends are under way as there may be streams.
 *
 * Threads: events_post_* any; the rest the owner of the host.
 */
#ifndef NH_NODEHOST_EVENTS_H
#define NH_NODEHOST_EVENTS_H

#include "nodehost/nodehost.h"

#define EVENTS_QUEUE_DEFAULT 65536u

enum event_type {
    EVENT_LEADER_UPDATED,
    EVENT_SHUTTING_DOWN,
    EVENT_REPLICA_READY,
    EVENT_REPLICA_UNLOADED,
    EVENT_REPLICA_QUARANTINED,
    EVENT_MEMBERSHIP_CHANGED,
    EVENT_CONNECTED,
    EVENT_CONNECTION_FAILED,
    EVENT_FENCED,
    EVENT_REPLICA_REMOVED,
    EVENT_REPLICA_OVERLOADED,
    EVENT_REPLICA_RELIEVED,
    EVENT_REPLICA_DELETED,
    EVENT_SEND_STARTED,
    EVENT_SEND_COMPLETED,
    EVENT_SEND_ABORTED,
    EVENT_SNAPSHOT_RECEIVED,
    EVENT_SNAPSHOT_RECOVERED,
    EVENT_SNAPSHOT_CREATED,
    EVENT_SNAPSHOT_COMPACTED,
    EVENT_LOG_COMPACTED,
    EVENT_LOGDB_COMPACTED,
};

struct events;

/* Listeners are copied (as many bytes as they say); either may be NULL. */
struct events *events_new(const struct nh_raft_event_listener *raft, const struct nh_system_event_listener *system,
                          uint32_t queue_max);
void events_start(struct events *e);
/* Delivers what is queued, then ends the thread. */
void events_stop(struct events *e);
void events_free(struct events *e); /* takes NULL */

void events_post_leader(struct events *e, const struct nh_leader_info *info);
/* `text` (copied, may be NULL) is a reason or an address. */
void events_post(struct events *e, enum event_type type, struct nh_replica_info info, const char *text);
void events_post_connection(struct events *e, enum event_type type, const char *address, bool snapshot);
void events_post_snapshot(struct events *e, enum event_type type, const struct nh_snapshot_info *info);
uint64_t events_dropped(struct events *e);
/* True on an event thread: blocking calls are refused there. */
bool events_on_thread(void);

#endif
