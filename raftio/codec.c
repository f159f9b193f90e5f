#include "raftio/codec.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/codec_private.h"
#include "raftio/support/memory.h"

/* Longest path in a snapshot record, with its final NUL. */
#define SNAPSHOT_PATH_BYTES 4096u

/* ---- parts ---- */

static size_t pack(const ProtobufCMessage *m, uint8_t *out, size_t cap)
{
    size_t bytes = protobuf_c_message_get_packed_size(m);

    if (bytes > 0 && bytes <= cap)
        protobuf_c_message_pack(m, out);
    return bytes;
}

/* Borrows; protobuf-c only reads what it packs. */
static ProtobufCBinaryData bytes_of(const void *data, size_t size_bytes)
{
    return (ProtobufCBinaryData){.len = size_bytes, .data = (uint8_t *)data};
}

/* A path may hold any byte but control characters; what is no path must be ASCII too. */
static bool is_printable(const ProtobufCBinaryData *text, bool ascii)
{
    for (size_t i = 0; i < text->len; i++)
        if (text->data[i] < 0x20 || text->data[i] == 0x7f || (ascii && text->data[i] > 0x7e))
            return false;
    return true;
}

static int check_text(const ProtobufCBinaryData *text, size_t cap, bool ascii, const char *what, struct nh_error *err)
{
    if (text->len >= cap)
        return nh_error_set(err, NH_ECORRUPT, "%s of %zu bytes is longer than %zu", what, text->len, cap - 1);
    if (!is_printable(text, ascii))
        return nh_error_set(err, NH_ECORRUPT, "%s has characters that cannot be", what);
    return NH_OK;
}

int codec_text(const ProtobufCBinaryData *text, char *ret, size_t cap, const char *what, struct nh_error *err)
{
    int r = check_text(text, cap, true, what, err);

    if (r < 0)
        return r;
    if (text->len)
        memcpy(ret, text->data, text->len);
    memset(ret + text->len, 0, cap - text->len);
    return NH_OK;
}

static void member_to_pb(const struct nh_member *m, Raftpb__Member *ret)
{
    raftpb__member__init(ret);
    ret->replica_id = m->replica_id;
    ret->kind = (Raftpb__MemberKind)m->kind;
    ret->outgoing = m->outgoing;
    ret->address = bytes_of(m->address, strnlen(m->address, sizeof m->address));
}

static int member_from_pb(const Raftpb__Member *pb, struct nh_member *ret, struct nh_error *err)
{
    if (pb->replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_ECORRUPT, "member without id");
    if ((uint32_t)pb->kind > NH_MEMBER_LEAVING_WITNESS)
        return nh_error_set(err, NH_ECORRUPT, "member %" PRIu64 " of unknown kind %u", pb->replica_id, (uint32_t)pb->kind);
    ret->replica_id = pb->replica_id;
    ret->kind = (uint32_t)pb->kind;
    ret->outgoing = pb->outgoing;
    return codec_text(&pb->address, ret->address, sizeof ret->address, "member address", err);
}

/* A membership in protobuf-c's form; borrows from the struct that it was made of. Refers to itself: must not be moved. */
struct membership_pb {
    Raftpb__Membership pb;
    Raftpb__Member members[NH_MEMBERS_MAX];
    Raftpb__Member *pointers[NH_MEMBERS_MAX];
};

static void membership_to_pb(const struct nh_membership *m, struct membership_pb *ret)
{
    assert(m->n_members <= NH_MEMBERS_MAX);
    raftpb__membership__init(&ret->pb);
    ret->pb.config_change_id = m->config_change_id;
    ret->pb.joint = m->joint;
    ret->pb.auto_leave = m->auto_leave;
    for (uint32_t i = 0; i < m->n_members; i++) {
        member_to_pb(&m->members[i], &ret->members[i]);
        ret->pointers[i] = &ret->members[i];
    }
    ret->pb.n_members = m->n_members;
    ret->pb.members = ret->pointers;
    ret->pb.n_removed = m->n_removed;
    ret->pb.removed = m->removed;
}

