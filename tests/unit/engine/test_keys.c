/* Keys of requests are used once, for ever: those of one start of a host end where those of the next one begin. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>
#include <string.h>

#include "engine/engine_private.h"
#include "engine/replica.h"

#define INCARNATION 3u
#define END         ((uint64_t)(INCARNATION + 1) << REPLICA_KEY_SHIFT)

static struct replica *r;

static void begin(void)
{
    host_start(true, INCARNATION);
    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    host_await_leader(1);
    r = engine_find(host.engine, 1);
}

static void end(void)
{
    replica_unref(r);
    host_stop();
    host_forget_disk();
}

TestSuite(keys, .init = begin, .fini = end);

static uint32_t n_completed;

static void on_end(void *ctx, const struct nh_outcome *outcome)
{
    (void)ctx;
    n_completed += outcome->code == NH_REQUEST_COMPLETED;
}

static int propose(size_t n)
{
    static const uint64_t one = 1;
    struct nh_proposal p[2];

    for (size_t i = 0; i < n; i++)
        p[i] = (struct nh_proposal){.cmd = &one, .size_bytes = sizeof one, .fn = on_end};
    return engine_propose(host.engine, 1, p, n, host.now_ns + 1000000000u, &host.err);
}

Test(keys, the_last_one_is_used)
{
    r->ring.base = r->ring.next = END - 3;
    cr_assert_eq(propose(2), NH_OK);
    cr_assert_eq(propose(2), NH_EBUSY);
    cr_assert(strstr(host.err.text, "restart the host"), "%s", host.err.text);
    cr_assert_eq(propose(1), NH_OK);
    cr_assert_eq(propose(1), NH_EBUSY);
    host_run(1);
    cr_assert_eq(n_completed, 3);
    cr_assert_eq(r->ring.next, END);
}

Test(keys, so_is_the_last_one_of_reads)
{
    struct ended e = {0};

    r->next_read = END - 1;
    cr_assert_eq(host_read(1, 1000, &e), NH_OK);
    cr_assert_eq(host_read(1, 1000, &e), NH_OK, "they share it");
    host_run(1);
    cr_assert_eq(e.n, 2);
    cr_assert_eq(host_read(1, 1000, &e), NH_EBUSY);
}
