/* Entries and queries: random bytes, or made from the lines of a commands file. A line is a keyword and a text:
 *
 *     update TEXT          a command; \n \t \\ \xNN as in C
 *     query TEXT           a query
 *     update-argv WORDS    a command of the key-value machines: words between spaces (cmd/machines/kv_command.h)
 *     query-argv WORDS     a query of theirs
 *     grow TEXT, grow-argv WORDS    a command that makes the state larger; only for the check `stop`, 200 times
 *     # ...                a comment
 *
 * In a text, {N} stands for a random number from 0 to N - 1, and {xN} for N random letters.
 */
#include "tests/conformance/machine/kit.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "cmd/machines/kv_command.h"

#define LINE_BYTES  1024u
#define LINES_MAX   256u
#define MADE_BYTES  (1024u * 1024u)
#define ARGS_MAX    64u
#define GAP         5u /* every fifth raft index or so is not for the machine */
#define FIRST_INDEX 3u

enum list { UPDATES, QUERIES, GROWTH, N_LISTS };

static struct list_of {
    char *lines[LINES_MAX];
    bool argv[LINES_MAX];
    size_t n;
} lists[N_LISTS];

uint64_t kit_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t kit_mix(uint64_t a, uint64_t b)
{
    uint64_t state = a ^ b * 0xff51afd7ed558ccdu;

    return kit_random(&state);
}

uint64_t kit_digest(const void *data, size_t size_bytes)
{
    const uint8_t *p = data;
    uint64_t d = 14695981039346656037u;

    for (size_t i = 0; i < size_bytes; i++)
        d = (d ^ p[i]) * 1099511628211u;
    return d;
}

uint64_t kit_index(uint64_t number)
{
    return FIRST_INDEX + number + number / GAP;
}

uint64_t kit_count_to(uint64_t index)
{
    uint64_t n = 0;

    while (kit_index(n) <= index)
        n++;
    return n;
}

bool kit_is_index(uint64_t index)
{
    uint64_t n = kit_count_to(index);

    return n > 0 && kit_index(n - 1) == index;
}

/* ---- the commands file ---- */

static int add_line(const char *path, int at, char *line)
{
    static const struct {
        const char *word;
        enum list list;
        bool argv;
    } keywords[] = {{"update", UPDATES, false},     {"query", QUERIES, false},     {"grow", GROWTH, false},
                    {"update-argv", UPDATES, true}, {"query-argv", QUERIES, true}, {"grow-argv", GROWTH, true}};
    size_t word = strcspn(line, " ");

    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) {
        struct list_of *l = &lists[keywords[i].list];

        if (strlen(keywords[i].word) != word || strncmp(keywords[i].word, line, word) != 0 || l->n == LINES_MAX)
            continue;
        l->lines[l->n] = strdup(line[word] ? line + word + 1 : "");
        l->argv[l->n++] = keywords[i].argv;
        return 0;
    }
    fprintf(stderr,
            "%s:%d: begins with no keyword (update, query, grow, or one of them with -argv), or there are too many lines\n", path,
            at);
    return -1;
}

int kit_commands_load(const char *path)
{
    FILE *f = fopen(path, "r");
    char line[LINE_BYTES];
    int r = 0;

    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    for (int at = 1; r == 0 && fgets(line, sizeof line, f); at++) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] && line[0] != '#')
            r = add_line(path, at, line);
    }
    fclose(f);
    return r;
}

/* {N} or {xN} at `p`; returns what follows it. */
static const char *put_random(struct kit_bytes *to, const char *p, uint64_t *random)
{
    bool letters = p[1] == 'x';
    char *end;
    uint64_t n = strtoull(p + (letters ? 2 : 1), &end, 10);

    if (*end != '}' || n == 0 || to->size + (letters ? n : 20) > MADE_BYTES) {
        to->data[to->size++] = (uint8_t)*p;
        return p + 1;
    }
    if (!letters)
        to->size += (size_t)sprintf((char *)to->data + to->size, "%llu", (unsigned long long)(kit_random(random) % n));
    for (; letters && n > 0; n--)
        to->data[to->size++] = (uint8_t)('a' + kit_random(random) % 26);
    return end + 1;
}