static int members_from_pb(const Raftpb__Membership *pb, struct nh_member *ret, struct nh_error *err)
{
    for (size_t i = 0; i < pb->n_members; i++) {
        int r = member_from_pb(pb->members[i], &ret[i], err);

        if (r < 0)
            return r;
        if (!pb->joint && (ret[i].outgoing || nh_kind_is_leaving(ret[i].kind)))
            return nh_error_set(err, NH_ECORRUPT, "member %" PRIu64 " is leaving, but the configuration is not joint",
                                ret[i].replica_id);
        if (i > 0 && ret[i].replica_id <= ret[i - 1].replica_id)
            return nh_error_set(err, NH_ECORRUPT, "member %" PRIu64 " after member %" PRIu64, ret[i].replica_id,
                                ret[i - 1].replica_id);
    }
    return NH_OK;
}

/* `pb` may be NULL: a membership without anyone. */
static int membership_from_pb(const Raftpb__Membership *pb, struct nh_membership *ret, struct nh_error *err)
{
    struct nh_membership m = {0};
    int r;

    if (!pb) {
        *ret = m;
        return NH_OK;
    }
    if (pb->n_members > NH_MEMBERS_MAX)
        return nh_error_set(err, NH_ECORRUPT, "%zu members, at most %u can be", pb->n_members, NH_MEMBERS_MAX);
    if (pb->n_removed > UINT32_MAX)
        return nh_error_set(err, NH_ECORRUPT, "%zu removed members", pb->n_removed);
    m.config_change_id = pb->config_change_id;
    m.joint = pb->joint;
    m.auto_leave = pb->auto_leave;
    if (pb->n_members)
        m.members = xcalloc(pb->n_members, sizeof *m.members);
    r = members_from_pb(pb, m.members, err);
    if (r < 0) {
        free(m.members);
        return r;
    }
    m.n_members = (uint32_t)pb->n_members;
    if (pb->n_removed)
        m.removed = xmemdup(pb->removed, pb->n_removed * sizeof *m.removed);
    m.n_removed = (uint32_t)pb->n_removed;
    *ret = m;
    return NH_OK;
}

size_t membership_encode(const struct nh_membership *m, uint8_t *out, size_t cap)
{
    struct membership_pb membership;

    membership_to_pb(m, &membership);
    return pack(&membership.pb.base, out, cap);
}

int membership_decode(const uint8_t *data, size_t size_bytes, struct nh_membership *ret, struct nh_error *err)
{
    const Raftpb__Membership *pb;
    struct arena a;
    int r;

    arena_init(&a, size_bytes);
    pb = arena_unpack(&a, &raftpb__membership__descriptor, data, size_bytes, err);
    r = pb ? membership_from_pb(pb, ret, err) : NH_ECORRUPT;
    arena_deinit(&a);
    return r < 0 ? nh_error_wrap(err, r, "membership") : NH_OK;
}

/* ---- hard state ---- */

size_t state_encode(const struct nh_state *s, uint8_t *out, size_t cap)
{
    Raftpb__State pb = RAFTPB__STATE__INIT;

    pb.term = s->term;
    pb.vote = s->vote;
    pb.commit = s->commit;
    return pack(&pb.base, out, cap);
}

int state_decode(const uint8_t *data, size_t size_bytes, struct nh_state *ret, struct nh_error *err)
{
    const Raftpb__State *pb;
    struct arena a;

    arena_init(&a, size_bytes);
    pb = arena_unpack(&a, &raftpb__state__descriptor, data, size_bytes, err);
    if (pb)
        *ret = (struct nh_state){.term = pb->term, .vote = pb->vote, .commit = pb->commit};
    arena_deinit(&a);
    return pb ? NH_OK : nh_error_wrap(err, NH_ECORRUPT, "hard state");
}

/* ---- bootstrap ---- */

