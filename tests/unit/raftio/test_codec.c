#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/raftpb.pb-c.h"
#include "raftio/support/memory.h"

#define MEMBERS_OVER (NH_MEMBERS_MAX + 1)

static struct nh_error err;
static uint8_t buf[65536];

static struct nh_membership sample_membership(uint32_t n_members, uint32_t n_removed)
{
    struct nh_membership m = {.config_change_id = 300, .n_members = n_members, .n_removed = n_removed};

    m.members = xcalloc(n_members, sizeof *m.members);
    m.removed = xcalloc(n_removed, sizeof *m.removed);
    for (uint32_t i = 0; i < n_members; i++) {
        m.members[i].replica_id = 1 + (uint64_t)i * 1000;
        m.members[i].kind = i % 3;
        memset(m.members[i].address, 'a', i * 2 < NH_ADDRESS_BYTES - 1 ? i * 2 : NH_ADDRESS_BYTES - 1);
    }
    for (uint32_t i = 0; i < n_removed; i++)
        m.removed[i] = UINT64_MAX - i;
    return m;
}

/* Feeds all prefixes of buf[0..n) and all single-bit damages; the decoder may accept some, but must not stumble. */
#define TORTURE(decode, type, deinit, n)                                              \
    do {                                                                              \
        for (size_t cut_ = 0; cut_ < (n); cut_++) {                                   \
            uint8_t *exact_ = xmemdup(buf, cut_);                                     \
            type ret_ = {0};                                                          \
            int r_ = decode(exact_, cut_, &ret_, &err);                               \
            cr_assert(r_ == NH_OK || (r_ == NH_ECORRUPT && err.code == NH_ECORRUPT)); \
            deinit(&ret_);                                                            \
            free(exact_);                                                             \
        }                                                                             \
        for (size_t bit_ = 0; bit_ < (n)*8; bit_++) {                                 \
            type ret_ = {0};                                                          \
            int r_;                                                                   \
            buf[bit_ / 8] ^= (uint8_t)(1u << bit_ % 8);                               \
            r_ = decode(buf, (n), &ret_, &err);                                       \
            cr_assert(r_ == NH_OK || r_ == NH_ECORRUPT);                              \
            deinit(&ret_);                                                            \
            buf[bit_ / 8] ^= (uint8_t)(1u << bit_ % 8);                               \
        }                                                                             \
    } while (0)

static void nothing(void *p)
{
    (void)p;
}

Test(codec, state_round_trip)
{
    struct nh_state s = {.term = UINT64_MAX, .vote = 1, .commit = 300}, back = {0};
    size_t n = state_encode(&s, NULL, 0);

    cr_assert_eq(state_encode(&s, buf, n), n);
    cr_assert_eq(state_decode(buf, n, &back, &err), NH_OK);
    cr_assert_eq(memcmp(&s, &back, sizeof s), 0);
    TORTURE(state_decode, struct nh_state, nothing, n);
}

Test(codec, an_empty_state_takes_no_bytes)
{
    struct nh_state s = {0}, back = {.term = 5};

    cr_assert_eq(state_encode(&s, buf, sizeof buf), 0);
    cr_assert_eq(state_decode(NULL, 0, &back, &err), NH_OK);
    cr_assert_eq(back.term, 0);
}

Test(codec, encoding_into_too_little_room_writes_nothing)
{
    struct nh_state s = {.term = 1, .vote = 1, .commit = 300};
    size_t n = state_encode(&s, NULL, 0);

    memset(buf, 0xee, 64);
    cr_assert_eq(state_encode(&s, buf, n - 1), n);
    cr_assert_eq(buf[0], 0xee);
    cr_assert_eq(state_encode(&s, buf, n), n);
    cr_assert_eq(buf[n], 0xee);
}

Test(codec, garbage_names_what_it_should_have_been)
{
    struct nh_state s = {.term = 5};

    memset(buf, 0xff, 20);
    cr_assert_eq(state_decode(buf, 20, &s, &err), NH_ECORRUPT);
    cr_assert_str_eq(err.text, "hard state: 20 bytes are no State");
    cr_assert_eq(s.term, 5); /* set on success only */
    cr_assert_eq(state_decode(buf, 20, &s, NULL), NH_ECORRUPT);
}

