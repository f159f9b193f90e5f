#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/nhbench/svg.h"

static char text[65536];

static const char *drawn(const struct svg_chart *chart)
{
    char path[] = "/tmp/test_svg.XXXXXX";
    int fd = mkstemp(path);
    FILE *f;

    cr_assert(fd >= 0 && svg_write(path, chart));
    f = fdopen(fd, "r");
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    unlink(path);
    return text;
}

static struct svg_chart chart_of(double x1, double y1, double x2, double y2, bool log)
{
    return (struct svg_chart){.title = "a < b & c",
                              .x_label = "x",
                              .y_label = "y",
                              .note = "the command",
                              .log_x = log,
                              .log_y = log,
                              .n_series = 1,
                              .series = {{.name = "one", .n = 2, .x = {x1, x2}, .y = {y1, y2}}}};
}

/* Both points of the only curve, on paper. */
static void points_of(const char *svg, double *out)
{
    const char *at = strstr(svg, "points=\"");

    cr_assert(at);
    cr_assert_eq(sscanf(at + 8, "%lf,%lf %lf,%lf", &out[0], &out[1], &out[2], &out[3]), 4, "%.60s", at);
}

Test(svg, numbers_are_short)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"}, {0.5, "0.5"}, {950, "950"}, {1000, "1 k"}, {16384, "16.4 k"}, {1200000, "1.2 M"}, {3e9, "3 G"}};
    char out[32];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        svg_number(cases[i].value, out, sizeof out);
        cr_assert_str_eq(out, cases[i].text);
    }
}

/* Linear, logarithmic, one value alone, nothing measured, more than many decades: what is drawn lies inside. */
Test(svg, every_point_lies_inside_the_chart)
{
    const struct svg_chart charts[] = {
        chart_of(1, 10, 100, 1000, false),    chart_of(1, 10, 100, 1000, true), chart_of(7, 7, 7, 7, true),
        chart_of(0, 0, 0, 0, true),           chart_of(0, 0, 0, 0, false),      chart_of(0.001, 3, 123456789, 9999999, true),
        chart_of(0.3, 0.999, 99999, 2, true),
    };

    for (size_t i = 0; i < sizeof charts / sizeof charts[0]; i++) {
        double p[4];

        points_of(drawn(&charts[i]), p);
        for (int k = 0; k < 4; k += 2)
            cr_assert(p[k] >= 80 && p[k] <= 770 && p[k + 1] >= 50 && p[k + 1] <= 420, "chart %zu: %f %f", i, p[k], p[k + 1]);
        cr_assert(p[2] >= p[0]);
    }
}

Test(svg, text_is_escaped)
{
    struct svg_chart chart = chart_of(1, 1, 2, 2, false);

    cr_assert(strstr(drawn(&chart), "a &lt; b &amp; c"));
}

Test(svg, a_long_note_is_broken_at_blanks)
{
    struct svg_chart chart = chart_of(1, 1, 2, 2, false);
    char note[400];

    for (size_t i = 0; i < sizeof note - 1; i++)
        note[i] = i % 8 == 7 ? ' ' : 'n';
    note[sizeof note - 1] = 0;
    chart.note = note;
    drawn(&chart);
    cr_assert(strstr(text, ">nnnnnnn nnnnnnn"));
    cr_assert(!strstr(text, " </text>"));
    memset(note, 'n', sizeof note - 1); /* no blank at all */
    cr_assert(strstr(drawn(&chart), "</svg>"));
}

Test(svg, a_file_that_cannot_be_written_is_told)
{
    struct svg_chart chart = chart_of(1, 1, 2, 2, false);

    cr_assert(!svg_write("/nowhere/at/all.svg", &chart));
}
