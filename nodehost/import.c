/* nh_import_snapshot: a shard that lost its majority, rebuilt from an export with other members. Offline: the host does not run.
 *
 * What is checked first, and what is done then, in this order; a crash in between leaves a replica that does not start or an old
 * one, and the import is done again:
 *
 *     the image is written anew, synced, and takes the place of one of its index
 *     an on-disk machine's directory is removed, durably: it recovers from the image
 *     the log store's record: from here on the replica is the new one
 *     the bootstrap record names the machine
 *     older images are removed
 */
#include "nodehost/nodehost.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/rsm/membership.h"
#include "nodehost/import_image.h"
#include "nodehost/loader.h"
#include "nodehost/places.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

#define LINE_BYTES 1024u

struct import {
    struct nh_import c; /* defaults filled in */
    struct nh_logdb_ops logdb_ops;
    struct data_dir dir;
    char snapshot_root[PLACE_PATH_BYTES], machine_dir[PLACE_PATH_BYTES];
    struct nh_logdb *logdb; /* NULL: there is none yet */
    struct export export;
    struct nh_snapshot record; /* the new one */
    bool is_here;              /* something is stored of this replica */
    struct nh_raft_state here;
    uint64_t snapshot_here;
};

static void say(const struct import *i, const char *fmt, ...) NH_PRINTF(2, 3);
static void say(const struct import *i, const char *fmt, ...)
{
    char line[LINE_BYTES];
    va_list ap;

    if (!i->c.say)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    i->c.say(i->c.say_ctx, line);
}

/* "1@a:7101 2@b:7101", cut to fit. */
static const char *describe(const struct nh_membership *m, char *text, size_t cap)
{
    size_t at = 0;

    text[0] = 0;
    for (uint32_t i = 0; i < m->n_members && at < cap; i++)
        at += (size_t)snprintf(text + at, cap - at, "%s%" PRIu64 "@%s%s", i > 0 ? " " : "", m->members[i].replica_id,
                               m->members[i].address, m->members[i].kind == NH_MEMBER_NON_VOTING ? " (nonvoting)" : "");
    return text;
}

/* ---- what was asked for ---- */

static int take_config(struct import *i, const struct nh_import *given, struct nh_error *err)
{
    struct nh_import *c = &i->c;
    const struct nh_logdb_ops *given_logdb;

    if (!given || given->struct_size < offsetof(struct nh_import, say))
        return nh_error_set(err, NH_EINVAL, "the request is NULL or has no struct_size: begin with NH_IMPORT_INIT");
    memcpy(c, given, given->struct_size < sizeof *c ? given->struct_size : sizeof *c);
    c->deployment_id = c->deployment_id ? c->deployment_id : 1;
    c->logdb = c->logdb ? c->logdb : nh_logdb_builtin("rocksdb");
    if (c->host_id == 0 || !c->data_dir || !c->data_dir[0] || !c->address || !c->address[0] || !c->source || !c->source[0])
        return nh_error_set(err, NH_EINVAL, "host_id, data_dir, address or source is missing");
    if (c->shard_id == 0 || c->replica_id == 0)
        return nh_error_set(err, NH_EINVAL, "shard_id or replica_id is 0");
    given_logdb = c->logdb;
    c->logdb = &i->logdb_ops;
    return loader_take_logdb(given_logdb, &i->logdb_ops, err);
}

static int check_member(const struct nh_member *m, struct nh_error *err)
{
    if (m->replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_EINVAL, "a member has the id 0");
    if (!memchr(m->address, 0, sizeof m->address) || m->address[0] == 0)
        return nh_error_set(err, NH_EINVAL, "member %" PRIu64 " has no address, or one that is too long", m->replica_id);
    if (m->kind != NH_MEMBER_VOTER && m->kind != NH_MEMBER_NON_VOTING)
        return nh_error_set(err, NH_EINVAL,
                            "member %" PRIu64 " is no voter and not non-voting: add witnesses when the shard runs",
                            m->replica_id);
    return NH_OK;
}

