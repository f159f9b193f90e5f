/* NH.SNAPSHOT: makes a snapshot of a shard now, or exports one.
 *
 * An export goes to a directory below snapshots.export_dir alone: whoever may talk to this port must not be able to have files
 * written elsewhere.
 */
#include "cmd/nodehostd/command.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_BYTES_MAX 128u

static const char usage[] = "ERR syntax error: NH.SNAPSHOT shard [EXPORT name]";

/* The index of the snapshot. */
static void finish_snapshot(struct call *call)
{
    const struct part *p = &call->parts[0];

    if (!part_reply_refusal(call, p) && !call_reply_failure(call))
        reply_integer(&call->reply, (int64_t)p->index);
}

/* [index, path] */
static void finish_export(struct call *call)
{
    const struct part *p = &call->parts[0];

    if (part_reply_refusal(call, p) || call_reply_failure(call))
        return;
    reply_array(&call->reply, 2);
    reply_integer(&call->reply, (int64_t)p->index);
    reply_bulk(&call->reply, p->data, p->size);
}

static bool is_name(struct kv_slice arg)
{
    if (arg.size == 0 || arg.size > NAME_BYTES_MAX || arg.data[0] == '.')
        return false;
    for (uint32_t i = 0; i < arg.size; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", arg.data[i]) || arg.data[i] == 0)
            return false;
    return true;
}

/* For us alone, durably; not its parent. False: an error reply is written. */
static bool make_directory(struct call *call, const char *path)
{
    char copy[PATH_MAX];
    const char *parent;
    int fd = -1, failure = 0;

    snprintf(copy, sizeof copy, "%s", path);
    parent = dirname(copy);
    if (mkdir(path, 0700) < 0)
        failure = errno;
    else if ((fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || fsync(fd) < 0)
        failure = errno;
    if (fd >= 0)
        close(fd);
    if (failure == 0 || failure == EEXIST)
        return true;
    if (failure == ENOENT)
        reply_errorf(&call->reply,
                     "ERR make directory %s: its parent %s is not there, and is not made, as it may belong on a disk that is not "
                     "mounted: mount that, or make the parent",
                     path, parent);
    else
        reply_errorf(&call->reply, "ERR make directory %s: %s", path, strerror(failure));
    return false;
}

/* The directory to export to; false: an error reply is written. */
static bool take_directory(struct call *call, struct kv_slice name, char *out)
{
    const char *root = call->server->config->snapshots.export_dir;

    if (!root) {
        reply_error(&call->reply,
                    "ERR exports are off: name a directory by snapshots.export_dir in the configuration of this host");
        return false;
    }
    if (!is_name(name)) {
        reply_errorf(&call->reply,
                     "ERR the name of an export has 1 to %u letters, digits, _, - and ., and does not begin with a dot",
                     NAME_BYTES_MAX);
        return false;
    }
    snprintf(out, PATH_MAX, "%s/%.*s", root, (int)name.size, (const char *)name.data);
    return make_directory(call, root) && make_directory(call, out);
}

static struct part *make_part(struct call *call, uint64_t shard_id, void (*finish)(struct call *call))
{
    call_make_parts(call, 1);
    call->parts[0].shard_id = shard_id;
    call->finish = finish;
    return &call->parts[0];
}

void cmd_nh_snapshot(struct call *call)
{
    char directory[PATH_MAX];
    uint64_t shard_id;

    if (!take_shard(call, call->args[1], &shard_id))
        return;
    if (call->n_args == 2)
        part_snapshot(make_part(call, shard_id, finish_snapshot));
    else if (call->n_args != 4 || !arg_is(call->args[2], "export"))
        reply_error(&call->reply, usage);
    else if (take_directory(call, call->args[3], directory))
        part_export(make_part(call, shard_id, finish_export), directory);
}