static const char *put_escaped(struct kit_bytes *to, const char *p)
{
    static const char from[] = "nt\\", is[] = "\n\t\\";
    const char *known = p[1] ? strchr(from, p[1]) : NULL;
    unsigned byte;

    if (p[1] == 'x' && isxdigit((unsigned char)p[2]) && isxdigit((unsigned char)p[3]) && sscanf(p + 2, "%2x", &byte) == 1) {
        to->data[to->size++] = (uint8_t)byte;
        return p + 4;
    }
    to->data[to->size++] = (uint8_t)(known ? is[known - from] : '\\');
    return p + (known ? 2 : 1);
}

static struct kit_bytes make_text(const char *line, uint64_t *random)
{
    struct kit_bytes made = {malloc(MADE_BYTES + LINE_BYTES), 0};

    while (*line && made.size < MADE_BYTES) {
        if (*line == '{')
            line = put_random(&made, line, random);
        else if (*line == '\\')
            line = put_escaped(&made, line);
        else
            made.data[made.size++] = (uint8_t)*line++;
    }
    return made;
}

static struct kit_bytes make_argv(struct kit_bytes text)
{
    struct kv_slice args[ARGS_MAX];
    struct kit_bytes made;
    uint32_t n = 0;

    for (size_t at = 0; at < text.size && n < ARGS_MAX; at++) {
        size_t begin = at;

        while (at < text.size && text.data[at] != ' ')
            at++;
        if (at > begin)
            args[n++] = (struct kv_slice){text.data + begin, (uint32_t)(at - begin)};
    }
    made.size = kv_command_bytes(args, n);
    made.data = malloc(made.size);
    kv_command_encode(args, n, made.data);
    free(text.data);
    return made;
}

static struct kit_bytes make(enum list list, uint64_t random)
{
    const struct list_of *l = &lists[list];
    size_t i = kit_random(&random) % l->n;
    struct kit_bytes text = make_text(l->lines[i], &random), made;

    if (l->argv[i])
        return make_argv(text);
    made = (struct kit_bytes){malloc(text.size + 1), text.size}; /* of its own size, so that a sanitizer sees its end */
    memcpy(made.data, text.data, text.size);
    free(text.data);
    return made;
}

/* ---- entries ---- */

struct kit_bytes kit_random_bytes(uint64_t number, size_t max)
{
    uint64_t random = kit_mix(kit.seed, number);
    struct kit_bytes made = {NULL, kit_random(&random) % (max + 1)};

    made.data = malloc(made.size ? made.size : 1);
    for (size_t i = 0; i < made.size; i++)
        made.data[i] = (uint8_t)kit_random(&random);
    return made;
}

/* Mostly of the file, if there is one; some garbage always, for a log may hold anything. */
struct kit_bytes kit_entry(uint64_t number)
{
    uint64_t random = kit_mix(kit.seed + 1, number);

    if (lists[UPDATES].n > 0 && kit_random(&random) % 16 != 0)
        return make(UPDATES, random);
    return kit_random_bytes(number, kit_random(&random) % 32 == 0 ? 100000 : 64);
}

struct kit_bytes kit_query(uint64_t number)
{
    uint64_t random = kit_mix(kit.seed + 2, number);

    if (lists[QUERIES].n > 0 && kit_random(&random) % 16 != 0)
        return make(QUERIES, random);
    return kit_random_bytes(~number, 64);
}

bool kit_has_growth(void)
{
    return lists[GROWTH].n > 0;
}

struct kit_bytes kit_growth(uint64_t number)
{
    return make(GROWTH, kit_mix(kit.seed + 3, number));
}
