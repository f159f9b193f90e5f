/* cmd/nhbench/svg.h - line charts as SVG files: axes, a few series, a note below. Threads: one. */
#ifndef NH_CMD_NHBENCH_SVG_H
#define NH_CMD_NHBENCH_SVG_H

#include <stdbool.h>
#include <stdint.h>

#define SVG_POINTS_MAX 64u
#define SVG_SERIES_MAX 4u

struct svg_series {
    const char *name;
    uint32_t n;
    double x[SVG_POINTS_MAX], y[SVG_POINTS_MAX]; /* above 0 on a logarithmic axis, else not below 0 */
};

struct svg_chart {
    const char *title, *x_label, *y_label;
    const char *note; /* below the chart, as long as it likes; broken at blanks */
    bool log_x, log_y;
    uint32_t n_series;
    struct svg_series series[SVG_SERIES_MAX];
};

/* False: errno says why. */
bool svg_write(const char *path, const struct svg_chart *chart);
/* "950", "16 k", "1.2 M": what axes show. */
void svg_number(double value, char *out, uint32_t cap);

#endif
