/* L2 norm and absmax of many tensors in one pass over memory.
 *
 * Plain C behind pointers and counts: nothing of torch or Python is included or linked, so one library serves
 * every version of both. Squares are summed in double, which holds the square of every float16, bfloat16 and
 * float32. Magnitudes are compared as integers, in whose order NaN stands above infinity and infinity above
 * every number, so the largest of them also tells what is not finite. Partial sums belong to pieces of fixed
 * length and are added in their order: the result does not depend on the number of threads. Threads are
 * started for each call, so nothing is left to break when the process forks.
 */

#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One library for every processor of a kind: it picks the widest registers when it is loaded. */
#if defined(__x86_64__) && !defined(UNITYGAIN_ONE_TARGET)
#define FOR_EACH_TARGET __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_TARGET
#endif

#define INTERFACE 1 /* changes with the arguments of unitygain_reduce */

enum dtype { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };
enum { LANES = 8, STREAMS = 4, STEP = LANES * STREAMS, PIECE = 1 << 16, MOST_THREADS = 256 };
/* Below this many bytes each, another thread costs more than it brings. */
enum { BYTES_PER_THREAD = 1 << 19 };
static const int WIDTH[] = {4, 8, 2, 2};
static const int64_t INFINITE[] = {0x7f800000, 0x7ff0000000000000, 0x7f80, 0x7c00};

typedef double doubles __attribute__((vector_size(LANES * 8)));
typedef float floats __attribute__((vector_size(LANES * 4)));
typedef int64_t longs __attribute__((vector_size(LANES * 8)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));
typedef uint16_t shorts __attribute__((vector_size(LANES * 2)));

typedef struct {
    double squares;
    int64_t top; /* the largest magnitude, as bits of the tensor's own dtype */
} part;

#define AS_FLOATS(bits) ((floats)(bits))
#define AS_DOUBLES(bits) ((doubles)(bits))
#define LARGER(a, b) (((a) & ((a) > (b))) | ((b) & ~((a) > (b))))

static inline floats widen_bfloat16(ints bits) { return (floats)(bits << 16); }

/* A subnormal number is built one binade above and brought down by an exact subtraction. Infinity and NaN
 * come out finite: the largest magnitude tells of them. */
static inline floats widen_float16(ints bits) {
    bits <<= 13;
    ints small = bits < (1 << 23);
    return (floats)(bits + (112 << 23) + (small & (1 << 23))) - (floats)(small & (113 << 23));
}

/* `stored` is one entry in memory, `loaded` a vector of them, `bits` the vector of their magnitudes' bits. */
#define REDUCER(name, stored, loaded, bits, magnitude, widen)                                               \
    FOR_EACH_TARGET static part name(const void *memory, int64_t count) {                                   \
        doubles sums[STREAMS] = {{0}};                                                                      \
        bits tops[STREAMS] = {{0}};                                                                         \
        stored last[STEP];                                                                                  \
        for (int64_t at = 0; at < count; at += STEP) {                                                      \
            const stored *from = (const stored *)memory + at;                                               \
            if (count - at < STEP) {                                                                        \
                memset(last, 0, sizeof last);                                                               \
                memcpy(last, from, (size_t)(count - at) * sizeof *last);                                    \
                from = last;                                                                                \
            }                                                                                               \
            for (int k = 0; k < STREAMS; k++) {                                                             \
                loaded raw;                                                                                 \
                memcpy(&raw, from + k * LANES, sizeof raw);                                                 \
                bits size = __builtin_convertvector(raw, bits) & magnitude;                                 \
                doubles number = __builtin_convertvector(widen(size), doubles);                             \
                sums[k] += number * number;                                                                 \
                tops[k] = LARGER(size, tops[k]);                                                            \
            }                                                                                               \
        }                                                                                                   \
        part found = {0.0, 0};                                                                              \
        for (int k = 0; k < STREAMS; k++)                                                                   \
            for (int lane = 0; lane < LANES; lane++) {                                                      \
                found.squares += sums[k][lane];                                                             \
                if (tops[k][lane] > found.top) found.top = tops[k][lane];                                   \
            }                                                                                               \
        return found;                                                                                       \
    }

REDUCER(reduce_float32, int32_t, ints, ints, 0x7fffffff, AS_FLOATS)
REDUCER(reduce_float64, int64_t, longs, longs, 0x7fffffffffffffff, AS_DOUBLES)
REDUCER(reduce_bfloat16, uint16_t, shorts, ints, 0x7fff, widen_bfloat16)
REDUCER(reduce_float16, uint16_t, shorts, ints, 0x7fff, widen_float16)

static part (*const REDUCERS[])(const void *, int64_t) = {reduce_float32, reduce_float64, reduce_bfloat16,
                                                          reduce_float16};

