#include "cmd/nhbench/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH        800
#define LEFT         80.0
#define RIGHT        770.0
#define TOP          50.0
#define BOTTOM       420.0
#define NOTE_TOP     485
#define NOTE_LINE    16
#define NOTE_COLUMNS 110u
#define LINEAR_STEPS 6.0
#define NEAR         1.0000001

static const char *const colors[SVG_SERIES_MAX] = {"#1f6fb4", "#d1462f", "#2e8b57", "#8a5ab8"};

/* An axis from `low` to `high`, which lie at `from` and `to` on paper. */
struct axis {
    bool log;
    double low, high, from, to, step; /* step: linear only */
};

void svg_number(double value, char *out, uint32_t cap)
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1e9, " G"}, {1e6, " M"}, {1e3, " k"}};

    for (uint32_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (value < units[i].unit)
            continue;
        snprintf(out, cap, "%.3g%s", value / units[i].unit, units[i].name);
        return;
    }
    snprintf(out, cap, "%.3g", value);
}

/* The next of 1, 2, 5, 10, ... that is not below `value`. */
static double round_up(double value)
{
    double decade = pow(10, floor(log10(value)));

    for (double f = 1; f < 10; f = f < 2 ? 2 : f * 2.5)
        if (f * decade * NEAR >= value)
            return f * decade;
    return 10 * decade;
}

static double round_down(double value)
{
    double decade = pow(10, floor(log10(value) + 1e-9));

    return value >= 5 * decade ? 5 * decade : value >= 2 * decade ? 2 * decade : decade;
}

static void fit(struct axis *a, const struct svg_chart *chart, bool is_x)
{
    double low = INFINITY, high = 0;

    for (uint32_t s = 0; s < chart->n_series; s++) {
        for (uint32_t i = 0; i < chart->series[s].n; i++) {
            double v = is_x ? chart->series[s].x[i] : chart->series[s].y[i];

            low = v < low && (v > 0 || !a->log) ? v : low;
            high = v > high ? v : high;
        }
    }
    if (!(high > 0))
        high = 1;
    if (!(low <= high) || (a->log && low <= 0))
        low = high;
    if (a->log) {
        a->low = round_down(low);
        a->high = round_up(high);
        if (a->high <= a->low)
            a->high = 10 * a->low;
    } else {
        a->step = round_up(high / LINEAR_STEPS);
        a->high = ceil(high / a->step) * a->step;
    }
}

static double place(const struct axis *a, double value)
{
    double part;

    if (a->log)
        part = value > 0 ? log(value / a->low) / log(a->high / a->low) : 0;
    else
        part = value / a->high;
    return a->from + part * (a->to - a->from);
}

/* ---- drawing ---- */

static void text_out(FILE *f, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        switch (text[i]) {
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '&': fputs("&amp;", f); break;
        default:
            if ((unsigned char)text[i] >= 0x20)
                fputc(text[i], f);
        }
    }
}

static void label(FILE *f, double x, double y, const char *attributes, const char *text)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    text_out(f, text, strlen(text));
    fputs("</text>\n", f);
}

static void tick(FILE *f, const struct axis *a, bool is_x, double value)
{
    double at = place(a, value);
    char text[32];

    svg_number(value, text, sizeof text);
    if (is_x) {
        fprintf(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", at, TOP, at, BOTTOM);
        label(f, at, BOTTOM + 18, "text-anchor=\"middle\"", text);
    } else {
        fprintf(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", LEFT, at, RIGHT, at);
        label(f, LEFT - 6, at + 4, "text-anchor=\"end\"", text);
    }
}

/* On a logarithmic axis 1, 2 and 5 of each decade, or the decades alone if there are many. */
static void ticks(FILE *f, const struct axis *a, bool is_x)
{
    bool many = a->log && a->high / a->low > 1e4;

    if (!a->log) {
        for (double v = 0; v <= a->high * NEAR; v += a->step)
            tick(f, a, is_x, v);
        return;
    }
    for (double v = a->low; v <= a->high * NEAR; v = round_up(v * 1.01))
        if (!many || v * NEAR >= pow(10, round(log10(v))))
            if (!many || v <= pow(10, round(log10(v))) * NEAR)
                tick(f, a, is_x, v);
}

static void draw_series(FILE *f, const struct svg_chart *chart, uint32_t s, const struct axis *x, const struct axis *y)
{
    const struct svg_series *series = &chart->series[s];

    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colors[s]);
    for (uint32_t i = 0; i < series->n; i++)
        fprintf(f, "%s%.1f,%.1f", i ? " " : "", place(x, series->x[i]), place(y, series->y[i]));
    fputs("\"/>\n", f);
    for (uint32_t i = 0; i < series->n; i++)
        fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", place(x, series->x[i]), place(y, series->y[i]),
                colors[s]);
    fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", LEFT + 12, TOP + 10 + 20 * s, colors[s]);
    label(f, LEFT + 30, TOP + 20 + 20 * s, "", series->name);
}

/* The note's lines, broken at blanks; returns how many there are, and prints them if f is not NULL. */
static uint32_t note_lines(FILE *f, const char *note)
{
    uint32_t n = 0;

    while (*note) {
        size_t size = strlen(note), cut;

        if (size > NOTE_COLUMNS) {
            for (cut = NOTE_COLUMNS; cut > 0 && note[cut] != ' '; cut--) {
            }
            size = cut ? cut : NOTE_COLUMNS;
        }
        if (f) {
            fprintf(f, "<text x=\"20\" y=\"%u\" font-family=\"monospace\" font-size=\"11\">", NOTE_TOP + NOTE_LINE * n);
            text_out(f, note, size);
            fputs("</text>\n", f);
        }
        note += size + (note[size] == ' ');
        n++;
    }
    return n;
}

bool svg_write(const char *path, const struct svg_chart *chart)
{
    struct axis x = {.log = chart->log_x, .from = LEFT, .to = RIGHT}, y = {.log = chart->log_y, .from = BOTTOM, .to = TOP};
    uint32_t height = NOTE_TOP + NOTE_LINE * note_lines(NULL, chart->note);
    FILE *f = fopen(path, "we");
    bool ok;

    if (!f)
        return false;
    fit(&x, chart, true);
    fit(&y, chart, false);
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%u\" font-family=\"sans-serif\" "
            "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
            WIDTH, height);
    label(f, WIDTH / 2.0, 28, "text-anchor=\"middle\" font-size=\"16\"", chart->title);
    ticks(f, &x, true);
    ticks(f, &y, false);
    fprintf(f, "<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"black\"/>\n", LEFT, TOP, BOTTOM, RIGHT);
    label(f, (LEFT + RIGHT) / 2, BOTTOM + 40, "text-anchor=\"middle\"", chart->x_label);
    fprintf(f, "<g transform=\"translate(20 %.1f) rotate(-90)\">", (TOP + BOTTOM) / 2);
    label(f, 0, 0, "text-anchor=\"middle\"", chart->y_label);
    fputs("</g>\n", f);
    for (uint32_t s = 0; s < chart->n_series; s++)
        draw_series(f, chart, s, &x, &y);
    note_lines(f, chart->note);
    fputs("</svg>\n", f);
    ok = !ferror(f);
    return fclose(f) == 0 && ok;
}
