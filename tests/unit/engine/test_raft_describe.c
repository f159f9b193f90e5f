/* The texts are part of golden traces: each type is spelled out here once, and the buffer is tested at every size. */
#include "engine/raft/describe.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/request.h"

static char text[1024];

static struct nh_entry_view entry(const char *payload, uint32_t bytes)
{
    return (struct nh_entry_view){.index = 4, .term = 2, .payload = (const uint8_t *)payload, .payload_bytes = bytes};
}

static void expect_entry(struct nh_entry_view e, const char *expected)
{
    cr_assert_eq(raft_describe_entry(&e, text, sizeof text), strlen(expected), "%s", text);
    cr_assert_str_eq(text, expected);
}

static void expect_message(struct nh_message m, const char *expected)
{
    m.from = 1;
    m.to = 2;
    m.term = 3;
    cr_assert_eq(raft_describe_message(&m, text, sizeof text), strlen(expected), "%s", text);
    cr_assert_str_eq(text, expected);
}

/* n records "a", "b", ... of term 2 from index 4 on; with n 0 none. */
static struct nh_run run_of(uint32_t n, bool sealed)
{
    struct block_builder b = {0};

    for (uint32_t i = 0; i < n; i++) {
        char payload = (char)('a' + i % 26);
        struct block_record rec = {.key = i + 1, .payload = &payload, .payload_bytes = 1};

        cr_assert_eq(block_builder_add(&b, &rec), 0);
    }
    return (struct nh_run){sealed ? block_seal(&b, 2, 4) : block_unsealed(&b), 0, n};
}

Test(raft_describe, an_entry_is_index_term_and_payload)
{
    expect_entry(entry("abc", 3), "4/2 \"abc\"");
    expect_entry(entry("", 0), "4/2");
}

Test(raft_describe, a_payload_is_escaped_and_cut_at_sixteen_bytes)
{
    expect_entry(entry("a\"b\\c\n\0\x7f\xff", 9), "4/2 \"a\\\"b\\\\c\\n\\x00\\x7f\\xff\"");
    expect_entry(entry("0123456789abcdef", 16), "4/2 \"0123456789abcdef\"");
    expect_entry(entry("0123456789abcdefg", 17), "4/2 \"0123456789abcdef\"...");
}

Test(raft_describe, kinds_of_entries_are_named)
{
    struct nh_entry_view e = entry("x", 1);

    e.type = NH_ENTRY_CONFIG_CHANGE;
    expect_entry(e, "4/2 CONFIG \"x\"");
    e.type = NH_ENTRY_METADATA;
    expect_entry(e, "4/2 METADATA \"x\"");
    e.type = NH_ENTRY_ENCODED;
    expect_entry(e, "4/2 ENCODED \"x\"");
    e.type = 99;
    expect_entry(e, "4/2 type 99 \"x\"");
    e.type = NH_ENTRY_APPLICATION;
    e.flags = NH_RECORD_SESSION;
    e.client_id = 7;
    e.series_id = 8;
    expect_entry(e, "4/2 session 7:8 \"x\"");
}

Test(raft_describe, replication_messages)
{
    struct nh_run run = run_of(2, true);

    expect_message(
        (struct nh_message){.type = NH_MSG_REPLICATE, .log_index = 3, .log_term = 1, .commit = 3, .runs = &run, .n_runs = 1},
        "1->2 REPLICATE term 3 after 3/1 commit 3 entries [4/2 \"a\", 5/2 \"b\"]");
    expect_message((struct nh_message){.type = NH_MSG_REPLICATE}, "1->2 REPLICATE term 3 after 0/0 commit 0");
    expect_message((struct nh_message){.type = NH_MSG_REPLICATE_RESP, .log_index = 5, .commit = 4},
                   "1->2 REPLICATE_RESP term 3 accepts 5 commit 4");
    expect_message((struct nh_message){.type = NH_MSG_REPLICATE_RESP, .reject = true, .log_index = 9, .hint = 4, .log_term = 2},
                   "1->2 REPLICATE_RESP term 3 rejects 9 hint 4/2 commit 0");
    expect_message((struct nh_message){.type = NH_MSG_HEARTBEAT, .commit = 4}, "1->2 HEARTBEAT term 3 commit 4");
    expect_message((struct nh_message){.type = NH_MSG_HEARTBEAT_RESP, .commit = 4, .hint = 2},
                   "1->2 HEARTBEAT_RESP term 3 commit 4 round 2");
    expect_message((struct nh_message){.type = NH_MSG_HEARTBEAT, .commit = 4, .hint = 2, .hint_high = 77},
                   "1->2 HEARTBEAT term 3 commit 4 round 2 lease 77");
    expect_message((struct nh_message){.type = NH_MSG_QUIESCE, .log_index = 5, .log_term = 2, .commit = 5},
                   "1->2 QUIESCE term 3 last 5/2 commit 5");
    nh_block_unref(run.block);
}

