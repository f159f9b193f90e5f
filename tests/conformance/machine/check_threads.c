/* Lookups and snapshots beside updates, exactly as far as the host goes for each kind. */
#include "tests/conformance/machine/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define LOOKERS   2u
#define SAVES_MAX 6u
#define SLOW_US   200u

static const char contract[] = "the table of kinds in raftio/machine.h: what runs beside what";

struct saved {
    void *ctx;
    uint64_t count; /* entries at its moment */
    struct kit_bytes image;
};

static struct {
    struct kit_instance i;
    bool regular;
    pthread_rwlock_t gate; /* regular: lookups and saves hold it for reading, updates for writing */
    pthread_mutex_t lock;
    struct saved saves[SAVES_MAX];
    uint32_t n_prepared, n_saved; /* guarded by lock */
    bool done;                    /* atomic */
} t;

static void begin_read(void)
{
    if (t.regular)
        pthread_rwlock_rdlock(&t.gate);
}

static void end_read(void)
{
    if (t.regular)
        pthread_rwlock_unlock(&t.gate);
}

static bool is_done(void)
{
    return __atomic_load_n(&t.done, __ATOMIC_ACQUIRE);
}

static void *look(void *arg)
{
    for (uint64_t k = (uint64_t)(uintptr_t)arg; !is_done(); k += LOOKERS) {
        struct kit_bytes query = kit_query(k), answer;
        uint64_t value;

        begin_read();
        kit_lookup(&t.i, &query, &answer, &value);
        if (k % 16 == 0)
            kit_hash(&t.i);
        end_read();
        free(query.data);
        free(answer.data);
        usleep(SLOW_US / 4);
    }
    return NULL;
}

/* A regular machine is saved while nothing is applied, so its moment is when the saver has the gate. */
static void save_regular(void)
{
    struct saved *s = &t.saves[t.n_saved];

    begin_read();
    s->count = t.i.count;
    s->ctx = kit_prepare(&t.i);
    s->image = kit_save(&t.i, s->ctx);
    kit_release(&t.i, s->ctx);
    end_read();
    t.n_saved++;
}

static bool take_prepared(struct saved **ret)
{
    bool found;

    pthread_mutex_lock(&t.lock);
    found = t.n_saved < t.n_prepared;
    if (found)
        *ret = &t.saves[t.n_saved];
    pthread_mutex_unlock(&t.lock);
    return found;
}

static void *save(void *arg)
{
    struct saved *s;

    (void)arg;
    while (!is_done() || t.n_saved < t.n_prepared) {
        if (t.regular && t.n_saved < SAVES_MAX && !is_done()) {
            save_regular();
        } else if (!t.regular && take_prepared(&s)) {
            s->image = kit_save(&t.i, s->ctx);
            kit_release(&t.i, s->ctx);
            pthread_mutex_lock(&t.lock);
            t.n_saved++;
            pthread_mutex_unlock(&t.lock);
        }
        usleep(SLOW_US * 5);
    }
    return NULL;
}

/* The thread that applies also prepares: the two are never beside each other. */
static void maybe_prepare(uint64_t step)
{
    if (t.regular || !kit.shared->has_snapshots || step % (kit.n_entries / SAVES_MAX) != 0 || t.n_prepared == SAVES_MAX)
        return;
    t.saves[t.n_prepared].count = t.i.count;
    t.saves[t.n_prepared].ctx = kit_prepare(&t.i);
    pthread_mutex_lock(&t.lock);
    t.n_prepared++;
    pthread_mutex_unlock(&t.lock);
}

static void update_all(void)
{
    for (uint64_t to = 1; to <= kit.n_entries; to++) {
        if (t.regular)
            pthread_rwlock_wrlock(&t.gate);
        kit_apply_to(&t.i, to);
        if (t.regular)
            pthread_rwlock_unlock(&t.gate);
        maybe_prepare(to);
        usleep(SLOW_US);
    }
    __atomic_store_n(&t.done, true, __ATOMIC_RELEASE);
}

static void compare_with_alone(void)
{
    struct kit_instance alone;

    kit_open(&alone, 9);
    for (uint32_t k = 0; k < t.n_saved; k++) {
        struct kit_bytes image;

        kit_apply_to(&alone, t.saves[k].count);
        image = kit_image(&alone);
        kit_expect_images(t.saves[k].image, image, contract, "saved beside lookups and updates, and alone");
        free(image.data);
        free(t.saves[k].image.data);
    }
    kit_apply_to(&alone, kit.n_entries);
    kit_expect_outcomes(&alone, &t.i, 0, kit.n_entries, contract, "applied beside lookups and snapshots, and alone");
    kit_expect_equal(&alone, &t.i, contract, "applied beside lookups and snapshots, and alone");
    kit_close(&alone);
}

void check_concurrency(void)
{
    pthread_t lookers[LOOKERS], saver;

    t.regular = kit.shared->kind == NH_MACHINE_REGULAR;
    pthread_rwlock_init(&t.gate, NULL);
    pthread_mutex_init(&t.lock, NULL);
    kit_open(&t.i, 1);
    for (uintptr_t k = 0; k < LOOKERS; k++)
        pthread_create(&lookers[k], NULL, look, (void *)k);
    if (kit.shared->has_snapshots)
        pthread_create(&saver, NULL, save, NULL);
    update_all();
    for (uint32_t k = 0; k < LOOKERS; k++)
        pthread_join(lookers[k], NULL);
    if (kit.shared->has_snapshots)
        pthread_join(saver, NULL);
    compare_with_alone();
    kit_close(&t.i);
}