static int check_pair(const struct nh_member *a, const struct nh_member *b, struct nh_error *err)
{
    if (a->replica_id == b->replica_id)
        return nh_error_set(err, NH_EINVAL, "member %" PRIu64 " is named twice", a->replica_id);
    if ((uint32_t)a->replica_id == (uint32_t)b->replica_id)
        return nh_error_set(err, NH_EINVAL, "members %" PRIu64 " and %" PRIu64 " have the same low 32 bits", a->replica_id,
                            b->replica_id);
    if (strcmp(a->address, b->address) == 0)
        return nh_error_set(err, NH_EINVAL,
                            "members %" PRIu64 " and %" PRIu64 " have one address, %s: a host has one replica of a shard",
                            a->replica_id, b->replica_id, a->address);
    return NH_OK;
}

static int check_ours(const struct import *i, struct nh_error *err)
{
    const struct nh_import *c = &i->c;

    for (uint32_t k = 0; k < c->n_members; k++) {
        const struct nh_member *m = &c->members[k];

        if (m->replica_id == c->replica_id && strcmp(m->address, c->address) == 0)
            return NH_OK;
        if (m->replica_id == c->replica_id)
            return nh_error_set(err, NH_EINVAL, "replica %" PRIu64 " is to be ours, but lives at %s, and this host is %s",
                                m->replica_id, m->address, c->address);
        if (strcmp(m->address, c->address) == 0)
            return nh_error_set(err, NH_EINVAL, "%s is this host, and gets replica %" PRIu64 ", not %" PRIu64, c->address,
                                m->replica_id, c->replica_id);
    }
    return nh_error_set(err, NH_EINVAL, "neither replica %" PRIu64 " nor this host, %s, is among the members", c->replica_id,
                        c->address);
}

static int check_members(const struct import *i, struct nh_error *err)
{
    const struct nh_import *c = &i->c;
    struct nh_membership m = {.n_members = c->n_members, .members = (struct nh_member *)(uintptr_t)c->members};
    int r = NH_OK;

    if (c->n_members == 0 || !c->members || c->n_members > NH_MEMBERS_MAX)
        return nh_error_set(err, NH_EINVAL, "%" PRIu32 " members, 1 to %u can be: name all who are to form the shard",
                            c->n_members, NH_MEMBERS_MAX);
    for (uint32_t k = 0; k < c->n_members && r == NH_OK; k++) {
        r = check_member(&c->members[k], err);
        for (uint32_t j = 0; j < k && r == NH_OK; j++)
            r = check_pair(&c->members[j], &c->members[k], err);
    }
    if (r == NH_OK && membership_refuse(&m))
        r = nh_error_set(err, NH_EINVAL, "members: %s", membership_refuse(&m));
    return r < 0 ? r : check_ours(i, err);
}

/* ---- the export, and the members that it had ---- */

static int check_against_removed(const struct nh_membership *old, const struct nh_member *m, struct nh_error *err)
{
    for (uint32_t k = 0; k < old->n_removed; k++) {
        if (old->removed[k] == m->replica_id)
            return nh_error_set(err, NH_EINVAL,
                                "replica %" PRIu64 " was removed from the shard, and such an id never returns: give this "
                                "member a new id",
                                m->replica_id);
        if ((uint32_t)old->removed[k] == (uint32_t)m->replica_id)
            return nh_error_set(err, NH_EINVAL, "replica %" PRIu64 ", which was removed, has the same low 32 bits as %" PRIu64,
                                old->removed[k], m->replica_id);
    }
    return NH_OK;
}

