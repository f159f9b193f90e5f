/* Runs scripts: `scenario [--rewrite] FILE|FOLDER...`. A script is a text of blocks:
 *
 *     # comment
 *     command
 *     command
 *     ----
 *     golden output of the commands, up to an empty line
 *
 * The idea is that of CockroachDB's datadriven tests. With --rewrite the golden output becomes what is printed now: read the
 * difference before it is committed, because a golden file that records a bug is worse than none.
 */
#include "tests/sim/scenario.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

struct text {
    char *data;
    size_t n, cap;
};

struct lines {
    const char **items;
    size_t n, cap;
};

struct script {
    const char *path;
    struct lines lines;
    size_t at;          /* next line */
    struct text result; /* the script as --rewrite leaves it */
    struct scenario s;
    bool rewrite;
    bool failed;
};

/* ---- text ---- */

static void add_line(struct text *t, const char *line)
{
    size_t n = strlen(line);

    array_reserve((void **)&t->data, &t->cap, t->n + n + 2, 1);
    memcpy(t->data + t->n, line, n);
    t->n += n;
    t->data[t->n++] = '\n';
    t->data[t->n] = '\0';
}

/* Splits in place. */
static struct lines split(char *text)
{
    struct lines l = {0};

    while (text && *text) {
        array_reserve((void **)&l.items, &l.cap, l.n + 1, sizeof *l.items);
        l.items[l.n++] = strsep(&text, "\n");
    }
    return l;
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = NULL;
    size_t n = 0, cap = 0, got;

    if (!f)
        return NULL;
    do {
        array_reserve((void **)&text, &cap, n + 4097, 1);
        got = fread(text + n, 1, 4096, f);
        n += got;
    } while (got > 0);
    fclose(f);
    text[n] = '\0';
    return text;
}

static bool write_file(const char *path, const struct text *t)
{
    FILE *f = fopen(path, "w");
    bool ok = f && fwrite(t->data, 1, t->n, f) == t->n;

    if (f && fclose(f) != 0)
        ok = false;
    return ok;
}

/* ---- the difference ---- */

