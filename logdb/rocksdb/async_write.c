#include "logdb/rocksdb/async_write.h"

#include <assert.h>
#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* glibc has no functions for these calls. */
static bool has_context(struct async_write *w)
{
    aio_context_t context = 0;

    if (w->context == 0 && !w->refused) {
        w->refused = syscall(SYS_io_setup, 1u, &context) < 0;
        w->context = context;
    }
    return !w->refused;
}

bool async_write_begin(struct async_write *w, int fd, const void *data, size_t size_bytes, uint64_t at)
{
    struct iocb write = {.aio_fildes = (uint32_t)fd,
                         .aio_lio_opcode = IOCB_CMD_PWRITE,
                         .aio_rw_flags = RWF_DSYNC,
                         .aio_buf = (uint64_t)(uintptr_t)data,
                         .aio_nbytes = size_bytes,
                         .aio_offset = (int64_t)at};
    struct iocb *one = &write;

    assert(!w->under_way);
    if (!has_context(w))
        return false;
    w->under_way = syscall(SYS_io_submit, w->context, 1l, &one) == 1;
    w->refused = !w->under_way && errno != EAGAIN;
    return w->under_way;
}

/* No failure of the disk: what a file system cannot do so, or a call that is not made again for its caller here. */
static bool is_refusal(int64_t result)
{
    return result == -EINVAL || result == -EOPNOTSUPP || result == -EAGAIN || result == -EINTR;
}

/* Waits for no more than `patience`, NULL: until it is there. Returns 1, 0 or a negative errno. */
static long get_event(struct async_write *w, struct io_event *ret, const struct timespec *patience)
{
    long n;

    do
        n = syscall(SYS_io_getevents, w->context, 1l, 1l, ret, patience);
    while ((n == 0 && !patience) || (n < 0 && errno == EINTR));
    return n < 0 ? -errno : n;
}

static long poll_for_event(struct async_write *w, struct io_event *ret)
{
    static const struct timespec none;
    long n;

    short_wait_begin(&w->wait);
    do
        n = get_event(w, ret, &none);
    while (n == 0 && short_wait_goes_on(&w->wait));
    if (n == 0)
        n = get_event(w, ret, NULL);
    short_wait_end(&w->wait);
    return n;
}

int64_t async_write_end(struct async_write *w)
{
    struct io_event event;
    long n;

    assert(w->under_way);
    n = w->polls ? poll_for_event(w, &event) : get_event(w, &event, NULL);
    w->under_way = false;
    if (n < 0)
        return n;
    w->refused |= is_refusal(event.res);
    return is_refusal(event.res) ? 0 : event.res;
}

void async_write_deinit(struct async_write *w)
{
    if (w->under_way)
        async_write_end(w);
    if (w->context)
        syscall(SYS_io_destroy, w->context);
    w->context = 0;
}
