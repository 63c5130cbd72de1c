#include "bench/spread.h"

#include <math.h>

#include "test.h"

static void check_near(double got, double expected)
{
    if (fabs(got - expected) > 0.001 * expected)
        test_fail("%g in place of %g", got, expected);
}

TEST(spread_of, the_median_of_values_in_any_order)
{
    check_near(spread_of((double[]){5}, 1, 0).median, 5);
    check_near(spread_of((double[]){9, 1}, 2, 0).median, 5);
    check_near(spread_of((double[]){9, 1, 4}, 3, 0).median, 4);
}

TEST(spread_of, one_or_two_values_say_nothing_of_the_next)
{
    struct spread few = spread_of((double[]){5}, 1, 0.3);
    check(few.low == 0 && few.high == 0);
    few = spread_of((double[]){5, 6}, 2, 0.3);
    check(few.low == 0 && few.high == 0);
}

TEST(spread_of, is_the_interval_for_one_more_value_by_student)
{
    /* exp(+-0.02), and 1: deviation 0.02; t of 2 degrees is 4.303; sqrt(1 + 1/3) is 1.1547. */
    struct spread s = spread_of((double[]){exp(0.02), 1, exp(-0.02)}, 3, 0);
    check_near(s.low, exp(-0.02 * 4.303 * 1.1547));
    check_near(s.high, exp(0.02 * 4.303 * 1.1547));
}

TEST(spread_of, more_rounds_count_as_five)
{
    double values[SPREAD_VALUES_MAX];
    for (unsigned i = 0; i < SPREAD_VALUES_MAX; i++)
        values[i] = exp(i % 2 ? 0.02 : -0.02);
    struct spread s = spread_of(values, SPREAD_VALUES_MAX, 0);
    check_near(s.high, exp(spread_deviation(values, SPREAD_VALUES_MAX) * 2.776 * sqrt(1.2)));
}

TEST(spread_of, no_row_is_steadier_than_the_machine)
{
    double values[] = {100, 100, 100, 100, 100};
    struct spread s = spread_of(values, 5, 0);
    check(s.low == 100 && s.high == 100);
    s = spread_of(values, 5, 0.05);
    check_near(s.high, 100 * exp(0.05 * 2.776 * sqrt(1.2)));
    check_near(s.low, 100 / exp(0.05 * 2.776 * sqrt(1.2)));
}

TEST(spread_of, zero_has_no_logarithm)
{
    struct spread s = spread_of((double[]){0, 3, 1}, 3, 0.1);
    check(s.low == 0 && s.median == 1 && s.high == 3);
    check(spread_deviation((double[]){0, 3, 1}, 3) == 0);
}
