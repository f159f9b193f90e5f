/* Memberships and configuration changes in words.
 *
 * A change is read from its bytes (raftio/raftpb.proto, ConfigChange) without the codec, of which the core is free: only what is
 * printed is looked at, and whatever does not look like a change is left to be printed as bytes.
 */
#include "engine/raft/describe_text.h"

/* ---- bytes: fields of protobuf ---- */

struct field {
    uint32_t id;
    uint64_t number;     /* of a varint */
    const uint8_t *data; /* of bytes; NULL: a varint */
    size_t n;
};

struct reader {
    const uint8_t *data;
    size_t n;
    bool bad;
};

static uint64_t read_varint(struct reader *r)
{
    uint64_t v = 0;

    for (uint32_t shift = 0; shift < 64 && r->n > 0; shift += 7) {
        uint8_t c = *r->data++;

        r->n--;
        v |= (uint64_t)(c & 0x7fu) << shift;
        if (c < 0x80)
            return v;
    }
    r->bad = true;
    return 0;
}

/* False: the end, or something that cannot be read. */
static bool next_field(struct reader *r, struct field *f)
{
    uint64_t tag;

    if (r->n == 0 || r->bad)
        return false;
    tag = read_varint(r);
    *f = (struct field){.id = (uint32_t)(tag >> 3)};
    f->number = read_varint(r);
    if ((tag & 7) == 2 && !r->bad && f->number <= r->n) {
        f->data = r->data;
        f->n = (size_t)f->number;
        r->data += f->n;
        r->n -= f->n;
    } else if ((tag & 7) != 0) {
        r->bad = true;
    }
    return !r->bad;
}

/* ---- members ---- */

struct member {
    uint64_t id, kind;
    const uint8_t *address;
    size_t address_bytes;
};

static bool read_member(const struct field *from, struct member *ret)
{
    struct reader r = {.data = from->data, .n = from->n};
    struct field f;

    *ret = (struct member){0};
    while (next_field(&r, &f)) {
        if (f.id == 1)
            ret->id = f.number;
        else if (f.id == 2)
            ret->kind = f.number;
        else if (f.id == 3)
            *ret = (struct member){ret->id, ret->kind, f.data, f.n};
    }
    return from->data && !r.bad && ret->id != 0;
}

static const char *kind_name(uint64_t kind)
{
    return kind == NH_MEMBER_VOTER        ? "voter "
           : kind == NH_MEMBER_NON_VOTING ? "non-voting "
           : kind == NH_MEMBER_WITNESS    ? "witness "
                                          : "unknown ";
}

static const char *kind_mark(uint64_t kind)
{
    return kind == NH_MEMBER_NON_VOTING ? "n" : nh_kind_is_witness(kind) ? "w" : "";
}

static bool put_change(struct text *t, uint64_t type, const struct member *m)
{
    switch (type) {
    case NH_CONFIG_ADD_MEMBER:
        text_put(t, "add ");
        text_number(t, kind_name(m->kind), m->id);
        break;
    case NH_CONFIG_REMOVE_MEMBER: text_number(t, "remove ", m->id); break;
    case NH_CONFIG_UPDATE_ADDRESS:
        text_number(t, "address ", m->id);
        text_char(t, ' ');
        text_quoted(t, m->address, m->address_bytes, NH_ADDRESS_BYTES);
        break;
    default: return false;
    }
    return m->id != 0;
}

/* ---- a change ---- */

struct change {
    uint64_t config_change_id, type, transition;
    struct member member;
    const uint8_t *data; /* all of it: lists are read again when they are printed */
    size_t n;
};

static bool read_change(const uint8_t *data, size_t n, struct change *ret)
{
    struct reader r = {.data = data, .n = n};
    struct field f;

    *ret = (struct change){.data = data, .n = n};
    while (next_field(&r, &f)) {
        if (f.id == 1)
            ret->config_change_id = f.number;
        else if (f.id == 2)
            ret->type = f.number;
        else if (f.id == 3 && !read_member(&f, &ret->member))
            return false;
        else if (f.id == 6)
            ret->transition = f.number;
    }
    return n > 0 && !r.bad;
}

static bool put_one_of_many(struct text *t, const struct field *from)
{
    struct reader r = {.data = from->data, .n = from->n};
    struct member m = {0};
    uint64_t type = 0;
    struct field f;

    while (next_field(&r, &f)) {
        if (f.id == 1)
            type = f.number;
        else if (f.id == 2 && !read_member(&f, &m))
            return false;
    }
    return from->data && !r.bad && put_change(t, type, &m);
}

static bool put_many(struct text *t, const struct change *c)
{
    static const char *const names[] = {"auto", "implicit", "explicit"};
    struct reader r = {.data = c->data, .n = c->n};
    const char *before = " [";
    struct field f;

    text_put(t, "many ");
    text_put(t, c->transition < 3 ? names[c->transition] : "unknown");
    while (next_field(&r, &f)) {
        if (f.id != 5)
            continue;
        text_put(t, before);
        before = ", ";
        if (!put_one_of_many(t, &f))
            return false;
    }
    text_put(t, *before == ',' ? "]" : " []");
    return true;
}

static bool put_initial_members(struct text *t, const struct field *from)
{
    struct reader r = {.data = from->data, .n = from->n};
    struct member m;
    struct field f;

    while (next_field(&r, &f)) {
        if (f.id != 2)
            continue;
        if (!read_member(&f, &m))
            return false;
        text_char(t, ' ');
        text_number(t, kind_mark(m.kind), m.id);
    }
    return from->data && !r.bad;
}

static bool put_initial(struct text *t, const struct change *c)
{
    struct reader r = {.data = c->data, .n = c->n};
    struct field f;

    text_put(t, "initial");
    while (next_field(&r, &f))
        if (f.id == 4)
            return put_initial_members(t, &f);
    return false;
}

static bool put_words(struct text *t, const struct change *c)
{
    switch (c->type) {
    case NH_CONFIG_INITIALIZE: return put_initial(t, c);
    case NH_CONFIG_CHANGE_MANY: return put_many(t, c);
    case NH_CONFIG_LEAVE_JOINT: text_put(t, "leave joint"); return true;
    default: return put_change(t, c->type, &c->member);
    }
}

bool raft_text_change(struct text *t, const uint8_t *payload, size_t n)
{
    size_t before = t->n;
    struct change c;

    text_char(t, ' ');
    if (!read_change(payload, n, &c) || !put_words(t, &c)) {
        t->n = before;
        return false;
    }
    text_nonzero(t, " if change ", c.config_change_id);
    return true;
}

/* ---- a membership ---- */

static void put_half(struct text *t, const struct nh_membership *m, bool outgoing)
{
    const char *between = "";

    text_char(t, '[');
    for (uint32_t i = 0; i < m->n_members; i++) {
        const struct nh_member *one = &m->members[i];

        if (outgoing ? !one->outgoing : nh_kind_is_leaving(one->kind))
            continue;
        text_put(t, between);
        /* Who voted, and is no witness now, was a voter: nobody becomes a witness or was one. */
        text_number(t, outgoing && !nh_kind_is_witness(one->kind) ? "" : kind_mark(one->kind), one->replica_id);
        between = " ";
    }
    text_char(t, ']');
}

void raft_text_membership(struct text *t, const struct nh_membership *m)
{
    put_half(t, m, false);
    if (!m->joint)
        return;
    text_put(t, " and ");
    put_half(t, m, true);
    text_put(t, m->auto_leave ? " auto" : "");
}
