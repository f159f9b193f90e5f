/* Timeouts of requests through the library's face. */
#include <criterion/criterion.h>
#include <time.h>

#include "tests/unit/nodehost/one_host.h"

#define TIMEOUT_MS 15u
#define ROUNDS     40u

/* A replica whose other members do not exist: it never has a leader. */
static void setup(void)
{
    static const struct nh_member members[] = {{.replica_id = 1, .address = "127.0.0.1:1"},
                                               {.replica_id = 2, .address = "127.0.0.1:2"},
                                               {.replica_id = 3, .address = "127.0.0.1:3"}};
    struct nh_replica_config c = one_replica_config(&sum_machine);

    one_setup();
    one_open();
    c.members = members;
    c.n_members = 3;
    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), 0, "%s", one_err.text);
}

TestSuite(host_timeouts, .init = setup, .fini = one_teardown);

static uint64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* Deadlines are counted from the clock's last tick: at whatever moment between two ticks one is asked for. */
Test(host_timeouts, are_never_shorter_than_asked_for)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint64_t begin_us = now_us(), us;
        int r = i % 2 ? nh_read_index_sync(one_host, 1, TIMEOUT_MS, &one_reply, &one_err)
                      : nh_propose_sync(one_host, 1, "1", 1, TIMEOUT_MS, &one_reply, &one_err);

        us = now_us() - begin_us;
        cr_assert_eq(r, 0, "%s", one_err.text);
        cr_assert_eq(one_reply.outcome.code, NH_REQUEST_DROPPED, "%d", one_reply.outcome.code);
        cr_assert_geq(us, TIMEOUT_MS * 1000u);
        nh_reply_deinit(&one_reply);
    }
}
