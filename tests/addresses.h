/* tests/addresses.h - addresses on the loopback interface that nobody listens at. */
#ifndef NH_TESTS_ADDRESSES_H
#define NH_TESTS_ADDRESSES_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define ADDRESS_SIZE  64
#define ADDRESSES_MAX 16u
#define PORT_MIN      10000u
#define PORT_TRIES    1000u

/* Where the ports begin that the kernel gives to outgoing connections. One of these takes the port of a host that is not open
 * yet, or is closed for a while, for as long as it lives. */
static inline unsigned first_outgoing_port(void)
{
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    unsigned first = 32768;

    if (f && fscanf(f, "%u", &first) != 1)
        first = 32768;
    if (f)
        fclose(f);
    return first;
}

/* Any free one below those; of any that are free if there are few of them. */
static inline bool bind_somewhere(int fd, unsigned end, uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    uint32_t number;

    for (unsigned tries = 0; tries < PORT_TRIES; tries++) {
        if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
            return false;
        a.sin_port = end > 2 * PORT_MIN ? htons((uint16_t)(PORT_MIN + number % (end - PORT_MIN))) : 0;
        if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
            continue;
        if (getsockname(fd, (struct sockaddr *)&a, &size) < 0)
            return false;
        *ret_port = ntohs(a.sin_port);
        return true;
    }
    return false;
}

/* All are held until the last is found, so that they differ; then they stay free until somebody listens, unless another test
 * picks the same one. False: n > ADDRESSES_MAX, or none was found. */
static inline bool find_addresses(char (*ret)[ADDRESS_SIZE], size_t n)
{
    const unsigned end = first_outgoing_port();
    int fds[ADDRESSES_MAX];
    size_t n_open = 0, n_found = 0;

    if (n > ADDRESSES_MAX)
        return false;
    for (; n_open < n; n_open++) {
        uint16_t port;

        fds[n_open] = socket(AF_INET, SOCK_STREAM, 0);
        if (fds[n_open] < 0)
            break;
        if (!bind_somewhere(fds[n_open], end, &port))
            continue;
        snprintf(ret[n_open], ADDRESS_SIZE, "127.0.0.1:%u", port);
        n_found++;
    }
    for (size_t i = 0; i < n_open; i++)
        close(fds[i]);
    return n_found == n;
}

#endif