Test(codec, membership_round_trip)
{
    struct nh_membership m = sample_membership(5, 2), back = {0};
    size_t n;

    m.joint = m.auto_leave = m.members[1].outgoing = true;
    m.members[4].kind = NH_MEMBER_LEAVING_WITNESS;
    n = membership_encode(&m, NULL, 0);
    cr_assert_eq(membership_encode(&m, buf, sizeof buf), n);
    cr_assert_eq(membership_decode(buf, n, &back, &err), NH_OK);
    cr_assert(nh_membership_equal(&m, &back));
    nh_membership_deinit(&back);
    cr_assert_eq(membership_decode(buf, n - 1, &back, &err), NH_ECORRUPT);
    cr_assert(strstr(err.text, "membership: "), "%s", err.text);
    TORTURE(membership_decode, struct nh_membership, nh_membership_deinit, n);
    nh_membership_deinit(&m);
}

Test(codec, nobody_takes_no_bytes)
{
    struct nh_membership m = {0}, back;

    cr_assert_eq(membership_encode(&m, buf, sizeof buf), 0);
    cr_assert_eq(membership_decode(NULL, 0, &back, &err), NH_OK);
    cr_assert(nh_membership_equal(&m, &back));
}

Test(codec, bootstrap_round_trip)
{
    struct nh_bootstrap b = {.join = true,
                             .machine_type = "kv",
                             .machine_kind = 2,
                             .machine_version = "1.2",
                             .machine_hash = UINT64_MAX - 1,
                             .initial = sample_membership(5, 2)},
                        back = {0};
    size_t n = bootstrap_encode(&b, NULL, 0);

    cr_assert_eq(bootstrap_encode(&b, buf, sizeof buf), n);
    cr_assert_eq(bootstrap_decode(buf, n, &back, &err), NH_OK);
    cr_assert(back.join);
    cr_assert_str_eq(back.machine_type, "kv");
    cr_assert_eq(back.machine_kind, 2);
    cr_assert_str_eq(back.machine_version, "1.2");
    cr_assert_eq(back.machine_hash, UINT64_MAX - 1);
    cr_assert(nh_membership_equal(&b.initial, &back.initial));
    nh_bootstrap_deinit(&back);
    TORTURE(bootstrap_decode, struct nh_bootstrap, nh_bootstrap_deinit, n);
    nh_bootstrap_deinit(&b);
}

Test(codec, an_empty_bootstrap_decodes_to_nobody)
{
    struct nh_bootstrap back;

    cr_assert_eq(bootstrap_decode(NULL, 0, &back, &err), NH_OK);
    cr_assert_eq(back.initial.n_members, 0);
    cr_assert_null(back.initial.members);
}

/* Stored for ever: these bytes must stay readable, and mean this. */
static const uint8_t golden_bootstrap[] = {0x08, 0x01, 0x12, 0x02, 'k',  'v',  0x1a, 0x00, 0x20, 0x02, 0x2a,
                                           0x01, '7',  0x31, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};

Test(codec, a_stored_bootstrap_is_read_back)
{
    struct nh_bootstrap back;

    cr_assert_eq(bootstrap_decode(golden_bootstrap, sizeof golden_bootstrap, &back, &err), NH_OK, "%s", err.text);
    cr_assert(back.join);
    cr_assert_str_eq(back.machine_type, "kv");
    cr_assert_eq(back.machine_kind, 2);
    cr_assert_str_eq(back.machine_version, "7");
    cr_assert_eq(back.machine_hash, 0x1122334455667788);
    cr_assert_eq(bootstrap_encode(&back, buf, sizeof buf), sizeof golden_bootstrap);
    cr_assert_eq(memcmp(buf, golden_bootstrap, sizeof golden_bootstrap), 0);
}

Test(codec, a_bootstrap_of_a_host_that_knew_machines_by_name_alone_is_read_too)
{
    struct nh_bootstrap back;

    cr_assert_eq(bootstrap_decode(golden_bootstrap, 8, &back, &err), NH_OK, "%s", err.text);
    cr_assert_str_eq(back.machine_type, "kv");
    cr_assert_eq(back.machine_kind, 0);
    cr_assert_str_eq(back.machine_version, "");
    cr_assert_eq(back.machine_hash, 0);
}

Test(codec, the_longest_machine_type_fits_and_one_more_does_not)
{
    struct nh_bootstrap b = {0}, back = {0};
    size_t n;

    memset(b.machine_type, 'm', sizeof b.machine_type - 1);
    n = bootstrap_encode(&b, buf, sizeof buf);
    cr_assert_eq(bootstrap_decode(buf, n, &back, &err), NH_OK);
    cr_assert_str_eq(back.machine_type, b.machine_type);
    memset(b.machine_type, 'm', sizeof b.machine_type); /* no NUL: 64 characters */
    n = bootstrap_encode(&b, buf, sizeof buf);
    cr_assert_eq(bootstrap_decode(buf, n, &back, &err), NH_ECORRUPT);
    cr_assert_str_eq(err.text, "bootstrap record: machine type of 64 bytes is longer than 63");
}

