#include "tensor/cuda/on_host.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

namespace on_host
{

Place place;
unsigned char *shared_bytes;
size_t shared_max = (size_t)227 << 10;

static const int WARP_SIZE = 32;
static const size_t STACK_BYTES = 64 << 10;

enum State { READY, AT_BARRIER, AT_EXCHANGE, DONE };

/* On its way into shared memory; `group`: how many were committed before. */
struct Copy {
    void *to;
    const void *from;
    size_t bytes;
    int group;
};

struct Fiber {
    ucontext_t context;
    jmp_buf jump;
    bool is_started;
    char *stack;
    State state;
    dim3 thread;
    uint64_t given;
    std::vector<Copy> copies;
    int groups; /* of copies, committed */
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static int running, num_threads;
static const std::function<void()> *body;
static const char *kernel_name;
static uint64_t noise = 1;

static uint64_t next_noise()
{
    noise ^= noise << 13;
    noise ^= noise >> 7;
    noise ^= noise << 17;
    return noise;
}

[[noreturn]] static void stop(const char *what)
{
    fprintf(stderr, "kernel %s, block %u %u %u, thread %d: %s\n", kernel_name, place.block.x,
            place.block.y, place.block.z, running, what);
    abort();
}

/* Fibers change places by jumps, which take a hundredth of the time of swapcontext's system calls;
 * only the sanitizers want to see those. */
#ifndef TROUPE_SANITIZED
static jmp_buf scheduler_jump;
#endif

static void run_until_it_waits(Fiber &fiber)
{
#ifdef TROUPE_SANITIZED
    swapcontext(&scheduler, &fiber.context);
#else
    if (_setjmp(scheduler_jump) != 0) return;
    if (fiber.is_started) _longjmp(fiber.jump, 1);
    fiber.is_started = true;
    setcontext(&fiber.context);
#endif
}

/* Leaves the processor to the others until the state is READY again. */
static void wait_as(State state)
{
    Fiber &mine = fibers[(size_t)running];
    mine.state = state;
#ifdef TROUPE_SANITIZED
    swapcontext(&mine.context, &scheduler);
#else
    if (_setjmp(mine.jump) == 0) _longjmp(scheduler_jump, 1);
#endif
}

static void run_fiber()
{
    for (;;) {
        (*body)();
        wait_as(DONE);
    }
}

void barrier(void)
{
    wait_as(AT_BARRIER);
}

int lane(void)
{
    return running % WARP_SIZE;
}

uint64_t exchange(uint64_t bits, int from)
{
    int warp = running / WARP_SIZE;
    if (from < 0 || from >= WARP_SIZE) stop("an exchange with a lane that there is not");
    fibers[(size_t)running].given = bits;
    wait_as(AT_EXCHANGE);
    uint64_t taken = fibers[(size_t)(warp * WARP_SIZE + from)].given;
    wait_as(AT_EXCHANGE); /* nobody gives anew before all have taken */
    return taken;
}

unsigned ballot(bool mine)
{
    int first = running / WARP_SIZE * WARP_SIZE;
    unsigned bits = 0;
    fibers[(size_t)running].given = mine;
    wait_as(AT_EXCHANGE);
    for (int i = 0; i < WARP_SIZE; i++)
        bits |= (unsigned)fibers[(size_t)(first + i)].given << i;
    wait_as(AT_EXCHANGE);
    return bits;
}

void copy_later(void *to, const void *from, size_t bytes)
{
    Fiber &mine = fibers[(size_t)running];
    if (next_noise() % 2 == 0)
        memcpy(to, from, bytes);
    else
        mine.copies.push_back({to, from, bytes, mine.groups});
}

void commit_copies(void)
{
    fibers[(size_t)running].groups++;
}

void wait_for_copies(int pending)
{
    Fiber &mine = fibers[(size_t)running];
    size_t done = 0; /* they stand in the order of their groups */
    for (; done < mine.copies.size(); done++) {
        const Copy &copy = mine.copies[done];
        if (copy.group >= mine.groups - pending) break;
        memcpy(copy.to, copy.from, copy.bytes);
    }
    mine.copies.erase(mine.copies.begin(), mine.copies.begin() + (std::ptrdiff_t)done);
}

/* A warp's operands of mma_bf16. */
struct Operands {
    float first[16][16], second[8][16];
};
static Operands operands[32];

static void give_pair(float *to, uint32_t pair)
{
    uint32_t low = pair << 16, high = pair & 0xFFFF0000u;
    memcpy(to, &low, sizeof low);
    memcpy(to + 1, &high, sizeof high);
}

void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    Operands &mine = operands[running / WARP_SIZE];
    int g = lane() / 4, t = lane() % 4;
    for (int i = 0; i < 4; i++)
        give_pair(&mine.first[g + i % 2 * 8][2 * t + i / 2 * 8], a[i]);
    for (int i = 0; i < 2; i++)
        give_pair(&mine.second[g][2 * t + i * 8], b[i]);
    wait_as(AT_EXCHANGE);
    for (int i = 0; i < 4; i++) {
        const float *row = mine.first[g + i / 2 * 8], *column = mine.second[t * 2 + i % 2];
        float sum = 0.0f;
        for (int k = 0; k < 16; k++)
            sum += row[k] * column[k];
        c[i] += sum;
    }
    wait_as(AT_EXCHANGE); /* nobody gives anew before all have taken */
}

static Fiber new_fiber()
{
    Fiber fiber = {};
    fiber.stack =
        (char *)mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return fiber;
}

static void make_fibers(dim3 block)
{
    num_threads = (int)(block.x * block.y * block.z);
    size_t there = fibers.size();
    while ((int)fibers.size() < num_threads)
        fibers.push_back(new_fiber());
    for (size_t i = 0; i < fibers.size() && there < fibers.size(); i++) { /* they may have moved */
        Fiber &fiber = fibers[i];
        fiber.is_started = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, run_fiber, 0);
    }
    for (int i = 0; i < num_threads; i++) {
        Fiber &fiber = fibers[(size_t)i];
        fiber.state = READY;
        fiber.copies.clear();
        fiber.groups = 0;
        fiber.thread = dim3((unsigned)i % block.x, (unsigned)i / block.x % block.y,
                            (unsigned)i / (block.x * block.y));
    }
}

