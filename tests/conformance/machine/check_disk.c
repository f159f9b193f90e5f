/* On-disk machines: what open tells after a clean end, a crash, and a crash inside recover. Each life is a process of its own. */
#include "tests/conformance/machine/kit.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static const char applied_is_true[] =
    "\"open tells the index I of the last entry in the durable state: everything up to I is in it, nothing above\"";
static const char sync_is_true[] =
    "sync: \"everything applied so far is durable on return\"; what was not synced may be lost, but only a suffix";
static const char recover_is_whole[] =
    "\"A crash inside recover leaves either the old state, or the new one, or an empty one (I = 0)\"";

/* What one life leaves for the next; shared by all processes of the check. */
static struct lives {
    char dir[300];
    uint64_t at, more;      /* entries to apply in this life; and then without sync */
    uint64_t synced, given; /* entries */
    uint64_t reads_left;
    bool ended;
} * lives;

static void lives_init(void)
{
    lives = mmap(NULL, sizeof *lives, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(lives->dir, sizeof lives->dir, "%s/7-77", kit.dir);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
}

static void sync_it(struct kit_instance *i)
{
    int r;

    kit_enter("sync");
    r = kit.ops->sync(i->m, &kit_err);
    kit_leave();
    if (r != NH_OK)
        kit_fail(sync_is_true, "sync returns %s", kit_error_text(r));
    lives->synced = i->count;
}

static void open_life(struct kit_instance *i, uint64_t batches)
{
    char command[400];

    snprintf(command, sizeof command, "mkdir -p '%s'", lives->dir);
    if (system(command) != 0)
        kit_fail("", "cannot make %s", lives->dir);
    kit_open_again(i, lives->dir, batches);
}

/* The state is that of the entries up to what open told: compared with an instance that was given just these. */
static void check_state(struct kit_instance *i, const char *what)
{
    struct kit_instance alone;

    if (i->applied != 0 && !kit_is_index(i->applied))
        kit_fail(applied_is_true, "%s: open tells index %" PRIu64 ", which no entry of it had", what, i->applied);
    if (i->count < lives->synced)
        kit_fail(sync_is_true, "%s: open tells index %" PRIu64 ", but entries up to %" PRIu64 " were synced", what, i->applied,
                 kit_index(lives->synced - 1));
    if (i->count > lives->given)
        kit_fail(applied_is_true, "%s: open tells index %" PRIu64 ", but only entries up to %" PRIu64 " were given to it", what,
                 i->applied, lives->given ? kit_index(lives->given - 1) : 0);
    kit_open(&alone, 50);
    kit_apply_to(&alone, i->count);
    kit_expect_equal(&alone, i, applied_is_true, what);
    kit_close(&alone);
}

static void check_the_rest(struct kit_instance *i, const char *what)
{
    struct kit_instance alone;
    uint64_t from = i->count;

    kit_open(&alone, 51);
    kit_apply_to(&alone, kit.n_entries);
    kit_apply_to(i, kit.n_entries);
    kit_expect_outcomes(&alone, i, from, kit.n_entries, applied_is_true, what);
    kit_expect_equal(&alone, i, applied_is_true, what);
    kit_close(&alone);
}

/* ---- clean ends ---- */

static void live_and_close(void *arg)
{
    struct kit_instance i;

    (void)arg;
    open_life(&i, lives->at);
    check_state(&i, "opened after a clean end");
    kit_apply_to(&i, lives->at);
    sync_it(&i);
    lives->given = i.count;
    kit_close(&i);
    open_life(&i, lives->at + 1);
    check_state(&i, "closed and opened in one process");
    kit_close(&i);
}

static void last_life(void *arg)
{
    struct kit_instance i;

    open_life(&i, 1);
    check_state(&i, arg);
    check_the_rest(&i, arg);
    kit_close(&i);
}

void check_restart(void)
{
    uint64_t random = kit.seed;

    lives_init();
    for (unsigned k = 0; k < 4; k++) {
        lives->at += 1 + kit_random(&random) % (kit.n_entries / 5);
        kit_in_child(live_and_close, NULL);
    }
    kit_in_child(last_life, (void *)(uintptr_t) "opened after a clean end, then the rest of the entries");
}

/* ---- crashes ---- */

static void live_and_die(void *arg)
{
    struct kit_instance i;

    (void)arg;
    open_life(&i, lives->at);
    check_state(&i, "opened after a crash");
    kit_apply_to(&i, lives->at > i.count ? lives->at : i.count);
    if (i.count > lives->given)
        lives->given = i.count;
    sync_it(&i);
    lives->given = i.count + lives->more;
    kit_apply_to(&i, i.count + lives->more);
    die();
}

void check_crash(void)
{
    uint64_t random = kit.seed + 1;

    lives_init();
    for (unsigned k = 0; k < 6; k++) {
        lives->at += kit_random(&random) % (kit.n_entries / 12);
        lives->more = kit_random(&random) % 20;
        kit_in_child(live_and_die, NULL);
    }
    kit_in_child(last_life, (void *)(uintptr_t) "opened after a crash, then the rest of the entries");
}

/* ---- crashes inside recover ---- */

struct dying {
    struct kit_bytes image;
    size_t at;
};

static int64_t read_and_die(void *ctx, void *data, size_t cap_bytes)
{
    struct dying *d = ctx;
    size_t n = d->image.size - d->at, piece = d->image.size / 8 + 1;

    if (lives->reads_left-- == 0)
        die();
    n = n < cap_bytes ? n : cap_bytes;
    n = n < piece ? n : piece;
    if (n)
        memcpy(data, d->image.data + d->at, n);
    d->at += n;
    return (int64_t)n;
}

static void recover_and_die(void *arg)
{
    const bool stop = false;
    struct kit_instance i, newer;
    struct dying d = {.at = 0};
    struct nh_reader in = {read_and_die, &d};
    int r;

    (void)arg;
    open_life(&i, 5);
    kit_apply_to(&i, lives->at);
    sync_it(&i);
    kit_open(&newer, 6);
    kit_apply_to(&newer, lives->at + lives->more);
    d.image = kit_image(&newer);
    kit_enter("recover");
    r = kit.ops->recover(i.m, &in, &stop, &kit_err);
    kit_leave();
    if (r != NH_OK)
        kit_fail("a snapshot of any state can be recovered", "recover returns %s", kit_error_text(r));
    sync_it(&i);
    lives->ended = true;
    die();
}

static void look_after_recover(void *arg)
{
    static const char what[] = "opened after a crash inside recover";
    struct kit_instance i, alone;
    uint64_t old = lives->at, new = lives->at + lives->more;

    (void)arg;
    open_life(&i, 8);
    if (i.count != 0 && i.count != old && i.count != new)
        kit_fail(recover_is_whole, "%s: open tells %" PRIu64 ", neither that of the old nor that of the new state nor 0", what,
                 i.applied);
    if (lives->ended && i.count != new)
        kit_fail(sync_is_true, "recover and sync returned, and after a crash the new state is not there");
    kit_open(&alone, 9);
    kit_apply_to(&alone, i.count);
    kit_expect_equal(&alone, &i, recover_is_whole, what);
    kit_close(&alone);
    check_the_rest(&i, what);
    kit_close(&i);
}

void check_crash_in_recover(void)
{
    lives_init();
    lives->at = kit.n_entries / 4;
    lives->more = kit.n_entries / 4;
    for (uint64_t reads = 0; !lives->ended && reads < 1000; reads += 1 + reads / 8) {
        snprintf(lives->dir, sizeof lives->dir, "%s/%" PRIu64 "/7-77", kit.dir, reads);
        lives->reads_left = reads;
        kit_in_child(recover_and_die, NULL);
        kit_in_child(look_after_recover, NULL);
    }
}
