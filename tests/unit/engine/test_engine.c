/* The engine around one host: requests and their ends, limits, restarts, and what happens when something breaks. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_private.h"
#include "engine/replica.h"
#include "raftio/support/memory.h"

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

TestSuite(engine, .init = setup, .fini = teardown);

static void restart(uint64_t incarnation)
{
    host_stop();
    host_start(false, incarnation);
}

/* ---- requests ---- */

Test(engine, a_proposal_completes_with_the_machines_result)
{
    struct ended e = {0};

    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    cr_assert_eq(host_propose(1, 5, 1000, &e), 0, "it waits for a leader");
    cr_assert_eq(e.n, 0, "never inside the submitting call");
    host_await_leader(1);
    host_run(1);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(e.last.value, 5);
    cr_assert_str_eq(e.text, "added");
    cr_assert_eq(host.n_ready, 1);
}

static int step_in_session(uint64_t client_id)
{
    struct ended e = {0};
    uint64_t one = 1;

    cr_assert_eq(host_propose_in_session(1, (struct engine_session){client_id, 1, 0}, &one, sizeof one, &e), NH_OK);
    host_run(1);
    return e.last.code;
}

/* The limit used to be set after the start: who opened one in between had the default proposed, and all replicas evicted what was
 * above that. */
Test(engine, the_limit_of_sessions_is_known_as_soon_as_the_replica_can_be_found)
{
    struct ended e[2] = {0};

    host_replica_config.sessions_max = 1;
    cr_assert_eq(host_start_replica(1, 1), NH_OK, "%s", host.err.text);
    host_replica_config.sessions_max = 0;
    for (uint64_t i = 0; i < 2; i++)
        cr_assert_eq(host_open_session(1, 7 + i, &e[i]), NH_OK, "%s", host.err.text); /* no worker has seen the replica yet */
    host_await_leader(1);
    host_run(1);
    cr_assert(e[0].last.value == 7 && e[1].last.value == 8);
    cr_assert_eq(step_in_session(7), NH_REQUEST_REJECTED, "it gave way to the other one");
    cr_assert_eq(step_in_session(8), NH_REQUEST_COMPLETED);
    cr_assert_eq(host_open_session(2, 7, &e[0]), NH_ENOTFOUND);
}

/* Of proposals, as long as they come again and again. */
Test(engine, an_idle_replica_has_no_arrays_for_proposals)
{
    struct ended e = {0};
    struct replica *r;

    cr_assert_eq(host_start_replica(1, 1), NH_OK);
    host_await_leader(1);
    r = engine_find(host.engine, 1);
    for (uint32_t i = 1; i <= 20; i++) {
        cr_assert_eq(host_propose(1, 1, 1000, &e), NH_OK);
        host_run(1);
        cr_assert_eq(e.n, i);
        cr_assert(r->spare_proposals.data, "to be used again");
    }
    host_run(5000);
    cr_assert(!r->spare_proposals.data && !r->proposals.data);
    replica_unref(r);
}

