/* Images: that they say everything, that they are of their moment, and what becomes of broken ones. */
#include "tests/conformance/machine/kit.h"

#include <inttypes.h>
#include <stdio.h>

#define STOP_GROWTH    200u
#define STOP_BYTES_MAX (4u * 1024u * 1024u) /* a save may still write this when it was told to stop */
#define FLIPS          200u
#define CUTS           60u

static const char complete[] = "\"recover replaces the whole state by what such bytes say; the instance may be new or in use\"";
static const char of_its_moment[] = "\"What save_snapshot writes must be a function of the state at the prepared moment alone\", "
                                    "and the same context gives the same bytes";

/* ---- round trip ---- */

static void continue_both(struct kit_instance *original, struct kit_instance *copy, uint64_t to, const char *what)
{
    uint64_t from = copy->count;

    kit_apply_to(original, to);
    kit_apply_to(copy, to);
    kit_expect_outcomes(original, copy, from, to, complete, what);
    kit_expect_equal(original, copy, complete, what);
}

static void round_trip(uint64_t at, uint64_t batches)
{
    struct kit_instance original, fresh, used;
    struct kit_bytes image;

    kit_open(&original, batches);
    kit_open(&fresh, batches + 1);
    kit_open(&used, batches + 2);
    kit_apply_others(&used, 40);
    kit_apply_to(&original, at);
    image = kit_image(&original);
    kit_must_recover(&fresh, image);
    kit_must_recover(&used, image);
    fresh.count = used.count = at;
    kit_expect_equal(&original, &fresh, complete, "recovered into a new instance");
    kit_expect_equal(&original, &used, complete, "recovered into an instance in use");
    continue_both(&original, &fresh, kit.n_entries, "recovered into a new instance, then the same entries");
    continue_both(&original, &used, kit.n_entries, "recovered into an instance in use, then the same entries");
    free(image.data);
    kit_close(&original);
    kit_close(&fresh);
    kit_close(&used);
}

void check_snapshot_round_trip(void)
{
    uint64_t random = kit.seed;

    round_trip(0, 10);
    for (uint64_t k = 0; k < 4; k++)
        round_trip(kit_random(&random) % kit.n_entries, 20 + 10 * k);
    round_trip(kit.n_entries, 100);
}

/* ---- moments ---- */

/* A machine without prepare_snapshot is not updated before its context is done with, so it has one moment at a time. */
void check_snapshot_moment(void)
{
    struct kit_bytes at_once, late, again;
    struct kit_instance i;
    void *early, *middle, *unused;

    kit_open(&i, 1);
    kit_apply_to(&i, kit.n_entries / 3);
    early = kit_prepare(&i);
    at_once = kit_save(&i, early);
    unused = kit_prepare(&i);
    if (kit.shared->kind != NH_MACHINE_REGULAR)
        kit_apply_to(&i, kit.n_entries / 2);
    middle = kit_prepare(&i);
    kit_release(&i, unused);
    if (kit.shared->kind != NH_MACHINE_REGULAR)
        kit_apply_to(&i, kit.n_entries);
    late = kit_save(&i, early);
    kit_expect_images(at_once, late, of_its_moment, "saved at once and after more entries");
    again = kit_save(&i, early);
    kit_expect_images(late, again, of_its_moment, "saved twice");
    kit_release(&i, early);
    free(again.data);
    again = kit_save(&i, middle);
    kit_release(&i, middle);
    free(at_once.data);
    free(late.data);
    free(again.data);
    kit_close(&i);
}

/* ---- failures of the other end ---- */

struct failing {
    int calls_left, code, calls_after;
    struct kit_bytes image;
    size_t at;
};

static int write_some(void *ctx, const void *data, size_t size_bytes)
{
    struct failing *f = ctx;

    (void)data, (void)size_bytes;
    if (f->calls_left > 0) {
        f->calls_left--;
        return 0;
    }
    f->calls_after++;
    return f->code;
}

