#include "transport/tcp/send_queue.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct send_queue q;
static int ours, theirs;
static unsigned n_wakes;
static uint64_t frames_sent, bytes_sent;

static void wake(struct send_queue *b)
{
    (void)b;
    n_wakes++;
}

static void setup(void)
{
    int fds[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    ours = fds[0];
    theirs = fds[1];
    cr_assert_eq(fcntl(theirs, F_SETFL, O_NONBLOCK), 0);
    send_queue_init(&q, 64u << 20, wake);
    q.frames_sent = &frames_sent;
    q.bytes_sent = &bytes_sent;
}

static void teardown(void)
{
    send_queue_deinit(&q);
    close(ours);
    close(theirs);
}

TestSuite(send_queue, .init = setup, .fini = teardown);

static void post(size_t size_bytes, char fill)
{
    struct out_frame *f;

    cr_assert_eq(send_queue_reserve(&q, size_bytes, NULL), NH_OK);
    f = out_frame_new(size_bytes, 1);
    f->to[0] = (struct nh_replica_info){1, 2};
    memset(f->data, fill, size_bytes);
    cr_assert_eq(send_queue_post(&q, f, NULL), NH_OK);
}

static struct out_frame *first(const struct queue *frames)
{
    return container_of(frames->first, struct out_frame, node);
}

/* Reads what the socket has; every byte must be `fill`. */
static size_t drain(char fill)
{
    static char buf[1 << 16];
    size_t all = 0;
    ssize_t n;

    while ((n = read(theirs, buf, sizeof buf)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            cr_assert_eq(buf[i], fill);
        all += (size_t)n;
    }
    return all;
}

static struct queue take(int want_error)
{
    struct queue taken = {0};
    bool orphan;

    cr_assert_eq(send_queue_take(&q, &taken, &orphan), want_error);
    return taken;
}

Test(send_queue, a_lent_socket_is_written_at_once_and_wakes_nobody)
{
    send_queue_lend(&q, ours);
    post(100, 'a');
    post(50, 'a');
    cr_assert_eq(drain('a'), 150);
    cr_assert_eq(n_wakes, 0);
    cr_assert_eq(q.bytes, 0, "the frames gave their bytes back");
    cr_assert(frames_sent == 2 && bytes_sent == 150);
}

Test(send_queue, without_a_loan_the_loop_is_woken_once)
{
    struct queue taken;

    post(100, 'a');
    post(50, 'a');
    cr_assert_eq(n_wakes, 1);
    cr_assert_eq(drain('a'), 0);
    taken = take(0);
    cr_assert(first(&taken)->size_bytes == 100 && first(&taken)->written_bytes == 0);
    send_queue_release(&q, &taken, OUT_WRITTEN);
    cr_assert(q.bytes == 0 && frames_sent == 0, "the loop counts what it writes");
}

Test(send_queue, a_frame_at_the_limit_is_written_and_one_above_is_the_loops)
{
    struct queue taken;

    send_queue_lend(&q, ours);
    post(SEND_DIRECT_BYTES_MAX, 'a');
    cr_assert_eq(drain('a'), SEND_DIRECT_BYTES_MAX);
    cr_assert_eq(n_wakes, 0);
    post(SEND_DIRECT_BYTES_MAX + 1, 'b');
    post(10, 'c');
    cr_assert_eq(drain('b'), 0);
    cr_assert_eq(n_wakes, 1, "and nothing overtakes it");
    taken = take(0);
    cr_assert_eq(first(&taken)->size_bytes, SEND_DIRECT_BYTES_MAX + 1);
    send_queue_release(&q, &taken, OUT_WRITTEN);
}

Test(send_queue, a_take_with_frames_ends_the_loan_until_the_next)
{
    struct queue taken;

    send_queue_lend(&q, ours);
    taken = take(0);
    cr_assert(queue_empty(&taken));
    post(10, 'a');
    cr_assert_eq(drain('a'), 10, "one without frames does not");
    post(SEND_DIRECT_BYTES_MAX + 1, 'b');
    taken = take(0);
    post(10, 'c');
    cr_assert_eq(drain('c'), 0);
    send_queue_release(&q, &taken, OUT_WRITTEN);
    taken = take(0);
    send_queue_release(&q, &taken, OUT_WRITTEN);
    send_queue_lend(&q, ours);
    post(10, 'd');
    cr_assert_eq(drain('d'), 10);
}

Test(send_queue, what_a_full_socket_does_not_take_is_the_loops_in_order)
{
    struct queue taken;
    size_t before, size = SEND_DIRECT_BYTES_MAX - 1, n = 0;

    send_queue_lend(&q, ours);
    while (n_wakes == 0 && n < 1000) {
        post(size, 'a');
        n++;
    }
    cr_assert_eq(n_wakes, 1);
    post(10, 'a');
    cr_assert_eq(n_wakes, 1, "the loop knows");
    before = drain('a');
    taken = take(0);
    cr_assert_eq(before, (n - 1) * size + first(&taken)->written_bytes);
    cr_assert_lt(first(&taken)->written_bytes, size);
    cr_assert_eq(bytes_sent, before);
    cr_assert_eq(frames_sent, n - 1);
    cr_assert_eq(q.bytes, size + 10);
    cr_assert_eq(container_of(taken.last, struct out_frame, node)->size_bytes, 10);
    send_queue_release(&q, &taken, OUT_WRITTEN);
}

Test(send_queue, a_broken_socket_is_an_error_for_the_loop_and_no_signal)
{
    struct queue taken;

    send_queue_lend(&q, ours);
    shutdown(ours, SHUT_WR);
    post(10, 'a');
    post(10, 'a');
    cr_assert_eq(n_wakes, 1);
    taken = take(EPIPE);
    cr_assert(taken.first && taken.first->next == taken.last, "both are given up by the loop");
    send_queue_release(&q, &taken, OUT_LOST);
    send_queue_withdraw(&q, &taken);
    cr_assert(queue_empty(&taken));
    send_queue_lend(&q, ours);
}

Test(send_queue, a_socket_that_was_withdrawn_is_left_alone)
{
    struct queue taken = {0};

    send_queue_lend(&q, ours);
    send_queue_withdraw(&q, &taken);
    cr_assert(queue_empty(&taken));
    post(10, 'a');
    cr_assert_eq(drain('a'), 0);
    cr_assert_eq(n_wakes, 1);
    taken = take(0);
    send_queue_release(&q, &taken, OUT_LOST);
}

/* The task with which it was told can be posted once at a time. */
Test(send_queue, a_loop_that_was_told_and_withdraws_is_not_told_again)
{
    struct queue left = {0};

    send_queue_lend(&q, ours);
    post(SEND_DIRECT_BYTES_MAX + 1, 'a');
    send_queue_withdraw(&q, &left);
    cr_assert_eq(first(&left)->size_bytes, SEND_DIRECT_BYTES_MAX + 1);
    post(10, 'b');
    cr_assert_eq(n_wakes, 1);
    send_queue_release(&q, &left, OUT_LOST);
    left = take(0);
    cr_assert_eq(first(&left)->size_bytes, 10);
    send_queue_release(&q, &left, OUT_LOST);
    post(10, 'c');
    cr_assert_eq(n_wakes, 2);
}

static struct out_frame *smaller_than_its_room(void)
{
    struct out_frame *f = out_frame_new(1000, 0);

    cr_assert_eq(send_queue_reserve(&q, 1000, NULL), NH_OK);
    memset(f->data, 'a', 10);
    f->size_bytes = 10;
    return f;
}

Test(send_queue, a_frame_gives_back_all_its_room)
{
    struct queue lost = {0};
    struct out_frame *f;

    send_queue_lend(&q, ours);
    cr_assert_eq(send_queue_post(&q, smaller_than_its_room(), NULL), NH_OK);
    cr_assert_eq(drain('a'), 10);
    cr_assert_eq(q.bytes, 0, "written by a sender");
    send_queue_withdraw(&q, &lost);
    cr_assert_eq(send_queue_post(&q, smaller_than_its_room(), NULL), NH_OK);
    cr_assert_eq(q.bytes, 1000);
    lost = take(0);
    send_queue_release(&q, &lost, OUT_LOST);
    cr_assert_eq(q.bytes, 0, "released by the loop");
    f = smaller_than_its_room();
    send_queue_close(&q);
    cr_assert_eq(send_queue_post(&q, f, NULL), NH_ECLOSED);
    cr_assert_eq(q.bytes, 0, "refused");
}

Test(send_queue, a_closed_queue_writes_nothing)
{
    struct out_frame *f;

    send_queue_lend(&q, ours);
    cr_assert_eq(send_queue_reserve(&q, 10, NULL), NH_OK);
    f = out_frame_new(10, 0);
    send_queue_close(&q);
    cr_assert_eq(send_queue_post(&q, f, NULL), NH_ECLOSED);
    cr_assert_eq(drain('a'), 0);
    cr_assert_eq(q.bytes, 0);
    cr_assert_eq(send_queue_reserve(&q, 10, NULL), NH_ECLOSED);
}
