#include "engine/replica.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "engine/step_worker.h"

/* An inbox alone: no core, and a worker that nobody wakes, as its mailbox is never empty. */
static struct step_worker worker;
static struct step_item other = {.type = STEP_NOTIFY};
static struct replica r;
static struct inbox in;

static void setup(void)
{
    mailbox_init(&worker.mailbox);
    cr_assert_eq(mailbox_post(&worker.mailbox, &other.node), MAILBOX_WAKE);
    r = (struct replica){.step = &worker, .state = REPLICA_RUNNING, .refs = 1};
    pthread_mutex_init(&r.lock, NULL);
}

static void free_changes(struct queue *changes)
{
    struct queue_node *node;

    while ((node = queue_pop(changes)))
        free(container_of(node, struct membership_change, node));
}

static void teardown(void)
{
    free_changes(&in.changes);
    block_builder_deinit(&in.proposals);
    block_builder_deinit(&r.proposals);
    block_builder_deinit(&r.spare_proposals);
    pthread_mutex_destroy(&r.lock);
    mailbox_deinit(&worker.mailbox);
}

TestSuite(replica_inbox, .init = setup, .fini = teardown);

/* How often the replica is in it. */
static uint32_t take_mailbox(void)
{
    struct queue items = {0};
    struct queue_node *node;
    uint32_t n = 0;

    mailbox_take(&worker.mailbox, &items);
    while ((node = queue_pop(&items)))
        n += node == &r.notify.node;
    mailbox_post(&worker.mailbox, &other.node);
    return n;
}

static void add_proposal(void)
{
    cr_assert_eq(block_builder_add(&r.proposals, &(struct block_record){.payload = "x", .payload_bytes = 1}), NH_OK);
}

static bool look(void)
{
    uint64_t applied;

    return replica_look_at_inbox(&r, &applied);
}

Test(replica_inbox, nothing_is_taken_when_only_the_machine_went_on)
{
    struct queue none = {0};
    uint64_t applied;

    replica_post_applied(&r, 5, &none, NULL);
    cr_assert_not(replica_look_at_inbox(&r, &applied));
    cr_assert_eq(applied, 5);
    cr_assert_eq(take_mailbox(), 0, "nobody waits for it");
}

Test(replica_inbox, what_is_applied_is_not_seen_without_its_change)
{
    struct membership_change *change = calloc(1, sizeof *change);
    struct queue changes = {0};
    uint64_t applied;

    queue_push(&changes, &change->node);
    replica_post_applied(&r, 5, &changes, NULL);
    cr_assert(replica_look_at_inbox(&r, &applied), "although the notification is in the mailbox still");
    replica_take_inbox(&r, true, &in);
    cr_assert_eq(in.applied, 5);
    cr_assert_eq(in.changes.first, &change->node);
}

Test(replica_inbox, is_notified_once_until_it_is_taken)
{
    struct snapshot_note note = {.type = NOTE_FAILED};
    struct queue_node *node;

    for (int i = 0; i < 3; i++)
        replica_post_note(&r, &note);
    replica_take_inbox(&r, true, &in); /* for some message, before the mailbox */
    replica_post_note(&r, &note);
    cr_assert_eq(take_mailbox(), 1, "to post it twice would tear the mailbox");
    r.is_notified = true;
    replica_post_note(&r, &note);
    cr_assert_eq(take_mailbox(), 0, "it will be taken in this pass");
    while ((node = queue_pop(&in.notes)))
        snapshot_note_free(container_of(node, struct snapshot_note, node));
    replica_take_inbox(&r, true, &in);
    cr_assert_not(look());
    replica_post_note(&r, &note);
    cr_assert(look());
    cr_assert_eq(take_mailbox(), 1);
    while ((node = queue_pop(&in.notes)) || (node = queue_pop(&r.notes)))
        snapshot_note_free(container_of(node, struct snapshot_note, node));
}

Test(replica_inbox, proposals_wait_there_for_a_leader)
{
    add_proposal();
    r.notified = r.is_notified = true;
    replica_take_inbox(&r, false, &in);
    cr_assert_eq(in.proposals.n, 0);
    cr_assert(look(), "there may be one now");
    replica_take_inbox(&r, true, &in);
    cr_assert_eq(in.proposals.n, 1);
    cr_assert_not(look());
}

Test(replica_inbox, an_idle_replica_keeps_no_arrays_for_proposals)
{
    uint32_t turns = 0;

    add_proposal();
    r.notified = r.is_notified = true;
    cr_assert(look());
    replica_take_inbox(&r, true, &in);
    replica_reuse_proposals(&r, &in);
    cr_assert_not_null(r.spare_proposals.data);
    while (!look() && turns < 100)
        turns++;
    cr_assert_gt(turns, 2, "a busy one keeps them");
    cr_assert_lt(turns, 100);
    replica_take_inbox(&r, true, &in);
    cr_assert_null(r.spare_proposals.data);
    cr_assert_not(look(), "once");
}
