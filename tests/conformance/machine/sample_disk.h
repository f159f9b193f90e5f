/* tests/conformance/machine/sample_disk.h - the sample as an on-disk machine: sync writes the state to a file of its own. */
#ifndef NH_TESTS_CONFORMANCE_MACHINE_SAMPLE_DISK_H
#define NH_TESTS_CONFORMANCE_MACHINE_SAMPLE_DISK_H

#include "tests/conformance/machine/sample.h"

#include <stdio.h>

static int sample_disk_write(struct nh_machine *m, const struct sample_state *s)
{
    char path[600], fresh[600];
    bool written;
    FILE *f;

    snprintf(path, sizeof path, "%s/state", m->dir);
    snprintf(fresh, sizeof fresh, "%s/state.new", m->dir);
    f = fopen(fresh, "wb");
    written = f && fwrite(s, sizeof *s, 1, f) == 1;
    if (f)
        written &= fclose(f) == 0;
    return written && rename(fresh, path) == 0 ? NH_OK : NH_EIO; /* no fsync: tests kill processes, not power */
}

static int sample_disk_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied,
                            struct nh_error *err)
{
    char path[600];
    FILE *f;

    sample_open(args, ret, ret_applied, err);
    snprintf((*ret)->dir, sizeof(*ret)->dir, "%s", args->data_dir);
    snprintf(path, sizeof path, "%s/state", args->data_dir);
    f = fopen(path, "rb");
    if (f && fread(&(*ret)->s, sizeof(*ret)->s, 1, f) == 1)
        *ret_applied = (*ret)->s.applied;
    if (f)
        fclose(f);
    return NH_OK;
}

static int sample_disk_sync(struct nh_machine *m, struct nh_error *err)
{
    (void)err;
    return sample_disk_write(m, &m->s);
}

static struct nh_machine_ops sample_disk_ops(const char *name)
{
    struct nh_machine_ops ops = sample_ops(name);

    ops.kind = NH_MACHINE_ON_DISK;
    ops.open = sample_disk_open;
    ops.sync = sample_disk_sync;
    return ops;
}

#define SAMPLE_DISK_PLUGIN(name, change)                 \
    const struct nh_machine_ops *nh_machine_plugin(void) \
    {                                                    \
        static struct nh_machine_ops ops;                \
                                                         \
        ops = sample_disk_ops(name);                     \
        change;                                          \
        return &ops;                                     \
    }

#endif
