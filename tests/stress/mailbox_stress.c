/* Many producers, one consumer that sleeps whenever the mailbox is empty and is woken only when a post says so. If a
 * wake-up were lost the consumer would sleep for ever; if a node were lost, doubled or overtaken the counts tell. The box is
 * closed while producers run: from then on every node must be refused and stay with its producer. */
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "raftio/support/mailbox.h"
#include "tests/stress/check.h"

#define N_PRODUCERS 6u
#define N_ITEMS     40000u
#define BATCH       7u

struct item {
    struct queue_node node;
    unsigned producer;
    uint64_t number;
};

struct box {
    struct mailbox mailbox;
    sem_t wake;
};

struct producer {
    pthread_t thread;
    struct box *box;
    unsigned id;
    uint64_t n_accepted;
    uint64_t n_wakes;
};

static struct item *item_new(unsigned producer, uint64_t number)
{
    struct item *item = malloc(sizeof *item);

    CHECK(item);
    *item = (struct item){.producer = producer, .number = number};
    return item;
}

static void free_all(struct queue *q)
{
    struct queue_node *n;

    while ((n = queue_pop(q)))
        free(container_of(n, struct item, node));
}

/* Posts items [from, from + n) singly or as one queue. False: the box is closed. */
static bool post(struct producer *p, uint64_t from, unsigned n)
{
    struct queue q = {0};
    enum mailbox_result result;

    for (unsigned i = 0; i < n; i++)
        queue_push(&q, &item_new(p->id, from + i)->node);
    result = n == 1 ? mailbox_post(&p->box->mailbox, q.first) : mailbox_post_all(&p->box->mailbox, &q);
    if (result == MAILBOX_CLOSED) {
        CHECK(!queue_empty(&q)); /* still ours */
        free_all(&q);
        return false;
    }
    if (result == MAILBOX_WAKE) {
        p->n_wakes++;
        sem_post(&p->box->wake);
    }
    p->n_accepted += n;
    return true;
}

static void *produce(void *arg)
{
    struct producer *p = arg;
    bool open = true;

    for (uint64_t i = 0; open && i < N_ITEMS;) {
        unsigned n = i % 3 == 0 && i + BATCH <= N_ITEMS ? BATCH : 1;

        open = post(p, i, n);
        i += n;
    }
    return NULL;
}

static uint64_t consume(struct queue *q, uint64_t next[N_PRODUCERS])
{
    struct queue_node *n;
    uint64_t count = 0;

    while ((n = queue_pop(q))) {
        struct item *item = container_of(n, struct item, node);

        CHECK(item->number == next[item->producer]); /* in order, none lost, none twice */
        next[item->producer]++;
        free(item);
        count++;
    }
    return count;
}

/* Takes until `until` items came; then closes. Returns all that came, also what was accepted before the close. */
static uint64_t run(uint64_t until)
{
    struct producer producers[N_PRODUCERS] = {0};
    uint64_t next[N_PRODUCERS] = {0}, count = 0, accepted = 0, wakes = 0;
    struct queue q = {0};
    struct box box;

    mailbox_init(&box.mailbox);
    sem_init(&box.wake, 0, 0);
    for (unsigned i = 0; i < N_PRODUCERS; i++) {
        producers[i].box = &box;
        producers[i].id = i;
        CHECK(pthread_create(&producers[i].thread, NULL, produce, &producers[i]) == 0);
    }
    while (count < until) {
        sem_wait(&box.wake);
        mailbox_take(&box.mailbox, &q);
        count += consume(&q, next);
    }
    mailbox_close(&box.mailbox);
    for (unsigned i = 0; i < N_PRODUCERS; i++) {
        pthread_join(producers[i].thread, NULL);
        accepted += producers[i].n_accepted;
        wakes += producers[i].n_wakes;
    }
    mailbox_take(&box.mailbox, &q);
    count += consume(&q, next);
    CHECK(count == accepted);
    CHECK(mailbox_empty(&box.mailbox));
    printf("%llu items, %llu wake-ups\n", (unsigned long long)count, (unsigned long long)wakes);
    sem_destroy(&box.wake);
    mailbox_deinit(&box.mailbox);
    return count;
}

int main(void)
{
    CHECK(run((uint64_t)N_PRODUCERS * N_ITEMS) == (uint64_t)N_PRODUCERS * N_ITEMS);
    CHECK(run((uint64_t)N_PRODUCERS * N_ITEMS / 4) < (uint64_t)N_PRODUCERS * N_ITEMS + 1);
    return 0;
}