Test(codec, the_longest_address_fits_and_one_more_does_not)
{
    struct nh_bootstrap b = {.initial = sample_membership(1, 0)}, back = {0};
    size_t n;

    memset(b.initial.members[0].address, 'a', NH_ADDRESS_BYTES - 1);
    n = bootstrap_encode(&b, buf, sizeof buf);
    cr_assert_eq(bootstrap_decode(buf, n, &back, &err), NH_OK);
    cr_assert_str_eq(back.initial.members[0].address, b.initial.members[0].address);
    nh_bootstrap_deinit(&back);
    b.initial.members[0].address[NH_ADDRESS_BYTES - 1] = 'a';
    n = bootstrap_encode(&b, buf, sizeof buf);
    cr_assert_eq(bootstrap_decode(buf, n, &back, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "member address of 128 bytes"));
    nh_bootstrap_deinit(&b);
}

/* Packs a bootstrap of protobuf-c's form: what our encoder would never write. */
static int decode_members(size_t n_members, Raftpb__Member *members)
{
    Raftpb__Bootstrap pb = RAFTPB__BOOTSTRAP__INIT;
    Raftpb__Membership membership = RAFTPB__MEMBERSHIP__INIT;
    Raftpb__Member *pointers[MEMBERS_OVER];
    struct nh_bootstrap back = {0};
    int r;

    for (size_t i = 0; i < n_members; i++)
        pointers[i] = &members[i];
    membership.n_members = n_members;
    membership.members = pointers;
    pb.initial = &membership;
    cr_assert_leq(raftpb__bootstrap__get_packed_size(&pb), sizeof buf);
    r = bootstrap_decode(buf, raftpb__bootstrap__pack(&pb, buf), &back, &err);
    if (r == NH_OK)
        cr_assert_eq(back.initial.n_members, n_members);
    else
        cr_assert_null(back.initial.members);
    nh_bootstrap_deinit(&back);
    return r;
}

static void make_members(Raftpb__Member *members, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        raftpb__member__init(&members[i]);
        members[i].replica_id = i + 1;
    }
}

Test(codec, as_many_members_as_allowed_and_one_more)
{
    Raftpb__Member members[MEMBERS_OVER];

    make_members(members, MEMBERS_OVER);
    cr_assert_eq(decode_members(NH_MEMBERS_MAX, members), NH_OK);
    cr_assert_eq(decode_members(MEMBERS_OVER, members), NH_ECORRUPT);
    cr_assert_str_eq(err.text, "bootstrap record: 65 members, at most 64 can be");
}

Test(codec, members_must_be_sorted_and_have_ids_and_kinds)
{
    Raftpb__Member members[3];

    make_members(members, 3);
    members[2].replica_id = 2;
    cr_assert_eq(decode_members(3, members), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "member 2 after member 2"));
    members[2].replica_id = 1;
    cr_assert_eq(decode_members(3, members), NH_ECORRUPT);
    make_members(members, 3);
    members[0].replica_id = 0;
    cr_assert_eq(decode_members(3, members), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "member without id"));
    make_members(members, 3);
    members[1].kind = (Raftpb__MemberKind)NH_MEMBER_WITNESS;
    cr_assert_eq(decode_members(3, members), NH_OK);
    members[1].kind = (Raftpb__MemberKind)NH_MEMBER_LEAVING;
    cr_assert_eq(decode_members(3, members), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "member 2 is leaving, but the configuration is not joint"));
    members[1].kind = (Raftpb__MemberKind)(NH_MEMBER_LEAVING_WITNESS + 1);
    cr_assert_eq(decode_members(3, members), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "member 2 of unknown kind 5"));
    members[1].kind = (Raftpb__MemberKind)-1;
    cr_assert_eq(decode_members(3, members), NH_ECORRUPT);
}

