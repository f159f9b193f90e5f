/* Wishes beside proposals and reads: transfers, campaigns, looks at the peers; barriers and configuration changes. */
#include "engine/controls.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/memory.h"
#include "tests/unit/engine/engine_host.h"

static void setup(void)
{
    host_start(false, 1);
}

static void teardown(void)
{
    if (host.engine)
        host_stop();
    host_forget_disk();
}

TestSuite(controls, .init = setup, .fini = teardown);

static void lead_alone(void)
{
    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    host_await_leader(1);
    host_run(1);
}

static void on_end(void *ctx, const struct nh_outcome *outcome)
{
    struct ended *e = ctx;

    e->n++;
    e->last = *outcome;
    snprintf(e->text, sizeof e->text, "%.*s", (int)outcome->size_bytes, outcome->data ? (const char *)outcome->data : "");
}

static int transfer(uint64_t target, struct ended *e)
{
    return engine_transfer(host.engine, 1, target, on_end, e, &host.err);
}

Test(controls, a_transfer_ends_as_the_core_says)
{
    struct ended e = {0};

    lead_alone();
    cr_assert_eq(transfer(9, &e), 0);
    cr_assert_eq(e.n, 0, "never inside the submitting call");
    host_run(1);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_REJECTED);
    cr_assert_str_eq(e.text, "the target is not a voter of this shard that can lead");
    cr_assert_eq(transfer(1, &e), 0);
    host_run(1);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED, "it leads already");
    cr_assert_eq(engine_transfer(host.engine, 77, 1, on_end, &e, &host.err), NH_ENOTFOUND);
}

/* That passes, and is no refusal of this target. */
Test(controls, a_transfer_without_a_leader_is_dropped)
{
    struct ended e = {0};

    cr_assert_eq(host_start_replica(1, 3), 0);
    cr_assert_eq(transfer(2, &e), 0);
    host_run(5);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_DROPPED, "%d", e.last.code);
    cr_assert_eq(e.last.drop_reason, NH_DROP_NO_LEADER);
}

/* The disk stands still: what waits does not become more with each look into the inbox. */
Test(controls, as_many_may_wait_for_the_first_save)
{
    struct ended e = {0};
    uint32_t n = 0;

    host.hold_log = true;
    cr_assert_eq(host_start_replica(1, 1), 0);
    for (; n < CONTROLS_MAX && transfer(1, &e) == 0; n++)
        host_run(1);
    cr_assert_eq(n, CONTROLS_MAX);
    cr_assert_eq(transfer(1, &e), NH_EBUSY);
    cr_assert_eq(e.n, 0);
    host.hold_log = false;
    host_await_leader(1);
    cr_assert_eq(e.n, CONTROLS_MAX);
    cr_assert_eq(transfer(1, &e), 0);
    host_run(1);
    cr_assert_eq(e.n, CONTROLS_MAX + 1);
}

Test(controls, a_transfer_to_a_silent_voter_times_out)
{
    struct ended e = {0}, p = {0};
    struct nh_message ack = {.type = NH_MSG_REPLICATE_RESP, .shard_id = 1, .from = 3, .to = 1};

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_win_election();
    ack.term = host_status(1).term;
    ack.log_index = host_status(1).last_index;
    host_receive(&ack, 1, "peer:3");
    cr_assert_eq(transfer(2, &e), 0);
    host_run(5);
    cr_assert_eq(host_status(1).transferee, 2);
    cr_assert_eq(host_propose(1, 5, 1000, &p), 0);
    host_run(5);
    cr_assert_eq(p.last.code, NH_REQUEST_DROPPED);
    cr_assert_eq(p.last.drop_reason, NH_DROP_TRANSFERRING);
    host_run(300);
    cr_assert_eq(e.n, 1);
    cr_assert_neq(e.last.code, NH_REQUEST_COMPLETED);
}

Test(controls, whoever_waits_is_told_when_the_replica_stops)
{
    struct ended e = {0};

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_win_election();
    cr_assert_eq(transfer(2, &e), 0);
    host_run(2);
    cr_assert_eq(transfer(2, &e), 0); /* one begun, one waiting */
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(2);
    cr_assert_eq(e.n, 2);
    cr_assert_eq(e.last.code, NH_REQUEST_TERMINATED);
    cr_assert_eq(transfer(2, &e), NH_ENOTFOUND);
}

Test(controls, no_more_than_so_many_wishes_wait)
{
    struct ended e = {0};

    lead_alone();
    for (unsigned i = 0; i < CONTROLS_MAX; i++)
        cr_assert_eq(engine_campaign(host.engine, 1, &host.err), 0);
    cr_assert_eq(transfer(1, &e), NH_EBUSY);
    host_run(1);
    cr_assert_eq(transfer(1, &e), 0);
    host_run(1);
    cr_assert_eq(e.n, 1);
}

static size_t n_peers;

static void on_peers(void *ctx, const struct nh_outcome *outcome)
{
    const struct nh_peer_info *peers = outcome->data;

    (void)ctx;
    cr_assert_eq(outcome->code, NH_REQUEST_COMPLETED);
    n_peers = outcome->size_bytes / sizeof *peers;
    if (n_peers > 0)
        cr_assert(peers[0].replica_id == 2 && peers[0].kind == NH_MEMBER_VOTER && peers[0].match_index == 0);
}

Test(controls, a_leader_tells_of_its_peers)
{
    cr_assert_eq(host_start_replica(1, 3), 0);
    cr_assert_eq(engine_look_at_peers(host.engine, 1, on_peers, NULL, &host.err), 0);
    n_peers = 9;
    host_run(1);
    cr_assert_eq(n_peers, 0, "it does not lead");
    host_win_election();
    cr_assert_eq(engine_look_at_peers(host.engine, 1, on_peers, NULL, &host.err), 0);
    host_run(1);
    cr_assert_eq(n_peers, 2);
    cr_assert_eq(engine_forget_leader(host.engine, 1, &host.err), 0);
    host_run(1);
    cr_assert_eq(host_status(1).role, RAFT_LEADER);
}

