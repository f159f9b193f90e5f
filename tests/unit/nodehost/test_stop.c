/* Who stops a replica waits for that one, whatever becomes of one before it. */
#include "tests/unit/nodehost/one_host.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nodehost/host_private.h"

static uint32_t n_opened, n_closed; /* atomic */

static int slow_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args, (void)err;
    usleep(200000); /* who does not wait for it is through by then */
    *ret = malloc(1);
    *ret_applied = 0;
    __atomic_add_fetch(&n_opened, 1, __ATOMIC_RELEASE);
    return NH_OK;
}

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)m, (void)entries, (void)n, (void)err;
    return NH_OK;
}

static int lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err)
{
    (void)m, (void)query, (void)size_bytes, (void)out, (void)ret_value, (void)err;
    return NH_OK;
}

static void close_machine(struct nh_machine *m)
{
    free(m);
    __atomic_add_fetch(&n_closed, 1, __ATOMIC_RELEASE);
}

static const struct nh_machine_ops machine = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof machine,
    .name = "slow",
    .version = "1",
    .open = slow_open,
    .update = update,
    .lookup = lookup,
    .close = close_machine,
};

/* ---- the apply worker stands still where it tells that a replica was unloaded ---- */

static pthread_mutex_t *held; /* atomic: its next lock of it, once */
static sem_t is_held, go_on;

static bool is_apply_worker(void)
{
    char name[16] = "";

    pthread_getname_np(pthread_self(), name, sizeof name);
    return strcmp(name, "nh-apply") == 0;
}

int pthread_mutex_lock(pthread_mutex_t *lock)
{
    static int (*real)(pthread_mutex_t *);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    if (lock == __atomic_load_n(&held, __ATOMIC_ACQUIRE) && is_apply_worker()) {
        __atomic_store_n(&held, NULL, __ATOMIC_RELEASE);
        sem_post(&is_held);
        sem_wait(&go_on);
    }
    return real(lock);
}

static void start_one(void)
{
    struct nh_replica_config c = one_replica_config(&machine);

    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), 0, "%s", one_err.text);
}

/* Returns in *arg how many machines were closed when it was done. */
static void *stop_one(void *arg)
{
    struct nh_error err;

    cr_assert_eq(nh_host_stop_replica(one_host, 1, &err), 0, "%s", err.text);
    *(uint32_t *)arg = __atomic_load_n(&n_closed, __ATOMIC_ACQUIRE);
    return NULL;
}

TestSuite(stop, .init = one_setup, .fini = one_teardown, .timeout = 60);

Test(stop, the_end_of_one_before_it_is_not_its_end)
{
    uint32_t closed_by_first = 0, closed_by_second = 0;
    pthread_t first, second;

    sem_init(&is_held, 0, 0);
    sem_init(&go_on, 0, 0);
    one_open();
    start_one();
    while (__atomic_load_n(&n_opened, __ATOMIC_ACQUIRE) == 0) /* else it may be stopped before it has a machine */
        usleep(1000);
    __atomic_store_n(&held, &one_host->lock, __ATOMIC_RELEASE);
    pthread_create(&first, NULL, stop_one, &closed_by_first);
    sem_wait(&is_held);
    start_one();
    pthread_create(&second, NULL, stop_one, &closed_by_second);
    while (!engine_is_stopping(one_host->engine, 1))
        usleep(1000);
    sem_post(&go_on);
    pthread_join(first, NULL);
    pthread_join(second, NULL);
    cr_assert_geq(closed_by_first, 1);
    cr_assert_eq(closed_by_second, 2);
}
