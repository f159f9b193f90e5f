#include "cmd/nhbench/limit_loopback.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/nhbench/must.h"

#define RECEIVE_BYTES (256u * 1024u)

/* Both ends of a connection; false without one. */
static bool connect_pair(int pair[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof a;
    bool ok;

    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair[1] = -1;
    ok = listener >= 0 && pair[0] >= 0 && bind(listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(listener, 1) == 0 &&
         getsockname(listener, (struct sockaddr *)&a, &size) == 0 && connect(pair[0], (struct sockaddr *)&a, sizeof a) == 0;
    if (ok)
        pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (!ok || pair[1] < 0)
        fprintf(stderr, "nhbench: --limit: connect to 127.0.0.1: %s\n", strerror(errno));
    close(listener);
    return pair[1] >= 0;
}

static void *receive(void *arg)
{
    char *data = must(malloc(RECEIVE_BYTES));
    int fd = *(int *)arg;

    while (recv(fd, data, RECEIVE_BYTES, 0) > 0) {
    }
    free(data);
    return NULL;
}

static bool send_frame(int fd, const char *frame, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, frame, size, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        frame += n;
        size -= (size_t)n;
    }
    return true;
}

bool limit_loopback(const struct limit_shape *shape, double seconds, struct limit *ret)
{
    size_t size = (size_t)shape->entries_per_frame * shape->entry_bytes;
    char *frame = must(calloc(1, size));
    pthread_t receiver;
    int pair[2];
    bool ok = connect_pair(pair) && pthread_create(&receiver, NULL, receive, &pair[1]) == 0;

    if (ok) {
        struct limit_watch w;

        limit_watch_start(&w, seconds);
        do
            ok = send_frame(pair[0], frame, size);
        while (ok && limit_watch_count(&w));
        shutdown(pair[0], SHUT_RDWR);
        pthread_join(receiver, NULL);
        limit_watch_end(&w, shape->entries_per_frame, ret);
    }
    close(pair[0]);
    if (pair[1] >= 0)
        close(pair[1]);
    free(frame);
    return ok;
}