size_t bootstrap_encode(const struct nh_bootstrap *b, uint8_t *out, size_t cap)
{
    Raftpb__Bootstrap pb = RAFTPB__BOOTSTRAP__INIT;
    struct membership_pb initial;

    membership_to_pb(&b->initial, &initial);
    pb.join = b->join;
    pb.machine_type = bytes_of(b->machine_type, strnlen(b->machine_type, sizeof b->machine_type));
    pb.initial = &initial.pb;
    pb.machine_kind = b->machine_kind;
    pb.machine_version = bytes_of(b->machine_version, strnlen(b->machine_version, sizeof b->machine_version));
    pb.machine_hash = b->machine_hash;
    return pack(&pb.base, out, cap);
}

static int bootstrap_from_pb(const Raftpb__Bootstrap *pb, struct nh_bootstrap *ret, struct nh_error *err)
{
    struct nh_bootstrap b = {.join = pb->join, .machine_kind = pb->machine_kind, .machine_hash = pb->machine_hash};
    int r = codec_text(&pb->machine_type, b.machine_type, sizeof b.machine_type, "machine type", err);

    if (r == NH_OK)
        r = codec_text(&pb->machine_version, b.machine_version, sizeof b.machine_version, "machine version", err);
    if (r < 0)
        return r;
    r = membership_from_pb(pb->initial, &b.initial, err);
    if (r < 0)
        return r;
    *ret = b;
    return NH_OK;
}

int bootstrap_decode(const uint8_t *data, size_t size_bytes, struct nh_bootstrap *ret, struct nh_error *err)
{
    const Raftpb__Bootstrap *pb;
    struct arena a;
    int r;

    arena_init(&a, size_bytes);
    pb = arena_unpack(&a, &raftpb__bootstrap__descriptor, data, size_bytes, err);
    r = pb ? bootstrap_from_pb(pb, ret, err) : NH_ECORRUPT;
    arena_deinit(&a);
    return r < 0 ? nh_error_wrap(err, r, "bootstrap record") : NH_OK;
}

/* ---- snapshot record ---- */

size_t snapshot_encode(const struct nh_snapshot *s, uint8_t *out, size_t cap)
{
    Raftpb__Snapshot pb = RAFTPB__SNAPSHOT__INIT;
    struct membership_pb membership;

    membership_to_pb(&s->membership, &membership);
    pb.shard_id = s->shard_id;
    pb.index = s->index;
    pb.term = s->term;
    pb.file_size_bytes = s->file_size_bytes;
    pb.on_disk_index = s->on_disk_index;
    pb.checksum = s->checksum;
    pb.dummy = s->dummy;
    pb.witness = s->witness;
    pb.imported = s->imported;
    if (s->file_path)
        pb.file_path = bytes_of(s->file_path, strlen(s->file_path));
    pb.membership = &membership.pb;
    return pack(&pb.base, out, cap);
}

int codec_snapshot(const Raftpb__Snapshot *pb, struct nh_snapshot *ret, struct nh_error *err)
{
    struct nh_snapshot s = {
        .shard_id = pb->shard_id,
        .index = pb->index,
        .term = pb->term,
        .file_size_bytes = pb->file_size_bytes,
        .on_disk_index = pb->on_disk_index,
        .checksum = pb->checksum,
        .dummy = pb->dummy,
        .witness = pb->witness,
        .imported = pb->imported,
    };
    int r = check_text(&pb->file_path, SNAPSHOT_PATH_BYTES, false, "file path", err);

    if (r < 0)
        return r;
    r = membership_from_pb(pb->membership, &s.membership, err);
    if (r < 0)
        return r;
    if (pb->file_path.len) {
        s.file_path = xcalloc(1, pb->file_path.len + 1);
        memcpy(s.file_path, pb->file_path.data, pb->file_path.len);
    }
    *ret = s;
    return NH_OK;
}

