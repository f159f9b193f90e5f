/* tests/addresses.h - addresses on the loopback interface that nobody listens at. */
#ifndef NH_TESTS_ADDRESSES_H
#define NH_TESTS_ADDRESSES_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define ADDRESS_SIZE  64
#define ADDRESSES_MAX 16u

/* The kernel picks the ports. All are held until the last is found, so that they differ; then they stay free until somebody
 * listens, unless another process is very quick. False: n > ADDRESSES_MAX, or the kernel gave none. */
static inline bool find_addresses(char (*ret)[ADDRESS_SIZE], size_t n)
{
    int fds[ADDRESSES_MAX];
    size_t n_open = 0, n_found = 0;

    if (n > ADDRESSES_MAX)
        return false;
    for (; n_open < n; n_open++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof a;

        fds[n_open] = socket(AF_INET, SOCK_STREAM, 0);
        if (fds[n_open] < 0)
            break;
        if (bind(fds[n_open], (struct sockaddr *)&a, sizeof a) < 0 || getsockname(fds[n_open], (struct sockaddr *)&a, &size) < 0)
            continue;
        snprintf(ret[n_open], ADDRESS_SIZE, "127.0.0.1:%u", ntohs(a.sin_port));
        n_found++;
    }
    for (size_t i = 0; i < n_open; i++)
        close(fds[i]);
    return n_found == n;
}

#endif
