/* Sessions through the library's face. */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/nodehost/one_host.h"

static void setup(void)
{
    struct nh_replica_config c = one_replica_config(&sum_machine);

    one_setup();
    one_open();
    c.sessions_max = 2;
    one_start(&c);
}

TestSuite(host_sessions, .init = setup, .fini = one_teardown);

static void expect(int r, int code, int status)
{
    cr_assert_eq(r, 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, code, "%d", one_reply.outcome.code);
    cr_assert_eq(one_reply.outcome.status, status, "%d", one_reply.outcome.status);
}

static void open_session(uint64_t id)
{
    nh_reply_deinit(&one_reply);
    expect(nh_open_session_sync(one_host, 1, id, ONE_MS, &one_reply, &one_err), NH_REQUEST_COMPLETED, 0);
    cr_assert_eq(one_reply.outcome.value, id);
}

static int step(uint64_t client, uint64_t series, uint64_t acked)
{
    struct nh_session_step s = {client, series, acked};

    nh_reply_deinit(&one_reply);
    return nh_propose_in_session_sync(one_host, 1, &s, "5", 1, ONE_MS, &one_reply, &one_err);
}

Test(host_sessions, a_repeated_step_is_applied_once_and_answered_alike)
{
    uint64_t id = nh_session_new_id(one_host);

    cr_assert_neq(id, nh_session_new_id(one_host));
    open_session(id);
    open_session(id);
    for (int i = 0; i < 3; i++) {
        expect(step(id, 1, 0), NH_REQUEST_COMPLETED, 0);
        cr_assert_eq(one_reply.outcome.value, 5);
        cr_assert_eq(one_reply.outcome.size_bytes, 1);
        cr_assert_eq(*(const char *)one_reply.outcome.data, '5');
    }
    expect(step(id, 2, 1), NH_REQUEST_COMPLETED, 0);
    expect(step(id, 1, 0), NH_REQUEST_REJECTED, NH_EACKED);
    cr_assert_eq(one_sum(), 10);
}

Test(host_sessions, it_outlives_the_host)
{
    struct nh_replica_config c = one_replica_config(&sum_machine);

    open_session(7);
    expect(step(7, 1, 0), NH_REQUEST_COMPLETED, 0);
    nh_reply_deinit(&one_reply);
    expect(nh_request_snapshot_sync(one_host, 1, 1, &one_reply, &one_err), NH_REQUEST_COMPLETED, 0);
    one_close();
    one_open();
    one_start(&c);
    expect(step(7, 1, 0), NH_REQUEST_COMPLETED, 0);
    cr_assert_eq(one_reply.outcome.value, 5);
    cr_assert_eq(one_sum(), 5);
}

Test(host_sessions, an_unknown_closed_or_evicted_one_is_told_apart_from_success)
{
    expect(step(7, 1, 0), NH_REQUEST_REJECTED, NH_ESESSION);
    open_session(7);
    nh_reply_deinit(&one_reply);
    expect(nh_close_session_sync(one_host, 1, 7, ONE_MS, &one_reply, &one_err), NH_REQUEST_COMPLETED, 0);
    expect(step(7, 1, 0), NH_REQUEST_REJECTED, NH_ESESSION);
    nh_reply_deinit(&one_reply);
    expect(nh_close_session_sync(one_host, 1, 7, ONE_MS, &one_reply, &one_err), NH_REQUEST_REJECTED, NH_ESESSION);
    for (uint64_t id = 1; id <= 3; id++) /* two may be open */
        open_session(id);
    expect(step(1, 1, 0), NH_REQUEST_REJECTED, NH_ESESSION);
    expect(step(2, 1, 0), NH_REQUEST_COMPLETED, 0);
}

Test(host_sessions, steps_that_make_no_sense_are_not_accepted)
{
    cr_assert_eq(step(0, 1, 0), NH_EINVAL);
    cr_assert_eq(step(7, 0, 0), NH_EINVAL);
    cr_assert_eq(step(7, 1, 1), NH_EINVAL);
    cr_assert(strstr(one_err.text, "responded_to 1 is not below series_id 1"), "%s", one_err.text);
    cr_assert_eq(step(7, NH_SERIES_ID_MAX + 1, 1), NH_EINVAL);
    cr_assert_eq(nh_open_session_sync(one_host, 1, 0, ONE_MS, &one_reply, &one_err), NH_EINVAL);
    cr_assert_eq(nh_open_session_sync(one_host, 1, 1, 0, &one_reply, &one_err), NH_EINVAL);
    cr_assert_eq(nh_open_session_sync(one_host, 2, 1, ONE_MS, &one_reply, &one_err), NH_ENOTFOUND);
}