int snapshot_decode(const uint8_t *data, size_t size_bytes, struct nh_snapshot *ret, struct nh_error *err)
{
    const Raftpb__Snapshot *pb;
    struct arena a;
    int r;

    arena_init(&a, size_bytes);
    pb = arena_unpack(&a, &raftpb__snapshot__descriptor, data, size_bytes, err);
    r = pb ? codec_snapshot(pb, ret, err) : NH_ECORRUPT;
    arena_deinit(&a);
    return r < 0 ? nh_error_wrap(err, r, "snapshot record") : NH_OK;
}

/* ---- configuration change ---- */

/* The parts of CHANGE_MANY; refers to itself: must not be moved. */
struct changes_pb {
    Raftpb__MemberChange changes[NH_MEMBERS_MAX];
    Raftpb__MemberChange *pointers[NH_MEMBERS_MAX];
    Raftpb__Member members[NH_MEMBERS_MAX];
};

static void changes_to_pb(const struct nh_config_change *c, struct changes_pb *ret, Raftpb__ConfigChange *pb)
{
    assert(c->n_changes <= NH_MEMBERS_MAX);
    for (uint32_t i = 0; i < c->n_changes; i++) {
        raftpb__member_change__init(&ret->changes[i]);
        member_to_pb(&c->changes[i].member, &ret->members[i]);
        ret->changes[i].type = (Raftpb__ConfigChangeType)c->changes[i].type;
        ret->changes[i].member = &ret->members[i];
        ret->pointers[i] = &ret->changes[i];
    }
    pb->n_changes = c->n_changes;
    pb->changes = ret->pointers;
    pb->transition = c->transition;
}

size_t config_change_encode(const struct nh_config_change *c, uint8_t *out, size_t cap)
{
    Raftpb__ConfigChange pb = RAFTPB__CONFIG_CHANGE__INIT;
    struct membership_pb initial;
    struct changes_pb changes;
    Raftpb__Member member;

    pb.config_change_id = c->config_change_id;
    pb.type = (Raftpb__ConfigChangeType)c->type;
    if (c->type == NH_CONFIG_INITIALIZE) {
        membership_to_pb(&c->initial, &initial);
        pb.initial = &initial.pb;
    } else if (c->type == NH_CONFIG_CHANGE_MANY) {
        changes_to_pb(c, &changes, &pb);
    } else if (c->type != NH_CONFIG_LEAVE_JOINT) {
        member_to_pb(&c->member, &member);
        pb.member = &member;
    }
    return pack(&pb.base, out, cap);
}

static bool is_member_change(uint32_t type)
{
    return type == NH_CONFIG_ADD_MEMBER || type == NH_CONFIG_REMOVE_MEMBER || type == NH_CONFIG_UPDATE_ADDRESS;
}

static int changed_member_from_pb(uint32_t type, const Raftpb__Member *pb, struct nh_member *ret, struct nh_error *err)
{
    if (!is_member_change(type))
        return nh_error_set(err, NH_ECORRUPT, "type %u is not a change of a member", type);
    if (!pb)
        return nh_error_set(err, NH_ECORRUPT, "type %u without its member", type);
    if (type == NH_CONFIG_ADD_MEMBER && (pb->outgoing || (uint32_t)pb->kind > NH_MEMBER_WITNESS))
        return nh_error_set(err, NH_ECORRUPT, "member %" PRIu64 " cannot be made leaving", pb->replica_id);
    return member_from_pb(pb, ret, err);
}

static int changes_from_pb(const Raftpb__ConfigChange *pb, struct nh_config_change *c, struct nh_error *err)
{
    int r = NH_OK;

    if (pb->n_changes == 0 || pb->n_changes > NH_MEMBERS_MAX)
        return nh_error_set(err, NH_ECORRUPT, "%zu changes at once, 1 to %u can be", pb->n_changes, NH_MEMBERS_MAX);
    if (pb->transition > NH_TRANSITION_EXPLICIT)
        return nh_error_set(err, NH_ECORRUPT, "unknown transition %u", pb->transition);
    c->transition = pb->transition;
    c->n_changes = (uint32_t)pb->n_changes;
    c->changes = xcalloc(pb->n_changes, sizeof *c->changes);
    for (uint32_t i = 0; i < c->n_changes && r == NH_OK; i++) {
        c->changes[i].type = (uint32_t)pb->changes[i]->type;
        r = changed_member_from_pb(c->changes[i].type, pb->changes[i]->member, &c->changes[i].member, err);
    }
    if (r < 0)
        nh_config_change_deinit(c);
    return r;
}