Test(engine, a_read_sees_what_was_proposed_before)
{
    struct ended p = {0}, r = {0};
    uint64_t sum;

    cr_assert_eq(host_start_replica(1, 1), 0);
    host_await_leader(1);
    for (uint64_t i = 1; i <= 10; i++)
        cr_assert_eq(host_propose(1, i, 1000, &p), 0);
    host_run(1);
    cr_assert_eq(host_read(1, 1000, &r), 0);
    host_run(1);
    cr_assert_eq(p.n, 10);
    cr_assert_eq(r.n, 1);
    cr_assert_eq(r.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(r.last.value, 55);
    cr_assert_eq(host_lookup(1, &sum), 0);
    cr_assert_eq(sum, 55);
}

static uint64_t passes(void)
{
    struct engine_stats m;

    engine_get_stats(host.engine, &m);
    return m.passes;
}

/* An idle engine is not polled, so the passes that a proposal takes can be counted. */
Test(engine, nobody_is_woken_for_what_nobody_waits_for)
{
    struct ended e = {0};
    uint64_t before;

    cr_assert_eq(host_start_replica(1, 1), 0);
    host_await_leader(1);
    host_run(1);
    before = passes();
    cr_assert_eq(host_propose(1, 5, 1000, &e), 0);
    host_run(0);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(passes() - before, 2, "the entry, and its save, which commits it here; not that it was applied");
    cr_assert_eq(host_status(1).applied_index, host_status(1).commit_index);
}

Test(engine, without_a_leader_requests_are_dropped_at_their_deadline)
{
    struct ended p = {0}, r = {0};

    cr_assert_eq(host_start_replica(1, 3), 0);
    cr_assert_eq(host_propose(1, 5, 300, &p), 0);
    cr_assert_eq(host_read(1, 300, &r), 0);
    host_run(290);
    cr_assert_eq(p.n + r.n, 0);
    host_run(30);
    cr_assert_eq(p.n, 1);
    cr_assert_eq(p.last.code, NH_REQUEST_DROPPED);
    cr_assert_eq(p.last.drop_reason, NH_DROP_NO_LEADER);
    cr_assert_eq(r.n, 1);
    cr_assert_eq(r.last.code, NH_REQUEST_DROPPED);
    cr_assert_eq(host_status(1).pending_requests, 0);
}

Test(engine, a_proposal_whose_fate_is_unknown_times_out)
{
    struct ended p = {0}, r = {0};

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_win_election();
    cr_assert_eq(host_propose(1, 5, 50, &p), 0);
    cr_assert_eq(host_read(1, 50, &r), 0);
    host_run(80);
    cr_assert_eq(p.n, 1);
    cr_assert_eq(p.last.code, NH_REQUEST_TIMEOUT);
    cr_assert_eq(r.n, 1);
    cr_assert_eq(r.last.code, NH_REQUEST_TIMEOUT);
    cr_assert_geq(host_status(1).last_index, 3, "its entry is in the log all the same");
}

Test(engine, a_forwarded_proposal_that_the_transport_refuses_is_dropped)
{
    struct nh_message heartbeat = {.type = NH_MSG_HEARTBEAT, .shard_id = 1, .to = 1, .from = 2, .term = 5};
    struct ended p = {0};

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_run(1);
    host_receive(&heartbeat, 1, "peer:2");
    host_run(0);
    cr_assert_eq(host_status(1).leader_id, 2);
    host.send_result = NH_EBUSY;
    cr_assert_eq(host_propose(1, 5, 1000, &p), 0);
    host_run(0);
    cr_assert_eq(p.n, 1);
    cr_assert_eq(p.last.code, NH_REQUEST_DROPPED);
    cr_assert_eq(p.last.drop_reason, NH_DROP_OVERLOADED);
}

static void follow_peer_2(void)
{
    struct nh_message heartbeat = {.type = NH_MSG_HEARTBEAT, .shard_id = 1, .to = 1, .from = 2, .term = 5};

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_run(1);
    host_receive(&heartbeat, 1, "peer:2");
    host_run(1);
    cr_assert_eq(host_status(1).leader_id, 2);
}

Test(engine, requests_are_not_sent_to_a_leader_whose_host_is_down)
{
    struct ended p = {0}, r = {0};
    uint32_t before;

    follow_peer_2();
    host.handlers.on_failed(host.handlers.ctx, "peer:2", false, "reset");
    before = host.n_sent;
    cr_assert_eq(host_propose(1, 5, 20, &p), 0);
    cr_assert_eq(host_read(1, 20, &r), 0);
    host_run(10);
    cr_assert_eq(host.n_sent, before);
    host_run(30);
    cr_assert_eq(p.last.code, NH_REQUEST_DROPPED, "it was never sent, so it is surely not applied");
    cr_assert_eq(r.last.code, NH_REQUEST_DROPPED);
}

Test(engine, they_go_on_when_it_is_heard_again)
{
    struct ended p = {0};
    uint32_t before;

    follow_peer_2();
    host.handlers.on_failed(host.handlers.ctx, "peer:2", false, "reset");
    host_run(25); /* the worker has seen it */
    before = host.n_sent;
    cr_assert_eq(host_propose(1, 5, 1000, &p), 0);
    host_run(10);
    cr_assert_eq(host.n_sent, before);
    host_receive(NULL, 0, "peer:2");
    host_run(25);
    cr_assert_gt(host.n_sent, before);
    cr_assert_eq(p.n, 0, "on its way");
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    cr_assert_eq(p.n, 1);
}

Test(engine, stopping_ends_what_is_pending)
{
    struct ended p = {0}, r = {0};

    cr_assert_eq(host_start_replica(1, 3), 0);
    cr_assert_eq(host_propose(1, 5, 1000, &p), 0);
    cr_assert_eq(host_read(1, 1000, &r), 0);
    host_run(1);
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    cr_assert_eq(host_propose(1, 5, 1000, &p), NH_ECLOSED);
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), NH_ENOTFOUND);
    host_run(1);
    cr_assert_eq(p.n, 1);
    cr_assert_eq(p.last.code, NH_REQUEST_TERMINATED);
    cr_assert_eq(r.n, 1);
    cr_assert_eq(host.n_unloaded, 1);
    cr_assert_eq(host_propose(1, 5, 1000, &p), NH_ENOTFOUND);
}

