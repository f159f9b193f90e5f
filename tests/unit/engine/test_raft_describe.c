/* The texts are part of golden traces: each type is spelled out here once, and the buffer is tested at every size. */
#include "engine/raft/describe.h"

#include <criterion/criterion.h>
#include <string.h>

#include "raftio/request.h"

static char text[1024];

static struct nh_entry_view entry(const char *payload, uint32_t bytes)
{
    return (struct nh_entry_view){.index = 4, .term = 2, .payload = (const uint8_t *)payload, .payload_bytes = bytes};
}

static void expect_entry(struct nh_entry_view e, const char *expected)
{
    cr_assert_eq(raft_describe_entry(&e, text, sizeof text), strlen(expected));
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
    expect_entry(e, "4/2 config \"x\"");
    e.type = NH_ENTRY_METADATA;
    expect_entry(e, "4/2 metadata \"x\"");
    e.type = NH_ENTRY_ENCODED;
    expect_entry(e, "4/2 encoded \"x\"");
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
    expect_message((struct nh_message){.type = NH_MSG_QUIESCE, .log_index = 5, .log_term = 2, .commit = 5},
                   "1->2 QUIESCE term 3 last 5/2 commit 5");
    nh_block_unref(run.block);
}

Test(raft_describe, election_messages)
{
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_VOTE, .log_index = 5, .log_term = 2},
                   "1->2 REQUEST_VOTE term 3 last 5/2");
    expect_message((struct nh_message){.type = NH_MSG_REQUEST_VOTE, .hint = 1}, "1->2 REQUEST_VOTE term 3 last 0/0 transfer");
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

Test(raft_describe, a_type_that_the_core_does_not_speak_shows_what_it_has)
{
    struct nh_snapshot snapshot = {.index = 9, .term = 2};

    expect_message((struct nh_message){.type = NH_MSG_INSTALL_SNAPSHOT, .snapshot = &snapshot},
                   "1->2 INSTALL_SNAPSHOT term 3 snapshot 9/2");
    expect_message((struct nh_message){.type = NH_MSG_LEADER_TRANSFER, .hint = 4, .log_index = 2, .commit = 1, .reject = true},
                   "1->2 LEADER_TRANSFER term 3 reject log 2/0 commit 1 hint 4");
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
    s.quiesced = true;
    s.uncommitted_bytes = 6;
    s.ignored_messages = 7;
    s.truncated_suffixes = 8;
    s.stale_saves = 9;
    raft_describe_status(&s, text, sizeof text);
    cr_assert_str_eq(text, "PRE_CANDIDATE term 2 vote 1 leader 1 log 1..5 commit 4 applied 2 saved 3 handed 4 "
                           "uncommitted_bytes 6 quiesced ignored 7 truncated 8 stale_saves 9");
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