static int check_against_old(const struct nh_membership *old, const struct nh_member *m, struct nh_error *err)
{
    for (uint32_t k = 0; k < old->n_members; k++) {
        const struct nh_member *o = &old->members[k];

        if (o->replica_id != m->replica_id && (uint32_t)o->replica_id == (uint32_t)m->replica_id)
            return nh_error_set(err, NH_EINVAL, "replica %" PRIu64 ", a former member, has the same low 32 bits as %" PRIu64,
                                o->replica_id, m->replica_id);
        if (o->replica_id != m->replica_id)
            continue;
        if (strcmp(o->address, m->address) != 0)
            return nh_error_set(err, NH_EINVAL,
                                "replica %" PRIu64 " lived at %s and cannot move to %s: give the one there a new id",
                                m->replica_id, o->address, m->address);
        if (nh_kind_is_witness(o->kind))
            return nh_error_set(err, NH_EINVAL, "replica %" PRIu64 " was a witness and has no data: give it a new id",
                                m->replica_id);
    }
    return NH_OK;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct nh_member *)a)->replica_id, y = ((const struct nh_member *)b)->replica_id;

    return (x > y) - (x < y);
}

/* The new membership under the old configuration change id: changes stay ordered. Who is not kept may never return. */
static void make_membership(struct import *i)
{
    const struct nh_membership *old = &i->export.head.record.membership;
    struct nh_membership *m = &i->record.membership;

    *m = (struct nh_membership){.config_change_id = old->config_change_id, .n_members = i->c.n_members};
    m->members = xmemdup(i->c.members, i->c.n_members * sizeof *m->members);
    for (uint32_t k = 0; k < m->n_members; k++)
        m->members[k].outgoing = false;
    qsort(m->members, m->n_members, sizeof *m->members, by_id);
    m->removed = xcalloc(old->n_removed + old->n_members, sizeof *m->removed);
    for (uint32_t k = 0; k < old->n_removed; k++)
        m->removed[m->n_removed++] = old->removed[k];
    for (uint32_t k = 0; k < old->n_members; k++)
        if (!nh_membership_find(m, old->members[k].replica_id))
            m->removed[m->n_removed++] = old->members[k].replica_id;
}

static void say_export(const struct import *i)
{
    const struct nh_snapshot *s = &i->export.head.record;
    char text[LINE_BYTES / 2];

    say(i,
        "export: shard %" PRIu64 ", index %" PRIu64 ", term %" PRIu64 ", %" PRIu64
        " bytes, machine %s %s; every checksum is right",
        s->shard_id, s->index, s->term, i->export.size_bytes, i->export.head.machine_name, i->export.head.machine_version);
    say(i, "former members: %s", describe(&s->membership, text, sizeof text));
    say(i, "new members: %s", describe(&i->record.membership, text, sizeof text));
    for (uint32_t k = 0; k < i->record.membership.n_removed; k++)
        say(i, "replica %" PRIu64 " never returns", i->record.membership.removed[k]);
}

static int read_export(struct import *i, struct nh_error *err)
{
    const struct nh_snapshot *s = &i->export.head.record;
    int r = export_open(&i->export, i->c.source, err);

    if (r < 0)
        return r;
    if (s->shard_id != i->c.shard_id)
        return nh_error_set(err, NH_EINVAL, "%s is an export of shard %" PRIu64 ", not of shard %" PRIu64, i->c.source,
                            s->shard_id, i->c.shard_id);
    for (uint32_t k = 0; k < i->c.n_members && r == NH_OK; k++) {
        r = check_against_removed(&s->membership, &i->c.members[k], err);
        if (r == NH_OK)
            r = check_against_old(&s->membership, &i->c.members[k], err);
    }
    if (r < 0)
        return r;
    i->record = *s;
    i->record.file_path = NULL;
    i->record.imported = true;
    make_membership(i);
    say_export(i);
    return NH_OK;
}

/* ---- what is here ---- */

