/* What a program does wrong is answered, and harms nobody. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/nodehost/one_host.h"

static void setup(void)
{
    struct nh_replica_config c = one_replica_config(&sum_machine);

    one_setup();
    one_open();
    one_start(&c);
}

TestSuite(host_misuse, .init = setup, .fini = one_teardown);

static void on_end(void *ctx, const struct nh_outcome *outcome)
{
    (void)outcome;
    __atomic_add_fetch((uint32_t *)ctx, 1, __ATOMIC_ACQ_REL);
}

Test(host_misuse, a_request_without_completion_is_refused)
{
    const struct nh_proposal proposal = {.cmd = "1", .size_bytes = 1};
    const struct nh_session_step step = {1, 1, 0};
    struct nh_config_change change = {.type = NH_CONFIG_LEAVE_JOINT};

    cr_assert_eq(nh_propose(one_host, 1, "1", 1, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "completion"), "%s", one_err.text);
    cr_assert_eq(nh_propose_batch(one_host, 1, &proposal, 1, ONE_MS, &one_err), NH_EINVAL);
    cr_assert_eq(nh_query(one_host, 1, "", 0, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_read_index(one_host, 1, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_open_session(one_host, 1, 1, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_propose_in_session(one_host, 1, &step, "", 0, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_close_session(one_host, 1, 1, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_request_snapshot(one_host, 1, NH_NEVER, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_export_snapshot(one_host, 1, "/tmp", NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_change_membership(one_host, 1, &change, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_transfer_leader(one_host, 1, 1, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_barrier(one_host, 1, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_verify_leader(one_host, 1, ONE_MS, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_get_peers(one_host, 1, NULL, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(one_info().pending_requests, 0);
    one_propose("1");
}

Test(host_misuse, nothing_is_read_from_null)
{
    uint32_t n_ended = 0;
    uint64_t value;

    cr_assert_eq(nh_propose(one_host, 1, NULL, 1, ONE_MS, on_end, &n_ended, &one_err), NH_EINVAL);
    cr_assert_eq(nh_query(one_host, 1, NULL, 1, ONE_MS, on_end, &n_ended, &one_err), NH_EINVAL);
    cr_assert_eq(nh_propose_batch(one_host, 1, NULL, 1, ONE_MS, &one_err), NH_EINVAL);
    cr_assert_eq(nh_propose_in_session(one_host, 1, NULL, "", 0, ONE_MS, on_end, &n_ended, &one_err), NH_EINVAL);
    cr_assert_eq(nh_change_membership(one_host, 1, NULL, ONE_MS, on_end, &n_ended, &one_err), NH_EINVAL);
    cr_assert_eq(nh_propose_sync(one_host, 1, "1", 1, ONE_MS, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_lookup(one_host, 1, "", 0, NULL, &value, &one_err), NH_EINVAL);
    cr_assert_eq(nh_propose(one_host, 1, NULL, 0, ONE_MS, on_end, &n_ended, &one_err), NH_OK, "no bytes at NULL are fine");
    cr_assert_eq(nh_query(one_host, 1, NULL, 0, ONE_MS, on_end, &n_ended, &one_err), NH_OK);
    ONE_AWAIT(__atomic_load_n(&n_ended, __ATOMIC_ACQUIRE) == 2);
}

static void on_end_hand_over(void *ctx, const struct nh_outcome *outcome)
{
    uint32_t n_led, n_left;

    (void)outcome;
    __atomic_store_n((int *)ctx, nh_hand_over_leaders(one_host, ONE_MS, &n_led, &n_left, NULL), __ATOMIC_RELEASE);
}

/* Its only replica has nobody to give its shard to, and nobody is waited for. */
Test(host_misuse, leaders_without_others_stay)
{
    uint32_t n_led = 0, n_left = 0;
    int in_completion = 0;

    cr_assert_eq(nh_hand_over_leaders(one_host, ONE_MS, NULL, &n_left, &one_err), NH_EINVAL);
    cr_assert_eq(nh_hand_over_leaders(one_host, ONE_MS, &n_led, NULL, &one_err), NH_EINVAL);
    cr_assert_eq(nh_hand_over_leaders(one_host, ONE_MS, &n_led, &n_left, &one_err), NH_OK, "%s", one_err.text);
    cr_assert(n_led == 1 && n_left == 1);
    cr_assert_eq(nh_propose(one_host, 1, "1", 1, ONE_MS, on_end_hand_over, &in_completion, &one_err), NH_OK);
    ONE_AWAIT(__atomic_load_n(&in_completion, __ATOMIC_ACQUIRE) != 0);
    cr_assert_eq(in_completion, NH_EDEADLOCK);
}

