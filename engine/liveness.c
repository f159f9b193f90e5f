#include "engine/liveness.h"

#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

void liveness_init(struct liveness *l)
{
    pthread_mutex_init(&l->lock, NULL);
    l->hosts = NULL;
}

void liveness_deinit(struct liveness *l)
{
    while (l->hosts) {
        struct live_host *h = l->hosts;

        l->hosts = h->next;
        free(h);
    }
    pthread_mutex_destroy(&l->lock);
}

static struct live_host *find(struct liveness *l, const char *address)
{
    for (struct live_host *h = l->hosts; h; h = h->next)
        if (strcmp(h->address, address) == 0)
            return h;
    return NULL;
}

struct live_host *liveness_add(struct liveness *l, const char *address, uint64_t now_ns)
{
    struct live_host *h;

    pthread_mutex_lock(&l->lock);
    h = find(l, address);
    if (!h) {
        h = xcalloc(1, sizeof *h);
        strncpy(h->address, address, sizeof h->address - 1);
        h->heard_ns = now_ns;
        h->next = l->hosts;
        l->hosts = h;
    }
    pthread_mutex_unlock(&l->lock);
    return h;
}

void liveness_heard(struct liveness *l, const char *address, uint64_t now_ns)
{
    struct live_host *h;

    pthread_mutex_lock(&l->lock);
    h = find(l, address);
    pthread_mutex_unlock(&l->lock);
    if (!h)
        return;
    __atomic_store_n(&h->heard_ns, now_ns, __ATOMIC_RELAXED);
    if (live_host_is_down(h)) /* rarely written, often read */
        __atomic_store_n(&h->down, false, __ATOMIC_RELAXED);
}

void liveness_failed(struct liveness *l, const char *address)
{
    struct live_host *h;

    pthread_mutex_lock(&l->lock);
    h = find(l, address);
    pthread_mutex_unlock(&l->lock);
    if (h)
        __atomic_store_n(&h->down, true, __ATOMIC_RELAXED);
}

bool liveness_is_down(struct liveness *l, const char *address)
{
    struct live_host *h;

    pthread_mutex_lock(&l->lock);
    h = find(l, address);
    pthread_mutex_unlock(&l->lock);
    return h && live_host_is_down(h);
}