Test(engine, closing_the_engine_ends_everything_once)
{
    struct ended e = {0};

    cr_assert_eq(host_start_replica(1, 1), 0);
    cr_assert_eq(host_start_replica(2, 3), 0);
    host_await_leader(1);
    host.hold_log = true;
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(host_propose(1, 1, 1000, &e), 0);
        cr_assert_eq(host_propose(2, 1, 1000, &e), 0);
        cr_assert_eq(host_read(1, 1000, &e), 0);
        cr_assert_eq(host_read(2, 1000, &e), 0);
    }
    host_run(0);
    host_stop();
    cr_assert_eq(e.n, 40);
    cr_assert_eq(host.n_unloaded, 2);
}

/* ---- limits ---- */

static void start_with_limits(void)
{
    host_max_pending = 4;
    host_max_inbox = 1000;
    host_start(false, 1);
}

TestSuite(engine_limits, .init = start_with_limits, .fini = teardown);

Test(engine_limits, one_request_more_than_may_be_pending_is_busy)
{
    static struct ended e; /* outlives the test: some end in its teardown */

    cr_assert_eq(host_start_replica(1, 3), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(host_propose(1, 1, 100, &e), 0);
        cr_assert_eq(host_read(1, 100, &e), 0);
    }
    cr_assert_eq(host_propose(1, 1, 100, &e), NH_EBUSY);
    cr_assert(strstr(host.err.text, "the limit is 4"), "%s", host.err.text);
    cr_assert_eq(host_read(1, 100, &e), NH_EBUSY);
    host_run(150);
    cr_assert_eq(e.n, 4);
    cr_assert_eq(host_propose(1, 1, 100, &e), 0);
}

Test(engine_limits, more_bytes_than_the_inbox_takes_are_busy)
{
    static const char cmd[2000];
    static struct ended e; /* outlives the test: some end in its teardown */

    cr_assert_eq(host_start_replica(1, 3), 0);
    cr_assert_eq(host_propose_bytes(1, cmd, sizeof cmd, 100, &e), 0, "one alone may be larger");
    cr_assert_eq(host_propose_bytes(1, cmd, 1, 100, &e), NH_EBUSY);
    host_run(150);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(host_propose_bytes(1, cmd, 1, 100, &e), 0, "what has expired takes no room");
}

Test(engine_limits, a_proposal_above_the_largest_entry_is_refused)
{
    char *cmd = calloc(1, NH_ENTRY_PAYLOAD_MAX + 1);
    static struct ended e; /* outlives the test: some end in its teardown */

    cr_assert_eq(host_start_replica(1, 3), 0);
    cr_assert_eq(host_propose_bytes(1, cmd, NH_ENTRY_PAYLOAD_MAX + 1, 100, &e), NH_ETOOBIG);
    cr_assert_eq(host_propose_bytes(1, cmd, NH_ENTRY_PAYLOAD_MAX, 100, &e), 0);
    free(cmd);
}

/* ---- starting ---- */

Test(engine, a_replica_takes_part_only_after_its_first_save)
{
    host.hold_log = true;
    cr_assert_eq(host_start_replica(1, 1), 0);
    host_run(500);
    cr_assert_eq(host_status(1).role, RAFT_FOLLOWER);
    cr_assert_eq(host_status(1).leader_id, 0);
    host.hold_log = false;
    host_await_leader(1);
}

/* They were lost with what they own; it is ASan that looks. */
Test(engine, news_before_the_first_save_are_forgotten)
{
    struct snapshot_note note = {.type = NOTE_FAILED, .record = {.file_path = xstrdup("image")}};
    struct replica *r;

    host.hold_log = true;
    cr_assert_eq(host_start_replica(1, 1), 0);
    r = engine_find(host.engine, 1);
    replica_post_note(r, &note);
    replica_unref(r);
    host_run(5);
    host.hold_log = false;
    host_await_leader(1);
}

