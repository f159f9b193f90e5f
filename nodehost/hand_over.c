/* Giving away what is led here: each shard's leader looks at the others, and the voter that is furthest takes over. */
#include "nodehost/host_private.h"

#include <stdlib.h>
#include <time.h>

#include "raftio/support/list.h"
#include "raftio/support/map.h"
#include "raftio/support/memory.h"

/* How often who waits looks whether those who should take over are still there. */
#define LOOK_MS 20u

/* Lives until the caller has left and every request has ended, which may be later. */
struct hand_over {
    struct nh_host *host;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* on the monotonic clock */
    uint32_t n_users;       /* guarded by lock: the caller, and every shard that is being given away */
    struct list shards;     /* guarded by lock: struct led_shard.link */
};

struct led_shard {
    struct list link;
    struct hand_over *all;
    uint64_t shard_id;
    bool quiesced; /* nobody is heard from */
    struct nh_membership members;
    const char *target; /* guarded by all->lock: address of who is to lead; NULL: not known yet */
};

static struct hand_over *hand_over_new(struct nh_host *host)
{
    struct hand_over *h = xcalloc(1, sizeof *h);
    pthread_condattr_t attr;

    h->host = host;
    h->n_users = 1;
    list_init(&h->shards);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->changed, &attr);
    pthread_condattr_destroy(&attr);
    return h;
}

static void leave(struct hand_over *h)
{
    uint32_t n;

    pthread_mutex_lock(&h->lock);
    n = --h->n_users;
    pthread_cond_signal(&h->changed);
    pthread_mutex_unlock(&h->lock);
    if (n > 0)
        return;
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

/* ---- one shard ---- */

static void end_shard(struct led_shard *s)
{
    pthread_mutex_lock(&s->all->lock);
    list_remove(&s->link);
    pthread_mutex_unlock(&s->all->lock);
    leave(s->all);
    nh_membership_deinit(&s->members);
    free(s);
}

/* However it ended: who waits counts what is still led. */
static void on_transferred(void *ctx, const struct nh_outcome *outcome)
{
    (void)outcome;
    end_shard(ctx);
}

/* Where a peer is that can take over; NULL if it cannot. */
static const char *place_of(const struct led_shard *s, const struct nh_peer_info *p)
{
    const struct nh_member *m = nh_membership_find(&s->members, p->replica_id);
    bool can = m && p->kind == NH_MEMBER_VOTER && !p->outgoing && (p->active || s->quiesced);

    return can && !engine_host_is_down(s->all->host->engine, m->address) ? m->address : NULL;
}

/* Of those that are equally far each shard begins to look at another one: they share what is given away. */
static const struct nh_peer_info *choose(struct led_shard *s, const struct nh_peer_info *peers, size_t n)
{
    const uint32_t first = (uint32_t)hash_u64(s->shard_id);
    const struct nh_peer_info *best = NULL;
    const char *place, *target = NULL;

    for (size_t i = 0; i < n; i++) {
        const struct nh_peer_info *p = &peers[(first + i) % n];

        if ((best && p->match_index <= best->match_index) || !(place = place_of(s, p)))
            continue;
        best = p;
        target = place;
    }
    pthread_mutex_lock(&s->all->lock);
    s->target = target;
    pthread_mutex_unlock(&s->all->lock);
    return best;
}

static void on_peers(void *ctx, const struct nh_outcome *outcome)
{
    struct led_shard *s = ctx;
    const struct nh_peer_info *target = NULL;
    int r = NH_ENOTFOUND;

    if (outcome->code == NH_REQUEST_COMPLETED)
        target = choose(s, outcome->data, outcome->size_bytes / sizeof *target);
    if (target)
        r = nh_transfer_leader(s->all->host, s->shard_id, target->replica_id, on_transferred, s, NULL);
    if (r < 0)
        end_shard(s);
}

static void give_away(struct hand_over *h, const struct nh_shard_info *led)
{
    struct led_shard *s = xcalloc(1, sizeof *s);

    s->all = h;
    s->shard_id = led->shard_id;
    s->quiesced = led->quiesced;
    pthread_mutex_lock(&h->lock);
    h->n_users++;
    list_push_back(&h->shards, &s->link);
    pthread_mutex_unlock(&h->lock);
    if (nh_get_membership(h->host, s->shard_id, &s->members, NULL) < 0 ||
        nh_get_peers(h->host, s->shard_id, on_peers, s, NULL) < 0)
        end_shard(s);
}

/* ---- all of them ---- */

struct shard_list {
    struct nh_shard_info *items;
    size_t n, cap;
};

static void add_if_led(void *ctx, const struct nh_shard_info *info)
{
    struct shard_list *l = ctx;

    if (info->role != NH_ROLE_LEADER || info->quarantined)
        return;
    array_reserve((void **)&l->items, &l->cap, l->n + 1, sizeof *l->items);
    l->items[l->n++] = *info;
}

static struct shard_list list_led(struct nh_host *host)
{
    struct shard_list l = {0};

    nh_each_shard(host, add_if_led, &l);
    return l;
}

/* Locked. Not if all that are left have gone since. */
static bool somebody_may_take_over(struct hand_over *h)
{
    for (struct list *at = h->shards.next; at != &h->shards; at = at->next) {
        const struct led_shard *s = container_of(at, struct led_shard, link);

        if (!s->target || !engine_host_is_down(h->host->engine, s->target))
            return true;
    }
    return false;
}

static struct timespec after_ms(struct timespec t, uint32_t ms)
{
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

static void await_others(struct hand_over *h, uint32_t timeout_ms)
{
    pthread_mutex_lock(&h->lock);
    for (uint32_t ms = 0; ms < timeout_ms && h->n_users > 1 && somebody_may_take_over(h); ms += LOOK_MS) {
        struct timespec until;
        int r = 0;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until = after_ms(until, LOOK_MS);
        while (h->n_users > 1 && r == 0)
            r = pthread_cond_timedwait(&h->changed, &h->lock, &until);
    }
    pthread_mutex_unlock(&h->lock);
}

int nh_hand_over_leaders(struct nh_host *host, uint32_t timeout_ms, uint32_t *ret_n_led, uint32_t *ret_n_left,
                         struct nh_error *err)
{
    int r = host_check_may_block(err);
    struct shard_list led, left;
    struct hand_over *h;

    if (r < 0)
        return r;
    if (!ret_n_led || !ret_n_left)
        return nh_error_set(err, NH_EINVAL, "no place for the numbers of shards");
    h = hand_over_new(host);
    led = list_led(host);
    for (size_t i = 0; i < led.n; i++)
        give_away(h, &led.items[i]);
    await_others(h, timeout_ms);
    leave(h);
    left = list_led(host);
    *ret_n_led = (uint32_t)led.n;
    *ret_n_left = (uint32_t)left.n;
    free(led.items);
    free(left.items);
    return NH_OK;
}
