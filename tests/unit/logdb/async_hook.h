/* tests/unit/logdb/async_hook.h - shows a test the asynchronous writes of its process (logdb/rocksdb/async_write.h): replaces
 * syscall(2), through which they are made. To be included once per program, which defines the two functions.
 */
#ifndef NH_TESTS_UNIT_LOGDB_ASYNC_HOOK_H
#define NH_TESTS_UNIT_LOGDB_ASYNC_HOOK_H

#include <dlfcn.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "raftio/types.h"

/* A durable write is about to begin. */
void on_async_begin(int fd, int64_t at, size_t size_bytes);
/* It is over; returns what its caller is told. */
int64_t on_async_end(int fd, int64_t at, size_t size_bytes, int64_t result);

#define ASYNC_HOOK_MAX 64u

struct async_hook {
    long context;
    struct iocb write;
};
static struct async_hook async_hooks[ASYNC_HOOK_MAX]; /* one under way per context */
static pthread_mutex_t async_hooks_lock = PTHREAD_MUTEX_INITIALIZER;

static struct async_hook *async_hook_of(long context)
{
    struct async_hook *free = NULL;

    for (size_t i = 0; i < ASYNC_HOOK_MAX; i++) {
        if (async_hooks[i].context == context)
            return &async_hooks[i];
        if (!free && async_hooks[i].context == 0)
            free = &async_hooks[i];
    }
    free->context = context;
    return free;
}

NH_API long syscall(long number, ...);

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    struct async_hook *h;
    va_list args;
    long a[6], r;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    va_start(args, number);
    for (size_t i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    pthread_mutex_lock(&async_hooks_lock);
    h = number == SYS_io_submit || number == SYS_io_getevents ? async_hook_of(a[0]) : NULL;
    pthread_mutex_unlock(&async_hooks_lock);
    if (number == SYS_io_submit) {
        h->write = **(struct iocb **)a[2];
        on_async_begin((int)h->write.aio_fildes, h->write.aio_offset, h->write.aio_nbytes);
    }
    r = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_io_getevents && r == 1) {
        struct io_event *e = (struct io_event *)a[3];

        e->res = on_async_end((int)h->write.aio_fildes, h->write.aio_offset, h->write.aio_nbytes, e->res);
    }
    return r;
}

#endif