Test(engine, requests_expire_while_the_first_save_is_slow)
{
    struct ended p = {0}, r = {0};

    host.hold_log = true;
    cr_assert_eq(host_start_replica(1, 1), 0);
    host_run(5);
    cr_assert_eq(host_propose(1, 1, 50, &p), 0);
    cr_assert_eq(host_read(1, 50, &r), 0);
    host_run(40);
    cr_assert_eq(p.n + r.n, 0);
    host_run(30);
    cr_assert_eq(p.last.code, NH_REQUEST_DROPPED);
    cr_assert_eq(r.last.code, NH_REQUEST_DROPPED);
    host.hold_log = false;
    host_await_leader(1);
}

Test(engine, a_shard_is_started_once)
{
    cr_assert_eq(host_start_replica(1, 1), 0);
    cr_assert_eq(host_start_replica(1, 1), NH_EEXIST);
    cr_assert(strstr(host.err.text, "start replica 1 of shard 1: "), "%s", host.err.text);
}

static void *start_one(void *arg)
{
    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    return arg;
}

/* Else this does not end: as long as somebody looks something up, somebody else may. */
Test(engine, requests_do_not_hold_up_starts, .timeout = 60)
{
    pthread_rwlock_t *lock = &host.engine->routes_lock;
    pthread_t starter;

    pthread_rwlock_rdlock(lock);
    cr_assert_eq(pthread_create(&starter, NULL, start_one, NULL), 0);
    while (pthread_rwlock_tryrdlock(lock) == 0) /* until it waits */
        pthread_rwlock_unlock(lock);
    pthread_rwlock_unlock(lock);
    pthread_join(starter, NULL);
}

Test(engine, a_restart_replays_the_log)
{
    struct ended e = {0};
    uint64_t sum;

    cr_assert_eq(host_start_replica(1, 1), 0);
    host_await_leader(1);
    for (uint64_t i = 1; i <= 100; i++)
        cr_assert_eq(host_propose(1, i, 1000, &e), 0);
    host_run(1);
    cr_assert_eq(e.n, 100);
    restart(2);
    host.n_ready = 0;
    cr_assert_eq(host_restart_replica(1), 0, "%s", host.err.text);
    cr_assert_eq(host_lookup(1, &sum), NH_ENOTREADY);
    host_await_leader(1);
    host_run(1);
    cr_assert_eq(host.n_ready, 1);
    cr_assert_eq(host_lookup(1, &sum), 0);
    cr_assert_eq(sum, 5050);
}

Test(engine, stopped_and_started_again_in_one_life_it_goes_on)
{
    struct ended e = {0};
    uint64_t sum;

    cr_assert_eq(host_start_replica(1, 1), 0);
    for (uint64_t i = 1; i <= 5; i++) {
        host_await_leader(1);
        cr_assert_eq(host_propose(1, i, 1000, &e), 0);
        host_run(1);
        cr_assert_eq(e.n, i);
        cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
        cr_assert_eq(host_restart_replica(1), NH_EEXIST, "its machine is not closed yet");
        host_run(1);
        cr_assert_eq(host_restart_replica(1), 0, "%s", host.err.text);
    }
    host_await_leader(1);
    host_run(1);
    cr_assert_eq(host_lookup(1, &sum), 0);
    cr_assert_eq(sum, 15, "each proposal was applied once in each life of the machine");
}

Test(engine, only_regular_machines_run)
{
    struct nh_machine_ops other = host_machine;
    struct engine_replica_config c = {
        .shard_id = 1, .replica_id = 1, .machine = &other, .join = true, .election_rtt = 10, .heartbeat_rtt = 1};

    other.kind = NH_MACHINE_ON_DISK;
    cr_assert_eq(engine_start_replica(host.engine, &c, &host.err), NH_EUNSUPPORTED);
}

/* ---- what breaks ---- */