static int open_logdb(struct import *i, struct nh_error *err)
{
    struct nh_logdb_config c = {.struct_size = sizeof c,
                                .dir = i->dir.logdb_path,
                                .wal_dir = i->c.wal_dir,
                                .n_workers = 1,
                                .options = i->c.logdb_options,
                                .services = nh_plugin_services()};
    int r = i->c.wal_dir && !i->c.dry_run ? data_dir_make(i->c.wal_dir, err) : NH_OK;

    if (r == NH_OK && i->c.dry_run && access(i->dir.logdb_path, F_OK) < 0)
        return NH_OK; /* nothing was ever stored here */
    if (r == NH_OK)
        r = plugin_status(i->c.logdb->open(&c, &i->logdb, err), "open", err);
    if (r < 0)
        i->logdb = NULL;
    return r < 0 ? nh_error_wrap(err, r, "open log store %s", i->c.logdb->name) : NH_OK;
}

/* Locks it, so that no host runs on it. */
static int open_dir(struct import *i, struct nh_error *err)
{
    struct data_dir_identity id = {i->c.host_id, i->c.deployment_id, i->c.address, i->c.logdb->name};
    int r = i->c.dry_run ? data_dir_look(&i->dir, i->c.data_dir, &id, err) : data_dir_open(&i->dir, i->c.data_dir, &id, err);

    if (r == NH_ENOTFOUND && i->c.dry_run) {
        say(i, "data directory %s would be made", i->c.data_dir);
        return NH_OK;
    }
    if (r == NH_OK && !i->c.dry_run)
        r = place_make_snapshots(&i->dir, i->c.snapshot_dir, i->snapshot_root, err);
    if (r == NH_OK)
        r = place_of_machine(&i->dir, i->c.shard_id, i->c.replica_id, i->machine_dir, err);
    return r < 0 ? r : open_logdb(i, err);
}

static int look_here(struct import *i, struct nh_error *err)
{
    struct nh_snapshot snapshot = {0};
    struct nh_bootstrap b = {0};
    struct nh_error cause = {0};
    int r;

    if (!i->logdb)
        return NH_OK;
    r = i->c.logdb->get_bootstrap(i->logdb, i->c.shard_id, i->c.replica_id, &b, &cause);
    r = plugin_found(r, "get_bootstrap", &cause, err);
    nh_bootstrap_deinit(&b);
    if (r == NH_ENOTFOUND)
        return NH_OK;
    i->is_here = true;
    if (r == NH_OK)
        r = i->c.logdb->read_raft_state(i->logdb, i->c.shard_id, i->c.replica_id, &i->here, &cause);
    r = plugin_found(r, "read_raft_state", &cause, err);
    if (r == NH_OK || r == NH_ENOTFOUND)
        r = i->c.logdb->get_snapshot(i->logdb, i->c.shard_id, i->c.replica_id, &snapshot, err);
    r = plugin_status(r, "get_snapshot", err);
    i->snapshot_here = snapshot.index;
    nh_snapshot_deinit(&snapshot);
    return r;
}

/* Entries of the export are there in every case; what is committed here and not in it would be lost. */
static int check_here(struct import *i, struct nh_error *err)
{
    int r = look_here(i, err);
    uint64_t committed = i->here.state.commit > i->snapshot_here ? i->here.state.commit : i->snapshot_here;
    if (r < 0)
        return nh_error_wrap(err, r, "replica %" PRIu64 " as it is here", i->c.replica_id);
    if (!i->is_here) {
        say(i, "nothing is stored of replica %" PRIu64 " here", i->c.replica_id);
        return NH_OK;
    }
    if (committed > i->record.index)
        return nh_error_set(err, NH_EINVAL,
                            "the export ends at index %" PRIu64 ", but replica %" PRIu64 " here has everything up to %" PRIu64
                            ": export the shard from this host, or import under a new replica id",
                            i->record.index, i->c.replica_id, committed);
    say(i, "replica %" PRIu64 " here (log up to index %" PRIu64 ", committed up to %" PRIu64 ") %s replaced", i->c.replica_id,
        i->here.last_index, committed, i->c.dry_run ? "would be" : "is");
    return NH_OK;
}

/* ---- doing it ---- */

