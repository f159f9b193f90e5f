#include <criterion/criterion.h>

#include "raftio/codec.h"
#include "raftio/plugin.h"
#include "raftio/support/crc32c.h"

Test(plugin_services, the_table_says_its_version_and_has_every_function)
{
    const struct nh_plugin_services *s = nh_plugin_services();

    cr_assert_eq(s->abi_version, NH_PLUGIN_SERVICES_ABI);
    cr_assert_eq(s->struct_size, sizeof *s);
    cr_assert(s->log && s->crc32c && s->encode_bootstrap && s->decode_bootstrap && s->encode_snapshot && s->decode_snapshot);
    cr_assert(s->encode_state && s->decode_state && s->encode_batch && s->decode_batch && s->free_batch);
    cr_assert(s->encode_chunk && s->decode_chunk);
    cr_assert_eq(s, nh_plugin_services());
}

Test(plugin_services, functions_are_the_ones_they_are_called)
{
    const struct nh_plugin_services *s = nh_plugin_services();
    struct nh_state state = {.term = 1, .vote = 2, .commit = 3}, back = {0};
    uint8_t out[64];
    size_t n = s->encode_state(&state, out, sizeof out);

    cr_assert_eq(s->decode_state(out, n, &back, NULL), NH_OK);
    cr_assert(back.term == 1 && back.vote == 2 && back.commit == 3);
    cr_assert_eq(s->crc32c(0, "123456789", 9), 0xe3069283u);
}