Test(codec, text_must_be_printable)
{
    static const uint8_t bad[] = {0, 1, 0x1f, 0x7f, 0x80, 0xff};
    Raftpb__Member member;
    uint8_t text[3] = "a:1";

    make_members(&member, 1);
    member.address = (ProtobufCBinaryData){.len = 3, .data = text};
    cr_assert_eq(decode_members(1, &member), NH_OK);
    for (size_t i = 0; i < sizeof bad; i++) {
        text[1] = bad[i];
        cr_assert_eq(decode_members(1, &member), NH_ECORRUPT, "byte %u", bad[i]);
    }
}

static struct nh_snapshot sample_snapshot(void)
{
    return (struct nh_snapshot){.shard_id = 1,
                                .index = 2,
                                .term = 3,
                                .file_size_bytes = 4,
                                .on_disk_index = 5,
                                .checksum = UINT32_MAX,
                                .dummy = true,
                                .imported = true,
                                .file_path = xstrdup("/data/\xc3\xa4/snapshot-2"),
                                .membership = sample_membership(3, 1)};
}

Test(codec, snapshot_round_trip)
{
    struct nh_snapshot s = sample_snapshot(), back = {0};
    size_t n = snapshot_encode(&s, NULL, 0);

    cr_assert_eq(snapshot_encode(&s, buf, sizeof buf), n);
    cr_assert_eq(snapshot_decode(buf, n, &back, &err), NH_OK);
    cr_assert(back.shard_id == 1 && back.index == 2 && back.term == 3 && back.file_size_bytes == 4 && back.on_disk_index == 5);
    cr_assert(back.checksum == UINT32_MAX && back.dummy && !back.witness && back.imported);
    cr_assert_str_eq(back.file_path, s.file_path);
    cr_assert(nh_membership_equal(&s.membership, &back.membership));
    nh_snapshot_deinit(&back);
    TORTURE(snapshot_decode, struct nh_snapshot, nh_snapshot_deinit, n);
    nh_snapshot_deinit(&s);
}

Test(codec, a_snapshot_without_path_keeps_null)
{
    struct nh_snapshot s = {.index = 1, .witness = true}, back = {0};
    size_t n = snapshot_encode(&s, buf, sizeof buf);

    cr_assert_eq(snapshot_decode(buf, n, &back, &err), NH_OK);
    cr_assert_null(back.file_path);
    cr_assert(back.witness);
    nh_snapshot_deinit(&back);
}

Test(codec, the_longest_path_fits_and_one_more_does_not)
{
    char path[4097];
    struct nh_snapshot s = {.file_path = path}, back = {0};
    size_t n;

    memset(path, 'p', sizeof path);
    path[4095] = '\0';
    n = snapshot_encode(&s, buf, sizeof buf);
    cr_assert_eq(snapshot_decode(buf, n, &back, &err), NH_OK);
    nh_snapshot_deinit(&back);
    path[4095] = 'p';
    path[4096] = '\0';
    n = snapshot_encode(&s, buf, sizeof buf);
    cr_assert_eq(snapshot_decode(buf, n, &back, &err), NH_ECORRUPT);
    path[1] = '\n';
    path[2] = '\0';
    n = snapshot_encode(&s, buf, sizeof buf);
    cr_assert_eq(snapshot_decode(buf, n, &back, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "file path"));
}

Test(codec, config_change_round_trip_of_a_member)
{
    struct nh_config_change c = {.config_change_id = 9, .type = NH_CONFIG_ADD_MEMBER}, back = {0};
    size_t n;

    c.member = (struct nh_member){.replica_id = 4, .kind = NH_MEMBER_NON_VOTING, .address = "d:1"};
    n = config_change_encode(&c, buf, sizeof buf);
    cr_assert_eq(config_change_decode(buf, n, &back, &err), NH_OK);
    cr_assert(back.config_change_id == 9 && back.type == NH_CONFIG_ADD_MEMBER && back.member.replica_id == 4);
    cr_assert(back.member.kind == NH_MEMBER_NON_VOTING);
    cr_assert_str_eq(back.member.address, "d:1");
    cr_assert_eq(back.initial.n_members, 0);
    TORTURE(config_change_decode, struct nh_config_change, nh_config_change_deinit, n);
    c = (struct nh_config_change){.type = NH_CONFIG_REMOVE_MEMBER, .member.replica_id = 4};
    n = config_change_encode(&c, buf, sizeof buf);
    cr_assert_eq(config_change_decode(buf, n, &back, &err), NH_OK);
    cr_assert(back.type == NH_CONFIG_REMOVE_MEMBER && back.member.replica_id == 4);
}

