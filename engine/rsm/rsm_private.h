/* engine/rsm/rsm_private.h - the struct that rsm.c (applying, lookups) and rsm_snapshot.c (capture, save, recover) share. */
#ifndef NH_ENGINE_RSM_RSM_PRIVATE_H
#define NH_ENGINE_RSM_RSM_PRIVATE_H

#include <pthread.h>

#include "engine/rsm/rsm.h"
#include "engine/rsm/sessions.h"

enum rsm_state {
    RSM_NEW = 0, /* -- rsm_open --> OPEN */
    RSM_OPEN,    /* -- rsm_apply, rsm_recover fails --> FAILED; -- rsm_close --> CLOSED */
    RSM_FAILED,  /* -- rsm_close --> CLOSED */
    RSM_CLOSED,
};

/* Which session an entry of the batch belongs to. */
struct rsm_series {
    uint64_t index;
    uint64_t client_id, series_id;
};

/* Entries of consecutive indexes; of most of them nothing else is to be known. */
struct rsm_batch {
    size_t n, n_results, n_series;
    uint64_t first, term; /* index of the first entry, term of the last */
    struct nh_entry entries[RSM_UPDATE_ENTRIES_MAX];
    struct rsm_result results[RSM_UPDATE_ENTRIES_MAX]; /* of those that somebody here waits for; without `value` */
    struct rsm_series series[RSM_UPDATE_ENTRIES_MAX];  /* of those that have a session */
};

/* With thousands of replicas each is out of the processor's cache: what applying touches comes first, in three lines of it. */
struct rsm {
    struct rsm_config config;
    struct nh_machine_ops *padded_ops; /* what config.machine points to if the machine knows fewer members; NULL: the machine's */
    char *machine_dir;
    pthread_rwlock_t lock;      /* regular: update exclusive, lookups shared */
    bool recovering;            /* guarded by lock: nobody else enters the machine */
    enum rsm_state state;       /* guarded by lock */
    struct nh_machine *machine; /* guarded by lock; NULL unless opened */
    uint64_t applied;           /* atomic; written by the apply worker, or by a recovery */

    /* apply worker, or whom the machine is lent to */
    uint64_t applied_term;
    uint64_t machine_applied; /* on-disk: the last entry that is in it */
    struct sessions *sessions;
    struct rsm_batch *batch; /* while rsm_apply runs */
    bool entered;            /* the lock is held for the next update */

    bool is_witness;                 /* guarded by lock; by its membership, or while it is no member by what it was sent */
    pthread_mutex_t membership_lock; /* a leaf: a lookup may hold `lock` for long, and who asks for members waits not */
    uint8_t *membership;             /* guarded by it; encoded: it is large, and seldom looked at. NULL: nobody, 0 bytes */
    size_t membership_bytes;
};

static inline bool rsm_is_regular(const struct rsm *s)
{
    return s->config.machine->kind == NH_MACHINE_REGULAR;
}
static inline bool rsm_is_on_disk(const struct rsm *s)
{
    return s->config.machine->kind == NH_MACHINE_ON_DISK;
}

/* This thread is inside a machine's function: another rsm lock taken there would wait for itself, or crosswise. */
void rsm_enter_machine(void);
void rsm_leave_machine(void);
void rsm_set_applied(struct rsm *s, uint64_t index, uint64_t term);
void rsm_fail(struct rsm *s);
void rsm_copy_membership(struct rsm *s, struct nh_membership *ret); /* a copy; any thread */
/* With `lock` held. `witness`: whether it is one if it is no member. */
void rsm_set_membership(struct rsm *s, const struct nh_membership *m, bool witness);

#endif
