/* Memory, streams and errors of the CUDA backend (cuda/device.cu, streams.cu) over a device that
 * does everything as late as it may (runtime/cuda_runtime.h). One process, one opened device: the
 * tests run in their order.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "runtime/fake.h"
#include "tensor/cuda/library.h"
#include "tensor/cuda/table.h"
#include "test.h"

static const KernelTable *kernels;

#define TEXT_BYTES 512

/* ---- opening ---- */

static void assert_count_says(int count, int driver_version, const char *expected)
{
    char text[TEXT_BYTES] = "";
    const FakeDevice before = fake_device;
    fake_device.count = count;
    fake_device.driver_version = driver_version;
    assert_int_equal(troupe_cuda_library()->count(text, sizeof text), 0);
    fake_device = before;
    if (strstr(text, expected) == NULL) fail_msg("\"%s\" lacks \"%s\"", text, expected);
}

static void test_missing_driver_old_driver_and_no_device_are_told_apart(void **state)
{
    (void)state;
    char text[TEXT_BYTES] = "";
    assert_count_says(0, 0, "no NVIDIA driver");
    assert_count_says(1, 12040, "for CUDA 12.4, and this build wants 13.0");
    assert_count_says(0, 13000, "shows this process no device");
    assert_int_equal(troupe_cuda_library()->count(text, sizeof text), 2);
    assert_string_equal(text, "");
}

static void assert_open_says(int device, int sm, const char *fault, const char *expected)
{
    char text[TEXT_BYTES] = "";
    const FakeDevice before = fake_device;
    fake_device.sm = sm;
    fake_gemm_fault = fault;
    assert_null(troupe_cuda_library()->open(device, text, sizeof text));
    fake_device = before;
    fake_gemm_fault = NULL;
    if (strstr(text, expected) == NULL) fail_msg("\"%s\" lacks \"%s\"", text, expected);
}

static void test_devices_that_cannot_serve_are_refused(void **state)
{
    (void)state;
    CudaDevice found;
    char text[TEXT_BYTES];
    assert_open_says(2, 90, NULL, "CUDA device 2 cannot be used");
    assert_open_says(1, 75, NULL, "compute capability 7.5, and bf16 needs 8.0");
    assert_open_says(1, 99, NULL, "has no code for CUDA device 1");
    assert_open_says(1, 90, "cuBLASLt is away", "cuBLASLt is away");
    assert_true(troupe_cuda_library()->describe(1, &found, text, sizeof text));
    assert_string_equal(found.name, "a card");
    assert_string_equal(found.pci_bus_id, "0000:1b:00.0");
    assert_int_equal(found.sm, 90);
    assert_int_equal(found.memory_total, 1 << 30);
}

static void test_one_device_is_opened_for_good(void **state)
{
    (void)state;
    char text[TEXT_BYTES];
    kernels = troupe_cuda_library()->open(1, text, sizeof text);
    assert_non_null(kernels);
    assert_ptr_equal(troupe_cuda_library()->open(1, text, sizeof text), kernels);
    assert_open_says(0, 90, NULL, "this process has already opened device 1");
}

static void *use_from_thread(void *ret)
{
    kernels->free(kernels->alloc(1));
    *(int *)ret = fake_thread_device();
    return NULL;
}