Test(codec, config_change_round_trip_of_several_changes)
{
    struct nh_member_change changes[] = {{NH_CONFIG_REMOVE_MEMBER, {.replica_id = 4}},
                                         {NH_CONFIG_ADD_MEMBER, {.replica_id = 5, .kind = NH_MEMBER_WITNESS, .address = "e:1"}}};
    struct nh_config_change back = {0}, c = {.type = NH_CONFIG_CHANGE_MANY,
                                             .transition = NH_TRANSITION_EXPLICIT,
                                             .n_changes = 2,
                                             .changes = changes};
    size_t n = config_change_encode(&c, buf, sizeof buf);

    cr_assert_eq(config_change_decode(buf, n, &back, &err), NH_OK, "%s", err.text);
    cr_assert(back.type == NH_CONFIG_CHANGE_MANY && back.transition == NH_TRANSITION_EXPLICIT && back.n_changes == 2);
    cr_assert(back.changes[0].type == NH_CONFIG_REMOVE_MEMBER && back.changes[0].member.replica_id == 4);
    cr_assert(back.changes[1].member.kind == NH_MEMBER_WITNESS);
    cr_assert_str_eq(back.changes[1].member.address, "e:1");
    nh_config_change_deinit(&back);
    TORTURE(config_change_decode, struct nh_config_change, nh_config_change_deinit, n);
    c.n_changes = 0;
    n = config_change_encode(&c, buf, sizeof buf);
    cr_assert_eq(config_change_decode(buf, n, &back, &err), NH_ECORRUPT);
    c.n_changes = 1;
    c.changes[0].type = NH_CONFIG_LEAVE_JOINT;
    n = config_change_encode(&c, buf, sizeof buf);
    cr_assert_eq(config_change_decode(buf, n, &back, &err), NH_ECORRUPT);
}

Test(codec, config_change_round_trip_of_an_initial_membership)
{
    struct nh_config_change c = {.type = NH_CONFIG_INITIALIZE, .initial = sample_membership(3, 0)}, back = {0};
    size_t n = config_change_encode(&c, buf, sizeof buf);

    cr_assert_eq(config_change_decode(buf, n, &back, &err), NH_OK);
    cr_assert(nh_membership_equal(&c.initial, &back.initial));
    nh_config_change_deinit(&back);
    nh_config_change_deinit(&back);
    TORTURE(config_change_decode, struct nh_config_change, nh_config_change_deinit, n);
    nh_config_change_deinit(&c);
}

Test(codec, a_config_change_without_its_members_is_corrupt)
{
    Raftpb__ConfigChange pb = RAFTPB__CONFIG_CHANGE__INIT;
    struct nh_config_change back;

    for (int type = NH_CONFIG_INITIALIZE; type <= NH_CONFIG_UPDATE_ADDRESS; type++) {
        pb.type = (Raftpb__ConfigChangeType)type;
        cr_assert_eq(config_change_decode(buf, raftpb__config_change__pack(&pb, buf), &back, &err), NH_ECORRUPT);
        cr_assert_not_null(strstr(err.text, "without its member"), "%s", err.text);
    }
    pb.type = (Raftpb__ConfigChangeType)(NH_CONFIG_LEAVE_JOINT + 1);
    cr_assert_eq(config_change_decode(buf, raftpb__config_change__pack(&pb, buf), &back, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "unknown type 6"), "%s", err.text);
}

Test(codec, hello_round_trip)
{
    struct nh_hello h = {.bin_version = 1,
                         .deployment_id = UINT64_MAX,
                         .source_address = "a:1",
                         .snapshot_connection = true,
                         .data_layout = 1ull << 63};
    struct nh_hello back = {0};
    size_t n;

    memset(h.target_address, 't', NH_ADDRESS_BYTES - 1);
    n = hello_encode(&h, buf, sizeof buf);
    cr_assert_eq(hello_decode(buf, n, &back, &err), NH_OK);
    cr_assert_eq(memcmp(&h, &back, sizeof h), 0);
    TORTURE(hello_decode, struct nh_hello, nothing, n);
    h.target_address[NH_ADDRESS_BYTES - 1] = 't';
    n = hello_encode(&h, buf, sizeof buf);
    cr_assert_eq(hello_decode(buf, n, &back, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "hello: target address"));
}

static struct nh_chunk sample_chunk(void)
{
    return (struct nh_chunk){.shard_id = 1,
                             .replica_id = 2,
                             .from = 3,
                             .chunk_id = 0,
                             .chunk_count = UINT64_MAX,
                             .index = 6,
                             .term = 128,
                             .file_size_bytes = 1u << 31,
                             .deployment_id = 9,
                             .data = (const uint8_t *)"some bytes",
                             .size_bytes = 10};
}

