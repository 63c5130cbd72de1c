#include "stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define STRIDE_READS_MAX 32

void stream_init(struct stream_set *set, uint64_t window_max)
{
    memset(set, 0, sizeof(*set));
    set->window_max = window_max;
    set->sharing = 1;
}

static bool established(const struct stream *stream)
{
    return stream->hits >= 2;
}

/* How far a read is from where the stream expects one; UINT64_MAX if it does not belong there. */
static uint64_t distance(const struct stream *stream, uint64_t offset)
{
    if (stream->hits == 0)
        return UINT64_MAX;
    if (offset == stream->position)
        return 0;
    if (stream->stride != 0 || !established(stream))
        return UINT64_MAX;
    uint64_t d = offset > stream->position ? offset - stream->position : stream->position - offset;
    return d <= STREAM_SLACK ? d : UINT64_MAX;
}

static struct stream *find(struct stream_set *set, uint64_t offset)
{
    struct stream *best = NULL;
    uint64_t best_distance = UINT64_MAX;
    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        uint64_t d = distance(&set->streams[i], offset);
        if (d < best_distance) {
            best = &set->streams[i];
            best_distance = d;
        }
    }
    return best;
}

/* An unused stream, or the one to give up: one that never was established before one that was, and
 * the longest unused of these. */
static struct stream *replace(struct stream_set *set, struct stream_plan *plan)
{
    struct stream *victim = &set->streams[0];
    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        struct stream *stream = &set->streams[i];
        if (stream->hits == 0) {
            victim = stream;
            break;
        }
        if (established(stream) != established(victim) ? !established(stream)
                                                       : stream->last_use < victim->last_use)
            victim = stream;
    }
    plan->forget |= 1u << (victim - set->streams);
    memset(victim, 0, sizeof(*victim));
    return victim;
}

static bool add_ahead(struct stream_plan *plan, uint64_t offset, uint64_t length)
{
    if (plan->ahead_count == STREAM_AHEAD_MAX)
        return false;
    plan->ahead[plan->ahead_count++] = (struct stream_range){offset, length};
    return true;
}

/* A power of two, as the memory for it is. */
static uint64_t request_length(const struct stream_set *set, uint64_t window)
{
    uint64_t length = window / MAX(STREAM_REQUESTS / set->sharing, STREAM_REQUESTS_EACH);
    length = MIN(MIN(MAX(length, STREAM_REQUEST_MIN), STREAM_REQUEST_MAX), window);
    return 1ull << (63 - __builtin_clzll(length));
}

/* Fills the window before a stream without gaps by requests of equal length, and lets it grow each
 * time that the reader has used up enough of it for a new one. */
static void plan_forwards(struct stream_set *set, struct stream *stream, uint64_t length,
                          uint64_t file_size, struct stream_plan *plan)
{
    uint64_t window_max = set->window_max;
    if (set->picks)
        window_max = MIN(window_max, stream->read / STREAM_PICK_SHARE);
    if (window_max == 0 || (set->picks && window_max < STREAM_REQUEST_MIN))
        return;
    stream->window = MIN(MAX(stream->window, MAX(2 * length, STREAM_WINDOW_MIN)), window_max);
    if (stream->ahead < stream->position)
        stream->ahead = stream->position;
    uint64_t request = request_length(set, stream->window);
    bool grew = false;
    while (stream->ahead < file_size) {
        uint64_t next = MIN(request, file_size - stream->ahead);
        if (stream->ahead + next > stream->position + stream->window ||
            !add_ahead(plan, stream->ahead, next))
            break;
        stream->ahead += next;
        grew = true;
    }
    if (grew)
        stream->window = MIN(stream->window * 2, window_max);
}

static void plan_stride(struct stream_set *set, struct stream *stream, uint64_t file_size,
                        struct stream_plan *plan)
{
    uint64_t reads = MIN(1ull << MIN(stream->hits - 2, 5u), STRIDE_READS_MAX);
    reads = MIN(reads, MAX(set->window_max / stream->length, 1));
    if (set->window_max == 0 || stream->ended)
        return;
    /* The next to ask for: not nearer than what the reader will ask for himself now. */
    if (stream->stride > 0 ? stream->ahead < stream->position : stream->ahead > stream->position)
        stream->ahead = stream->position;
    uint64_t step = stream->stride > 0 ? (uint64_t)stream->stride : -(uint64_t)stream->stride;
    assert(step > 0); /* only streams with a stride come here */
    for (;;) {
        uint64_t at = stream->ahead;
        uint64_t far = stream->stride > 0 ? at - stream->position : stream->position - at;
        if (at >= file_size || far / step >= reads ||
            !add_ahead(plan, at, MIN(stream->length, file_size - at)))
            break;
        if (stream->stride < 0 && at < step) {
            stream->ended = true;
            break;
        }
        stream->ahead = at + (uint64_t)stream->stride;
    }
}