typedef struct {
    int64_t tensors;
    const uint64_t *address;
    const int64_t *length;
    const int32_t *dtype;
    const int64_t *first; /* the number of each tensor's first piece, then the number of all pieces */
    part *found;
    int64_t next; /* the piece that the next free thread takes */
} job;

static void *work(void *shared) {
    job *todo = shared;
    int64_t tensor = 0, piece;
    while ((piece = __atomic_fetch_add(&todo->next, 1, __ATOMIC_RELAXED)) < todo->first[todo->tensors]) {
        while (todo->first[tensor + 1] <= piece) tensor++;
        int64_t from = (piece - todo->first[tensor]) * PIECE;
        int64_t left = todo->length[tensor] - from;
        int32_t dtype = todo->dtype[tensor];
        const char *memory = (const char *)(uintptr_t)todo->address[tensor];
        todo->found[piece] = REDUCERS[dtype](memory + from * WIDTH[dtype], left < PIECE ? left : PIECE);
    }
    return NULL;
}

static void work_together(job *todo, int64_t threads) {
    pthread_t others[MOST_THREADS];
    int64_t running = 0;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    while (running < threads - 1 && pthread_create(&others[running], NULL, work, todo) == 0) running++;
    work(todo);
    while (running > 0) pthread_join(others[--running], NULL);
}

static double magnitude(int64_t bits, int32_t dtype) {
    if (bits >= INFINITE[dtype]) return bits > INFINITE[dtype] ? NAN : INFINITY;
    if (dtype == FLOAT16) return bits < 1024 ? bits * 0x1p-24 : ldexp(1024 + bits % 1024, bits / 1024 - 25);
    if (dtype == FLOAT64) {
        double number;
        memcpy(&number, &bits, sizeof number);
        return number;
    }
    uint32_t word = (uint32_t)bits << (dtype == BFLOAT16 ? 16 : 0);
    float number;
    memcpy(&number, &word, sizeof number);
    return number;
}

/* Norm of doubles whose squares leave the range: of the numbers divided by a power of two near the largest. */
static double rescaled_norm(const double *entry, int64_t count, double largest) {
    int exponent = ilogb(largest);
    double squares = 0.0;
    for (int64_t at = 0; at < count; at++) {
        double number = ldexp(entry[at], -exponent);
        squares += number * number;
    }
    return ldexp(sqrt(squares), exponent);
}

static void finish(const job *todo, int64_t tensor, double *norm, double *absmax) {
    double squares = 0.0;
    int64_t top = 0, count = todo->length[tensor];
    for (int64_t piece = todo->first[tensor]; piece < todo->first[tensor + 1]; piece++) {
        squares += todo->found[piece].squares;
        if (todo->found[piece].top > top) top = todo->found[piece].top;
    }
    *absmax = magnitude(top, todo->dtype[tensor]);
    *norm = isfinite(*absmax) ? sqrt(squares) : *absmax;
    /* A square below the smallest normal number is wrong by that number at most: nothing beside 1e-280. */
    if (todo->dtype[tensor] == FLOAT64 && top > 0 && isfinite(*absmax) &&
        !(squares >= 1e-280 * (double)count && squares < INFINITY))
        *norm = rescaled_norm((const double *)(uintptr_t)todo->address[tensor], count, *absmax);
}

int unitygain_interface(void) { return INTERFACE; }

/* Write the norm and absmax of each tensor: `length` contiguous entries of a `dtype` at an `address`.
 * Returns 0, or -1 where there is no memory for the partial sums. */
int unitygain_reduce(int64_t tensors, const uint64_t *address, const int64_t *length, const int32_t *dtype,
                     int64_t threads, double *norm, double *absmax) {
    int64_t *first = malloc((size_t)(tensors + 1) * sizeof *first);
    int64_t bytes = 0, pieces = 0;
    for (int64_t i = 0; first && i < tensors; i++) {
        first[i] = pieces;
        pieces += (length[i] + PIECE - 1) / PIECE;
        bytes += length[i] * WIDTH[dtype[i]];
    }
    part *found = malloc((size_t)(pieces + 1) * sizeof *found);
    if (first && found) {
        first[tensors] = pieces;
        job todo = {tensors, address, length, dtype, first, found, 0};
        /* torch may have set this thread to flush subnormal numbers to zero. */
        fenv_t before;
        fegetenv(&before);
        fesetenv(FE_DFL_ENV);
        work_together(&todo, threads < bytes / BYTES_PER_THREAD ? threads : bytes / BYTES_PER_THREAD);
        for (int64_t i = 0; i < tensors; i++) finish(&todo, i, norm + i, absmax + i);
        fesetenv(&before);
    }
    int status = first && found ? 0 : -1;
    free(first);
    free(found);
    return status;
}
