#include <criterion/criterion.h>

#include "raftio/support/mailbox.h"

Test(mailbox, only_the_first_post_after_a_take_wakes)
{
    struct queue_node nodes[3];
    struct queue q = {0};
    struct mailbox m;

    mailbox_init(&m);
    cr_assert(mailbox_empty(&m));
    cr_assert_eq(mailbox_post(&m, &nodes[0]), MAILBOX_WAKE);
    cr_assert_eq(mailbox_post(&m, &nodes[1]), MAILBOX_QUEUED);
    cr_assert_not(mailbox_empty(&m));
    mailbox_take(&m, &q);
    cr_assert(mailbox_empty(&m));
    cr_assert_eq(mailbox_post(&m, &nodes[2]), MAILBOX_WAKE);
    mailbox_take(&m, &q); /* appends */
    for (int i = 0; i < 3; i++)
        cr_assert_eq(queue_pop(&q), &nodes[i]);
    cr_assert_null(queue_pop(&q));
    mailbox_deinit(&m);
}

Test(mailbox, post_all_moves_a_whole_queue_in_order)
{
    struct queue in = {0}, out = {0};
    struct queue_node nodes[4];
    struct mailbox m;

    mailbox_init(&m);
    mailbox_post(&m, &nodes[0]);
    for (int i = 1; i < 4; i++)
        queue_push(&in, &nodes[i]);
    cr_assert_eq(mailbox_post_all(&m, &in), MAILBOX_QUEUED);
    cr_assert(queue_empty(&in));
    mailbox_take(&m, &out);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(queue_pop(&out), &nodes[i]);
    mailbox_deinit(&m);
}

Test(mailbox, posting_nothing_wakes_nobody)
{
    struct queue none = {0};
    struct mailbox m;

    mailbox_init(&m);
    cr_assert_eq(mailbox_post_all(&m, &none), MAILBOX_QUEUED);
    cr_assert(mailbox_empty(&m));
    mailbox_deinit(&m);
}

Test(mailbox, a_closed_box_refuses_and_leaves_the_nodes_with_the_caller)
{
    struct queue in = {0}, out = {0};
    struct queue_node a, b, c;
    struct mailbox m;

    mailbox_init(&m);
    mailbox_post(&m, &a);
    mailbox_close(&m);
    cr_assert_eq(mailbox_post(&m, &b), MAILBOX_CLOSED);
    queue_push(&in, &b);
    queue_push(&in, &c);
    cr_assert_eq(mailbox_post_all(&m, &in), MAILBOX_CLOSED);
    cr_assert_eq(queue_pop(&in), &b);
    cr_assert_eq(queue_pop(&in), &c);
    mailbox_take(&m, &out); /* what was accepted before can still be taken */
    cr_assert_eq(queue_pop(&out), &a);
    cr_assert_null(queue_pop(&out));
    mailbox_deinit(&m);
}
