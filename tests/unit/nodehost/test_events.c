/* From any thread to one listener, in order, bounded. */
#include "nodehost/events.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* the listener waits here */
static uint64_t seen[1000];
static uint32_t n_seen, n_text;
static bool on_event_thread;

static void on_leader(void *ctx, const struct nh_leader_info *info)
{
    (void)ctx;
    pthread_mutex_lock(&gate);
    seen[n_seen++] = info->term;
    on_event_thread = events_on_thread();
    pthread_mutex_unlock(&gate);
}

static void on_quarantined(void *ctx, const struct nh_quarantine_info *info)
{
    (void)ctx;
    n_text += strcmp(info->reason, "because") == 0 && info->shard_id == 4;
}

static void on_connected(void *ctx, const struct nh_connection_info *info)
{
    (void)ctx;
    n_text += strcmp(info->address, "a:1") == 0 && !info->snapshot_connection;
}

static const struct nh_raft_event_listener raft = {.struct_size = sizeof raft, .leader_updated = on_leader};
static const struct nh_system_event_listener system_listener = {.struct_size = sizeof system_listener,
                                                                .replica_quarantined = on_quarantined,
                                                                .connection_established = on_connected};

static void post_leader(struct events *e, uint64_t term)
{
    events_post_leader(e, &(struct nh_leader_info){1, 1, term, 1});
}

Test(events, come_in_order_on_a_thread_of_their_own)
{
    struct events *e = events_new(&raft, &system_listener, 0);
    char reason[] = "because";

    events_start(e);
    for (uint64_t i = 0; i < 500; i++)
        post_leader(e, i);
    events_post(e, EVENT_REPLICA_QUARANTINED, (struct nh_replica_info){4, 1}, reason);
    memset(reason, 'x', 7); /* it was copied */
    events_post_connection(e, EVENT_CONNECTED, "a:1", false);
    events_post(e, EVENT_REPLICA_READY, (struct nh_replica_info){4, 1}, NULL); /* nobody listens */
    events_stop(e);
    cr_assert_eq(n_seen, 500, "what is queued is delivered before the stop");
    for (uint64_t i = 0; i < 500; i++)
        cr_assert_eq(seen[i], i);
    cr_assert_eq(n_text, 2);
    cr_assert(on_event_thread && !events_on_thread());
    cr_assert_eq(events_dropped(e), 0);
    events_free(e);
}

Test(events, a_slow_listener_loses_the_newest_and_counts_them)
{
    struct events *e = events_new(&raft, NULL, 10);

    events_start(e);
    pthread_mutex_lock(&gate);
    post_leader(e, 0);
    for (int i = 0; i < 1000 && n_seen == 0; i++)
        usleep(100); /* the thread takes the first and waits at the gate */
    for (uint64_t i = 1; i <= 30; i++)
        post_leader(e, i);
    pthread_mutex_unlock(&gate);
    events_stop(e);
    cr_assert_geq(events_dropped(e), 19);
    cr_assert_eq(n_seen + events_dropped(e), 31);
    for (uint32_t i = 0; i < n_seen; i++)
        cr_assert_eq(seen[i], i, "the oldest are kept");
    events_free(e);
}

Test(events, an_older_listener_struct_is_taken_as_far_as_it_goes)
{
    struct nh_system_event_listener old = system_listener;
    struct events *e;

    old.struct_size = offsetof(struct nh_system_event_listener, connection_established);
    e = events_new(NULL, &old, 0);
    events_start(e);
    events_post_connection(e, EVENT_CONNECTED, "a:1", false);
    events_post(e, EVENT_REPLICA_QUARANTINED, (struct nh_replica_info){4, 1}, "because");
    events_stop(e);
    cr_assert_eq(n_text, 1);
    events_free(e);
}

/* ---- sends of snapshots ---- */

static char sends[64];
static sem_t at_gate;

static void on_send_started(void *ctx, const struct nh_snapshot_info *info)
{
    (void)ctx;
    sem_post(&at_gate);
    pthread_mutex_lock(&gate);
    sends[strlen(sends)] = (char)('a' + info->index);
    pthread_mutex_unlock(&gate);
}

static void on_send_completed(void *ctx, const struct nh_snapshot_info *info)
{
    (void)ctx;
    sends[strlen(sends)] = (char)('A' + info->index);
}

static void on_send_aborted(void *ctx, const struct nh_snapshot_info *info)
{
    (void)ctx;
    (void)info;
    sends[strlen(sends)] = '!';
}

static const struct nh_system_event_listener send_listener = {.struct_size = sizeof send_listener,
                                                              .send_snapshot_started = on_send_started,
                                                              .send_snapshot_completed = on_send_completed,
                                                              .send_snapshot_aborted = on_send_aborted};

static void post_send(struct events *e, enum event_type type, uint64_t index)
{
    events_post_snapshot(e, type, &(struct nh_snapshot_info){1, 2, 3, index});
}

Test(events, a_send_that_was_told_to_have_begun_is_told_to_have_ended)
{
    struct events *e = events_new(NULL, &send_listener, 2);

    sem_init(&at_gate, 0, 0);
    events_start(e);
    pthread_mutex_lock(&gate);
    post_send(e, EVENT_SEND_STARTED, 0);
    sem_wait(&at_gate); /* the thread has it */
    post_send(e, EVENT_SEND_STARTED, 1);
    post_send(e, EVENT_SEND_STARTED, 2);
    post_send(e, EVENT_SEND_STARTED, 3);   /* no place */
    post_send(e, EVENT_SEND_COMPLETED, 3); /* so this is not told either */
    post_send(e, EVENT_SEND_COMPLETED, 0); /* no place, but owed */
    post_send(e, EVENT_SEND_COMPLETED, 1);
    pthread_mutex_unlock(&gate);
    events_stop(e); /* the third has no end until now */
    cr_assert_str_eq(sends, "abcAB!");
    cr_assert_eq(events_dropped(e), 2);
    events_free(e);
}

Test(events, who_hears_of_ends_alone_hears_of_them_once)
{
    struct nh_system_event_listener l = send_listener;
    struct events *e;

    l.send_snapshot_started = NULL;
    e = events_new(NULL, &l, 0);
    events_start(e);
    post_send(e, EVENT_SEND_STARTED, 0);
    post_send(e, EVENT_SEND_ABORTED, 0);
    post_send(e, EVENT_SEND_ABORTED, 0);
    events_stop(e);
    cr_assert_str_eq(sends, "!");
    events_free(e);
}