/* Prints both texts as one, by their longest common subsequence: ' ' in both, '-' only expected, '+' only printed now. */
static void print_difference(const struct lines *a, const struct lines *b)
{
    size_t width = b->n + 1;
    uint32_t *common = xcalloc((a->n + 1) * width, sizeof *common); /* length for the rests from (i, j) on */

    for (size_t i = a->n; i-- > 0;)
        for (size_t j = b->n; j-- > 0;) {
            uint32_t skip_a = common[(i + 1) * width + j], skip_b = common[i * width + j + 1];

            common[i * width + j] = strcmp(a->items[i], b->items[j]) == 0 ? common[(i + 1) * width + j + 1] + 1
                                    : skip_a > skip_b                     ? skip_a
                                                                          : skip_b;
        }
    for (size_t i = 0, j = 0; i < a->n || j < b->n;) {
        if (i < a->n && j < b->n && strcmp(a->items[i], b->items[j]) == 0) {
            printf(" %s\n", a->items[i++]);
            j++;
        } else if (j == b->n || (i < a->n && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
            printf("-%s\n", a->items[i++]);
        } else {
            printf("+%s\n", b->items[j++]);
        }
    }
    free(common);
}

static bool equal(const struct lines *a, const struct lines *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    return true;
}

/* ---- a script ---- */

static const char *next_line(struct script *sc)
{
    return sc->at < sc->lines.n ? sc->lines.items[sc->at] : NULL;
}

static bool is_blank(const char *line)
{
    return line[strspn(line, " \t\r")] == '\0';
}

static void fail_at(struct script *sc, size_t line, const char *why)
{
    printf("%s:%zu: %s\n", sc->path, line + 1, why);
    sc->failed = true;
}

/* What was printed before shows how it came to that. */
static void run_command(struct script *sc)
{
    const char *line = sc->lines.items[sc->at];

    scenario_command(&sc->s, line);
    if (!sc->s.error[0])
        return;
    fputs(sc->s.out ? sc->s.out : "", stdout);
    fail_at(sc, sc->at, sc->s.error);
}

static void run_commands(struct script *sc)
{
    size_t first = sc->at;
    const char *line;

    sc->s.out_n = 0;
    if (sc->s.out)
        sc->s.out[0] = '\0';
    for (; (line = next_line(sc)) && strcmp(line, "----") != 0 && !sc->failed; sc->at++) {
        if (is_blank(line)) {
            fail_at(sc, first, "these commands do not end with a line ----");
            return;
        }
        add_line(&sc->result, line);
        if (*line != '#')
            run_command(sc);
    }
    if (!line && !sc->failed)
        fail_at(sc, first, "these commands do not end with a line ----");
}

static void compare(struct script *sc)
{
    struct lines expected = {.items = sc->lines.items + sc->at}, printed;
    size_t first = sc->at;

    while (next_line(sc) && !is_blank(next_line(sc))) {
        sc->at++;
        expected.n++;
    }
    if (sc->s.out_n == 0)
        scenario_print(&sc->s, "ok\n");
    printed = split(sc->s.out);
    for (size_t i = 0; i < printed.n; i++)
        add_line(&sc->result, printed.items[i]);
    if (!sc->rewrite && !equal(&expected, &printed)) {
        fail_at(sc, first, "the output differs (- expected, + printed)");
        sc->failed = true;
        print_difference(&expected, &printed);
    }
    free(printed.items);
}

/* The first difference ends the script: what follows would only repeat it. */
static void run_blocks(struct script *sc)
{
    const char *line;

    while (!sc->failed && (line = next_line(sc))) {
        if (is_blank(line) || *line == '#') {
            add_line(&sc->result, line);
            sc->at++;
            continue;
        }
        run_commands(sc);
        if (sc->failed)
            return;
        add_line(&sc->result, "----");
        sc->at++;
        compare(sc);
    }
}

static bool run_file(const char *path, bool rewrite)
{
    struct script sc = {.path = path, .rewrite = rewrite, .s.trace = true};
    char *text = read_file(path);

    if (!text) {
        printf("%s: %s\n", path, strerror(errno));
        return false;
    }
    sc.lines = split(text);
    run_blocks(&sc);
    if (rewrite && !sc.failed && !write_file(path, &sc.result))
        fail_at(&sc, 0, "cannot be written");
    if (!sc.failed)
        printf("ok %s\n", path);
    scenario_reset(&sc.s);
    free(sc.s.out);
    free(sc.result.data);
    free(sc.lines.items);
    free(text);
    return !sc.failed;
}

/* ---- files and folders ---- */

static int is_script(const struct dirent *e)
{
    const char *dot = strrchr(e->d_name, '.');

    return dot && strcmp(dot, ".txt") == 0;
}

static bool run_path(const char *path, bool rewrite)
{
    struct dirent **entries;
    int n = scandir(path, &entries, is_script, alphasort);
    bool ok = n != 0;

    if (n < 0)
        return run_file(path, rewrite);
    if (n == 0)
        printf("%s: no scripts\n", path);
    for (int i = 0; i < n; i++) {
        char file[4096];

        snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        ok = run_file(file, rewrite) && ok;
        free(entries[i]);
    }
    free(entries);
    return ok;
}

int main(int argc, char **argv)
{
    bool rewrite = argc > 1 && strcmp(argv[1], "--rewrite") == 0, ok = true;

    if (argc < 2 + rewrite) {
        fprintf(stderr, "usage: scenario [--rewrite] FILE|FOLDER...\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* an assert of the core then leaves the names of the scripts before it */
    for (int i = 1 + rewrite; i < argc; i++)
        ok = run_path(argv[i], rewrite) && ok;
    return ok ? 0 : 1;
}