/* ---- entries of other kinds ---- */

static int propose_special(enum nh_entry_type type, const void *cmd, size_t size_bytes, struct ended *e)
{
    struct engine_proposal_kind kind = {.type = type};
    struct nh_proposal p = {cmd, size_bytes, on_end, e};

    return engine_propose_as(host.engine, 1, kind, &p, host.now_ns + 1000000000ull, &host.err);
}

Test(controls, a_barrier_completes_behind_what_was_proposed_before)
{
    struct ended before[5] = {0}, e = {0};
    uint64_t sum;

    lead_alone();
    for (int i = 0; i < 5; i++)
        cr_assert_eq(host_propose(1, 1, 1000, &before[i]), 0);
    cr_assert_eq(propose_special(NH_ENTRY_METADATA, "", 0, &e), 0);
    host_run(2);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(e.last.index, before[4].last.index + 1);
    cr_assert_eq(host_lookup(1, &sum), 0);
    cr_assert_eq(sum, 5, "the machine never saw it");
}

/* Configuration changes among other proposals go to the core alone and in order. */
Test(controls, configuration_changes_among_proposals)
{
    struct nh_config_change change = {.type = NH_CONFIG_ADD_MEMBER,
                                      .member = {.replica_id = 5, .kind = NH_MEMBER_NON_VOTING, .address = "peer:5"}};
    struct ended before = {0}, e = {0}, again = {0}, after = {0};
    struct nh_membership m = {0};
    uint8_t payload[128];
    size_t n = config_change_encode(&change, payload, sizeof payload);

    lead_alone();
    cr_assert_eq(host_propose(1, 1, 1000, &before), 0);
    cr_assert_eq(propose_special(NH_ENTRY_CONFIG_CHANGE, payload, n, &e), 0);
    cr_assert_eq(propose_special(NH_ENTRY_CONFIG_CHANGE, payload, n, &again), 0);
    cr_assert_eq(host_propose(1, 2, 1000, &after), 0);
    host_run(3);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(e.last.index, before.last.index + 1);
    cr_assert_eq(again.last.code, NH_REQUEST_DROPPED, "one at a time");
    cr_assert_eq(again.last.drop_reason, NH_DROP_CONFIG_PENDING);
    cr_assert_eq(after.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(propose_special(NH_ENTRY_CONFIG_CHANGE, payload, n, &again), 0);
    host_run(3);
    cr_assert_eq(again.last.code, NH_REQUEST_REJECTED);
    cr_assert_str_eq(again.text, "this replica is a member already");
    cr_assert_eq(engine_get_membership(host.engine, 1, &m, &host.err), 0);
    cr_assert(m.n_members == 2 && m.config_change_id == e.last.index);
    nh_membership_deinit(&m);
}

/* The host's leaders together may not pile up more than so much; what commits, or a leader that stops, makes room. */
Test(controls, the_host_limits_what_its_leaders_have_uncommitted)
{
    static char payload[2000];
    struct ended e = {0};

    host_stop();
    host_forget_disk();
    host_max_uncommitted = 3000;
    host_start(false, 2);
    cr_assert_eq(host_start_replica(1, 3), 0); /* nobody acknowledges */
    cr_assert_eq(host_start_replica(2, 1), 0);
    host_await_leader(2);
    host_win_election();
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(host_propose_bytes(1, payload, sizeof payload, 1000, &e), 0);
        host_run(2);
    }
    cr_assert_eq(host_status(1).uncommitted_bytes, 4000);
    cr_assert_eq(host_propose_bytes(2, payload, sizeof payload, 1000, &e), NH_EBUSY);
    cr_assert(strstr(host.err.text, "uncommitted"), "%s", host.err.text);
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(2);
    cr_assert_eq(host_propose_bytes(2, payload, sizeof payload, 1000, &e), 0);
    host_run(2);
    host_max_uncommitted = 0;
}

/* A machine that stands still: what waits for it is bounded, whoever gives up waiting; and it goes on where it stood. */
Test(controls, a_leader_whose_machine_stands_still_drops_what_would_pile_up)
{
    static char payload[2000];
    struct ended e = {0}, late = {0};
    uint64_t last;

    host_replica_config.max_unapplied_bytes = 5000;
    cr_assert_eq(host_start_replica(1, 1), 0);
    host_await_leader(1);
    host.hold_apply = true;
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(host_propose_bytes(1, payload, sizeof payload, 20, &e), 0);
        host_run(2);
    }
    host_run(60);
    cr_assert_eq(e.n, 3);
    cr_assert_eq(e.last.code, NH_REQUEST_TIMEOUT);
    last = host_status(1).last_index;
    cr_assert(host_status(1).overloaded);
    cr_assert_eq(host.n_overloaded, 1);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(host_propose_bytes(1, payload, sizeof payload, 1000, &late), 0);
        host_run(2);
    }
    cr_assert_eq(late.n, 3);
    cr_assert_eq(late.last.code, NH_REQUEST_DROPPED);
    cr_assert_eq(late.last.drop_reason, NH_DROP_OVERLOADED);
    cr_assert_eq(host_status(1).last_index, last);
    host.hold_apply = false;
    host_run(3);
    cr_assert_eq(host_status(1).applied_index, last);
    cr_assert(!host_status(1).overloaded);
    cr_assert_eq(host_propose(1, 7, 1000, &e), 0);
    host_run(3);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    host_replica_config.max_unapplied_bytes = 0;
}
