#include "raftio/support/block.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/crc32c.h"
#include "raftio/support/memory.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are little-endian in memory, on disk and on the wire");
_Static_assert(sizeof(struct nh_block) % NH_RECORD_ALIGN == 0, "the data of a one-allocation block starts aligned");

/* Offsets are u32. */
#define BLOCK_BYTES_MAX   ((size_t)UINT32_MAX / NH_RECORD_ALIGN * NH_RECORD_ALIGN)
#define BUILDER_BYTES_MIN 512u
/* A block that is not larger is copied if its builder is reused: cheaper than three allocations. */
#define COPY_BYTES_MAX 4096u
#define CRC_OFFSET     4u

static void store_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static void store_u64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

static uint32_t record_crc(const uint8_t *p)
{
    return crc32c(0, p + CRC_OFFSET, NH_RECORD_HEADER_BYTES - CRC_OFFSET + nh_load_u32(p + 4));
}

/* ---- blocks ---- */

/* A block decoded from bytes is one allocation: header, data, offsets. A block made of a builder adopts its two arrays. */
static bool is_one_allocation(const struct nh_block *b)
{
    return b->data == (const uint8_t *)(b + 1);
}

struct nh_block *nh_block_ref(struct nh_block *b)
{
    uint32_t before = __atomic_fetch_add(&b->refs, 1, __ATOMIC_RELAXED);

    assert(before > 0 && before < UINT32_MAX);
    (void)before;
    return b;
}

/* Not inlined: most calls only count, and save no registers for this. */
__attribute__((noinline)) static void block_free(struct nh_block *b)
{
    if (!is_one_allocation(b)) {
        free((void *)b->data);
        free((void *)b->offsets);
    }
    free(b);
}

void nh_block_unref(struct nh_block *b)
{
    uint32_t before;

    if (!b)
        return;
    before = __atomic_fetch_sub(&b->refs, 1, __ATOMIC_ACQ_REL);
    assert(before > 0);
    if (before == 1)
        block_free(b);
}

/* Copies `n` whole records. */
static struct nh_block *block_copy(const uint8_t *records, size_t size_bytes, uint32_t n, uint64_t term, uint64_t first_index)
{
    struct nh_block *b = xmalloc(sizeof *b + size_bytes + ((size_t)n + 1) * sizeof(uint32_t));
    uint8_t *data = (uint8_t *)(b + 1);
    uint32_t *offsets = (uint32_t *)(data + size_bytes);
    uint32_t at = 0, types = 0;

    memcpy(data, records, size_bytes);
    for (uint32_t i = 0; i < n; i++) {
        offsets[i] = at;
        types |= 1u << nh_record_type(records + at);
        at += (uint32_t)nh_record_bytes(records + at); /* not of the copy, whose stores are under way */
    }
    offsets[n] = at;
    assert(at == size_bytes);
    *b = (struct nh_block){
        .refs = 1, .n = n, .first_index = first_index, .term = term, .offsets = offsets, .data = data, .types = types};
    return b;
}

/* ---- builders ---- */

void block_builder_deinit(struct block_builder *b)
{
    free(b->data);
    free(b->offsets);
    *b = (struct block_builder){0};
}

static bool has_room(const struct block_builder *b, uint32_t n, size_t size_bytes)
{
    return size_bytes <= BLOCK_BYTES_MAX - b->size_bytes && b->size_bytes + size_bytes <= b->cap_bytes &&
           (size_t)b->n + n < b->cap_offsets;
}

int block_builder_reserve(struct block_builder *b, uint32_t n, size_t size_bytes)
{
    size_t cap = b->cap_bytes, cap_offsets = b->cap_offsets;
    void *data = b->data, *offsets = b->offsets;

    if (size_bytes > BLOCK_BYTES_MAX - b->size_bytes)
        return NH_ETOOBIG;
    if (!data && size_bytes < BUILDER_BYTES_MIN)
        array_reserve(&data, &cap, BUILDER_BYTES_MIN, 1);
    array_reserve(&data, &cap, b->size_bytes + size_bytes, 1);
    array_reserve(&offsets, &cap_offsets, (size_t)b->n + n + 1, sizeof *b->offsets);
    b->data = data;
    b->cap_bytes = cap;
    b->offsets = offsets;
    b->cap_offsets = (uint32_t)cap_offsets;
    return NH_OK;
}

/* The space of `bytes` at the end becomes a record. */
static void extend(struct block_builder *b, size_t bytes)
{
    b->offsets[b->n++] = (uint32_t)b->size_bytes;
    b->size_bytes += bytes;
    b->offsets[b->n] = (uint32_t)b->size_bytes;
}