static int commit_image(struct import *i, struct snapshot_dir *dir, struct nh_error *err)
{
    struct files *fs = files_posix();
    struct snapshot_temp temp = {0};
    char same[FILES_PATH_BYTES];
    int r = snapshot_temp_begin(&temp, dir, i->record.index, 0, err);

    if (r == NH_OK)
        r = export_rewrite(&i->export, &i->record, &temp, &i->record.file_size_bytes, err);
    if (r == NH_OK) /* one of this index has other members: it would stay otherwise */
        r = snapshot_dir_image(dir, i->record.index, same, err);
    if (r == NH_OK)
        r = fs->ops->remove(fs, same, err);
    if (r == NH_OK)
        r = snapshot_temp_commit(&temp, &i->record, err);
    snapshot_temp_abort(&temp);
    return r;
}

static int save_bootstrap(struct import *i, struct nh_error *err)
{
    struct nh_bootstrap b = {.join = true, .machine_kind = NH_MACHINE_KIND_UNKNOWN};

    strcpy(b.machine_type, i->export.head.machine_name);
    strcpy(b.machine_version, i->export.head.machine_version);
    return plugin_status(i->c.logdb->save_bootstrap(i->logdb, i->c.shard_id, i->c.replica_id, &b, err), "save_bootstrap", err);
}

/* For ever: after a power cut it could be back, ahead of the export and with another history. */
static int remove_machine(struct import *i, struct nh_error *err)
{
    struct files *fs = files_posix();
    int parent_bytes = (int)(strrchr(i->machine_dir, '/') - i->machine_dir);
    char parent[FILES_PATH_BYTES];
    int r = fs->ops->remove(fs, i->machine_dir, err);

    if (r == NH_OK)
        r = files_path(parent, err, "%.*s", parent_bytes, i->machine_dir);
    if (r == NH_OK)
        r = fs->ops->sync_dir(fs, parent, err);
    return r == NH_ENOTFOUND ? NH_OK : r; /* no machine of this host ever had one */
}

static int perform(struct import *i, struct nh_error *err)
{
    struct snapshot_dir dir;
    int r = snapshot_dir_init(&dir, files_posix(), i->snapshot_root, i->c.shard_id, i->c.replica_id, err);

    if (r == NH_OK)
        r = commit_image(i, &dir, err);
    if (r == NH_OK)
        r = remove_machine(i, err);
    if (r == NH_OK)
        r = plugin_status(i->c.logdb->import_snapshot(i->logdb, &i->record, i->c.replica_id, err), "import_snapshot", err);
    if (r == NH_OK)
        r = save_bootstrap(i, err);
    if (r == NH_OK)
        r = snapshot_dir_clean(&dir, i->record.index, 1, err);
    return r;
}

static int import(struct import *i, struct nh_error *err)
{
    int r = check_members(i, err);

    if (r == NH_OK)
        r = read_export(i, err);
    if (r == NH_OK)
        r = open_dir(i, err);
    if (r == NH_OK)
        r = check_here(i, err);
    if (r == NH_OK && i->c.dry_run)
        say(i, "nothing was changed: this was a dry run");
    else if (r == NH_OK)
        r = perform(i, err);
    if (r == NH_OK && !i->c.dry_run)
        say(i,
            "replica %" PRIu64 " of shard %" PRIu64
            " is imported; import the same export on the hosts of all members, then start them, "
            "as joining",
            i->c.replica_id, i->c.shard_id);
    return r;
}

int nh_import_snapshot(const struct nh_import *given, struct nh_error *err)
{
    struct import *i = xcalloc(1, sizeof *i);
    int r = take_config(i, given, err);

    if (r == NH_OK)
        r = import(i, err);
    if (i->logdb)
        i->c.logdb->close(i->logdb);
    data_dir_close(&i->dir);
    nh_membership_deinit(&i->record.membership);
    export_deinit(&i->export);
    if (r < 0)
        nh_error_wrap(err, r, "import");
    free(i);
    return r;
}
