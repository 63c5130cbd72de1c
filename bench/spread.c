#include "bench/spread.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* Student's t, 97.5 %, for 2 to 4 degrees of freedom. More rounds count as five: rounds that follow
 * each other are alike, and know less of the machine than as many of different hours. */
static const double student[] = {4.303, 3.182, 2.776};

static bool all_positive(const double *values, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!(values[i] > 0))
            return false;
    return true;
}

double spread_deviation(const double *values, unsigned count)
{
    if (count < 2 || !all_positive(values, count))
        return 0;
    double mean = 0, squares = 0;
    for (unsigned i = 0; i < count; i++)
        mean += log(values[i]) / count;
    for (unsigned i = 0; i < count; i++)
        squares += (log(values[i]) - mean) * (log(values[i]) - mean);
    return sqrt(squares / (count - 1));
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread spread_of(const double *values, unsigned count, double machine)
{
    assert(count > 0 && count <= SPREAD_VALUES_MAX);
    double sorted[SPREAD_VALUES_MAX];
    memcpy(sorted, values, count * sizeof(*values));
    qsort(sorted, count, sizeof(*sorted), by_size);
    struct spread out = {.median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2};
    if (count < SPREAD_VALUES_MIN)
        return out;
    if (sorted[0] <= 0) {
        out.low = sorted[0];
        out.high = sorted[count - 1];
        return out;
    }
    unsigned known = MIN(count, SPREAD_VALUES_MIN - 1 + (unsigned)ARRAY_LEN(student));
    double deviation = MAX(spread_deviation(values, count), machine);
    double width = exp(student[known - SPREAD_VALUES_MIN] * deviation * sqrt(1 + 1.0 / known));
    out.low = out.median / width;
    out.high = out.median * width;
    return out;
}
