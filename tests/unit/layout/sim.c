#include "sim.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/loop.h"
#include "volume/volume.h"

#define START_NS (1800000000ull * NS_PER_S)
#define STEP_NS 2000u
#define SOURCES_MAX 4
#define CANDIDATES_MAX 512

struct loop {
    const char *name;
    struct loop_task *first, **end;
    struct loop *prev, *next;
};

struct timer {
    struct loop *loop;
    struct loop_timer *timer;
    uint64_t due_ns; /* 0: not started */
    struct timer *prev, *next;
};

struct actor {
    const char *name;
    pthread_t thread;
    sem_t go;
    sem_t *waits; /* NULL: runs until wake_ns */
    uint64_t wake_ns;
    bool ended;
    void (*run)(void);
    struct actor *prev, *next;
};

static struct {
    uint64_t seed, state, now_ns, steps;
    struct loop *loops, *current_loop;
    struct timer *timers;
    struct actor *actors, *current;
    struct syncer *syncers;
    struct sim_source sources[SOURCES_MAX];
    unsigned source_count;
    sem_t back; /* from an actor */
    struct loop *captured;
    struct loop_task *capture, **capture_end;
    bool forget_syncs, trace;
    uint64_t synced_to;
} sim;

int __real_sem_wait(sem_t *sem);
int __wrap_sem_wait(sem_t *sem);
void __wrap_hash_random(void *out, size_t len);

/* Chance */

uint64_t sim_random(void)
{
    /* splitmix64 */
    uint64_t z = (sim.state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

unsigned sim_below(unsigned limit)
{
    return (unsigned)(sim_random() % limit);
}

void __wrap_hash_random(void *out, size_t len)
{
    uint8_t *bytes = out;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)sim_random();
}

void sim_init(uint64_t seed)
{
    sim.seed = sim.state = seed;
    sim.now_ns = START_NS;
    sim.trace = getenv("SLUICE_LAYOUT_TRACE") != NULL;
    sem_init(&sim.back, 0, 0);
}

void sim_trace(const char *fmt, ...)
{
    va_list ap;
    if (!sim.trace)
        return;
    fprintf(stderr, "%8llu %10.3f ", (unsigned long long)sim.steps,
            (double)(sim.now_ns - START_NS) / (double)NS_PER_MS);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
}

void sim_violation(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "violation at step %llu of seed %llu: ", (unsigned long long)sim.steps,
            (unsigned long long)sim.seed);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    fflush(NULL);
    _exit(SIM_VIOLATED);
}

/* Clock */

uint64_t clock_wall_ns(void)
{
    return sim.now_ns;
}

uint64_t clock_monotonic_ns(void)
{
    return sim.now_ns;
}

uint64_t clock_monotonic_ms(void)
{
    return sim.now_ns / NS_PER_MS;
}

/* Loops */

int loop_new(struct loop **out, const char *name)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return -ENOMEM;
    loop->name = name;
    loop->end = &loop->first;
    DL_APPEND(sim.loops, loop);
    *out = loop;
    return 0;
}

struct loop *sim_loop_enter(struct loop *loop)
{
    struct loop *before = sim.current_loop;
    sim.current_loop = loop;
    return before;
}

static void run_first(struct loop *loop)
{
    struct loop_task *task = loop->first;
    loop->first = task->next;
    if (!loop->first)
        loop->end = &loop->first;
    struct loop *before = sim_loop_enter(loop);
    task->run(task);
    sim_loop_enter(before);
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    while (loop->first)
        run_first(loop);
    DL_DELETE(sim.loops, loop);
    free(loop);
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    task->next = NULL;
    if (loop == sim.captured) {
        *sim.capture_end = task;
        sim.capture_end = &task->next;
        return;
    }
    *loop->end = task;
    loop->end = &task->next;
}

void sim_capture_begin(struct loop *loop)
{
    assert(!sim.captured);
    sim.captured = loop;
    sim.capture = NULL;
    sim.capture_end = &sim.capture;
}

void sim_capture_end(void)
{
    struct loop *before = sim_loop_enter(sim.captured);
    for (struct loop_task *task; (task = sim.capture);) {
        sim.capture = task->next;
        if (!sim.capture)
            sim.capture_end = &sim.capture;
        task->run(task);
    }
    sim.captured = NULL;
    sim_loop_enter(before);
}

struct call {
    struct loop_task task;
    bool ran;
};

static void run_call(struct loop_task *task)
{
    container_of(task, struct call, task)->ran = true;
}