/* Reads that came out of order at the start have made two streams of one: this one stays. */
static void absorb(struct stream_set *set, struct stream *stream)
{
    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        struct stream *other = &set->streams[i];
        if (other == stream || other->hits == 0 || other->stride != 0)
            continue;
        uint64_t low = MIN(other->position, stream->position);
        uint64_t high = MAX(other->position, stream->position);
        if (high - low > STREAM_SLACK)
            continue;
        stream->position = high;
        stream->ahead = MAX(stream->ahead, other->ahead);
        stream->window = MAX(stream->window, other->window);
        stream->read += other->read;
        memset(other, 0, sizeof(*other));
    }
}

/* Three reads at equal steps that continued nothing: a stream with a stride. */
static struct stream *find_stride(struct stream_set *set, uint64_t offset, uint64_t length,
                                  struct stream_plan *plan)
{
    if (set->lone_count < 2)
        return NULL;
    int64_t step = (int64_t)(offset - set->lone[0]);
    if (step != (int64_t)(set->lone[0] - set->lone[1]) || (uint64_t)llabs(step) < length ||
        (step < 0 && offset < (uint64_t)-step) || (step > 0 && set->picks))
        return NULL;
    struct stream *stream = replace(set, plan);
    stream->hits = 3;
    stream->stride = step;
    stream->length = length;
    stream->position = stream->ahead = offset + (uint64_t)step;
    set->lone_count = 0;
    return stream;
}

/* A read that may be the first of a stream without gaps. */
static struct stream *begin_candidate(struct stream_set *set, uint64_t position,
                                      struct stream_plan *plan)
{
    struct stream *stream = replace(set, plan);
    stream->hits = 1;
    stream->position = stream->ahead = position;
    stream->last_use = set->uses;
    return stream;
}

/* A request costs as much time as hundreds of KiB: a small file that is read from its start, as
 * nearly all are, comes whole. */
static bool wants_whole(const struct stream_set *set, uint64_t offset, uint64_t length,
                        uint64_t file_size)
{
    return !set->whole_seen && set->window_max > 0 && length < file_size &&
           (file_size <= STREAM_WHOLE_ANY || (offset == 0 && file_size <= STREAM_WHOLE_START));
}

static void begin(struct stream_set *set, uint64_t offset, uint64_t length, uint64_t file_size,
                  struct stream_plan *plan)
{
    struct stream *stream = find_stride(set, offset, length, plan);
    if (stream) {
        plan_stride(set, stream, file_size, plan);
    } else {
        set->lone[1] = set->lone[0];
        set->lone[0] = offset;
        set->lone_count = MIN(set->lone_count + 1, 2);
        stream = begin_candidate(set, offset + length, plan);
        if (wants_whole(set, offset, length, file_size)) {
            set->whole_seen = plan->keep = true;
            plan->demand = (struct stream_range){0, file_size};
            stream->ahead = file_size;
        } else if (offset == 0 && length >= STREAM_START_LENGTH)
            plan_forwards(set, stream, length, file_size, plan);
    }
    stream->last_use = set->uses;
    plan->stream = (unsigned)(stream - set->streams);
    /* Columnar formats have their index at the end, and its length in the last bytes. */
    if (!plan->keep && !set->footer_seen && set->window_max > 0 &&
        file_size >= STREAM_FOOTER_FILE_MIN && offset >= file_size - STREAM_FOOTER) {
        set->footer_seen = true;
        set->picks |= set->uses == 1;
        plan->keep = true;
        plan->demand.offset = file_size - STREAM_FOOTER;
        plan->demand.length = STREAM_FOOTER;
    }
}

void stream_read(struct stream_set *set, uint64_t offset, uint64_t length, uint64_t file_size,
                 struct stream_plan *plan)
{
    memset(plan, 0, offsetof(struct stream_plan, ahead));
    plan->ahead_count = 0;
    plan->demand = (struct stream_range){offset, length};
    set->uses++;
    struct stream *stream = find(set, offset);
    if (!stream) {
        begin(set, offset, length, file_size, plan);
        return;
    }
    stream->hits++;
    stream->last_use = set->uses;
    plan->stream = (unsigned)(stream - set->streams);
    if (stream->stride != 0) {
        stream->length = MAX(stream->length, length);
        uint64_t next = stream->position + (uint64_t)stream->stride;
        if (stream->stride < 0 && stream->position < (uint64_t)-stream->stride)
            next = UINT64_MAX; /* before the start: nothing is expected any more */
        stream->position = next;
        if (next != UINT64_MAX)
            plan_stride(set, stream, file_size, plan);
        /* Several streams that take turns at equal distances look the same in their first round. */
        begin_candidate(set, offset + length, plan);
        return;
    }
    if (offset + length > stream->position) {
        stream->read += offset + length - stream->position;
        stream->position = offset + length;
    }
    absorb(set, stream);
    plan->position = stream->position;
    plan_forwards(set, stream, length, file_size, plan);
}

void stream_missed(struct stream_set *set, unsigned stream_index, uint64_t offset)
{
    struct stream *stream = &set->streams[stream_index];
    stream->window = MAX(stream->window / 2, MIN(STREAM_WINDOW_MIN, set->window_max));
    if (stream->stride == 0)
        stream->ahead = MIN(stream->ahead, offset);
    else
        stream->ahead = offset;
    stream->ended = false;
}
