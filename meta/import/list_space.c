#include "list_space.h"

#include <string.h>
#include <sys/param.h>

typedef unsigned __int128 number;
#define NUMBER_BITS 118 /* so that sums of some numbers stay numbers */

/* The bytes that may stand at a place, in order. */
struct digits {
    uint8_t bytes[256];
    unsigned count, first; /* first: 1 if a key may end here, which is the digit 0 */
    number weight;
};

struct scale {
    struct digits places[LIST_PLACES];
    size_t count;
};

void list_space_init(struct list_space *space, const char *prefix, bool folders)
{
    *space = (struct list_space){.prefix_len = strlen(prefix), .folders = folders};
}

void list_space_learn(struct list_space *space, const char *key)
{
    const uint8_t *at = (const uint8_t *)key + space->prefix_len;
    for (size_t i = 0; i < LIST_PLACES; i++) {
        if (!at[i] || (space->folders && at[i] == '/')) {
            space->places[i].ends = true;
            return;
        }
        space->places[i].seen[at[i] / 64] |= UINT64_C(1) << (at[i] % 64);
    }
}

static bool has(const uint64_t seen[4], unsigned byte)
{
    return seen[byte / 64] >> (byte % 64) & 1;
}

static unsigned count_in(const uint64_t seen[4], unsigned low, unsigned high)
{
    unsigned count = 0;
    for (unsigned b = low; b <= high; b++)
        count += has(seen, b);
    return count;
}

static void add_all(uint64_t seen[4], unsigned low, unsigned high)
{
    for (unsigned b = low; b <= high; b++)
        seen[b / 64] |= UINT64_C(1) << (b % 64);
}

/* One byte alone may be a part of all names; where letters differ, others of their kind come too.
 * Beside digits, letters up to f are hexadecimal ones. */
static void complete(uint64_t seen[4])
{
    unsigned decimal = count_in(seen, '0', '9');
    static const struct {
        unsigned first, hex, last;
    } letters[] = {{'a', 'f', 'z'}, {'A', 'F', 'Z'}};
    if (decimal)
        add_all(seen, '0', '9');
    for (size_t i = 0; i < 2; i++) {
        unsigned few = count_in(seen, letters[i].first, letters[i].hex);
        unsigned all = count_in(seen, letters[i].first, letters[i].last);
        if (all > 1 || (all && decimal))
            add_all(seen, letters[i].first,
                    few == all && decimal ? letters[i].hex : letters[i].last);
    }
}

static unsigned radix_of(const struct digits *d)
{
    return d->count + d->first;
}

static void make_scale(const struct list_space *space, struct scale *scale)
{
    number all = 1;
    scale->count = 0;
    for (size_t i = 0; i < LIST_PLACES; i++) {
        struct digits *d = &scale->places[i];
        uint64_t seen[4];
        memcpy(seen, space->places[i].seen, sizeof(seen));
        complete(seen);
        d->count = 0;
        d->first = space->places[i].ends;
        for (unsigned b = 1; b < 256; b++)
            if (has(seen, b))
                d->bytes[d->count++] = (uint8_t)b;
        if (!d->count || all >> NUMBER_BITS || all * radix_of(d) >> NUMBER_BITS)
            break;
        all *= radix_of(d);
        scale->count++;
    }
    number weight = 1;
    for (size_t i = scale->count; i-- > 0;) {
        scale->places[i].weight = weight;
        weight *= radix_of(&scale->places[i]);
    }
}

static number value_of(const struct list_space *space, const struct scale *scale, const char *key)
{
    const uint8_t *at = (const uint8_t *)key + space->prefix_len;
    number value = 0;
    for (size_t i = 0; i < scale->count && at[i] && !(space->folders && at[i] == '/'); i++) {
        const struct digits *d = &scale->places[i];
        unsigned below = 0;
        while (below < d->count && d->bytes[below] < at[i])
            below++;
        /* A byte behind all that are known is as the last one. */
        value += (number)(MIN(below, d->count - 1) + d->first) * d->weight;
    }
    return value;
}

static number last_value(const struct scale *scale)
{
    number value = 0;
    for (size_t i = 0; i < scale->count; i++)
        value += (number)(radix_of(&scale->places[i]) - 1) * scale->places[i].weight;
    return value;
}

/* Up to the first byte that a key in a request should not have. */
static size_t clean_length(const char *text)
{
    const uint8_t *at = (const uint8_t *)text;
    size_t len = 0;
    while (at[len]) {
        uint8_t b = at[len];
        unsigned more = b < 0x80   ? 0
                        : b < 0xc2 ? 9
                        : b < 0xe0 ? 1
                        : b < 0xf0 ? 2
                        : b < 0xf5 ? 3
                                   : 9;
        if (b < 0x20 || b == 0x7f || more == 9)
            break;
        for (unsigned i = 1; i <= more; i++)
            if ((at[len + i] & 0xc0) != 0x80)
                return len;
        /* Overlong forms, surrogates, past the last character. */
        if ((b == 0xe0 && at[len + 1] < 0xa0) || (b == 0xed && at[len + 1] > 0x9f) ||
            (b == 0xf0 && at[len + 1] < 0x90) || (b == 0xf4 && at[len + 1] > 0x8f))
            break;
        len += 1 + more;
    }
    return len;
}

static bool write_key(const struct list_space *space, const struct scale *scale, number value,
                      const char *like, char out[STORE_KEY_MAX + 1])
{
    size_t len = space->prefix_len;
    if (len + scale->count > STORE_KEY_MAX)
        return false;
    memcpy(out, like, len);
    for (size_t i = 0; i < scale->count; i++) {
        const struct digits *d = &scale->places[i];
        unsigned digit = (unsigned)(value / d->weight);
        value %= d->weight;
        if (digit < d->first)
            break;
        out[len++] = (char)d->bytes[digit - d->first];
    }
    out[len] = '\0';
    out[clean_length(out)] = '\0';
    return strlen(out) > space->prefix_len;
}

bool list_space_ahead(const struct list_space *space, const struct list_guess *guess,
                      char out[STORE_KEY_MAX + 1])
{
    struct scale scale;
    make_scale(space, &scale);
    if (!scale.count)
        return false;
    number first = value_of(space, &scale, guess->first),
           last = value_of(space, &scale, guess->last);
    number from = value_of(space, &scale, guess->from), end = last_value(&scale);
    number step = last > first ? last - first : 0;
    if (!step || step >> (NUMBER_BITS - 8))
        return false;
    number ahead = from + step * guess->pages;
    if (guess->until) {
        number until = value_of(space, &scale, guess->until);
        if (until <= from || until - from < 2 * (ahead - from))
            return false;
    }
    return write_key(space, &scale, MIN(ahead, end), guess->from, out) &&
           strcmp(out, guess->from) > 0 && (!guess->until || strcmp(out, guess->until) < 0);
}
