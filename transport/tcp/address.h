/* transport/tcp/address.h - "host:port" taken apart.
 *
 * Accepted: "10.0.0.1:7101", "name.example:7101", "[::1]:7101". The port is a decimal number 1 .. 65535. An IPv6 address
 * must stand in brackets. Threads: any.
 */
#ifndef NH_TRANSPORT_TCP_ADDRESS_H
#define NH_TRANSPORT_TCP_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>

#include "raftio/types.h"

struct tcp_address {
    char host[NH_ADDRESS_BYTES]; /* without brackets */
    char port[6];
};

/* Errors: EINVAL, with the address in the text. */
int tcp_address_parse(const char *address, struct tcp_address *ret, struct nh_error *err);
/* True if the host is a number: then no resolver is needed, and *ret is filled. */
bool tcp_address_numeric(const struct tcp_address *a, struct sockaddr_storage *ret);

#endif
