#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "raftio/status.h"

Test(status, every_code_has_a_name_and_a_text)
{
    cr_assert_str_eq(nh_status_name(NH_OK), "OK");
    cr_assert_str_eq(nh_status_text(NH_OK), "ok");
    cr_assert_str_eq(nh_status_name(NH_EINVAL), "EINVAL");
    cr_assert_str_eq(nh_status_name(-23), "EMACHINE");
    for (int code = -23; code < 0; code++) {
        cr_assert_str_neq(nh_status_name(code), "UNKNOWN");
        cr_assert_str_neq(nh_status_text(code), "unknown status");
    }
}

Test(status, a_number_outside_the_list_is_unknown)
{
    cr_assert_str_eq(nh_status_name(-27), "UNKNOWN");
    cr_assert_str_eq(nh_status_text(-27), "unknown status");
    cr_assert_str_eq(nh_status_text(1), "unknown status");
}

Test(status, set_fills_the_record_and_returns_the_code)
{
    struct nh_error err = {.sys = 5};

    cr_assert_eq(nh_error_set(&err, NH_EINVAL, "shard id is %d", 0), NH_EINVAL);
    cr_assert_eq(err.code, NH_EINVAL);
    cr_assert_eq(err.sys, 0);
    cr_assert_str_eq(err.text, "shard id is 0");
}

Test(status, set_may_use_its_own_text_as_argument)
{
    struct nh_error err = {0};

    nh_error_set(&err, NH_EIO, "inner");
    nh_error_set(&err, NH_EIO, "<%s>", err.text);
    cr_assert_str_eq(err.text, "<inner>");
}

Test(status, all_functions_take_a_null_record)
{
    cr_assert_eq(nh_error_set(NULL, NH_EIO, "x"), NH_EIO);
    cr_assert_eq(nh_error_sys(NULL, NH_EIO, ENOENT, "x"), NH_EIO);
    cr_assert_eq(nh_error_wrap(NULL, NH_EIO, "x"), NH_EIO);
}

Test(status, sys_appends_the_text_of_errno)
{
    struct nh_error err = {0};

    cr_assert_eq(nh_error_sys(&err, NH_EIO, EACCES, "open %s", "/x/LOCK"), NH_EIO);
    cr_assert_eq(err.sys, EACCES);
    cr_assert_str_eq(err.text, "open /x/LOCK: Permission denied");
}

Test(status, wrap_prefixes_and_keeps_errno)
{
    struct nh_error err = {0};

    nh_error_sys(&err, NH_EIO, ENOSPC, "write batch");
    cr_assert_eq(nh_error_wrap(&err, NH_EIO, "save shard %d", 7), NH_EIO);
    cr_assert_str_eq(err.text, "save shard 7: write batch: No space left on device");
    cr_assert_eq(err.sys, ENOSPC);
}

Test(status, wrap_of_an_empty_record_tells_the_code)
{
    struct nh_error err = {0};

    nh_error_wrap(&err, NH_EBUSY, "propose");
    cr_assert_eq(err.code, NH_EBUSY);
    cr_assert_str_eq(err.text, "propose: busy: a limit is reached, retry later");
}

Test(status, a_long_text_is_cut_at_its_end)
{
    struct nh_error err = {0};
    char text[NH_ERROR_TEXT_BYTES + 10];

    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    text[NH_ERROR_TEXT_BYTES - 1] = '\0'; /* just fits */
    nh_error_set(&err, NH_EIO, "%s", text);
    cr_assert_eq(strlen(err.text), NH_ERROR_TEXT_BYTES - 1);
    nh_error_wrap(&err, NH_EIO, "b");
    cr_assert_eq(strlen(err.text), NH_ERROR_TEXT_BYTES - 1);
    cr_assert_eq(strncmp(err.text, "b: aaa", 6), 0);
    nh_error_wrap(&err, NH_EIO, "%s", text);
    cr_assert_eq(strlen(err.text), NH_ERROR_TEXT_BYTES - 1);
    nh_error_sys(&err, NH_EIO, EIO, "%s", text);
    cr_assert_eq(strlen(err.text), NH_ERROR_TEXT_BYTES - 1);
    text[NH_ERROR_TEXT_BYTES - 1] = 'a'; /* ten more than fit */
    nh_error_set(&err, NH_EIO, "%s", text);
    cr_assert_eq(strlen(err.text), NH_ERROR_TEXT_BYTES - 1);
}