/* What was posted before comes before it, as in the real loop. */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct call call = {.task.run = run_call};
    if (sim.current_loop != loop && loop != sim.captured) {
        loop_post(loop, &call.task);
        while (!call.ran)
            run_first(loop);
    }
    struct loop *before = sim_loop_enter(loop);
    fn(arg);
    sim_loop_enter(before);
}

bool loop_on_thread(const struct loop *loop)
{
    return sim.current_loop == loop;
}

uv_loop_t *loop_uv(struct loop *loop)
{
    abort(); /* sockets are not in virtual time */
}

void loop_timer_init(struct loop *loop, struct loop_timer *timer,
                     void (*fire)(struct loop_timer *timer))
{
    struct timer *t = calloc(1, sizeof(*t));
    assert(t);
    t->loop = loop;
    t->timer = timer;
    timer->fire = fire;
    timer->uv.data = t;
    DL_APPEND(sim.timers, t);
}

void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms)
{
    struct timer *t = timer->uv.data;
    t->due_ns = sim.now_ns + delay_ms * NS_PER_MS;
}

void loop_timer_stop(struct loop_timer *timer)
{
    struct timer *t = timer->uv.data;
    t->due_ns = 0;
}

void loop_timer_close(struct loop_timer *timer, void (*closed)(struct loop_timer *timer))
{
    struct timer *t = timer->uv.data;
    DL_DELETE(sim.timers, t);
    free(t);
    timer->uv.data = NULL;
    if (closed)
        closed(timer);
}

static void fire(struct timer *t)
{
    struct loop *before = sim_loop_enter(t->loop);
    t->due_ns = 0;
    t->timer->fire(t->timer);
    sim_loop_enter(before);
}

/* The syncer of a volume: answers when sim_step says so */

struct syncer {
    struct engine *engine;
    uint64_t interval_ns, due_ns; /* due_ns 0: nothing is dirty */
    void (*synced)(void *arg);
    void *arg;
    struct meta_request *requests;
    struct meta_task *tasks;
    struct syncer *prev, *next;
};

int syncer_new(struct engine *engine, uint32_t interval_ms, struct metrics *metrics,
               void (*synced)(void *arg), void *arg, struct syncer **out)
{
    struct syncer *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->engine = engine;
    s->interval_ns = interval_ms * NS_PER_MS;
    s->synced = synced;
    s->arg = arg;
    sim.synced_to = engine_sequence(engine);
    DL_APPEND(sim.syncers, s);
    *out = s;
    return 0;
}

static void sync_now(struct syncer *s)
{
    struct meta_request *requests = TAKE_PTR(s->requests);
    struct meta_task *tasks = TAKE_PTR(s->tasks);
    s->due_ns = 0;
    if (!sim.forget_syncs)
        sim.synced_to = engine_sequence(s->engine);
    for (struct meta_request *next; requests; requests = next) {
        next = requests->next;
        requests->next = NULL;
        requests->done(requests);
    }
    for (struct meta_task *next; tasks; tasks = next) {
        next = tasks->next;
        tasks->next = NULL;
        tasks->done(tasks);
    }
    if (s->synced)
        s->synced(s->arg);
}

int syncer_free(struct syncer *s)
{
    if (!s)
        return 0;
    s->synced = NULL;
    sync_now(s);
    DL_DELETE(sim.syncers, s);
    free(s);
    return 0;
}

void syncer_note(struct syncer *s)
{
    if (!s->due_ns)
        s->due_ns = sim.now_ns + s->interval_ns;
}

void syncer_request(struct syncer *s, struct meta_request *request)
{
    LL_APPEND(s->requests, request);
}

void syncer_task(struct syncer *s, struct meta_task *task)
{
    LL_APPEND(s->tasks, task);
}

bool syncer_is_synced(const struct syncer *s, uint64_t sequence)
{
    return false;
}

bool syncer_is_synced_at(const struct syncer *s, uint64_t ctime_ns)
{
    return false;
}

uint64_t sim_synced_to(void)
{
    return sim.synced_to;
}

void sim_forget_syncs(void)
{
    sim.forget_syncs = true;
}

/* Actors */

static void *run_actor(void *arg)
{
    struct actor *actor = arg;
    __real_sem_wait(&actor->go);
    actor->run();
    actor->ended = true;
    sem_post(&sim.back);
    return NULL;
}

void sim_actor_start(const char *name, void (*run)(void))
{
    struct actor *actor = calloc(1, sizeof(*actor));
    assert(actor);
    actor->name = name;
    actor->run = run;
    sem_init(&actor->go, 0, 0);
    if (pthread_create(&actor->thread, NULL, run_actor, actor))
        abort();
    DL_APPEND(sim.actors, actor);
}

static void give_way(struct actor *self)
{
    sem_post(&sim.back);
    __real_sem_wait(&self->go);
}