int block_builder_add(struct block_builder *b, const struct block_record *rec)
{
    uint32_t session_bytes = rec->client_id ? NH_RECORD_SESSION_BYTES : 0;
    size_t used, bytes;
    uint8_t *p;

    assert(rec->type <= NH_ENTRY_METADATA);
    if (rec->payload_bytes > NH_ENTRY_PAYLOAD_MAX)
        return NH_ETOOBIG;
    used = (size_t)NH_RECORD_HEADER_BYTES + session_bytes + rec->payload_bytes;
    bytes = nh_record_padded(used);
    if (!has_room(b, 1, bytes) && block_builder_reserve(b, 1, bytes) < 0)
        return NH_ETOOBIG;
    p = b->data + b->size_bytes;
    store_u64(p + bytes - NH_RECORD_ALIGN, 0); /* the padding; what is no padding of it is written now */
    memset(p, 0, NH_RECORD_HEADER_BYTES);
    store_u32(p + 4, session_bytes + rec->payload_bytes);
    store_u64(p + 24, rec->key);
    p[32] = rec->type;
    p[33] = session_bytes ? NH_RECORD_SESSION : 0;
    store_u32(p + 36, rec->origin);
    if (session_bytes) {
        store_u64(p + 40, rec->client_id);
        store_u64(p + 48, rec->series_id);
        store_u64(p + 56, rec->responded_to);
    }
    if (rec->payload_bytes)
        memcpy(p + NH_RECORD_HEADER_BYTES + session_bytes, rec->payload, rec->payload_bytes);
    extend(b, bytes);
    return NH_OK;
}

/* Leaves the arrays to the builder. */
static struct nh_block *copy(struct block_builder *b, uint64_t term, uint64_t first_index)
{
    struct nh_block *block = block_copy(b->data, b->size_bytes, b->n, term, first_index);

    b->n = 0;
    b->size_bytes = 0;
    return block;
}

/* Adopts the builder's arrays; what doubling left over goes back to the allocator. */
static struct nh_block *adopt(struct block_builder *b, uint64_t term, uint64_t first_index, uint32_t types)
{
    struct nh_block *block = xmalloc(sizeof *block);

    *block = (struct nh_block){
        .refs = 1,
        .n = b->n,
        .first_index = first_index,
        .term = term,
        .offsets = xrealloc(b->offsets, ((size_t)b->n + 1) * sizeof *b->offsets),
        .data = xrealloc(b->data, b->size_bytes),
        .types = types,
    };
    *b = (struct block_builder){0};
    return block;
}

struct nh_block *block_seal(struct block_builder *b, uint64_t term, uint64_t first_index)
{
    uint32_t types = 0;

    assert(b->n > 0 && term > 0 && first_index > 0);
    for (uint32_t i = 0; i < b->n; i++) {
        uint8_t *p = b->data + b->offsets[i];

        store_u64(p + 8, term);
        store_u64(p + 16, first_index + i);
        store_u32(p, record_crc(p));
        types |= 1u << nh_record_type(p);
    }
    return b->is_reused && b->size_bytes <= COPY_BYTES_MAX ? copy(b, term, first_index) : adopt(b, term, first_index, types);
}

struct nh_block *block_unsealed(struct block_builder *b)
{
    assert(b->n > 0);
    return adopt(b, 0, 0, UINT32_MAX);
}

/* ---- checking bytes that came from outside ---- */

static bool all_zero(const uint8_t *p, size_t n)
{
    while (n && *p == 0) {
        p++;
        n--;
    }
    return n == 0;
}

/* The bits that the word of type, flags and two zero bytes may have. */
#define KIND_OFFSET 32u
#define KIND_BITS   ((uint32_t)NH_ENTRY_METADATA | NH_RECORD_SESSION << 8)
_Static_assert(NH_ENTRY_METADATA == 3, "the last type has all bits that any type has");

static int refuse_kind(const uint8_t *p, struct nh_error *err)
{
    if (nh_record_type(p) > NH_ENTRY_METADATA)
        return nh_error_set(err, NH_ECORRUPT, "unknown type %u", nh_record_type(p));
    return nh_error_set(err, NH_ECORRUPT, "unknown flags");
}

