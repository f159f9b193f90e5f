#include <criterion/criterion.h>

#include "raftio/support/list.h"

struct item {
    int number;
    struct list link;
};

Test(list, nodes_leave_from_the_middle_and_twice_is_harmless)
{
    struct item items[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    struct list head;

    list_init(&head);
    cr_assert(list_empty(&head));
    for (int i = 0; i < 3; i++) {
        list_init(&items[i].link);
        cr_assert_not(list_linked(&items[i].link));
        list_push_back(&head, &items[i].link);
    }
    list_remove(&items[1].link);
    list_remove(&items[1].link);
    cr_assert_not(list_linked(&items[1].link));
    cr_assert_eq(container_of(list_pop_front(&head), struct item, link)->number, 0);
    cr_assert_eq(container_of(list_pop_front(&head), struct item, link)->number, 2);
    cr_assert_null(list_pop_front(&head));
}

Test(list, splice_moves_everything_to_the_end)
{
    struct list a, b, n[3];

    list_init(&a);
    list_init(&b);
    list_push_back(&a, &n[0]);
    list_splice(&a, &b); /* of nothing */
    list_push_back(&b, &n[1]);
    list_push_back(&b, &n[2]);
    list_splice(&a, &b);
    cr_assert(list_empty(&b));
    for (int i = 0; i < 3; i++)
        cr_assert_eq(list_pop_front(&a), &n[i]);
    cr_assert(list_empty(&a));
}

Test(list, a_queue_is_first_in_first_out_and_splices)
{
    struct queue a = {0}, b = {0};
    struct queue_node n[3];

    queue_push(&a, &n[0]);
    queue_splice(&a, &b);
    queue_push(&b, &n[1]);
    queue_push(&b, &n[2]);
    queue_splice(&a, &b);
    cr_assert(queue_empty(&b));
    for (int i = 0; i < 3; i++)
        cr_assert_eq(queue_pop(&a), &n[i]);
    cr_assert_null(queue_pop(&a));
    queue_push(&b, &n[0]);
    queue_splice(&a, &b);
    queue_push(&a, &n[1]);
    cr_assert_eq(queue_pop(&a), &n[0]);
    cr_assert_eq(queue_pop(&a), &n[1]);
}
