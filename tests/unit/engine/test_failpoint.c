/* Places to die at. Each child reads the environment anew. */
#include "engine/files.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Calls failpoint(name) n times in a child; which signal ended it, 0: none. */
static int die_at(const char *environment, const char *name, int n)
{
    pid_t child = fork();
    int status;

    cr_assert_geq(child, 0);
    if (child == 0) {
        setenv("NODEHOST_FAILPOINT", environment, 1);
        for (int i = 0; i < n; i++)
            failpoint(name);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

#ifdef NH_FAILPOINTS

Test(failpoint, kills_at_its_name)
{
    cr_assert_eq(die_at("here", "here", 1), SIGKILL);
    cr_assert_eq(die_at("here", "there", 9), 0);
    cr_assert_eq(die_at("here", "her", 9), 0);
}

Test(failpoint, kills_at_the_nth_call)
{
    cr_assert_eq(die_at("here:3", "here", 2), 0);
    cr_assert_eq(die_at("here:3", "here", 3), SIGKILL);
    cr_assert_eq(die_at("here:1", "here", 1), SIGKILL);
}

Test(failpoint, what_makes_no_sense_kills_nobody)
{
    const char *texts[] = {"", ":", ":1", "here:", "here:0", "here:1x", "here:x", "here 1", "here:1:1"};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        cr_assert_eq(die_at(texts[i], "here", 9), 0, "%s", texts[i]);
}

#else

Test(failpoint, is_nothing_in_a_build_for_users)
{
    cr_assert_eq(die_at("here", "here", 9), 0);
}

#endif
