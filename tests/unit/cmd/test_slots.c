#include "cmd/nodehostd/slots.h"

#include <criterion/criterion.h>
#include <string.h>

#include "cmd/nodehostd/command.h"

static uint16_t slot(const char *key)
{
    return slot_of_key(key, strlen(key));
}

/* Values as Redis Cluster has them. */
Test(slots, are_those_of_redis)
{
    cr_assert_eq(slot("123456789"), 0x31c3 % SLOTS_TOTAL);
    cr_assert_eq(slot("foo"), 12182);
    cr_assert_eq(slot("bar"), 5061);
    cr_assert_eq(slot(""), 0);
}

Test(slots, a_hash_tag_decides_alone)
{
    cr_assert_eq(slot("{foo}bar"), slot("foo"));
    cr_assert_eq(slot("x{foo}y{bar}"), slot("foo"));
    cr_assert_neq(slot("{}foo"), slot(""));
    cr_assert_eq(slot("foo{{bar}}zap"), slot("{bar"));
    cr_assert_neq(slot("{foo"), slot("foo"));
}

Test(slots, every_slot_has_one_shard_in_order)
{
    static const uint32_t counts[] = {1, 2, 3, 7, 1000, 16383, SLOTS_TOTAL};

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        uint32_t n = counts[i];

        cr_assert_eq(slot_first(0, n), 0);
        cr_assert_eq(slot_first(n, n), SLOTS_TOTAL);
        for (uint32_t s = 0; s < SLOTS_TOTAL; s++) {
            uint32_t owner = slot_owner((uint16_t)s, n);

            cr_assert(owner < n && slot_first(owner, n) <= s && s < slot_first(owner + 1, n), "slot %u of %u shards", s, n);
        }
    }
}

static struct kv_slice word(const char *text)
{
    return (struct kv_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

Test(commands, are_sorted_and_found_in_any_case)
{
    for (size_t i = 0; i < n_commands; i++) {
        cr_assert(i == 0 || strcmp(commands[i - 1].name, commands[i].name) < 0, "%s", commands[i].name);
        cr_assert_eq(command_find(word(commands[i].name)), &commands[i]);
        cr_assert(commands[i].run && commands[i].summary[0] && commands[i].arity != 0);
    }
    cr_assert_str_eq(command_find(word("GeT"))->name, "get");
    cr_assert_null(command_find(word("gett")));
    cr_assert_null(command_find(word("")));
    cr_assert_null(command_find(word("a name that is much longer than any command that there is")));
}

Test(commands, numbers_fill_their_argument)
{
    uint64_t n;

    cr_assert(arg_number(word("18446744073709551615"), &n) && n == UINT64_MAX);
    cr_assert_not(arg_number(word("18446744073709551616"), &n));
    cr_assert_not(arg_number(word(""), &n));
    cr_assert_not(arg_number(word("-1"), &n));
    cr_assert_not(arg_number(word("1x"), &n));
}
