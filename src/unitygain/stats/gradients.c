/* L2 norm and absmax of many tensors in one pass over memory, and their product with a factor in another.
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
enum { PIECE = 1 << 16, MOST_THREADS = 256 };
/* Below this many bytes each, another thread costs more than it brings. */
enum { BYTES_PER_THREAD = 1 << 19 };
static const int WIDTH[] = {4, 8, 2, 2};
static const int64_t INFINITE[] = {0x7f800000, 0x7ff0000000000000, 0x7f80, 0x7c00};

typedef struct {
    double squares;
    int64_t top; /* the largest magnitude, as bits of the tensor's own dtype */
} part;

static inline float as_float(int32_t bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static inline double as_double(int64_t bits) {
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static inline float widen_bfloat16(int32_t bits) { return as_float(bits << 16); }

/* A subnormal number is built one binade above and brought down by an exact subtraction. Infinity and NaN
 * come out finite: the largest magnitude tells of them. */
static inline float widen_float16(int32_t bits) {
    int32_t moved = bits << 13, small = moved < (1 << 23) ? -1 : 0;
    return as_float(moved + (112 << 23) + (small & (1 << 23))) - as_float(small & (113 << 23));
}

/* The pragma lets the compiler sum in several lanes; without it the loop is right, and slow. */
#define REDUCER(name, stored, signed_bits, magnitude, widen)                                                \
    FOR_EACH_TARGET static part name(const void *memory, int64_t count) {                                   \
        const stored *entry = memory;                                                                       \
        double squares = 0.0;                                                                               \
        signed_bits top = 0;                                                                                \
        _Pragma("omp simd reduction(+ : squares) reduction(max : top)")                                     \
        for (int64_t at = 0; at < count; at++) {                                                            \
            signed_bits bits = (signed_bits)entry[at] & magnitude;                                          \
            double number = widen(bits);                                                                    \
            squares += number * number;                                                                     \
            top = bits > top ? bits : top;                                                                  \
        }                                                                                                   \
        return (part){squares, top};                                                                        \
    }

REDUCER(reduce_float32, int32_t, int32_t, 0x7fffffff, as_float)
REDUCER(reduce_float64, int64_t, int64_t, 0x7fffffffffffffff, as_double)
REDUCER(reduce_bfloat16, uint16_t, int32_t, 0x7fff, widen_bfloat16)
REDUCER(reduce_float16, uint16_t, int32_t, 0x7fff, widen_float16)

static part (*const REDUCERS[])(const void *, int64_t) = {reduce_float32, reduce_float64, reduce_bfloat16,
                                                          reduce_float16};

#define MULTIPLIER(name, stored)                                                                            \
    FOR_EACH_TARGET static void name(void *memory, int64_t count, double factor) {                          \
        stored *entry = memory, by = (stored)factor;                                                        \
        _Pragma("omp simd") for (int64_t at = 0; at < count; at++) entry[at] *= by;                         \
    }

MULTIPLIER(multiply_float32, float)
MULTIPLIER(multiply_float64, double)

typedef struct {
    int64_t tensors;
    const uint64_t *address;
    const int64_t *length;
    const int32_t *dtype;
    int64_t *first;       /* the number of each tensor's first piece, then the number of all pieces */
    part *found;          /* of each piece; or NULL, and pieces are multiplied */
    const double *factor; /* of each tensor */
    int64_t next;         /* the piece that the next free thread takes */
} job;

static void do_piece(job *todo, int64_t tensor, int64_t piece) {
    int64_t from = (piece - todo->first[tensor]) * PIECE, left = todo->length[tensor] - from;
    int32_t dtype = todo->dtype[tensor];
    char *memory = (char *)(uintptr_t)todo->address[tensor] + from * WIDTH[dtype];
    if (left > PIECE) left = PIECE;
    if (todo->found)
        todo->found[piece] = REDUCERS[dtype](memory, left);
    else if (todo->factor[tensor] != 1.0)
        (dtype == FLOAT32 ? multiply_float32 : multiply_float64)(memory, left, todo->factor[tensor]);
}

/* Pieces are read from the first to the last, and written from the last to the first: those that were read
 * last are still in the cache when the multiplication comes to them. */
static void *work(void *shared) {
    job *todo = shared;
    int64_t pieces = todo->first[todo->tensors], tensor = todo->found ? 0 : todo->tensors - 1, taken;
    while ((taken = __atomic_fetch_add(&todo->next, 1, __ATOMIC_RELAXED)) < pieces) {
        int64_t piece = todo->found ? taken : pieces - 1 - taken;
        while (todo->first[tensor + 1] <= piece) tensor++;
        while (todo->first[tensor] > piece) tensor--;
        do_piece(todo, tensor, piece);
    }
    return NULL;
}

/* Number the pieces; return how many threads are worth starting, or -1 where there is no memory. */
static int64_t cut(job *todo, int64_t threads) {
    int64_t bytes = 0, pieces = 0;
    todo->first = malloc((size_t)(todo->tensors + 1) * sizeof *todo->first);
    if (!todo->first) return -1;
    for (int64_t i = 0; i < todo->tensors; i++) {
        todo->first[i] = pieces;
        pieces += (todo->length[i] + PIECE - 1) / PIECE;
        bytes += todo->length[i] * WIDTH[todo->dtype[i]];
    }
    todo->first[todo->tensors] = pieces;
    return threads < bytes / BYTES_PER_THREAD ? threads : bytes / BYTES_PER_THREAD;
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
    if (dtype == FLOAT64) return as_double(bits);
    return as_float((int32_t)bits << (dtype == BFLOAT16 ? 16 : 0));
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
    job todo = {tensors, address, length, dtype, NULL, NULL, NULL, 0};
    threads = cut(&todo, threads);
    if (todo.first) todo.found = malloc((size_t)(todo.first[tensors] + 1) * sizeof *todo.found);
    int status = todo.found ? 0 : -1;
    if (todo.found) {
        /* torch may have set this thread to flush subnormal numbers to zero; it is left as it was. */
        fenv_t before;
        fegetenv(&before);
        fesetenv(FE_DFL_ENV);
        work_together(&todo, threads);
        for (int64_t i = 0; i < tensors; i++) finish(&todo, i, norm + i, absmax + i);
        fesetenv(&before);
    }
    free(todo.first);
    free(todo.found);
    return status;
}

/* Multiply each tensor by its factor, in place and in its own dtype; one whose factor is 1 is not written to.
 * Rounds, and flushes subnormal products, as the calling thread does; new threads inherit that from it.
 * Returns 0, or -1, with nothing written, where there is no memory to count the pieces. */
int unitygain_multiply(int64_t tensors, const uint64_t *address, const int64_t *length, const int32_t *dtype,
                       int64_t threads, const double *factor) {
    job todo = {tensors, address, length, dtype, NULL, NULL, factor, 0};
    threads = cut(&todo, threads);
    if (!todo.first) return -1;
    fenv_t before;
    fegetenv(&before);
    work_together(&todo, threads);
    fesetenv(&before);
    free(todo.first);
    return 0;
}