static bool chunk_equal(const struct nh_chunk *a, const struct nh_chunk *b)
{
    return a->shard_id == b->shard_id && a->replica_id == b->replica_id && a->from == b->from && a->chunk_id == b->chunk_id &&
           a->chunk_count == b->chunk_count && a->index == b->index && a->term == b->term &&
           a->file_size_bytes == b->file_size_bytes && a->deployment_id == b->deployment_id && a->size_bytes == b->size_bytes &&
           memcmp(a->data, b->data, a->size_bytes) == 0;
}

Test(codec, chunk_round_trip_does_not_copy)
{
    struct nh_chunk c = sample_chunk(), back = {0};
    size_t n = chunk_encode(&c, NULL, 0);

    cr_assert_eq(chunk_encode(&c, buf, n), n);
    cr_assert_eq(chunk_decode(buf, n, &back, &err), NH_OK);
    cr_assert(chunk_equal(&c, &back));
    cr_assert(back.data > buf && back.data + back.size_bytes <= buf + n);
    TORTURE(chunk_decode, struct nh_chunk, nothing, n);
}

/* The chunk's codec is written by hand: protobuf-c must agree in both directions. */
Test(codec, chunks_are_those_of_protobuf)
{
    struct nh_chunk c = sample_chunk(), back = {0};
    size_t n = chunk_encode(&c, buf, sizeof buf);
    Raftpb__Chunk *pb = raftpb__chunk__unpack(NULL, n, buf);
    uint8_t *packed;

    cr_assert_not_null(pb);
    cr_assert(pb->shard_id == 1 && pb->replica_id == 2 && pb->from == 3 && pb->chunk_id == 0 && pb->chunk_count == UINT64_MAX);
    cr_assert(pb->index == 6 && pb->term == 128 && pb->file_size_bytes == 1u << 31 && pb->deployment_id == 9);
    cr_assert(pb->data.len == 10 && memcmp(pb->data.data, "some bytes", 10) == 0);
    cr_assert_eq(raftpb__chunk__get_packed_size(pb), n);
    packed = xmalloc(n);
    raftpb__chunk__pack(pb, packed);
    cr_assert_eq(memcmp(packed, buf, n), 0);
    cr_assert_eq(chunk_decode(packed, n, &back, &err), NH_OK);
    cr_assert(chunk_equal(&c, &back));
    free(packed);
    raftpb__chunk__free_unpacked(pb, NULL);
}

Test(codec, a_chunk_skips_fields_of_later_versions)
{
    /* field 11 varint, 12 fixed64, 13 bytes, 14 fixed32, then shard_id = 5 */
    static const uint8_t later[] = {0x58, 0x80, 0x01, 0x61, 1, 2, 3, 4, 5, 6, 7, 8, 0x6a, 2, 'x', 'y', 0x75, 1, 2, 3, 4, 0x08, 5};
    struct nh_chunk c;

    cr_assert_eq(chunk_decode(later, sizeof later, &c, &err), NH_OK);
    cr_assert_eq(c.shard_id, 5);
    cr_assert_eq(c.size_bytes, 0);
}

Test(codec, malformed_chunks_are_refused)
{
    static const uint8_t group[] = {0x0b}, field_0[] = {0x00, 0x01}, data_as_number[] = {0x50, 0x01},
                         shard_as_bytes[] = {0x0a, 0x00};
    static const uint8_t endless[] = {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    static const uint8_t too_long[] = {0x52, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 'x'};
    struct nh_chunk c = {.shard_id = 7};

    cr_assert_eq(chunk_decode(group, sizeof group, &c, &err), NH_ECORRUPT);
    cr_assert_eq(chunk_decode(field_0, sizeof field_0, &c, &err), NH_ECORRUPT);
    cr_assert_eq(chunk_decode(data_as_number, sizeof data_as_number, &c, &err), NH_ECORRUPT);
    cr_assert_eq(chunk_decode(shard_as_bytes, sizeof shard_as_bytes, &c, &err), NH_ECORRUPT);
    cr_assert_eq(chunk_decode(endless, sizeof endless, &c, &err), NH_ECORRUPT);
    cr_assert_eq(chunk_decode(too_long, sizeof too_long, &c, &err), NH_ECORRUPT);
    cr_assert_eq(c.shard_id, 7);
}
