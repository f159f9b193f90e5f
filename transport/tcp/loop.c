#include "transport/tcp/loop.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "raftio/support/memory.h"
#include "transport/tcp/inbound.h"
#include "transport/tcp/listener.h"
#include "transport/tcp/peer.h"
#include "transport/tcp/tcp_private.h"

/* ---- mailbox ---- */

void loop_post(struct tcp_loop *l, struct loop_task *task)
{
    uint64_t one = 1;

    if (mailbox_post(&l->box, &task->node) == MAILBOX_WAKE) {
        ssize_t n = write(l->wake_fd, &one, sizeof one);

        assert(n == sizeof one); /* an eventfd cannot fail below 2^64 - 1 */
        (void)n;
    }
}

static void run_tasks(struct tcp_loop *l)
{
    struct queue tasks = {0};
    struct queue_node *n;

    mailbox_take(&l->box, &tasks);
    while ((n = queue_pop(&tasks))) {
        struct loop_task *task = container_of(n, struct loop_task, node);

        task->run(l, task);
    }
}

static void on_wake(uv_poll_t *handle, int status, int events)
{
    struct tcp_loop *l = container_of(handle, struct tcp_loop, wake);
    uint64_t count;

    (void)status, (void)events;
    /* First the counter, then the mailbox: what is posted in between wakes again. */
    while (read(l->wake_fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
    run_tasks(l);
}

/* ---- polling ---- */

static void on_polled(uv_idle_t *polling)
{
    if (!short_wait_goes_on(&container_of(polling, struct tcp_loop, polling)->wait))
        uv_idle_stop(polling);
}

void loop_read_ends(struct tcp_loop *l, size_t size_bytes)
{
    short_wait_begin(&l->wait);
    if (l->transport->polls && !l->stopping && size_bytes <= LOOP_POLL_BYTES_MAX && short_wait_is_expected(&l->wait))
        uv_idle_start(&l->polling, on_polled);
    else
        uv_idle_stop(&l->polling);
}

/* ---- stopping ---- */

static void close_all(struct tcp_loop *l)
{
    struct list *at, *next;

    l->stopping = true;
    listener_close(&l->transport->listener, l);
    for (at = l->inbounds.next; at != &l->inbounds; at = next) {
        next = at->next;
        inbound_close(container_of(at, struct inbound, on_loop));
    }
    for (at = l->peers.next; at != &l->peers; at = next) {
        next = at->next;
        peer_close(container_of(at, struct peer, on_loop));
    }
    uv_close((uv_handle_t *)&l->wake, NULL);
    uv_close((uv_handle_t *)&l->polling, NULL);
}

static void run_stop(struct tcp_loop *l, struct loop_task *task)
{
    (void)task;
    if (!l->stopping)
        close_all(l);
}

/* ---- thread ---- */

static void *loop_main(void *arg)
{
    struct tcp_loop *l = arg;

    uv_run(&l->uv, UV_RUN_DEFAULT);
    return NULL;
}

/* Signals are the host's business; a write to a closed socket must not end the process. */
static int create_thread(struct tcp_loop *l)
{
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    sigset_t blocked, before;
    int r;

    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof synchronous / sizeof synchronous[0]; i++)
        sigdelset(&blocked, synchronous[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    r = pthread_create(&l->thread, NULL, loop_main, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

int loop_init(struct tcp_loop *l, struct nh_transport *t, struct nh_error *err)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "eventfd");
    *l = (struct tcp_loop){.transport = t, .wake_fd = fd, .stop.run = run_stop};
    mailbox_init(&l->box);
    list_init(&l->peers);
    list_init(&l->inbounds);
    list_init(&l->strangers);
    return NH_OK;
}

int loop_open(struct tcp_loop *l, struct nh_error *err)
{
    int r = uv_loop_init(&l->uv);

    if (r < 0)
        return nh_error_sys(err, NH_EIO, -r, "event loop");
    r = uv_poll_init(&l->uv, &l->wake, l->wake_fd);
    if (r == 0)
        r = uv_poll_start(&l->wake, UV_READABLE, on_wake);
    if (r < 0) {
        uv_loop_close(&l->uv);
        return nh_error_sys(err, NH_EIO, -r, "event loop");
    }
    uv_idle_init(&l->uv, &l->polling);
    l->has_uv = true;
    l->read_buffer = xmalloc(LOOP_READ_BYTES);
    return NH_OK;
}

int loop_start(struct tcp_loop *l, struct nh_error *err)
{
    int r = create_thread(l);

    if (r != 0)
        return nh_error_sys(err, NH_EIO, r, "event-loop thread");
    l->has_thread = true;
    return NH_OK;
}

void loop_stop(struct tcp_loop *l)
{
    if (l->has_thread) {
        loop_post(l, &l->stop);
        pthread_join(l->thread, NULL);
        l->has_thread = false;
    } else if (l->has_uv) {
        close_all(l);
        uv_run(&l->uv, UV_RUN_DEFAULT);
    }
    if (l->has_uv) {
        int r = uv_loop_close(&l->uv);

        assert(r == 0); /* every handle was closed and every request has ended */
        (void)r;
        l->has_uv = false;
    }
    l->stopping = true;
}

void loop_deinit(struct tcp_loop *l)
{
    if (!l->transport)
        return;
    assert(l->stopping && !l->has_uv && !l->has_thread);
    run_tasks(l);
    mailbox_deinit(&l->box);
    close(l->wake_fd);
    free(l->read_buffer);
}

/* ---- services to those on the loop ---- */

void loop_warn(struct tcp_loop *l, const char *fmt, ...)
{
    uint64_t now = uv_now(&l->uv);
    char text[NH_ERROR_TEXT_BYTES];
    unsigned suppressed = 0;
    va_list args;

    if (now - l->warnings_since_ms >= LOOP_WARNINGS_INTERVAL_MS) {
        suppressed = l->n_suppressed;
        l->warnings_since_ms = now;
        l->n_warnings = l->n_suppressed = 0;
    }
    if (l->n_warnings == LOOP_WARNINGS_MAX) {
        l->n_suppressed++;
        return;
    }
    l->n_warnings++;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (suppressed)
        l->transport->services->log(NH_LOG_WARN, "transport", "%u more warnings were left out", suppressed);
    l->transport->services->log(NH_LOG_WARN, "transport", "%s", text);
}

void loop_read_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct tcp_loop *l = container_of(handle->loop, struct tcp_loop, uv);

    (void)suggested;
    *ret = uv_buf_init((char *)l->read_buffer, LOOP_READ_BYTES);
}