Test(raft_describe, election_messages)
{
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_VOTE, .log_index = 5, .log_term = 2},
                   "1->2 REQUEST_VOTE term 3 last 5/2");
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_VOTE, .hint = 1}, "1->2 REQUEST_VOTE term 3 last 0/0 transfer");
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_VOTE, .hint_high = 5},
                   "1->2 REQUEST_VOTE term 3 last 0/0 priority 5");
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_PRE_VOTE, .hint_high = 5},
                   "1->2 REQUEST_PRE_VOTE term 3 last 0/0 priority 5");
    expect_message((struct nh_message){.type = NH_MSG_REMOVED}, "1->2 REMOVED term 3");
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_VOTE_RESP}, "1->2 REQUEST_VOTE_RESP term 3 grants");
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_PRE_VOTE, .log_index = 5, .log_term = 2},
                   "1->2 REQUEST_PRE_VOTE term 3 last 5/2");
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_PRE_VOTE_RESP, .reject = true, .commit = 4, .log_term = 2},
                   "1->2 REQUEST_PRE_VOTE_RESP term 3 refuses commit 4/2");
    expect_message((struct nh_message){.type = NH_MSG_NOOP}, "1->2 NOOP term 3");
}

Test(raft_describe, request_messages)
{
    struct nh_run run = run_of(2, false);

    expect_message((struct nh_message){.type = NH_MSG_READ_INDEX, .hint = 7, .hint_high = 2},
                   "1->2 READ_INDEX term 3 context 7:2");
    expect_message((struct nh_message){.type = NH_MSG_READ_INDEX_RESP, .hint = 7, .hint_high = 2, .log_index = 5},
                   "1->2 READ_INDEX_RESP term 3 context 7:2 index 5");
    expect_message((struct nh_message){.type = NH_MSG_READ_INDEX_RESP, .hint = 7, .hint_high = 2, .reject = true},
                   "1->2 READ_INDEX_RESP term 3 context 7:2 dropped");
    expect_message((struct nh_message){.type = NH_MSG_PROPOSE, .hint = 7, .hint_high = 2, .runs = &run, .n_runs = 1},
                   "1->2 PROPOSE term 3 keys 7 n 2 entries [- \"a\", - \"b\"]");
    expect_message((struct nh_message){.type = NH_MSG_PROPOSE_RESP, .hint = 7, .hint_high = 1, .reject = true},
                   "1->2 PROPOSE_RESP term 3 dropped keys 7");
    nh_block_unref(run.block);
}

Test(raft_describe, snapshots_carry_their_members)
{
    struct nh_member members[] = {{.replica_id = 1, .kind = NH_MEMBER_LEAVING, .outgoing = true},
                                  {.replica_id = 2, .outgoing = true},
                                  {.replica_id = 3, .kind = NH_MEMBER_NON_VOTING, .outgoing = true},
                                  {.replica_id = 4, .kind = NH_MEMBER_WITNESS, .outgoing = true},
                                  {.replica_id = 5, .kind = NH_MEMBER_NON_VOTING}};
    struct nh_snapshot snapshot = {.index = 9, .term = 2, .membership = {.members = members, .n_members = 5}};
    struct nh_membership *m = &snapshot.membership;

    m->joint = true;
    expect_message((struct nh_message){.type = NH_MSG_INSTALL_SNAPSHOT, .snapshot = &snapshot, .commit = 11},
                   "1->2 INSTALL_SNAPSHOT term 3 snapshot 9/2 members [2 n3 w4 n5] and [1 2 3 w4] commit 11");
    m->auto_leave = true;
    raft_describe_membership(m, text, sizeof text);
    cr_assert_str_eq(text, "[2 n3 w4 n5] and [1 2 3 w4] auto");
    *m = (struct nh_membership){.members = members + 1, .n_members = 1};
    snapshot.witness = true;
    expect_message((struct nh_message){.type = NH_MSG_INSTALL_SNAPSHOT, .snapshot = &snapshot},
                   "1->2 INSTALL_SNAPSHOT term 3 snapshot 9/2 witness members [2] commit 0");
}