/* Checks the shape of the record at the start of `p`: lengths, type, flags and zero bytes. */
static int check_shape(const uint8_t *p, size_t left_bytes, size_t *ret_bytes, struct nh_error *err)
{
    size_t size, bytes, used;

    if (left_bytes < NH_RECORD_HEADER_BYTES)
        return nh_error_set(err, NH_ECORRUPT, "header is cut off after %zu bytes", left_bytes);
    size = nh_load_u32(p + 4);
    used = NH_RECORD_HEADER_BYTES + size;
    bytes = nh_record_bytes(p);
    if (nh_load_u32(p + KIND_OFFSET) & ~KIND_BITS)
        return refuse_kind(p, err);
    if (p[33] & NH_RECORD_SESSION) {
        if (size < NH_RECORD_SESSION_BYTES)
            return nh_error_set(err, NH_ECORRUPT, "session of %zu bytes", size);
        size -= NH_RECORD_SESSION_BYTES;
    }
    if (size > NH_ENTRY_PAYLOAD_MAX)
        return nh_error_set(err, NH_ECORRUPT, "payload of %zu bytes is above the limit", size);
    if (bytes > left_bytes)
        return nh_error_set(err, NH_ECORRUPT, "%zu bytes long, but %zu are left", bytes, left_bytes);
    if (!all_zero(p + used, bytes - used))
        return nh_error_set(err, NH_ECORRUPT, "padding is not zero");
    *ret_bytes = bytes;
    return NH_OK;
}

static int check_sealed(const uint8_t *p, size_t left_bytes, size_t *ret_bytes, struct nh_error *err)
{
    int r = check_shape(p, left_bytes, ret_bytes, err);

    if (r < 0)
        return r;
    if (nh_load_u32(p) != record_crc(p))
        return nh_error_set(err, NH_ECORRUPT, "checksum does not match");
    /* The last number is no index either, so that "last + 1" cannot overflow anywhere. */
    if (nh_record_term(p) == 0 || nh_record_index(p) == 0 || nh_record_index(p) == UINT64_MAX)
        return nh_error_set(err, NH_ECORRUPT, "term %" PRIu64 " or index %" PRIu64 " is out of range", nh_record_term(p),
                            nh_record_index(p));
    return NH_OK;
}

/* Metadata are what a witness stores; proposed, without any bytes, they are a barrier. */
static bool is_barrier(const uint8_t *p)
{
    return nh_record_type(p) == NH_ENTRY_METADATA && nh_load_u32(p + 4) == 0;
}

static int check_unsealed(const uint8_t *p, size_t left_bytes, size_t *ret_bytes, struct nh_error *err)
{
    int r = check_shape(p, left_bytes, ret_bytes, err);

    if (r < 0)
        return r;
    if (nh_record_type(p) != NH_ENTRY_APPLICATION && nh_record_type(p) != NH_ENTRY_CONFIG_CHANGE && !is_barrier(p))
        return nh_error_set(err, NH_ECORRUPT, "type %u cannot be proposed", nh_record_type(p));
    if (nh_load_u32(p) || nh_record_term(p) || nh_record_index(p))
        return nh_error_set(err, NH_ECORRUPT, "a proposal has a term, an index or a checksum");
    return NH_OK;
}

/* Checks a whole sequence of unsealed records and counts them. */
static int check_all_unsealed(const uint8_t *records, size_t size_bytes, uint32_t *ret_n, struct nh_error *err)
{
    uint32_t n = 0;
    size_t bytes = 0;

    if (size_bytes > BLOCK_BYTES_MAX)
        return nh_error_set(err, NH_ECORRUPT, "%zu bytes of records are above the limit", size_bytes);
    for (size_t at = 0; at < size_bytes; at += bytes, n++) {
        int r = check_unsealed(records + at, size_bytes - at, &bytes, err);

        if (r < 0)
            return nh_error_wrap(err, r, "proposal %" PRIu32 " at byte %zu", n, at);
    }
    *ret_n = n;
    return NH_OK;
}

int block_builder_add_encoded(struct block_builder *b, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    uint32_t n;
    int r = check_all_unsealed(records, size_bytes, &n, err);

    if (r < 0 || n == 0)
        return r;
    if (block_builder_reserve(b, n, size_bytes) < 0)
        return nh_error_set(err, NH_ETOOBIG, "more than 4 GiB of proposals");
    memcpy(b->data + b->size_bytes, records, size_bytes);
    for (uint32_t i = 0; i < n; i++)
        extend(b, nh_record_bytes(b->data + b->size_bytes));
    return NH_OK;
}

/* ---- run lists ---- */

void run_list_deinit(struct run_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        nh_block_unref(l->runs[i].block);
    free(l->runs);
    *l = (struct run_list){0};
}

/* Not inlined: mostly there is room. */
__attribute__((noinline)) static void grow_list(struct run_list *l)
{
    size_t cap = l->cap;
    void *runs = l->runs;

    array_reserve_tight(&runs, &cap, (size_t)l->n + 1, sizeof *l->runs); /* mostly it stays the only one */
    l->runs = runs;
    l->cap = (uint32_t)cap;
}

/* Takes over the caller's reference. */
static void push(struct run_list *l, struct nh_run run)
{
    if (l->n == l->cap)
        grow_list(l);
    l->runs[l->n++] = run;
}

