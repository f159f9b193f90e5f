/* raftio/support/mailbox.h - hand-over between threads in batches.
 *
 * Any thread posts nodes or whole queues; one owner takes everything at once. The lock is held for a few instructions.
 * `mailbox_post` tells whether the box was empty: only then must the owner be woken, once per batch and not per item.
 */
#ifndef NH_RAFTIO_SUPPORT_MAILBOX_H
#define NH_RAFTIO_SUPPORT_MAILBOX_H

#include <pthread.h>

#include "raftio/support/list.h"

struct mailbox {
    pthread_mutex_t lock;
    struct queue in; /* guarded by lock */
    bool closed;     /* guarded by lock */
};

enum mailbox_result {
    MAILBOX_QUEUED = 0,  /* the owner is awake or has been told */
    MAILBOX_WAKE = 1,    /* was empty: wake the owner */
    MAILBOX_CLOSED = -1, /* not queued, the nodes still belong to the caller */
};

void mailbox_init(struct mailbox *m);
void mailbox_deinit(struct mailbox *m);
enum mailbox_result mailbox_post(struct mailbox *m, struct queue_node *node); /* thread: any */
enum mailbox_result mailbox_post_all(struct mailbox *m, struct queue *nodes); /* thread: any; empties `nodes` unless closed */
void mailbox_take(struct mailbox *m, struct queue *ret);                      /* thread: owner; appends to *ret */
bool mailbox_empty(struct mailbox *m);                                        /* thread: any */
void mailbox_close(struct mailbox *m);                                        /* later posts are refused */

#endif
