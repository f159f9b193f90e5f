#include "transport/tcp/address.h"

#include <stdlib.h>
#include <uv.h>

#define PORT_MAX 65535

static bool port_ok(const char *port)
{
    size_t n = strlen(port);

    if (n == 0 || n >= sizeof((struct tcp_address *)0)->port || strspn(port, "0123456789") != n)
        return false;
    return atoi(port) > 0 && atoi(port) <= PORT_MAX;
}

/* Letters, digits and what else stands in host names and IPv6 addresses (with a zone). */
static bool host_ok(const char *host, size_t n, bool bracketed)
{
    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = host[i];
        bool word =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';

        if (!word && !(bracketed && (c == ':' || c == '%')))
            return false;
    }
    return true;
}

int tcp_address_parse(const char *address, struct tcp_address *ret, struct nh_error *err)
{
    struct tcp_address a = {0};
    const char *host = address, *colon;
    bool bracketed;
    size_t n;

    if (!address || strnlen(address, NH_ADDRESS_BYTES) >= NH_ADDRESS_BYTES)
        return nh_error_set(err, NH_EINVAL, "an address is missing or longer than %u bytes", NH_ADDRESS_BYTES - 1);
    colon = strrchr(address, ':');
    if (!colon || !port_ok(colon + 1))
        return nh_error_set(err, NH_EINVAL, "address '%s': want host:port", address);
    n = (size_t)(colon - host);
    bracketed = n > 2 && host[0] == '[' && host[n - 1] == ']';
    if (bracketed) {
        host++;
        n -= 2;
    }
    if (!host_ok(host, n, bracketed))
        return nh_error_set(err, NH_EINVAL, "address '%s': want host:port, or [host]:port for IPv6", address);
    memcpy(a.host, host, n);
    memcpy(a.port, colon + 1, strlen(colon + 1));
    *ret = a;
    return NH_OK;
}

bool tcp_address_numeric(const struct tcp_address *a, struct sockaddr_storage *ret)
{
    int port = atoi(a->port);

    memset(ret, 0, sizeof *ret);
    return uv_ip4_addr(a->host, port, (struct sockaddr_in *)ret) == 0 ||
           uv_ip6_addr(a->host, port, (struct sockaddr_in6 *)ret) == 0;
}
