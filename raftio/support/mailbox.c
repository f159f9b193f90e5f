#include "raftio/support/mailbox.h"

#include <assert.h>

static void lock(struct mailbox *m)
{
    int r = pthread_mutex_lock(&m->lock);

    assert(r == 0);
    (void)r;
}

static void unlock(struct mailbox *m)
{
    int r = pthread_mutex_unlock(&m->lock);

    assert(r == 0);
    (void)r;
}

void mailbox_init(struct mailbox *m)
{
    int r = pthread_mutex_init(&m->lock, NULL);

    assert(r == 0);
    (void)r;
    m->in = (struct queue){0};
    m->closed = false;
}

void mailbox_deinit(struct mailbox *m)
{
    pthread_mutex_destroy(&m->lock);
}

enum mailbox_result mailbox_post_all(struct mailbox *m, struct queue *nodes)
{
    enum mailbox_result result = MAILBOX_CLOSED;

    lock(m);
    if (!m->closed) {
        result = queue_empty(&m->in) && !queue_empty(nodes) ? MAILBOX_WAKE : MAILBOX_QUEUED;
        queue_splice(&m->in, nodes);
    }
    unlock(m);
    return result;
}

enum mailbox_result mailbox_post(struct mailbox *m, struct queue_node *node)
{
    struct queue one = {0};

    queue_push(&one, node);
    return mailbox_post_all(m, &one);
}

void mailbox_take(struct mailbox *m, struct queue *ret)
{
    lock(m);
    queue_splice(ret, &m->in);
    unlock(m);
}

bool mailbox_empty(struct mailbox *m)
{
    bool empty;

    lock(m);
    empty = queue_empty(&m->in);
    unlock(m);
    return empty;
}

void mailbox_close(struct mailbox *m)
{
    lock(m);
    m->closed = true;
    unlock(m);
}
