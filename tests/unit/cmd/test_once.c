/* Tokens: a command may be sent again after an update, so what a token stands for must not change. */
#include <criterion/criterion.h>
#include <string.h>

#include "cmd/nodehostd/command.h"

static uint64_t session_of(const char *token)
{
    return session_of_token((struct kv_slice){(const uint8_t *)token, (uint32_t)strlen(token)});
}

Test(once, a_token_stands_for_the_same_session_for_ever)
{
    cr_assert_eq(session_of("a"), 0xe6c632b61e964e1f);
    cr_assert_eq(session_of("order-17"), 0x234cefc81040cbbe);
}