Test(raft_describe, transfer_and_load_messages)
{
    expect_message((struct nh_message){.type = NH_MSG_LEADER_TRANSFER, .hint = 4, .hint_high = 7},
                   "1->2 LEADER_TRANSFER term 3 target 4 key 7");
    expect_message((struct nh_message){.type = NH_MSG_LEADER_TRANSFER, .reject = true, .hint = 2, .hint_high = 7},
                   "1->2 LEADER_TRANSFER term 3 refused NO_VOTER key 7");
    expect_message((struct nh_message){.type = NH_MSG_LEADER_TRANSFER, .reject = true, .hint = 99, .hint_high = 7},
                   "1->2 LEADER_TRANSFER term 3 refused UNKNOWN key 7");
    expect_message((struct nh_message){.type = NH_MSG_TIMEOUT_NOW}, "1->2 TIMEOUT_NOW term 3");
    expect_message((struct nh_message){.type = NH_MSG_RATE_LIMIT, .hint = 1}, "1->2 RATE_LIMIT term 3 stop");
    expect_message((struct nh_message){.type = NH_MSG_RATE_LIMIT}, "1->2 RATE_LIMIT term 3 go on");
}

static uint8_t change_bytes[1024];

static size_t encode(const struct nh_config_change *change)
{
    size_t n = config_change_encode(change, change_bytes, sizeof change_bytes);

    cr_assert(n > 0 && n <= sizeof change_bytes);
    return n;
}

static void expect_change(const struct nh_config_change *change, const char *expected)
{
    struct nh_entry_view e = entry((const char *)change_bytes, (uint32_t)encode(change));

    e.type = NH_ENTRY_CONFIG_CHANGE;
    expect_entry(e, expected);
}

Test(raft_describe, a_configuration_change_is_told_in_words)
{
    struct nh_member four = {.replica_id = 4, .kind = NH_MEMBER_WITNESS, .address = "h4:1"};
    struct nh_member both[] = {{.replica_id = 1, .address = "h1:1"},
                               {.replica_id = 300, .kind = NH_MEMBER_NON_VOTING, .address = "h2:1"}};
    struct nh_member_change changes[] = {{.type = NH_CONFIG_ADD_MEMBER, .member = both[0]},
                                         {.type = NH_CONFIG_REMOVE_MEMBER, .member = {.replica_id = 9}}};
    struct nh_config_change c = {.type = NH_CONFIG_ADD_MEMBER, .member = four};

    expect_change(&c, "4/2 CONFIG add witness 4");
    c.member.kind = NH_MEMBER_NON_VOTING;
    c.config_change_id = 12;
    expect_change(&c, "4/2 CONFIG add non-voting 4 if change 12");
    c = (struct nh_config_change){.type = NH_CONFIG_REMOVE_MEMBER, .member = {.replica_id = UINT64_MAX}};
    expect_change(&c, "4/2 CONFIG remove 18446744073709551615");
    c = (struct nh_config_change){.type = NH_CONFIG_UPDATE_ADDRESS, .member = four};
    expect_change(&c, "4/2 CONFIG address 4 \"h4:1\"");
    c = (struct nh_config_change){.type = NH_CONFIG_LEAVE_JOINT};
    expect_change(&c, "4/2 CONFIG leave joint");
    c = (struct nh_config_change){.type = NH_CONFIG_CHANGE_MANY, .n_changes = 2, .changes = changes};
    expect_change(&c, "4/2 CONFIG many auto [add voter 1, remove 9]");
    c.transition = NH_TRANSITION_EXPLICIT;
    expect_change(&c, "4/2 CONFIG many explicit [add voter 1, remove 9]");
    c = (struct nh_config_change){.type = NH_CONFIG_INITIALIZE, .initial = {.n_members = 2, .members = both}};
    expect_change(&c, "4/2 CONFIG initial 1 n300");
}

