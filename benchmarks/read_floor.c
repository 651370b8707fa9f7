/* Reads memory, or reads and writes it, and does next to nothing with it: the least that any statistic of it can
 * take, and the least that any change of it can.
 *
 * Thread t takes the pieces t, t + threads, ... of every run of 64-bit words. */

#include <pthread.h>
#include <stdint.h>

enum { LANES = 8, STREAMS = 4, STEP = LANES * STREAMS, PIECE = 1 << 15, MOST_THREADS = 64 };
typedef uint64_t words __attribute__((vector_size(LANES * 8)));

typedef struct {
    const uint64_t *address;
    const int64_t *length;
    int64_t runs, threads, number;
    int writes;
    uint64_t sum; /* of what was read; where it writes, what is added: 0, as the compiler cannot know */
} task;

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t
sum_words(const uint64_t *from, int64_t count) {
    words sums[STREAMS] = {{0}};
    for (int64_t at = 0; at + STEP <= count; at += STEP)
        for (int k = 0; k < STREAMS; k++) {
            words some;
            __builtin_memcpy(&some, from + at + k * LANES, sizeof some);
            sums[k] += some;
        }
    uint64_t sum = 0;
    for (int k = 0; k < STREAMS; k++)
        for (int lane = 0; lane < LANES; lane++) sum += sums[k][lane];
    return sum;
}

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static void
add_to_words(uint64_t *to, int64_t count, uint64_t added) {
    for (int64_t at = 0; at < count; at++) to[at] += added;
}

static void *work(void *given) {
    task *mine = given;
    int64_t piece = 0;
    for (int64_t run = 0; run < mine->runs; run++)
        for (int64_t at = 0; at < mine->length[run]; at += PIECE, piece++) {
            int64_t left = mine->length[run] - at;
            if (piece % mine->threads != mine->number) continue;
            uint64_t *from = (uint64_t *)(uintptr_t)mine->address[run] + at;
            if (left > PIECE) left = PIECE;
            if (mine->writes)
                add_to_words(from, left, mine->sum);
            else
                mine->sum += sum_words(from, left);
        }
    return 0;
}

static uint64_t run_all(int64_t runs, const uint64_t *address, const int64_t *length, int64_t threads, int writes) {
    pthread_t started[MOST_THREADS];
    task tasks[MOST_THREADS];
    uint64_t sum = 0;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    for (int64_t t = 0; t < threads; t++) tasks[t] = (task){address, length, runs, threads, t, writes, 0};
    for (int64_t t = 1; t < threads; t++) pthread_create(&started[t], 0, work, &tasks[t]);
    work(&tasks[0]);
    for (int64_t t = 1; t < threads; t++) pthread_join(started[t], 0);
    for (int64_t t = 0; t < threads; t++) sum += tasks[t].sum;
    return sum;
}

uint64_t read_floor(int64_t runs, const uint64_t *address, const int64_t *length, int64_t threads) {
    return run_all(runs, address, length, threads, 0);
}

uint64_t rewrite_floor(int64_t runs, const uint64_t *address, const int64_t *length, int64_t threads) {
    return run_all(runs, address, length, threads, 1);
}