Test(engine, a_failing_machine_harms_only_its_shard)
{
    struct ended bad = {0}, good = {0};

    cr_assert_eq(host_start_replica(1, 1), 0);
    cr_assert_eq(host_start_replica(2, 1), 0);
    host_await_leader(1);
    host_await_leader(2);
    host.fail_value = 13;
    cr_assert_eq(host_propose(1, 13, 1000, &bad), 0);
    cr_assert_eq(host_propose(2, 1, 1000, &good), 0);
    host_run(5);
    cr_assert_eq(bad.n, 1);
    cr_assert_eq(bad.last.code, NH_REQUEST_TERMINATED);
    cr_assert_eq(good.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert_str_eq(host.reason, "machine adder: update at index 3: cannot add 13");
    cr_assert(host_status(1).quarantined);
    cr_assert_eq(host_propose(1, 1, 1000, &bad), NH_EQUARANTINED);
    cr_assert_eq(host_propose(2, 1, 1000, &good), 0);
    host_run(5);
    cr_assert_eq(good.n, 2);
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    cr_assert_eq(host.n_unloaded, 1);
}

/* Statement 37: a leader whose write fails must not go on: its host is fenced, and its replicas lead no more. */
Test(engine, after_a_failed_save_nothing_is_acknowledged)
{
    struct ended e = {0};
    uint64_t sum;

    cr_assert_eq(host_start_replica(1, 1), 0);
    cr_assert_eq(host_start_replica(2, 1), 0);
    host_await_leader(1);
    host_await_leader(2);
    memory_disk_fail_after(memory_disk_get(HOST_DIR), 0);
    cr_assert_eq(host_propose(1, 1, 1000, &e), 0);
    host_run(5);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_TERMINATED);
    cr_assert_eq(host.n_fenced, 1);
    cr_assert_eq(host_propose(2, 1, 1000, &e), NH_EFENCED, "the whole store is fenced");
    cr_assert_eq(host_start_replica(3, 1), NH_EFENCED);
    cr_assert_eq(host_lookup(2, &sum), 0, "what was applied can be looked at");
    memory_disk_fail_after(memory_disk_get(HOST_DIR), UINT64_MAX);
}

Test(engine, a_fence_while_saves_wait_ends_them_all)
{
    struct ended e = {0};

    cr_assert_eq(host_start_replica(1, 1), 0);
    host_await_leader(1);
    host.hold_log = true;
    memory_disk_fail_after(memory_disk_get(HOST_DIR), 0);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(host_propose(1, 1, 1000, &e), 0);
        host_run(1);
    }
    host.hold_log = false;
    host_run(5);
    cr_assert_eq(e.n, 5);
    cr_assert_eq(e.last.code, NH_REQUEST_TERMINATED);
    memory_disk_fail_after(memory_disk_get(HOST_DIR), UINT64_MAX);
}

static uint64_t stored_last(uint64_t shard_id)
{
    struct nh_raft_state state = {0};

    cr_assert_eq(nh_logdb_memory()->read_raft_state(host.logdb, shard_id, 1, &state, &host.err), 0, "%s", host.err.text);
    return state.last_index;
}

