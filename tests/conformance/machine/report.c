/* What a check tells its parent: failures, remarks, and which call of the machine is running. */
#include "tests/conformance/machine/kit.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static __thread struct kit_call *my_call;

int64_t kit_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void kit_enter(const char *call)
{
    if (!my_call)
        my_call = &kit.shared->calls[__atomic_fetch_add(&kit.shared->n_threads, 1, __ATOMIC_ACQ_REL) % KIT_THREADS];
    __atomic_store_n(&my_call->began_ms, kit_now_ms(), __ATOMIC_RELEASE);
    __atomic_store_n(&my_call->name, call, __ATOMIC_RELEASE);
}

void kit_leave(void)
{
    __atomic_store_n(&my_call->name, NULL, __ATOMIC_RELEASE);
}

void kit_fail(const char *contract, const char *fmt, ...)
{
    static bool failing; /* the first of several threads tells */
    va_list args;

    if (__atomic_exchange_n(&failing, true, __ATOMIC_ACQ_REL))
        for (;;)
            pause();
    va_start(args, fmt);
    vsnprintf(kit.shared->what, sizeof kit.shared->what, fmt, args);
    va_end(args);
    snprintf(kit.shared->contract, sizeof kit.shared->contract, "%s", contract);
    fflush(stdout);
    _exit(1);
}

void kit_note(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(kit.shared->note, sizeof kit.shared->note, fmt, args);
    va_end(args);
}

bool kit_in_child(void (*body)(void *arg), void *arg)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        my_call = NULL;
        body(arg);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    for (size_t i = 0; i < KIT_THREADS; i++) /* it may have died inside one */
        __atomic_store_n(&kit.shared->calls[i].name, NULL, __ATOMIC_RELEASE);
    if (kit.shared->what[0])
        _exit(1); /* it told already */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return false;
    if (WIFSIGNALED(status))
        raise(WTERMSIG(status)); /* the parent reports a crash */
    _exit(WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}
