/*
 * What the next run on this machine may be expected to show: the median of the rounds of this one,
 * and an interval around it for the median of the next (docs/benchmarks.md, "The interval").
 * bench/lib/results.py does the same arithmetic for `bench/run`.
 */
#ifndef SLUICE_BENCH_SPREAD_H
#define SLUICE_BENCH_SPREAD_H

#define SPREAD_VALUES_MIN 3 /* fewer say nothing of the next run */
#define SPREAD_VALUES_MAX 50

struct spread {
    double median;
    double low, high; /* both 0: not known, there were too few values */
};

/* Standard deviation of the logarithms: 0.02 is 2 %. 0 if there is one value, or one that is not
 * above 0. */
double spread_deviation(const double *values, unsigned count);

/* Of 1 to SPREAD_VALUES_MAX values, in any order. `machine` is the deviation of what the machine
 * itself did meanwhile: a row is not believed to be steadier than that. */
struct spread spread_of(const double *values, unsigned count, double machine);

#endif