/* The host used to be fenced, again after each restart. */
Test(engine, what_the_log_store_cannot_read_harms_only_its_shard)
{
    struct ended bad = {0}, good = {0};
    uint64_t last;

    cr_assert_eq(host_start_replica(1, 1), 0);
    cr_assert_eq(host_start_replica(2, 1), 0);
    host_await_leader(1);
    host_await_leader(2);
    host_run(5);
    last = stored_last(1);
    host.hold_log = true;
    host.unreadable = 1;
    for (int i = 0; i < 2; i++) { /* into the batch that is written, and into the next */
        cr_assert_eq(host_propose(1, 1, 1000, &bad), 0);
        cr_assert_eq(host_propose(2, 1, 1000, &good), 0);
        host_run(1);
    }
    host.hold_log = false;
    host_run(5);
    cr_assert_eq(host.n_fenced, 0, "%s", host.reason);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert_str_eq(host.reason, "shard 1: a block is damaged");
    cr_assert_eq(bad.n, 2);
    cr_assert_eq(bad.last.code, NH_REQUEST_TERMINATED);
    cr_assert_eq(good.n, 2);
    cr_assert_eq(good.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(stored_last(1), last, "nothing is built on it");
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    cr_assert_eq(host.n_unloaded, 1);
}

Test(engine, a_failed_lookup_reaches_the_reader)
{
    struct ended e = {0};
    struct nh_writer out = {NULL, NULL};
    uint64_t value;

    cr_assert_eq(host_start_replica(1, 1), 0);
    host_await_leader(1);
    host_run(1);
    cr_assert_eq(engine_lookup(host.engine, 1, "!", 1, &out, &value, &host.err), NH_EMACHINE);
    cr_assert_str_eq(host.err.text, "what?");
    (void)e;
}

/* ---- messages ---- */

/* What was fetched in the last round of a turn stood in the worker's update, and left with the next replica's messages: to where
 * that one's peers are. */
Test(engine, what_a_follower_far_behind_is_sent_leaves_in_its_own_turn)
{
    static uint8_t bytes[900 * 1024];
    struct nh_message accepted = {.type = NH_MSG_REPLICATE_RESP, .shard_id = 1, .to = 1};
    struct ended e = {0};
    uint32_t n_before;

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_win_election();
    accepted.term = host_status(1).term;
    accepted.from = 2; /* it has the first entry, and is slow */
    accepted.log_index = 1;
    host_receive(&accepted, 1, "peer:2");
    for (int i = 0; i < 19; i++) {
        cr_assert_eq(host_propose_bytes(1, bytes, sizeof bytes, 1000, &e), 0, "%s", host.err.text);
        accepted.from = 3;
        host_run(1);
        accepted.log_index = host_status(1).last_index;
        host_receive(&accepted, 1, "peer:3");
        host_run(1);
    }
    cr_assert_eq(e.n, 19);
    accepted.from = 2;
    accepted.log_index = 2;
    accepted.reject = true; /* of what was sent before: it begins again */
    accepted.hint = 1;
    host_receive(&accepted, 1, "peer:2");
    accepted.reject = false;
    host_receive(&accepted, 1, "peer:2");
    n_before = host.n_sent;
    host_run(1);
    cr_assert_geq(host.n_sent - n_before, 9, "%u", host.n_sent - n_before);
}

Test(engine, messages_for_nobody_and_of_local_types_are_ignored)
{
    struct nh_message messages[] = {
        {.type = NH_MSG_HEARTBEAT, .shard_id = 9, .to = 1, .from = 2, .term = 5},
        {.type = NH_MSG_HEARTBEAT, .shard_id = 1, .to = 7, .from = 2, .term = 5},
        {.type = NH_MSG_LOCAL_TICK, .shard_id = 1, .to = 1, .from = 2, .term = 5},
        {.type = NH_MSG_INSTALL_SNAPSHOT, .shard_id = 1, .to = 1, .from = 2, .term = 5},
    };
    struct engine_stats stats;

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_run(1);
    host_receive(messages, 4, "peer:2");
    host_run(1);
    engine_get_stats(host.engine, &stats);
    cr_assert_eq(stats.messages_ignored, 4);
    cr_assert_eq(host_status(1).leader_id, 0);
}

/* Committed, it would put all replicas of the shard into quarantine, again at each start. */
Test(engine, a_forwarded_change_that_cannot_be_understood_is_ignored)
{
    struct block_record record = {
        .type = NH_ENTRY_CONFIG_CHANGE, .origin = 2, .key = 7, .payload = "\xff\xff", .payload_bytes = 2};
    struct nh_message propose = {
        .type = NH_MSG_PROPOSE, .shard_id = 1, .to = 1, .from = 2, .hint = 7, .hint_high = 1, .n_runs = 1};
    struct block_builder b = {0};
    struct nh_run run;
    struct engine_stats stats;
    uint64_t last;

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_win_election();
    last = host_status(1).last_index;
    propose.term = host_status(1).term;
    cr_assert_eq(block_builder_add(&b, &record), 0);
    run = (struct nh_run){block_unsealed(&b), 0, 1};
    propose.runs = &run;
    host_receive(&propose, 1, "peer:2");
    host_run(1);
    engine_get_stats(host.engine, &stats);
    cr_assert_eq(stats.messages_ignored, 1);
    cr_assert_eq(host_status(1).last_index, last);
    nh_block_unref(run.block);
}

Test(engine, a_silent_peer_is_pinged)
{
    struct nh_message heartbeat = {.type = NH_MSG_HEARTBEAT, .shard_id = 1, .to = 1, .from = 2, .term = 5};

    cr_assert_eq(host_start_replica(1, 3), 0);
    host_run(1);
    host_receive(&heartbeat, 1, "peer:2");
    host_run(60);
    cr_assert_geq(host.n_pings, 2, "%u", host.n_pings);
}