void run_list_add(struct run_list *l, struct nh_block *block, uint32_t from, uint32_t to)
{
    assert(from <= to && to <= block->n);
    if (from == to)
        return;
    if (l->n > 0) {
        struct nh_run *last = &l->runs[l->n - 1];

        if (last->block == block && last->to == from) {
            last->to = to;
            return;
        }
    }
    push(l, (struct nh_run){nh_block_ref(block), from, to});
}

size_t run_list_bytes(const struct run_list *l)
{
    return runs_bytes(l->runs, l->n);
}

/* What the next record must look like. */
struct expectation {
    uint64_t index; /* 0: any */
    uint64_t term_min;
};

static int refuse_place(const uint8_t *p, const struct expectation *due, struct nh_error *err)
{
    if (due->index && nh_record_index(p) != due->index)
        return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " where %" PRIu64 " is due", nh_record_index(p), due->index);
    return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 ": term %" PRIu64 " after term %" PRIu64, nh_record_index(p),
                        nh_record_term(p), due->term_min);
}

static int refuse_record(int r, const struct expectation *due, struct nh_error *err)
{
    return due->index ? nh_error_wrap(err, r, "entry %" PRIu64, due->index) : nh_error_wrap(err, r, "first entry");
}

/* Checks the records of one term at the start of `records`; *ret_bytes of them in *ret_n records. */
static int check_term(const uint8_t *records, size_t size_bytes, struct expectation *e, uint32_t *ret_n, size_t *ret_bytes,
                      struct nh_error *err)
{
    struct expectation due = *e;
    uint32_t n = 0;
    size_t at = 0;

    while (at < size_bytes) {
        const uint8_t *p = records + at;
        size_t bytes = 0;
        int r = check_sealed(p, size_bytes - at, &bytes, err);

        if (r < 0)
            return refuse_record(r, &due, err);
        if ((due.index && nh_record_index(p) != due.index) || nh_record_term(p) < due.term_min)
            return refuse_place(p, &due, err);
        if (n > 0 && nh_record_term(p) != due.term_min)
            break;
        due = (struct expectation){nh_record_index(p) + 1, nh_record_term(p)};
        at += bytes;
        n++;
    }
    *e = due;
    *ret_n = n;
    *ret_bytes = at;
    return NH_OK;
}

/* The records of one term at the start of `records`, as a run whose block the caller owns. */
static int decode_term(struct nh_run *ret, const uint8_t *records, size_t size_bytes, struct expectation *e, size_t *ret_bytes,
                       struct nh_error *err)
{
    uint32_t n = 0;
    int r = check_term(records, size_bytes, e, &n, ret_bytes, err);

    if (r < 0)
        return r;
    *ret = (struct nh_run){
        .block = block_copy(records, *ret_bytes, n, nh_record_term(records), nh_record_index(records)),
        .to = n,
    };
    return NH_OK;
}

static int check_size(size_t size_bytes, struct nh_error *err)
{
    if (size_bytes > BLOCK_BYTES_MAX)
        return nh_error_set(err, NH_ECORRUPT, "%zu bytes of records are above the limit", size_bytes);
    return NH_OK;
}

int run_decode(struct nh_run *ret, const uint8_t *records, size_t size_bytes, uint64_t expect_first, size_t *ret_bytes,
               struct nh_error *err)
{
    struct expectation e = {.index = expect_first};
    int r = check_size(size_bytes, err);

    assert(size_bytes > 0);
    return r < 0 ? r : decode_term(ret, records, size_bytes, &e, ret_bytes, err);
}

static void truncate_to(struct run_list *l, uint32_t n)
{
    while (l->n > n)
        nh_block_unref(l->runs[--l->n].block);
}

int run_list_decode(struct run_list *l, const uint8_t *records, size_t size_bytes, uint64_t expect_first, struct nh_error *err)
{
    struct expectation e = {.index = expect_first};
    uint32_t before = l->n;
    size_t bytes = 0;
    int r = check_size(size_bytes, err);

    if (l->n > 0) {
        e.index = nh_run_last(&l->runs[l->n - 1]) + 1;
        e.term_min = nh_run_term(&l->runs[l->n - 1]);
    }
    for (size_t at = 0; r == NH_OK && at < size_bytes; at += bytes) {
        struct nh_run run;

        r = decode_term(&run, records + at, size_bytes - at, &e, &bytes, err);
        if (r == NH_OK)
            push(l, run);
    }
    if (r < 0)
        truncate_to(l, before);
    return r;
}

int run_list_decode_unsealed(struct run_list *l, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    uint32_t n;
    int r = check_all_unsealed(records, size_bytes, &n, err);

    if (r == NH_OK && n > 0)
        push(l, (struct nh_run){block_copy(records, size_bytes, n, 0, 0), 0, n});
    return r;
}