/* EBUSY would make its program try for ever. */
Test(host_misuse, a_batch_that_never_fits_is_too_big)
{
    const size_t n = 65537, half = NH_ENTRY_PAYLOAD_MAX / 2;
    struct nh_proposal *many = calloc(n, sizeof *many);
    char *bytes = calloc(1, half);
    uint32_t n_ended = 0;

    for (size_t i = 0; i < n; i++)
        many[i] = (struct nh_proposal){.cmd = "1", .size_bytes = 1, .fn = on_end, .ctx = &n_ended};
    cr_assert_eq(nh_propose_batch(one_host, 1, many, n, ONE_MS, &one_err), NH_ETOOBIG, "%s", one_err.text);
    many[0] = many[1] = (struct nh_proposal){.cmd = bytes, .size_bytes = half, .fn = on_end, .ctx = &n_ended};
    cr_assert_eq(nh_propose_batch(one_host, 1, many, 2, ONE_MS, &one_err), NH_ETOOBIG, "%s", one_err.text);
    cr_assert_eq(nh_propose_batch(one_host, 1, many + 1, n - 1, ONE_MS, &one_err), NH_OK, "%s", one_err.text);
    one_close();
    cr_assert_eq(n_ended, n - 1);
    free(many);
    free(bytes);
}

Test(host_misuse, a_listener_without_size_is_refused)
{
    struct nh_raft_event_listener raft = {.struct_size = 0};
    struct nh_system_event_listener events = {.struct_size = 0};
    struct nh_host_config c = one_host_config();
    struct nh_host *host = NULL;

    c.raft_listener = &raft;
    cr_assert_eq(nh_host_open(&c, &host, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "raft_listener has no struct_size"), "%s", one_err.text);
    c.raft_listener = NULL;
    c.system_listener = &events;
    cr_assert_eq(nh_host_open(&c, &host, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "system_listener has no struct_size"), "%s", one_err.text);
}

/* It would be proposed, and be a voter that nobody can reach. */
Test(host_misuse, an_address_that_no_host_can_have_is_no_members)
{
    struct nh_config_change change = {.type = NH_CONFIG_ADD_MEMBER, .member = {.replica_id = 2, .address = "b c:1"}};
    struct nh_member members[2] = {{.replica_id = 1, .address = "host:1"}, {.replica_id = 2, .address = "b c:1"}};
    struct nh_replica_config c = one_replica_config(&sum_machine);

    cr_assert_eq(nh_change_membership_sync(one_host, 1, &change, 1000, &one_reply, &one_err), NH_EINVAL, "%s", one_err.text);
    c.shard_id = 2;
    c.members = members;
    c.n_members = 2;
    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), NH_EINVAL, "%s", one_err.text);
    memset(members[1].address, 'x', sizeof members[1].address);
    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), NH_EINVAL, "%s", one_err.text);
}

Test(host_misuse, an_error_is_filled_on_failure_only)
{
    struct nh_replica_config c = one_replica_config(&disk_sum_machine);
    struct nh_error err = {0};

    c.shard_id = 2;
    cr_assert_eq(nh_host_start_replica(one_host, &c, &err), 0);
    cr_assert_eq(err.code, 0, "%s", err.text);
    cr_assert_eq(nh_host_stop_replica(one_host, 2, &err), 0);
    cr_assert_eq(nh_host_start_replica(one_host, &c, &err), 0);
    cr_assert_eq(nh_host_stop_replica(one_host, 2, &err), 0);
    cr_assert_eq(nh_host_remove_data(one_host, 2, 1, &err), 0);
    cr_assert_eq(err.code, 0, "%s", err.text);
}

static void close_it(void *ctx, const struct nh_outcome *outcome)
{
    nh_host_close(one_host);
    on_end(ctx, outcome);
}

Test(host_misuse, a_completion_cannot_close_its_host)
{
    uint32_t n_ended = 0;

    cr_assert_eq(nh_propose(one_host, 1, "1", 1, ONE_MS, close_it, &n_ended, &one_err), 0);
    ONE_AWAIT(__atomic_load_n(&n_ended, __ATOMIC_ACQUIRE) == 1);
    one_propose("1");
}

static uint32_t n_closes;

static void close_in_event(void *ctx, const struct nh_replica_info *info)
{
    (void)ctx;
    (void)info;
    nh_host_close(one_host);
    __atomic_add_fetch(&n_closes, 1, __ATOMIC_ACQ_REL);
}

Test(host_misuse, a_listener_neither)
{
    struct nh_system_event_listener listener = {.struct_size = sizeof listener, .replica_ready = close_in_event};
    struct nh_host_config c = one_host_config();
    struct nh_replica_config rc = one_replica_config(&sum_machine);

    one_close();
    c.system_listener = &listener;
    cr_assert_eq(nh_host_open(&c, &one_host, &one_err), 0, "%s", one_err.text);
    one_start(&rc);
    ONE_AWAIT(__atomic_load_n(&n_closes, __ATOMIC_ACQUIRE) == 1);
    one_propose("1");
}