static void run_one(struct actor *actor)
{
    sim.current = actor;
    sem_post(&actor->go);
    __real_sem_wait(&sim.back);
    sim.current = NULL;
    if (!actor->ended)
        return;
    pthread_join(actor->thread, NULL);
    DL_DELETE(sim.actors, actor);
    free(actor);
}

int __wrap_sem_wait(sem_t *sem)
{
    struct actor *self = sim.current;
    while (sem_trywait(sem) < 0) {
        if (self) {
            self->waits = sem;
            give_way(self);
        } else {
            sim_step();
        }
    }
    if (self)
        self->waits = NULL;
    return 0;
}

void sim_sleep_ms(unsigned ms)
{
    sim.current->wake_ns = sim.now_ns + ms * NS_PER_MS;
    give_way(sim.current);
}

const char *sim_actor_left(void)
{
    return sim.actors ? sim.actors->name : NULL;
}

static bool can_run(const struct actor *actor)
{
    int value = 0;
    if (actor->waits)
        sem_getvalue(actor->waits, &value);
    return actor->waits ? value > 0 : actor->wake_ns <= sim.now_ns;
}

/* What is next */

struct candidate {
    enum { RUN_LOOP, RUN_TIMER, RUN_SYNC, RUN_ACTOR, RUN_SOURCE } kind;
    void *what;
    unsigned which;
};

static unsigned collect(struct candidate out[CANDIDATES_MAX])
{
    unsigned n = 0;
    struct loop *loop;
    struct timer *timer;
    struct syncer *syncer;
    struct actor *actor;
    DL_FOREACH(sim.loops, loop)
    {
        for (int i = 0; loop->first && i < 3; i++) /* a running process is quick */
            out[n++] = (struct candidate){RUN_LOOP, loop, 0};
    }
    DL_FOREACH(sim.timers, timer)
    {
        if (timer->due_ns && timer->due_ns <= sim.now_ns)
            out[n++] = (struct candidate){RUN_TIMER, timer, 0};
    }
    DL_FOREACH(sim.syncers, syncer)
    {
        if (syncer->requests || syncer->tasks || (syncer->due_ns && syncer->due_ns <= sim.now_ns))
            out[n++] = (struct candidate){RUN_SYNC, syncer, 0};
    }
    DL_FOREACH(sim.actors, actor)
    {
        if (can_run(actor))
            out[n++] = (struct candidate){RUN_ACTOR, actor, 0};
    }
    for (unsigned i = 0; i < sim.source_count; i++) {
        unsigned ready = sim.sources[i].ready(sim.sources[i].arg);
        for (unsigned j = 0; j < ready && n < CANDIDATES_MAX - 8; j++)
            out[n++] = (struct candidate){RUN_SOURCE, &sim.sources[i], j};
    }
    return n;
}

/* To the next time at which anything can happen. */
static void advance(void)
{
    uint64_t next = UINT64_MAX;
    struct timer *timer;
    struct syncer *syncer;
    struct actor *actor;
    DL_FOREACH(sim.timers, timer)
    {
        if (timer->due_ns)
            next = MIN(next, timer->due_ns);
    }
    DL_FOREACH(sim.syncers, syncer)
    {
        if (syncer->due_ns)
            next = MIN(next, syncer->due_ns);
    }
    DL_FOREACH(sim.actors, actor)
    {
        if (!actor->waits)
            next = MIN(next, actor->wake_ns);
    }
    if (next == UINT64_MAX)
        sim_violation("nothing can happen any more");
    sim.now_ns = MAX(sim.now_ns, next);
}

void sim_source_add(const struct sim_source *source)
{
    assert(sim.source_count < SOURCES_MAX);
    sim.sources[sim.source_count++] = *source;
}

uint64_t sim_steps(void)
{
    return sim.steps;
}

void sim_step(void)
{
    struct candidate all[CANDIDATES_MAX];
    sim.steps++;
    sim.now_ns += STEP_NS;
    if (sim_below(40) == 0)
        sim.now_ns += sim_below(8) * NS_PER_MS;
    unsigned count = collect(all);
    if (!count) {
        advance();
        return;
    }
    const struct candidate *c = &all[sim_below(count)];
    switch (c->kind) {
    case RUN_LOOP:
        run_first(c->what);
        break;
    case RUN_TIMER:
        fire(c->what);
        break;
    case RUN_SYNC:
        sync_now(c->what);
        break;
    case RUN_ACTOR:
        run_one(c->what);
        break;
    case RUN_SOURCE: {
        struct sim_source *source = c->what;
        source->run(source->arg, c->which);
        break;
    }
    }
}