static void test_every_thread_uses_the_opened_device(void **state)
{
    (void)state;
    pthread_t thread;
    int device = -1;
    assert_int_equal(pthread_create(&thread, NULL, use_from_thread, &device), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(device, 1);
}

/* What is the kernel's own counts, too. */
static void test_a_kernel_may_have_all_shared_memory_of_a_block(void **state)
{
    (void)state;
    assert_int_equal(fake_shared_allowed(), (227 << 10) - 1024);
}

/* ---- memory ---- */

static unsigned char *random_bytes(size_t bytes, uint64_t key)
{
    unsigned char *memory = malloc(bytes + 16);
    for (size_t i = 0; i < bytes; i += 16) {
        const RngBlock block = rng_block(key, 0, i);
        memcpy(memory + i, block.word, 16);
    }
    return memory;
}

static void assert_device_holds(const void *device, const void *expected, size_t bytes)
{
    unsigned char *found = malloc(bytes + 1);
    found[bytes] = 0x5A;
    kernels->download(found, device, bytes);
    assert_memory_equal(found, expected, bytes);
    assert_int_equal(found[bytes], 0x5A);
    free(found);
}

/* Each upload's source is overwritten as soon as the call returns; 36 MB pass through 32 MB of
 * stages. */
static void test_uploads_of_all_sizes_read_the_host_before_they_return(void **state)
{
    (void)state;
    enum { ROOM = 36 << 20 };
    unsigned char *expected = random_bytes(ROOM, 3), *scratch = malloc(ROOM);
    char *device = kernels->alloc(ROOM);
    size_t at = 0;
    for (uint64_t i = 0; at < ROOM; i++) {
        size_t most = i % 40 == 39 ? 11 << 20 : 9000;
        size_t bytes = 1 + (size_t)rng_below(4, i, most);
        bytes = bytes < ROOM - at ? bytes : ROOM - at;
        memcpy(scratch, expected + at, bytes);
        kernels->upload(device + at, scratch, bytes);
        memset(scratch, 0, bytes);
        at += bytes;
    }
    assert_true(fake_copies_pending() > 0);
    assert_device_holds(device, expected, ROOM);
    kernels->free(device);
    free(expected);
    free(scratch);
}

static void test_downloads_of_all_sizes_wait_for_what_comes_before(void **state)
{
    (void)state;
    const size_t stage = 4 << 20, sizes[] = {1, 100, stage - 1, stage, stage + 1, 3 * stage + 7};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *expected = random_bytes(sizes[i], 5 + i);
        char *device = kernels->alloc(sizes[i]), *copy = kernels->alloc(sizes[i]);
        kernels->upload(device, expected, sizes[i]);
        kernels->copy(copy, device, sizes[i]);
        kernels->fill_zero(tensor_1d(device, DTYPE_U8, (int64_t)sizes[i]));
        assert_device_holds(copy, expected, sizes[i]);
        kernels->free(device);
        kernels->free(copy);
        free(expected);
    }
}

static void test_a_freed_block_is_given_again_and_zeroed(void **state)
{
    (void)state;
    const char zeros[1000] = {0};
    char *first = kernels->alloc(1000), *second = kernels->alloc(1000);
    assert_ptr_not_equal(first, second);
    assert_int_equal((uintptr_t)first % 64, 0);
    kernels->upload(first, "not zeros", 9);
    kernels->free(first);
    const size_t used = fake_memory_used();
    char *third = kernels->alloc(900);
    assert_ptr_equal(third, first);
    assert_int_equal(fake_memory_used(), used);
    assert_device_holds(third, zeros, 900);
    kernels->free(second);
    kernels->free(third);
    kernels->free(NULL);
}

static void test_kept_blocks_are_released_before_memory_runs_out(void **state)
{
    (void)state;
    void *large = kernels->alloc((size_t)600 << 20);
    kernels->free(large);
    assert_true(fake_memory_used() >= (size_t)600 << 20);
    void *larger = kernels->alloc((size_t)700 << 20);
    assert_non_null(larger);
    kernels->free(larger);
}

/* ---- streams, for communicators ---- */

/* A sum of one part, which is a copy, of `bytes` on `stream`. */
static void queue_copy_on(const DeviceStreams *streams, void *stream, void *to, const void *from,
                          size_t bytes)
{
    PartReduction reduction = {.out = to,
                               .parts = from,
                               .num_parts = 1,
                               .count = (int64_t)bytes / 4,
                               .stride = (int64_t)bytes / 4,
                               .dtype = DTYPE_F32};
    streams->reduce_parts(stream, &reduction);
}

