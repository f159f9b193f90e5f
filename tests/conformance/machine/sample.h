/* tests/conformance/machine/sample.h - a sound machine in memory, from which the broken ones are made: each takes this table and
 * puts one broken function into it. What is wrong in them is a mistake that authors make.
 *
 * The state is a number that depends on all entries and their order, their count, and the first bytes of the last one.
 */
#ifndef NH_TESTS_CONFORMANCE_MACHINE_SAMPLE_H
#define NH_TESTS_CONFORMANCE_MACHINE_SAMPLE_H

#include "nodehost/statemachine.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_LAST_BYTES 16u

struct sample_state {
    uint64_t sum, count, applied;
    uint8_t last[SAMPLE_LAST_BYTES];
};

struct nh_machine {
    pthread_mutex_t lock;
    struct sample_state s;
    char dir[512];        /* sample_disk.h */
    const void *borrowed; /* broken_borrow.c */
    size_t borrowed_bytes;
};

static int sample_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args, (void)err;
    *ret = calloc(1, sizeof **ret);
    pthread_mutex_init(&(*ret)->lock, NULL);
    *ret_applied = 0;
    return NH_OK;
}

static void sample_close(struct nh_machine *m)
{
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static void sample_apply(struct sample_state *s, struct nh_entry *e)
{
    const uint8_t *p = e->cmd;

    for (size_t i = 0; i < e->size_bytes; i++)
        s->sum = (s->sum ^ p[i]) * 1099511628211u;
    memset(s->last, 0, sizeof s->last);
    if (e->size_bytes > 0)
        memcpy(s->last, p, e->size_bytes < sizeof s->last ? e->size_bytes : sizeof s->last);
    s->count++;
    s->applied = e->index;
    e->result.value = s->sum;
}

static int sample_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)err;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < n; i++)
        sample_apply(&m->s, &entries[i]);
    pthread_mutex_unlock(&m->lock);
    return NH_OK;
}

static struct sample_state sample_copy(struct nh_machine *m)
{
    struct sample_state s;

    pthread_mutex_lock(&m->lock);
    s = m->s;
    pthread_mutex_unlock(&m->lock);
    return s;
}

static int sample_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                         struct nh_error *err)
{
    struct sample_state s = sample_copy(m);

    (void)query, (void)size_bytes, (void)err;
    *ret_value = s.count;
    return out->write(out->ctx, s.last, sizeof s.last);
}

static uint64_t sample_hash(struct nh_machine *m)
{
    struct sample_state s = sample_copy(m);

    return s.sum + s.count + s.last[0];
}

static int sample_prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    struct sample_state *copy = malloc(sizeof *copy);

    (void)err;
    *copy = sample_copy(m);
    *ret_ctx = copy;
    return NH_OK;
}

static int sample_save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    (void)m, (void)stop, (void)err;
    return out->write(out->ctx, ctx, sizeof(struct sample_state));
}

static void sample_release(struct nh_machine *m, void *ctx)
{
    (void)m;
    free(ctx);
}

/* Up to `cap` bytes of an image; the size or a negative code. */
static int64_t sample_read(struct nh_reader *in, void *data, size_t cap)
{
    size_t size = 0;
    int64_t n;

    while (size < cap && (n = in->read(in->ctx, (uint8_t *)data + size, cap - size)) != 0) {
        if (n < 0)
            return n;
        size += (size_t)n;
    }
    return (int64_t)size;
}

static int sample_recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    struct sample_state s[2];
    int64_t size = sample_read(in, s, sizeof s);

    (void)stop, (void)err;
    if (size != sizeof *s)
        return size < 0 ? (int)size : NH_ECORRUPT;
    m->s = s[0];
    return NH_OK;
}

static struct nh_machine_ops sample_ops(const char *name)
{
    return (struct nh_machine_ops){
        .abi_version = NH_MACHINE_ABI,
        .struct_size = sizeof(struct nh_machine_ops),
        .name = name,
        .version = "1",
        .kind = NH_MACHINE_CONCURRENT,
        .open = sample_open,
        .update = sample_update,
        .lookup = sample_lookup,
        .close = sample_close,
        .hash = sample_hash,
        .prepare_snapshot = sample_prepare,
        .save_snapshot = sample_save,
        .recover = sample_recover,
        .release_snapshot = sample_release,
    };
}

NH_API const struct nh_machine_ops *nh_machine_plugin(void);

/* Makes the table: the sample's, with one change. */
#define SAMPLE_PLUGIN(name, change)                      \
    const struct nh_machine_ops *nh_machine_plugin(void) \
    {                                                    \
        static struct nh_machine_ops ops;                \
                                                         \
        ops = sample_ops(name);                          \
        change;                                          \
        return &ops;                                     \
    }

#endif
