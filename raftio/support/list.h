/* raftio/support/list.h - intrusive lists.
 *
 * `struct list` is a doubly linked ring with a head (removal from the middle: timers, active sets); `struct queue` is a
 * singly linked FIFO that can be spliced in O(1) (mailboxes). A zeroed queue is empty; a list head needs list_init.
 */
#ifndef NH_RAFTIO_SUPPORT_LIST_H
#define NH_RAFTIO_SUPPORT_LIST_H

#include <stdbool.h>
#include <stddef.h>

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
/* True while the node is on some list; needs nodes that were list_init-ed. */
static inline bool list_linked(const struct list *l)
{
    return l->next != l;
}
static inline void list_push_back(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}
/* Unlinks and re-inits, so that removing twice is harmless. */
static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}
static inline struct list *list_pop_front(struct list *head)
{
    struct list *node = head->next;

    if (node == head)
        return NULL;
    list_remove(node);
    return node;
}
/* Moves all of `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_splice(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

struct queue_node {
    struct queue_node *next;
};
struct queue {
    struct queue_node *first, *last;
};

static inline bool queue_empty(const struct queue *q)
{
    return q->first == NULL;
}
static inline void queue_push(struct queue *q, struct queue_node *n)
{
    n->next = NULL;
    if (q->last)
        q->last->next = n;
    else
        q->first = n;
    q->last = n;
}
static inline struct queue_node *queue_pop(struct queue *q)
{
    struct queue_node *n = q->first;

    if (n) {
        q->first = n->next;
        if (!q->first)
            q->last = NULL;
        n->next = NULL;
    }
    return n;
}
static inline void queue_splice(struct queue *to, struct queue *from)
{
    if (!from->first)
        return;
    if (to->last)
        to->last->next = from->first;
    else
        to->first = from->first;
    to->last = from->last;
    from->first = from->last = NULL;
}

#endif
