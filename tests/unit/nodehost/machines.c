#include "tests/unit/nodehost/machines.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct state {
    uint64_t sum, applied;
};

struct nh_machine {
    struct state state;
    char path[4096]; /* empty: in memory */
    char text[32];
};

uint32_t sum_entries;

static int open_regular(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args;
    (void)err;
    *ret = calloc(1, sizeof **ret);
    *ret_applied = 0;
    return *ret ? NH_OK : NH_ENOMEM;
}

static int open_disk(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    int r = open_regular(args, ret, ret_applied, err), fd;

    if (r < 0)
        return r;
    snprintf((*ret)->path, sizeof(*ret)->path, "%s/sum", args->data_dir);
    fd = open((*ret)->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || read(fd, &(*ret)->state, sizeof(*ret)->state) < 0)
        r = nh_error_set(err, NH_EIO, "%s cannot be read", (*ret)->path);
    if (fd >= 0)
        close(fd);
    *ret_applied = (*ret)->state.applied;
    if (r < 0)
        free(*ret);
    return r;
}

static int write_state(struct nh_machine *m, struct nh_error *err)
{
    int fd, r = NH_OK;

    if (!m->path[0])
        return NH_OK;
    fd = open(m->path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, &m->state, sizeof m->state, 0) != sizeof m->state)
        r = nh_error_set(err, NH_EIO, "%s cannot be written", m->path);
    if (fd >= 0)
        close(fd);
    return r;
}

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    for (size_t i = 0; i < n; i++) {
        char number[32] = {0};

        memcpy(number, entries[i].cmd, entries[i].size_bytes < 31 ? entries[i].size_bytes : 31);
        if (strcmp(number, "fail") == 0)
            return nh_error_set(err, NH_EMACHINE, "told to fail");
        m->state.sum += strtoull(number, NULL, 10);
        m->state.applied = entries[i].index;
        snprintf(m->text, sizeof m->text, "%llu", (unsigned long long)m->state.sum);
        entries[i].result.value = m->state.sum;
        if (i == n - 1) {
            entries[i].result.data = m->text;
            entries[i].result.size_bytes = strlen(m->text);
        }
        __atomic_add_fetch(&sum_entries, 1, __ATOMIC_RELAXED);
    }
    return write_state(m, err);
}

static int lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err)
{
    (void)query;
    (void)size_bytes;
    (void)out;
    (void)err;
    *ret_value = m->state.sum;
    return NH_OK;
}

static void close_machine(struct nh_machine *m)
{
    free(m);
}

static int prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    struct state *at = malloc(sizeof *at);

    (void)err;
    *at = m->state;
    *ret_ctx = at;
    return NH_OK;
}

static void release(struct nh_machine *m, void *ctx)
{
    (void)m;
    free(ctx);
}

static int save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    (void)m;
    (void)stop;
    (void)err;
    return out->write(out->ctx, ctx, sizeof(struct state));
}

static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    (void)stop;
    if (in->read(in->ctx, &m->state, sizeof m->state) != sizeof m->state)
        return nh_error_set(err, NH_ECORRUPT, "the image is too short");
    return write_state(m, err);
}

static int sync_machine(struct nh_machine *m, struct nh_error *err)
{
    (void)m;
    (void)err;
    return NH_OK;
}

const struct nh_machine_ops sum_machine = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof(struct nh_machine_ops),
    .name = "sum",
    .version = "1",
    .kind = NH_MACHINE_REGULAR,
    .open = open_regular,
    .update = update,
    .lookup = lookup,
    .close = close_machine,
    .prepare_snapshot = prepare,
    .save_snapshot = save,
    .recover = recover,
    .release_snapshot = release,
};

const struct nh_machine_ops disk_sum_machine = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof(struct nh_machine_ops),
    .name = "disk-sum",
    .version = "1",
    .kind = NH_MACHINE_ON_DISK,
    .open = open_disk,
    .update = update,
    .lookup = lookup,
    .close = close_machine,
    .prepare_snapshot = prepare,
    .save_snapshot = save,
    .recover = recover,
    .sync = sync_machine,
    .release_snapshot = release,
};
