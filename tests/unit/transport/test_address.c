#include "transport/tcp/address.h"

#include <criterion/criterion.h>
#include <string.h>

static void good(const char *text, const char *host, const char *port, bool numeric)
{
    struct tcp_address a;
    struct sockaddr_storage s;
    struct nh_error err = {0};

    cr_assert_eq(tcp_address_parse(text, &a, &err), 0, "%s: %s", text, err.text);
    cr_assert_str_eq(a.host, host);
    cr_assert_str_eq(a.port, port);
    cr_assert_eq(tcp_address_numeric(&a, &s), numeric, "%s", text);
}

Test(address, hosts_and_ports_are_taken_apart)
{
    good("10.0.0.1:7101", "10.0.0.1", "7101", true);
    good("name.example:1", "name.example", "1", false);
    good("[::1]:65535", "::1", "65535", true);
}

Test(address, what_is_no_address_is_refused_with_its_text)
{
    static const char *const bad[] = {"",         ":",         "host",     "host:",    "host:0",  "host:65536",
                                      "host:-1",  ":7101",     "::1:7101", "[::1:710", "[]:7101", "host:12a",
                                      "host: 12", "[::1]7101", "a b:1",    "host:+1",  "host:1 ", "host:00001x"};
    char text[NH_ADDRESS_BYTES + 10];
    struct tcp_address a;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct nh_error err = {0};

        cr_assert_eq(tcp_address_parse(bad[i], &a, &err), NH_EINVAL, "'%s'", bad[i]);
        cr_assert(strstr(err.text, bad[i]), "%s", err.text);
    }
    memset(text, 'x', sizeof text);
    strcpy(text + sizeof text - 3, ":1");
    cr_assert_eq(tcp_address_parse(text, &a, NULL), NH_EINVAL, "too long");
}
