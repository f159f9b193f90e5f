#include "transport/tcp/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raftio/support/memory.h"
#include "transport/tcp/address.h"
#include "transport/tcp/inbound.h"
#include "transport/tcp/tcp_private.h"

/* Connections accepted per wake-up, so that a storm of them does not starve those that exist. */
#define ACCEPTS_MAX 64u

/* ---- handing over ---- */

/* An accepted socket on its way to its loop. */
struct arrival {
    struct loop_task task;
    int fd;
};

static void run_arrival(struct tcp_loop *loop, struct loop_task *task)
{
    struct arrival *a = container_of(task, struct arrival, task);

    if (loop->stopping)
        inbound_discard(loop->transport, a->fd);
    else
        inbound_open(loop, a->fd);
    free(a);
}

static void hand_over(struct listener *l, int fd)
{
    struct nh_transport *t = l->transport;
    struct arrival *a = xmalloc(sizeof *a);

    *a = (struct arrival){.task.run = run_arrival, .fd = fd};
    loop_post(&t->loops[l->next_loop], &a->task);
    l->next_loop = (l->next_loop + 1) % t->n_loops;
}

/* ---- accepting ---- */

static void on_readable(uv_poll_t *handle, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
    struct listener *l = container_of(timer, struct listener, pause);

    uv_poll_start(&l->poll, UV_READABLE, on_readable);
}

/* Waiting connections stay in the kernel's queue meanwhile. */
static void pause_accepting(struct listener *l, int error)
{
    TCP_COUNT(l->transport, accepts_dropped, 1);
    loop_warn(l->loop, "accept on %s: %s; trying again in %u ms", l->transport->listen_address, uv_strerror(-error),
              TCP_ACCEPT_PAUSE_MS);
    uv_poll_stop(&l->poll);
    uv_timer_start(&l->pause, on_pause_over, TCP_ACCEPT_PAUSE_MS, 0);
}

static void on_readable(uv_poll_t *handle, int status, int events)
{
    struct listener *l = container_of(handle, struct listener, poll);

    (void)status, (void)events;
    for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            if (inbound_admit(l->transport, fd))
                hand_over(l, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(l, errno);
        /* EAGAIN: no more. What else there is concerns the connection that has gone, not the listener. */
        return;
    }
}

/* ---- opening ---- */

static int resolve(const char *address, struct sockaddr_storage *ret, struct nh_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    struct tcp_address a;
    int r = tcp_address_parse(address, &a, err);

    if (r < 0)
        return r;
    if (tcp_address_numeric(&a, ret))
        return NH_OK;
    r = getaddrinfo(a.host, a.port, &hints, &found);
    if (r != 0)
        return nh_error_set(err, NH_EIO, "resolve %s: %s", address, gai_strerror(r));
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return NH_OK;
}

static int bind_and_listen(int fd, const struct sockaddr_storage *addr)
{
    socklen_t size = addr->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int on = 1;

    /* A restarted host must get its port back while old connections linger in TIME_WAIT. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 || bind(fd, (const struct sockaddr *)addr, size) < 0)
        return -1;
    return listen(fd, SOMAXCONN);
}

static int open_socket(const char *address, int *ret, struct nh_error *err)
{
    struct sockaddr_storage addr;
    int r = resolve(address, &addr, err), fd;

    if (r < 0)
        return r;
    fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "socket for %s", address);
    if (bind_and_listen(fd, &addr) < 0) {
        r = nh_error_sys(err, NH_EIO, errno, "listen on %s", address);
        close(fd);
        return r;
    }
    *ret = fd;
    return NH_OK;
}

int listener_open(struct listener *l, struct tcp_loop *loop, const char *address, struct nh_error *err)
{
    int fd = -1, r = open_socket(address, &fd, err);

    if (r < 0)
        return r;
    r = uv_poll_init(&loop->uv, &l->poll, fd);
    if (r < 0) {
        close(fd);
        return nh_error_sys(err, NH_EIO, -r, "listen on %s", address);
    }
    uv_timer_init(&loop->uv, &l->pause);
    l->transport = loop->transport;
    l->loop = loop;
    l->fd = fd;
    uv_poll_start(&l->poll, UV_READABLE, on_readable);
    return NH_OK;
}

void listener_close(struct listener *l, const struct tcp_loop *loop)
{
    if (l->transport && l->loop == loop) {
        uv_close((uv_handle_t *)&l->poll, NULL);
        uv_close((uv_handle_t *)&l->pause, NULL);
    }
}

void listener_deinit(struct listener *l)
{
    if (l->transport)
        close(l->fd);
    *l = (struct listener){.fd = -1};
}
