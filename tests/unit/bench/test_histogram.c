#include "bench/histogram.h"

#include "test.h"

TEST(histogram, empty_is_all_zero)
{
    static const struct histogram h;
    check_int(histogram_percentile(&h, 50), 0);
    check(histogram_mean_ns(&h) == 0);
}

TEST(histogram, percentiles_are_at_most_3_percent_above)
{
    static struct histogram h;
    for (uint64_t i = 1; i <= 100000; i++)
        histogram_add(&h, i * 10);
    for (int percent = 1; percent <= 100; percent++) {
        uint64_t exact = (uint64_t)percent * 10000, found = histogram_percentile(&h, percent);
        check(found >= exact && found <= exact + exact * 33 / 1000);
    }
    check_int(h.min_ns, 10);
    check_int(h.max_ns, 1000000);
    check_int(histogram_percentile(&h, 100), 1000000);
    check(histogram_mean_ns(&h) == 500005);
}

TEST(histogram, short_durations_are_exact)
{
    static struct histogram h;
    for (uint64_t i = 0; i < 32; i++)
        histogram_add(&h, i);
    check_int(histogram_percentile(&h, 50), 15);
}

TEST(histogram, longest_durations_have_a_bucket)
{
    static struct histogram h;
    histogram_add(&h, UINT64_MAX);
    check_int(h.count, 1);
    check_int(histogram_percentile(&h, 99), UINT64_MAX);
}

TEST(histogram_merge, adds_up)
{
    static struct histogram a, b, empty;
    histogram_add(&a, 1000);
    histogram_add(&b, 10);
    histogram_add(&b, 5000);
    histogram_merge(&a, &b);
    histogram_merge(&a, &empty);
    check_int(a.count, 3);
    check_int(a.min_ns, 10);
    check_int(a.max_ns, 5000);
    check_int(a.sum_ns, 6010);
    histogram_merge(&empty, &a);
    check_int(empty.min_ns, 10);
}