static int config_change_from_pb(const Raftpb__ConfigChange *pb, struct nh_config_change *ret, struct nh_error *err)
{
    struct nh_config_change c = {.config_change_id = pb->config_change_id, .type = (uint32_t)pb->type};
    int r = NH_OK;

    if (c.type > NH_CONFIG_LEAVE_JOINT)
        return nh_error_set(err, NH_ECORRUPT, "unknown type %u", c.type);
    if (c.type == NH_CONFIG_INITIALIZE)
        r = pb->initial ? membership_from_pb(pb->initial, &c.initial, err)
                        : nh_error_set(err, NH_ECORRUPT, "type %u without its members", c.type);
    else if (c.type == NH_CONFIG_CHANGE_MANY)
        r = changes_from_pb(pb, &c, err);
    else if (c.type != NH_CONFIG_LEAVE_JOINT)
        r = changed_member_from_pb(c.type, pb->member, &c.member, err);
    if (r < 0)
        return r;
    *ret = c;
    return NH_OK;
}

int config_change_decode(const uint8_t *data, size_t size_bytes, struct nh_config_change *ret, struct nh_error *err)
{
    const Raftpb__ConfigChange *pb;
    struct arena a;
    int r;

    arena_init(&a, size_bytes);
    pb = arena_unpack(&a, &raftpb__config_change__descriptor, data, size_bytes, err);
    r = pb ? config_change_from_pb(pb, ret, err) : NH_ECORRUPT;
    arena_deinit(&a);
    return r < 0 ? nh_error_wrap(err, r, "configuration change") : NH_OK;
}

/* ---- hello ---- */

size_t hello_encode(const struct nh_hello *h, uint8_t *out, size_t cap)
{
    Raftpb__Hello pb = RAFTPB__HELLO__INIT;

    pb.bin_version = h->bin_version;
    pb.deployment_id = h->deployment_id;
    pb.source_address = bytes_of(h->source_address, strnlen(h->source_address, sizeof h->source_address));
    pb.target_address = bytes_of(h->target_address, strnlen(h->target_address, sizeof h->target_address));
    pb.snapshot_connection = h->snapshot_connection;
    pb.data_layout = h->data_layout;
    return pack(&pb.base, out, cap);
}

static int hello_from_pb(const Raftpb__Hello *pb, struct nh_hello *ret, struct nh_error *err)
{
    struct nh_hello h = {
        .bin_version = pb->bin_version,
        .deployment_id = pb->deployment_id,
        .snapshot_connection = pb->snapshot_connection,
        .data_layout = pb->data_layout,
    };
    int r = codec_text(&pb->source_address, h.source_address, sizeof h.source_address, "source address", err);

    if (r < 0)
        return r;
    r = codec_text(&pb->target_address, h.target_address, sizeof h.target_address, "target address", err);
    if (r < 0)
        return r;
    *ret = h;
    return NH_OK;
}

int hello_decode(const uint8_t *data, size_t size_bytes, struct nh_hello *ret, struct nh_error *err)
{
    const Raftpb__Hello *pb;
    struct arena a;
    int r;

    arena_init(&a, size_bytes);
    pb = arena_unpack(&a, &raftpb__hello__descriptor, data, size_bytes, err);
    r = pb ? hello_from_pb(pb, ret, err) : NH_ECORRUPT;
    arena_deinit(&a);
    return r < 0 ? nh_error_wrap(err, r, "hello") : NH_OK;
}