/* Of what was uploaded before; *ret_lates: how often the event was looked at in vain. */
static void move_beside_the_kernels(bool waits, unsigned char *ret, int *ret_lates)
{
    char text[TEXT_BYTES] = "";
    unsigned char *expected = random_bytes(4096, 77);
    const DeviceStreams *streams = troupe_cuda_library()->streams();
    void *stream = streams->stream_create(), *ready = streams->event_create(),
         *done = streams->event_create();
    char *from = kernels->alloc(4096), *to = kernels->alloc(4096);
    kernels->synchronize();
    kernels->upload(from, expected, 4096);
    assert_ptr_not_equal(stream, streams->kernel_stream());
    assert_true(fake_stream_is_first(stream));
    assert_false(fake_stream_is_first(streams->kernel_stream()));
    streams->event_record(ready, streams->kernel_stream());
    if (waits) streams->stream_wait(stream, ready);
    queue_copy_on(streams, stream, to, from, 4096);
    streams->event_record(done, stream);
    assert_true(fake_copies_pending() >= 2); /* the host has not waited */
    EventState found;
    *ret_lates = 0;
    while ((found = streams->event_query(done, text, sizeof text)) == EVENT_PENDING) {
        assert_int_equal(fake_last_error(), 0); /* which a launch would take for its own */
        ++*ret_lates;
    }
    assert_int_equal(found, EVENT_DONE);
    assert_string_equal(text, "");
    kernels->download(ret, to, 4096);
    if (waits) assert_memory_equal(ret, expected, 4096);
    if (!waits) assert_memory_not_equal(ret, expected, 4096); /* or this test would see nothing */
    streams->event_destroy(ready);
    streams->event_destroy(done);
    streams->stream_destroy(stream);
    kernels->free(from);
    kernels->free(to);
    free(expected);
}

static void test_a_stream_waits_for_kernels_and_the_host_does_not(void **state)
{
    (void)state;
    int lates = 0;
    unsigned char found[4096];
    const DeviceStreams *streams = troupe_cuda_library()->streams();
    assert_int_equal(streams->bytes, sizeof(DeviceStreams));
    move_beside_the_kernels(true, found, &lates);
    assert_true(lates > 0);
    move_beside_the_kernels(false, found, &lates);
    streams->stream_destroy(NULL);
    streams->event_destroy(NULL);
}

static void test_kernels_wait_for_another_stream(void **state)
{
    (void)state;
    unsigned char *expected = random_bytes(4096, 78);
    const DeviceStreams *streams = troupe_cuda_library()->streams();
    void *stream = streams->stream_create(), *event = streams->event_create();
    char *from = kernels->alloc(4096), *between = kernels->alloc(4096), *to = kernels->alloc(4096);
    kernels->upload(from, expected, 4096);
    kernels->synchronize();
    queue_copy_on(streams, stream, between, from, 4096);
    streams->event_record(event, stream);
    streams->stream_wait(streams->kernel_stream(), event);
    kernels->copy(to, between, 4096);
    assert_device_holds(to, expected, 4096);
    streams->event_destroy(event);
    streams->stream_destroy(stream);
    kernels->free(from);
    kernels->free(between);
    kernels->free(to);
    free(expected);
}

static void *use_streams_from_thread(void *ret)
{
    troupe_cuda_library()->streams()->use();
    *(int *)ret = fake_thread_device();
    return NULL;
}