/* Whatever the bytes are: no overrun, and bytes if they say nothing. */
Test(raft_describe, a_change_that_cannot_be_read_is_shown_as_bytes)
{
    struct nh_config_change c = {.type = NH_CONFIG_UPDATE_ADDRESS, .member = {.replica_id = 4, .address = "h4:1"}};
    size_t n = encode(&c);
    struct nh_entry_view e;

    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc(cut + 1); /* so that the sanitizer sees an overrun */

        memcpy(exact + 1, change_bytes, cut);
        e = entry((const char *)exact + 1, (uint32_t)cut);
        e.type = NH_ENTRY_CONFIG_CHANGE;
        raft_describe_entry(&e, text, sizeof text);
        cr_assert_null(strstr(text, "address"), "%s", text);
        free(exact);
    }
    for (size_t i = 0; i < n; i++)
        for (uint32_t v = 0; v < 256; v++) {
            encode(&c);
            change_bytes[i] = (uint8_t)v;
            e = entry((const char *)change_bytes, (uint32_t)n);
            e.type = NH_ENTRY_CONFIG_CHANGE;
            cr_assert_gt(raft_describe_entry(&e, text, sizeof text), strlen("4/2 CONFIG "));
        }
}

Test(raft_describe, a_type_that_the_core_does_not_speak_shows_what_it_has)
{
    struct nh_snapshot snapshot = {.index = 9, .term = 2};

    expect_message((struct nh_message){.type = NH_MSG_PING, .hint = 4, .log_index = 2, .commit = 1, .reject = true},
                   "1->2 PING term 3 reject log 2/0 commit 1 hint 4");
    expect_message((struct nh_message){.type = NH_MSG_PONG, .snapshot = &snapshot}, "1->2 PONG term 3 snapshot 9/2 members []");
    expect_message((struct nh_message){.type = NH_MSG_TYPE_COUNT, .hint_high = UINT64_MAX},
                   "1->2 UNKNOWN term 3 hint_high 18446744073709551615");
}

Test(raft_describe, of_many_entries_the_first_sixteen_are_shown)
{
    struct nh_run run = run_of(16, true);
    struct nh_message m = {.type = NH_MSG_REPLICATE, .runs = &run, .n_runs = 1};

    raft_describe_message(&m, text, sizeof text);
    cr_assert(strstr(text, ", 19/2 \"p\"]"));
    nh_block_unref(run.block);
    run = run_of(18, true);
    raft_describe_message(&m, text, sizeof text);
    cr_assert(strstr(text, ", 19/2 \"p\", and 2 more]"));
    nh_block_unref(run.block);
}

static void expect_update(const struct raft_update *u, const char *expected)
{
    cr_assert_eq(raft_describe_update(u, text, sizeof text), strlen(expected), "%s", text);
    cr_assert_str_eq(text, expected);
}

Test(raft_describe, an_update_lists_what_it_asks_for)
{
    struct nh_message send[] = {{.type = NH_MSG_NOOP, .from = 1, .to = 2, .term = 3}};
    struct nh_message after[] = {{.type = NH_MSG_REQUEST_VOTE_RESP, .from = 1, .to = 3, .term = 3}};
    struct raft_read read = {7, 2, 5};
    struct raft_dropped dropped[] = {{.is_read = true, .reason = NH_DROP_NO_LEADER, .first_key = 7, .n_keys = 1},
                                     {.reason = NH_DROP_OVERLOADED, .first_key = 8, .n_keys = 2}};
    struct raft_fetch fetch = {.peer = 2, .low = 3, .high = 9};
    struct nh_snapshot snapshot = {.index = 9, .term = 2};
    struct raft_transfer_end ends[] = {{1, RAFT_TRANSFER_DONE, RAFT_TRANSFER_OK},
                                       {2, RAFT_TRANSFER_TIMED_OUT, RAFT_TRANSFER_OK},
                                       {3, RAFT_TRANSFER_REFUSED, RAFT_TRANSFER_LOST_TARGET}};
    struct raft_update u = {.must_sync = true};

    expect_update(&u, "");
    u.save_id = 6;
    u.has_state = u.leader_changed = true;
    u.state = (struct nh_state){.term = 3, .vote = 2, .commit = 1};
    u.runs.runs = (struct nh_run[]){run_of(1, true)};
    u.runs.n = 1;
    u.send.items = send;
    u.send_after_save.items = after;
    u.reads.items = &read;
    u.dropped.items = dropped;
    u.fetches.items = &fetch;
    u.send.n = u.send_after_save.n = u.reads.n = u.fetches.n = 1;
    u.dropped.n = 2;
    u.apply_first = 2;
    u.apply_last = 4;
    u.leader_id = 2;
    u.term = 3;
    expect_update(&u, "save 6 term 3 vote 2 commit 1 entries [4/2 \"a\"] | send 1->2 NOOP term 3 | "
                      "send after save 1->3 REQUEST_VOTE_RESP term 3 grants | apply 2..4 | read 7:2 at 5 | "
                      "dropped read 7 NO_LEADER | dropped keys 8 n 2 OVERLOADED | fetch 3..8 for 2 | leader 2 in term 3");
    nh_block_unref(u.runs.runs[0].block);
    u = (struct raft_update){.save_id = 1, .must_sync = true, .snapshot = &snapshot, .removed = true};
    u.transfers.items = ends;
    u.transfers.n = 3;
    expect_update(&u,
                  "save 1 snapshot 9/2 members [] | transfer 1 DONE | transfer 2 TIMED_OUT | transfer 3 REFUSED LOST_TARGET | "
                  "removed");
    u = (struct raft_update){.save_id = 1, .leader_changed = true, .term = 4};
    expect_update(&u, "save 1 unsynced | no leader in term 4");
}