static int64_t read_some(void *ctx, void *data, size_t cap_bytes)
{
    struct failing *f = ctx;
    size_t n = f->image.size - f->at < cap_bytes ? f->image.size - f->at : cap_bytes;

    if (f->calls_left-- <= 0) {
        f->calls_after++;
        return f->code;
    }
    n = n < 7 ? n : 7;
    memcpy(data, f->image.data + f->at, n);
    f->at += n;
    return (int64_t)n;
}

static void fail_the_writer(struct kit_instance *i, int calls)
{
    struct failing f = {.calls_left = calls, .code = NH_ENOSPC};
    struct nh_writer out = {write_some, &f};
    void *ctx = kit_prepare(i);
    const bool stop = false;
    int r;

    kit_enter("save_snapshot");
    r = kit.ops->save_snapshot(i->m, ctx, &out, &stop, &kit_err);
    kit_leave();
    kit_release(i, ctx);
    if (f.calls_after == 0 && r == NH_OK)
        return; /* it needed fewer calls */
    if (r != NH_ENOSPC || f.calls_after != 1)
        kit_fail("nh_writer: \"Returns 0 or a negative code, on which the caller stops and which it returns\"",
                 "its writer failed with %d at call %d; save_snapshot wrote %d times more and returned %d", NH_ENOSPC, calls + 1,
                 f.calls_after - 1, r);
}

static void fail_the_reader(struct kit_bytes image, int calls)
{
    struct failing f = {.calls_left = calls, .code = NH_ETIMEOUT, .image = image};
    struct nh_reader in = {read_some, &f};
    struct kit_instance i;
    const bool stop = false;
    int r;

    kit_open(&i, 1);
    kit_enter("recover");
    r = kit.ops->recover(i.m, &in, &stop, &kit_err);
    kit_leave();
    kit_close(&i);
    if (f.calls_after > 0 && r >= 0)
        kit_fail("nh_reader: \"returns the bytes read, 0 at the end, or a negative code\"; a recover that got less than all has "
                 "failed",
                 "its reader failed at call %d, and recover returned %d", calls + 1, r);
}

void check_writer_errors(void)
{
    struct kit_instance i;
    struct kit_bytes image;

    kit_open(&i, 1);
    kit_apply_to(&i, kit.n_entries);
    image = kit_image(&i);
    for (int calls = 0; calls < 5; calls++)
        fail_the_writer(&i, calls);
    for (int calls = 0; calls < 40; calls += 1 + calls / 4)
        fail_the_reader(image, calls);
    free(image.data);
    kit_close(&i);
}

/* ---- stop ---- */

struct stopping {
    volatile bool stop;
    size_t bytes_after;
    struct kit_bytes image;
    size_t at;
};

static int write_and_stop(void *ctx, const void *data, size_t size_bytes)
{
    struct stopping *s = ctx;

    (void)data;
    s->bytes_after += s->stop ? size_bytes : 0;
    s->stop = true;
    return 0;
}

static int64_t read_and_stop(void *ctx, void *data, size_t cap_bytes)
{
    struct stopping *s = ctx;
    size_t n = s->image.size - s->at < cap_bytes ? s->image.size - s->at : cap_bytes;

    n = n < 65536 ? n : 65536;
    s->bytes_after += s->stop ? n : 0;
    s->stop = true;
    if (n)
        memcpy(data, s->image.data + s->at, n);
    s->at += n;
    return (int64_t)n;
}

static void judge_stop(const char *call, const struct stopping *s, int r)
{
    static const char contract[] =
        "\"stop is set when the host wants save_snapshot or recover to end early: return NH_ECLOSED soon\"";

    if (r != NH_OK && r != NH_ECLOSED)
        kit_fail(contract, "%s, told to stop, returns %s instead of ECLOSED", call, kit_error_text(r));
    if (s->bytes_after > STOP_BYTES_MAX)
        kit_fail(contract, "%s went on for %zu bytes after it was told to stop", call, s->bytes_after);
}