static void test_a_thread_that_only_looks_at_events_uses_the_opened_device(void **state)
{
    (void)state;
    pthread_t thread;
    int device = -1;
    assert_int_equal(pthread_create(&thread, NULL, use_streams_from_thread, &device), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(device, 1);
}

static void test_a_lost_device_is_told_and_stops_nobody_by_itself(void **state)
{
    (void)state;
    char text[TEXT_BYTES] = "";
    const DeviceStreams *streams = troupe_cuda_library()->streams();
    void *event = streams->event_create();
    streams->event_record(event, streams->kernel_stream());
    fake_device_is_lost = true;
    assert_int_equal(streams->event_query(event, text, sizeof text), EVENT_FAILED);
    streams->event_destroy(event);
    fake_device_is_lost = false;
    assert_non_null(strstr(text, "the CUDA device is lost: a sentence of the runtime"));
}

/* ---- pools that are given back ---- */

#define POOL_BYTES ((size_t)5 << 20)

static const DeviceMemory *memory_of(void)
{
    return troupe_cuda_library()->memory();
}

static void *alloc_in(MemoryPool pool, size_t bytes)
{
    const MemoryPool before = memory_of()->pool_enter(pool);
    void *memory = kernels->alloc(bytes);
    assert_int_equal(memory_of()->pool_enter(before), pool);
    return memory;
}

static void test_a_pool_comes_back_where_it_was_with_what_was_in_it(void **state)
{
    (void)state;
    char text[TEXT_BYTES] = "";
    unsigned char *expected = random_bytes(POOL_BYTES, 80);
    assert_true(memory_of()->has_pools(text, sizeof text));
    char *kept = alloc_in(POOL_STATE, POOL_BYTES), *small = alloc_in(POOL_STATE, 1000),
         *dropped = alloc_in(POOL_SCRATCH, POOL_BYTES), *fixed = alloc_in(POOL_FIXED, POOL_BYTES);
    assert_true(fake_vmm_bytes() >= 2 * POOL_BYTES);
    for (int round = 0; round < 3; round++) {
        kernels->upload(kept, expected, POOL_BYTES); /* still on its way when the pool goes */
        kernels->upload(small, expected, 1000);
        kernels->upload(fixed, expected, POOL_BYTES);
        const size_t used = fake_memory_used();
        const int64_t gained = memory_of()->pool_release(POOL_STATE, true) +
                               memory_of()->pool_release(POOL_SCRATCH, false);
        assert_int_equal(fake_vmm_bytes(), 0);
        assert_int_equal(used - fake_memory_used(), gained);
        assert_int_equal(memory_of()->pool_release(POOL_STATE, true), 0); /* it is already */
        assert_device_holds(fixed, expected, POOL_BYTES);
        assert_device_holds(small, expected, 1000); /* less than a page stays where it is */
        assert_true(memory_of()->pool_restore(POOL_STATE, text, sizeof text));
        assert_true(memory_of()->pool_restore(POOL_SCRATCH, text, sizeof text));
        assert_true(memory_of()->pool_restore(POOL_SCRATCH, text, sizeof text));
        assert_device_holds(kept, expected, POOL_BYTES);
        kernels->upload(dropped, expected, POOL_BYTES);
        assert_device_holds(dropped, expected, POOL_BYTES);
    }
    void *const all[] = {kept, small, dropped, fixed};
    for (size_t i = 0; i < 4; i++)
        kernels->free(all[i]);
    assert_ptr_equal(alloc_in(POOL_SCRATCH, POOL_BYTES), dropped); /* of its pool, not of another */
    kernels->free(dropped);
    free(expected);
}

static void test_a_pool_that_finds_no_room_stays_away_whole(void **state)
{
    (void)state;
    char text[TEXT_BYTES] = "";
    unsigned char *expected = random_bytes(POOL_BYTES, 81);
    char *first = alloc_in(POOL_STATE, POOL_BYTES), *second = alloc_in(POOL_STATE, POOL_BYTES);
    kernels->upload(first, expected, POOL_BYTES);
    assert_true(memory_of()->pool_release(POOL_STATE, true) > 0);
    const size_t whole = fake_device.memory_bytes;
    fake_device.memory_bytes = fake_memory_used() + POOL_BYTES + ((size_t)1 << 20);
    assert_false(memory_of()->pool_restore(POOL_STATE, text, sizeof text));
    assert_non_null(strstr(text, "cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY"));
    assert_int_equal(fake_vmm_bytes(), 0);
    fake_device.memory_bytes = whole;
    assert_true(memory_of()->pool_restore(POOL_STATE, text, sizeof text));
    assert_device_holds(first, expected, POOL_BYTES);
    assert_true(memory_of()->pool_release(POOL_STATE, true) > 0);
    kernels->free(first); /* freed while it is away */
    assert_true(memory_of()->pool_restore(POOL_STATE, text, sizeof text));
    kernels->free(second);
    free(expected);
}

/* ---- memory that processes share ---- */

/* In a child: another process with the same device. */
static int read_shared(int fd, const unsigned char *expected, char *by_maker)
{
    char text[TEXT_BYTES] = "";
    char *memory = memory_of()->open(fd, POOL_BYTES, text, sizeof text);
    if (memory == NULL) return 1;
    char *found = malloc(POOL_BYTES);
    kernels->download(found, memory, POOL_BYTES);
    if (memcmp(found, expected, POOL_BYTES) != 0) return 2;
    memory_of()->close(by_maker); /* what was inherited: the maker's own is another one */
    kernels->download(found, memory, POOL_BYTES);
    if (memcmp(found, expected, POOL_BYTES) != 0) return 3;
    free(found);
    memory_of()->close(memory);
    return 0;
}

static void test_shared_memory_is_read_by_another_process_and_outlives_its_maker(void **state)
{
    (void)state;
    int fd = -1, status = -1;
    char text[TEXT_BYTES] = "";
    unsigned char *expected = random_bytes(POOL_BYTES, 82), id[DEVICE_ID_BYTES],
                  again[DEVICE_ID_BYTES];
    memory_of()->identify(id);
    memory_of()->identify(again);
    assert_memory_equal(id, "bbbbbbbbbbbbbbbb", sizeof id); /* device 1 */
    assert_memory_equal(id, again, sizeof id);
    const size_t used = fake_memory_used(), reserved = fake_vmm_reserved();
    char *memory = memory_of()->share(POOL_BYTES, &fd, text, sizeof text);
    assert_non_null(memory);
    assert_true(fd >= 0);
    kernels->upload(memory, expected, POOL_BYTES);
    kernels->synchronize();
    for (int needs_writes = 0; needs_writes < 2; needs_writes++) {
        fake_reads_need_writes = needs_writes != 0;
        const pid_t child = fork();
        if (child == 0) _exit(read_shared(fd, expected, memory));
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    fake_reads_need_writes = false;
    assert_device_holds(memory, expected, POOL_BYTES);
    memory_of()->close(memory);
    memory_of()->close(NULL);
    close(fd);
    assert_int_equal(fake_memory_used(), used);
    assert_int_equal(fake_vmm_reserved(), reserved);
    free(expected);
}

static void test_memory_that_cannot_be_shared_is_refused_with_the_drivers_word(void **state)
{
    (void)state;
    int fd = -1, ends[2];
    char text[TEXT_BYTES] = "";
    const size_t used = fake_memory_used(), reserved = fake_vmm_reserved();
    assert_null(memory_of()->share((size_t)5 << 30, &fd, text, sizeof text));
    assert_non_null(strstr(text, "cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY"));
    assert_int_equal(pipe(ends), 0);
    assert_null(memory_of()->open(ends[0], POOL_BYTES, text, sizeof text));
    assert_non_null(strstr(text, "cuMemImportFromShareableHandle: CUDA_ERROR_OTHER"));
    close(ends[0]);
    close(ends[1]);
    cuda_share_nothing(true);
    assert_false(memory_of()->can_share(text, sizeof text));
    assert_null(memory_of()->share(POOL_BYTES, &fd, text, sizeof text));
    assert_string_equal(text, "this library was made to share nothing");
    cuda_share_nothing(false);
    assert_true(memory_of()->can_share(text, sizeof text));
    assert_int_equal(fd, -1);
    assert_int_equal(fake_memory_used(), used);
    assert_int_equal(fake_vmm_reserved(), reserved);
}

/* ---- graphs ---- */

#define GRAPH_BYTES 4096

/* A copy from `from` to `to`, and zeros behind it, recorded. */
static DeviceGraph *record_copy(char *to, const char *from, char *text)
{
    assert_true(kernels->graphs->begin(text, TEXT_BYTES));
    kernels->copy(to, from, GRAPH_BYTES);
    kernels->fill_zero(tensor_1d(to + GRAPH_BYTES, DTYPE_U8, 64));
    return kernels->graphs->end(text, TEXT_BYTES);
}

static void test_a_graph_reads_what_memory_holds_when_it_is_launched(void **state)
{
    (void)state;
    char text[TEXT_BYTES] = "", zeros[64] = {0};
    char *from = kernels->alloc(GRAPH_BYTES), *to = kernels->alloc(GRAPH_BYTES + 64);
    unsigned char *noise = random_bytes(GRAPH_BYTES + 64, 80);
    kernels->upload(to, noise, GRAPH_BYTES + 64);
    assert_int_equal(kernels->graphs->bytes, sizeof(DeviceGraphs));
    DeviceGraph *graph = record_copy(to, from, text);
    assert_non_null(graph);
    assert_string_equal(text, "");
    assert_device_holds(to, noise, GRAPH_BYTES + 64); /* nothing has run */
    for (uint64_t round = 0; round < 3; round++) {
        unsigned char *expected = random_bytes(GRAPH_BYTES, 81 + round);
        kernels->upload(from, expected, GRAPH_BYTES);
        kernels->graphs->launch(graph);
        kernels->upload(from, noise, GRAPH_BYTES); /* behind it */
        assert_device_holds(to, expected, GRAPH_BYTES);
        assert_device_holds(to + GRAPH_BYTES, zeros, 64);
        kernels->upload(to + GRAPH_BYTES, noise, 64);
        free(expected);
    }
    kernels->graphs->destroy(graph);
    kernels->graphs->destroy(NULL);
    assert_int_equal(fake_graphs(), 0);
    kernels->free(from);
    kernels->free(to);
    free(noise);
}

static void *copy_from_thread(void *argument)
{
    char *const *memory = argument;
    kernels->copy(memory[1], memory[0], GRAPH_BYTES);
    kernels->synchronize();
    kernels->free(kernels->alloc(10));
    return NULL;
}

static void test_other_threads_kernels_run_while_one_records(void **state)
{
    (void)state;
    pthread_t thread;
    char text[TEXT_BYTES] = "";
    char *memory[3] = {NULL};
    unsigned char *expected = random_bytes(GRAPH_BYTES, 85);
    for (int i = 0; i < 3; i++)
        memory[i] = kernels->alloc(GRAPH_BYTES);
    kernels->upload(memory[0], expected, GRAPH_BYTES);
    assert_true(kernels->graphs->begin(text, sizeof text));
    kernels->copy(memory[2], memory[0], GRAPH_BYTES);
    assert_int_equal(pthread_create(&thread, NULL, copy_from_thread, memory), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    DeviceGraph *graph = kernels->graphs->end(text, sizeof text);
    assert_device_holds(memory[1], expected, GRAPH_BYTES); /* not part of the graph */
    unsigned char *later = random_bytes(GRAPH_BYTES, 86);
    kernels->upload(memory[0], later, GRAPH_BYTES);
    kernels->graphs->launch(graph);
    assert_device_holds(memory[1], expected, GRAPH_BYTES);
    assert_device_holds(memory[2], later, GRAPH_BYTES);
    kernels->graphs->destroy(graph);
    for (int i = 0; i < 3; i++)
        kernels->free(memory[i]);
    free(expected);
    free(later);
}

static void test_recording_that_fails_says_why_and_leaves_kernels_running(void **state)
{
    (void)state;
    char *from = kernels->alloc(GRAPH_BYTES), *to = kernels->alloc(GRAPH_BYTES + 64);
    unsigned char *expected = random_bytes(GRAPH_BYTES, 87);
    const char *const said[] = {"cudaStreamBeginCapture: a sentence of the runtime",
                                "cudaStreamEndCapture: a sentence of the runtime",
                                "cudaGraphInstantiate: a sentence of the runtime",
                                "cudaGraphUpload: a sentence of the runtime",
                                "copy: a sentence of the runtime"};
    for (int fault = 1; fault <= 5; fault++) {
        char text[TEXT_BYTES] = "";
        fake_capture_fault = fault;
        if (fault == 1)
            assert_false(kernels->graphs->begin(text, sizeof text));
        else
            assert_null(record_copy(to, from, text));
        fake_capture_fault = 0;
        assert_non_null(strstr(text, said[fault - 1]));
        assert_int_equal(fake_last_error(), 0); /* which a launch would take for its own */
        assert_int_equal(fake_graphs(), 0);
        kernels->upload(from, expected, GRAPH_BYTES);
        kernels->copy(to, from, GRAPH_BYTES);
        assert_device_holds(to, expected, GRAPH_BYTES);
    }
    kernels->free(from);
    kernels->free(to);
    free(expected);
}

typedef enum { UPLOAD, DOWNLOAD, WAIT, ALLOC, FREE, NUM_CALLS } OtherCall;

/* Between two kernels, of which none may run. What is no kernel is done all the same. */
static void test_what_cannot_be_recorded_is_done_and_told(void **state)
{
    (void)state;
    const char *const said[NUM_CALLS] = {"upload", "download", "synchronize", "alloc", "free"};
    char *from = kernels->alloc(GRAPH_BYTES), *to = kernels->alloc(GRAPH_BYTES + 64), got[64];
    unsigned char *noise = random_bytes(GRAPH_BYTES + 64, 90);
    unsigned char *other = random_bytes(GRAPH_BYTES, 91);
    for (OtherCall call = UPLOAD; call < NUM_CALLS; call++) {
        char text[TEXT_BYTES] = "";
        void *block = kernels->alloc(100);
        kernels->upload(to, noise, GRAPH_BYTES + 64);
        kernels->upload(from, noise, 64);
        assert_true(kernels->graphs->begin(text, sizeof text));
        kernels->copy(to, from, GRAPH_BYTES);
        if (call == UPLOAD) kernels->upload(from, other, GRAPH_BYTES);
        if (call == DOWNLOAD) kernels->download(got, from, 64);
        if (call == WAIT) kernels->synchronize();
        if (call == FREE) kernels->free(block);
        if (call == ALLOC) kernels->free(kernels->alloc((size_t)300 << 10));
        kernels->fill_zero(tensor_1d(to, DTYPE_U8, 64));
        assert_null(kernels->graphs->end(text, sizeof text));
        assert_non_null(strstr(text, said[call]));
        assert_non_null(strstr(text, " was called while kernels are recorded"));
        assert_int_equal(fake_last_error(), 0);
        assert_int_equal(fake_graphs(), 0);
        assert_device_holds(to, noise, GRAPH_BYTES + 64); /* no kernel has run */
        if (call == UPLOAD) assert_device_holds(from, other, GRAPH_BYTES);
        if (call == DOWNLOAD) assert_memory_equal(got, noise, 64);
        if (call != FREE) kernels->free(block);
    }
    DeviceGraph *graph = record_copy(to, from, got); /* the next one is none the worse */
    assert_non_null(graph);
    kernels->graphs->destroy(graph);
    kernels->free(from);
    kernels->free(to);
    free(noise);
    free(other);
}

/* ---- errors that stop the process ---- */

/* What the process says when `run` stops it. */
static void assert_stops_with(void (*run)(void), const char *expected)
{
    int ends[2], status;
    char text[4096];
    size_t length = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        run();
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], text + length, sizeof text - 1 - length)) > 0;)
        length += (size_t)got;
    text[length] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    if (strstr(text, expected) == NULL) fail_msg("\"%s\" lacks \"%s\"", text, expected);
}