static int count(int first, int end, State state)
{
    int found = 0;
    for (int i = first; i < end; i++)
        found += fibers[(size_t)i].state == state;
    return found;
}

static void release(int first, int end)
{
    for (int i = first; i < end; i++)
        fibers[(size_t)i].state = READY;
}

/* Lets everybody go on who has met whom he waits for. */
static void release_met()
{
    for (int first = 0; first < num_threads; first += WARP_SIZE) {
        int end = first + WARP_SIZE < num_threads ? first + WARP_SIZE : num_threads;
        if (count(first, end, AT_EXCHANGE) == WARP_SIZE) release(first, end);
    }
    if (count(0, num_threads, AT_BARRIER) == num_threads) release(0, num_threads);
}

static void run_block()
{
    while (count(0, num_threads, DONE) < num_threads) {
        int ready = count(0, num_threads, READY);
        if (ready == 0) stop("threads wait for others that have ended or wait elsewhere");
        int first = (int)(next_noise() % (uint64_t)num_threads);
        for (int i = 0; i < num_threads; i++) {
            running = (first + i) % num_threads;
            Fiber &fiber = fibers[(size_t)running];
            if (fiber.state != READY) continue;
            place.thread = fiber.thread;
            run_until_it_waits(fiber);
        }
        release_met();
    }
}

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()> &kernel,
         const char *name)
{
    std::vector<uint64_t> memory(shared / sizeof(uint64_t) + 3);
    kernel_name = name;
    body = &kernel;
    place.block_size = block;
    place.grid_size = grid;
    if (block.x * block.y * block.z > 1024) stop("a block of more than 1024 threads");
    if (shared > shared_max) stop("more shared memory than the device gives a block");
    shared_bytes = (unsigned char *)(((uintptr_t)memory.data() + 15) & ~(uintptr_t)15);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                place.block = dim3(x, y, z);
                for (uint64_t &word : memory)
                    word = next_noise();
                make_fibers(block);
                run_block();
            }
}

} // namespace on_host