Test(raft_describe, a_status_leaves_out_what_is_as_usual)
{
    struct raft_status s = {.role = RAFT_LEADER,
                            .term = 2,
                            .vote = 1,
                            .leader_id = 1,
                            .first_index = 1,
                            .last_index = 5,
                            .saved_index = 5,
                            .commit_index = 4,
                            .handed_index = 4,
                            .applied_index = 4};
    const char *usual = "LEADER term 2 vote 1 leader 1 log 1..5 commit 4 applied 4";

    cr_assert_eq(raft_describe_status(&s, text, sizeof text), strlen(usual));
    cr_assert_str_eq(text, usual);
    s.role = RAFT_PRE_CANDIDATE;
    s.saved_index = 3;
    s.applied_index = 2;
    s.quiesced = s.joint = s.pending_config = s.lease_held = s.overloaded = true;
    s.transferee = 3;
    s.snapshot_index = 2;
    s.uncommitted_bytes = 6;
    s.ignored_messages = 7;
    s.truncated_suffixes = 8;
    s.stale_saves = 9;
    raft_describe_status(&s, text, sizeof text);
    cr_assert_str_eq(text, "PRE_CANDIDATE term 2 vote 1 leader 1 log 1..5 commit 4 applied 2 saved 3 handed 4 "
                           "uncommitted_bytes 6 snapshot 2 joint config_pending transferee 3 lease overloaded quiesced ignored 7 "
                           "truncated 8 stale_saves 9");
}

Test(raft_describe, a_peer)
{
    struct raft_peer_status p = {.replica_id = 2, .match = 3, .next = 4};

    raft_describe_peer(&p, text, sizeof text);
    cr_assert_str_eq(text, "peer 2 PROBE match 3 next 4");
    p = (struct raft_peer_status){.replica_id = 3,
                                  .kind = NH_MEMBER_NON_VOTING,
                                  .state = RAFT_REPLICATE,
                                  .match = 3,
                                  .next = 6,
                                  .inflight_messages = 2,
                                  .active = true,
                                  .paused = true};
    raft_describe_peer(&p, text, sizeof text);
    cr_assert_str_eq(text, "peer 3 non-voting REPLICATE match 3 next 6 inflight 2 active paused");
    p = (struct raft_peer_status){.replica_id = 3,
                                  .kind = NH_MEMBER_LEAVING,
                                  .outgoing = true,
                                  .state = RAFT_SNAPSHOT,
                                  .next = 1,
                                  .pending_snapshot = 9,
                                  .overloaded = true};
    raft_describe_peer(&p, text, sizeof text);
    cr_assert_str_eq(text, "peer 3 leaving outgoing SNAPSHOT match 0 next 1 pending 9 overloaded");
    p = (struct raft_peer_status){.replica_id = 3, .kind = NH_MEMBER_WITNESS};
    raft_describe_peer(&p, text, sizeof text);
    cr_assert_str_eq(text, "peer 3 witness PROBE match 0 next 0");
}

Test(raft_describe, no_buffer_is_overrun_and_the_length_is_always_that_of_the_whole)
{
    struct nh_entry_view e = entry("a\nb", 3);
    const char *whole = "4/2 \"a\\nb\"";
    char buf[32];

    cr_assert_eq(raft_describe_entry(&e, NULL, 0), strlen(whole));
    for (size_t cap = 1; cap < sizeof buf; cap++) {
        size_t kept = cap - 1 < strlen(whole) ? cap - 1 : strlen(whole);

        memset(buf, 'Z', sizeof buf);
        cr_assert_eq(raft_describe_entry(&e, buf, cap), strlen(whole));
        cr_assert_eq(strlen(buf), kept);
        cr_assert(memcmp(buf, whole, kept) == 0);
        cr_assert_eq(buf[cap], 'Z');
    }
}