static void ask_for_too_much(void)
{
    kernels->alloc((size_t)5 << 30);
}

static void ask_a_pool_for_too_much(void)
{
    alloc_in(POOL_STATE, (size_t)5 << 30);
}

static void free_foreign_memory(void)
{
    kernels->free(&kernels);
}

static void test_out_of_memory_says_how_much_was_asked_for_and_is_free(void **state)
{
    (void)state;
    assert_stops_with(ask_for_too_much,
                      "device 1 (a card): out of memory: 5368709120 bytes asked for");
    assert_stops_with(ask_for_too_much, "of 1073741824 are free on the device");
    assert_stops_with(ask_a_pool_for_too_much, "The driver says: cuMemCreate: CUDA_ERROR_OUT");
    assert_stops_with(free_foreign_memory, "free of memory that alloc did not give");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_driver_old_driver_and_no_device_are_told_apart),
        cmocka_unit_test(test_devices_that_cannot_serve_are_refused),
        cmocka_unit_test(test_one_device_is_opened_for_good),
        cmocka_unit_test(test_every_thread_uses_the_opened_device),
        cmocka_unit_test(test_a_kernel_may_have_all_shared_memory_of_a_block),
        cmocka_unit_test(test_uploads_of_all_sizes_read_the_host_before_they_return),
        cmocka_unit_test(test_downloads_of_all_sizes_wait_for_what_comes_before),
        cmocka_unit_test(test_a_freed_block_is_given_again_and_zeroed),
        cmocka_unit_test(test_kept_blocks_are_released_before_memory_runs_out),
        cmocka_unit_test(test_a_stream_waits_for_kernels_and_the_host_does_not),
        cmocka_unit_test(test_kernels_wait_for_another_stream),
        cmocka_unit_test(test_a_thread_that_only_looks_at_events_uses_the_opened_device),
        cmocka_unit_test(test_a_lost_device_is_told_and_stops_nobody_by_itself),
        cmocka_unit_test(test_a_pool_comes_back_where_it_was_with_what_was_in_it),
        cmocka_unit_test(test_a_pool_that_finds_no_room_stays_away_whole),
        cmocka_unit_test(test_shared_memory_is_read_by_another_process_and_outlives_its_maker),
        cmocka_unit_test(test_memory_that_cannot_be_shared_is_refused_with_the_drivers_word),
        cmocka_unit_test(test_a_graph_reads_what_memory_holds_when_it_is_launched),
        cmocka_unit_test(test_other_threads_kernels_run_while_one_records),
        cmocka_unit_test(test_recording_that_fails_says_why_and_leaves_kernels_running),
        cmocka_unit_test(test_what_cannot_be_recorded_is_done_and_told),
        cmocka_unit_test(test_out_of_memory_says_how_much_was_asked_for_and_is_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