static void grow(struct kit_instance *i)
{
    for (uint64_t k = 0; kit_has_growth() && k < STOP_GROWTH; k++) {
        struct kit_bytes cmd = kit_growth(k);
        struct nh_entry e = {.index = kit_index(i->count++), .cmd = cmd.data, .size_bytes = cmd.size};

        kit_update(i, &e, 1);
        free(cmd.data);
    }
}

void check_stop(void)
{
    struct stopping s = {.stop = false};
    struct nh_writer out = {write_and_stop, &s};
    struct nh_reader in = {read_and_stop, &s};
    struct kit_instance i, other;
    void *ctx;
    int r;

    kit_open(&i, 1);
    kit_open(&other, 1);
    kit_apply_to(&i, 50);
    grow(&i);
    s.image = kit_image(&i);
    if (s.image.size < 2 * STOP_BYTES_MAX)
        kit_note("the image has %zu bytes: of a larger one, this check would tell more (`grow` in the commands file)",
                 s.image.size);
    ctx = kit_prepare(&i);
    kit_enter("save_snapshot");
    r = kit.ops->save_snapshot(i.m, ctx, &out, &s.stop, &kit_err);
    kit_leave();
    kit_release(&i, ctx);
    judge_stop("save_snapshot", &s, r);
    s.stop = false;
    s.bytes_after = 0;
    kit_enter("recover");
    r = kit.ops->recover(other.m, &in, &s.stop, &kit_err);
    kit_leave();
    judge_stop("recover", &s, r);
    free(s.image.data);
    kit_close(&i);
    kit_close(&other);
}

/* ---- mangled images ---- */

/* Whatever recover made of it: if it was content, the instance works. */
static bool try_image(struct kit_bytes image)
{
    struct kit_instance i;
    struct kit_bytes again;
    bool taken;
    int r;

    kit_open(&i, 1);
    r = kit_recover(&i, image);
    if (r > 0)
        kit_fail("a code is 0 or negative", "recover returns %d", r);
    taken = r == NH_OK;
    if (taken) {
        kit_hash(&i);
        again = kit_image(&i);
        free(again.data);
    }
    kit_close(&i);
    return taken;
}

static struct kit_bytes exact_copy(struct kit_bytes image, size_t size)
{
    struct kit_bytes copy = {malloc(size ? size : 1), size};

    memcpy(copy.data, image.data, size < image.size ? size : image.size);
    return copy;
}

void check_mangled_images(void)
{
    struct kit_instance i;
    struct kit_bytes image, copy;
    uint64_t random = kit.seed;
    unsigned n_cut = 0;

    kit_open(&i, 1);
    kit_apply_to(&i, kit.n_entries / 2);
    image = kit_image(&i);
    for (unsigned k = 0; k < CUTS && image.size > 0; k++) {
        copy = exact_copy(image, k < CUTS / 2 ? k % image.size : kit_random(&random) % image.size);
        n_cut += try_image(copy);
        free(copy.data);
    }
    for (unsigned k = 0; k < FLIPS && image.size > 0; k++) {
        size_t at = k < FLIPS / 2 ? k % image.size : kit_random(&random) % image.size;

        copy = exact_copy(image, image.size);
        copy.data[at] ^= (uint8_t)(k % 3 ? 1u << kit_random(&random) % 8 : 0xff);
        try_image(copy);
        free(copy.data);
    }
    for (unsigned k = 0; k < 20; k++) {
        copy = kit_random_bytes(k, 1000);
        try_image(copy);
        free(copy.data);
    }
    if (n_cut > 0)
        kit_note("%u of %u cut images were taken for whole: \"An image that recover cannot understand is a failure\"", n_cut,
                 CUTS);
    free(image.data);
    kit_close(&i);
}
