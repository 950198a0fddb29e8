/* Tests of opening a device: where its library is looked for, and that each that is not fit is
 * refused with what was found, what is expected and what to do. */
#include "test.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "tensor/device.h"

#define LIBRARIES PROJECT_BINARY_DIR "/bin/"
/* device_library.c's other one is six above. */
#define OUR_ABI   "3"
#define OTHER_ABI "9"
#define EXE       "/proc/self/exe"

static Status open_library(const char *path, Error *err)
{
    const KernelTable *kernels = NULL;
    DeviceOptions options = {.num_threads = 1, .library = path};
    Status status = device_open(DEVICE_CUDA, &options, &kernels, NULL, err);
    assert_true((status == OK) == (kernels != NULL));
    return status;
}

static void test_libraries_that_are_not_fit_are_refused(void **state)
{
    Error err = {0};
    (void)state;
    assert_fails(open_library(LIBRARIES "device_no_symbol.so", &err), ERR_UNSUPPORTED, &err,
                 "does not export troupe_cuda_library");
    assert_fails(open_library(LIBRARIES "device_abi.so", &err), ERR_UNSUPPORTED, &err,
                 "is made for interface " OTHER_ABI ", expected interface " OUR_ABI);
    assert_fails(open_library(LIBRARIES "device_size.so", &err), ERR_UNSUPPORTED, &err,
                 "Build it and this program from the same source");
    char sizes[96];
    snprintf(sizes, sizeof sizes, "of %zu bytes, expected %zu bytes",
             sizeof(KernelTable) - sizeof(void *), sizeof(KernelTable));
    assert_non_null(strstr(err.message, sizes));
    assert_fails(open_library(LIBRARIES "device_streams.so", &err), ERR_UNSUPPORTED, &err,
                 "has a table of streams of");
    assert_fails(open_library(LIBRARIES "device_memory.so", &err), ERR_UNSUPPORTED, &err,
                 "has a table of memory of");
    assert_fails(open_library("/nowhere/libtroupe_cuda.so", &err), ERR_RESOURCE, &err,
                 "there is no file /nowhere/libtroupe_cuda.so");
    assert_fails(open_library(TEST_SOURCE_DIR "/tensor/test_device.c", &err), ERR_RESOURCE, &err,
                 "cannot be loaded: ");
}

static void test_machines_that_are_not_fit_are_refused(void **state)
{
    Error err = {0};
    (void)state;
    assert_fails(open_library(LIBRARIES "device_no_device.so", &err), ERR_RESOURCE, &err,
                 "there is no CUDA device: no driver answers");
    assert_fails(open_library(LIBRARIES "device_undescribed.so", &err), ERR_RESOURCE, &err,
                 "does not say what it is: error 999");
    assert_fails(open_library(LIBRARIES "device_old.so", &err), ERR_UNSUPPORTED, &err,
                 "has compute capability 7.5, expected 8.0 or more");
    assert_fails(open_library(LIBRARIES "device_busy.so", &err), ERR_RESOURCE, &err,
                 "cannot be opened: another process holds it");
}

static void test_a_fit_library_gives_its_kernels_and_says_what_they_run_on(void **state)
{
    Error err = {0};
    const KernelTable *kernels = NULL, *again = NULL;
    DeviceInfo info = {.name = ""};
    DeviceOptions options = {.library = LIBRARIES "device_fenced.so"};
    (void)state;
    assert_ok(device_open(DEVICE_CUDA, &options, &kernels, &info, &err), &err);
    assert_false(kernels->host_memory);
    assert_string_equal(info.name, "Test device without hardware");
    assert_string_equal(info.text,
                        "Test device without hardware (sm_90, 0000:1b:00.0), 3.0 of 4.0 GiB free, "
                        "CUDA driver 13.2, runtime 13.0");
    assert_int_equal(info.memory_free, (int64_t)3 << 30);
    assert_null(info.note);
    assert_non_null(info.streams);
    assert_int_equal(info.streams->bytes, sizeof(DeviceStreams));
    assert_non_null(info.memory);
    assert_int_equal(info.memory->bytes, sizeof(DeviceMemory));
    assert_ok(device_open(DEVICE_CUDA, &options, &again, NULL, &err), &err);
    assert_ptr_equal(again, kernels);

    float up[16] = {[3] = 4.5f}, down[16] = {0};
    void *there = kernels->alloc(sizeof up);
    kernels->upload(there, up, sizeof up);
    kernels->download(down, there, sizeof down);
    assert_memory_equal(up, down, sizeof up);
    kernels->free(there);
}

static void test_the_cpu_is_a_device(void **state)
{
    Error err = {0};
    const KernelTable *kernels = NULL;
    DeviceInfo info = {.name = ""};
    (void)state;
    assert_ok(device_open(DEVICE_CPU, &(DeviceOptions){.num_threads = 2}, &kernels, &info, &err),
              &err);
    assert_true(kernels->host_memory);
    assert_string_equal(info.text, "CPU, 2 threads");
    assert_null(info.streams);
    assert_null(info.memory);
    assert_true(info.memory_total > 0 && info.memory_free <= info.memory_total);
    assert_string_equal(device_kind_name(DEVICE_CPU), "cpu");
    assert_string_equal(device_kind_name(DEVICE_CUDA), "cuda");
}

/* ---- where it is looked for: by this program in another folder, with `open` as its argument ----
 */

static int say_what_opens(void)
{
    const KernelTable *kernels = NULL;
    DeviceInfo info;
    Error err = {0};
    Status status = device_open(DEVICE_CUDA, &(DeviceOptions){0}, &kernels, &info, &err);
    puts(status == OK ? info.text : err.message);
    return 0;
}

/* `environment` stands before the command. */
static void run_copy(const char *environment, char *ret, size_t size)
{
    char command[3 * PATH_MAX];
    snprintf(command, sizeof command, "%s place/bin/program open", environment);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    ret[fread(ret, 1, size - 1, output)] = '\0';
    assert_int_equal(pclose(output), 0);
}

static void put(const char *library, const char *path)
{
    unlink(path);
    assert_int_equal(symlink(library, path), 0);
}

static void test_the_library_is_looked_for_beside_the_program_first(void **state)
{
    Error err = {0};
    char said[4096], expected[PATH_MAX + 64], self[PATH_MAX], here[PATH_MAX];
    (void)state;
    assert_ok(folder_remove("place", &err), &err);
    assert_ok(folder_create("place/bin", &err), &err);
    assert_ok(folder_create("place/lib", &err), &err);
    assert_ok(folder_create("place/other", &err), &err);
    assert_non_null(realpath(EXE, self));
    assert_int_equal(link(self, "place/bin/program"), 0);
    assert_non_null(realpath("place", here));

    run_copy("env -u TROUPE_CUDA_LIBRARY", said, sizeof said);
    snprintf(expected, sizeof expected, "stands neither in %s/bin nor in %s/lib nor where", here,
             here);
    if (strstr(said, expected) == NULL) fail_msg("said: %s, expected: %s", said, expected);
#ifdef BUILDS_CUDA_LIBRARY
    assert_non_null(strstr(said, "This build makes one: build it (ninja -C build programs)"));
#else
    assert_non_null(strstr(said, "configure it anew where nvcc is"));
#endif
    assert_non_null(strstr(said, "TROUPE_CUDA_LIBRARY"));

    put(LIBRARIES "device_old.so", "place/other/libtroupe_cuda.so");
    run_copy("LD_LIBRARY_PATH=place/other", said, sizeof said);
    assert_non_null(strstr(said, "compute capability 7.5"));

    put(LIBRARIES "device_busy.so", "place/lib/libtroupe_cuda.so");
    run_copy("LD_LIBRARY_PATH=place/other", said, sizeof said);
    assert_non_null(strstr(said, "another process holds it"));

    put(LIBRARIES "device_fenced.so", "place/bin/libtroupe_cuda.so");
    run_copy("LD_LIBRARY_PATH=place/other", said, sizeof said);
    assert_non_null(strstr(said, "Test device without hardware (sm_90"));

    run_copy("TROUPE_CUDA_LIBRARY=" LIBRARIES "device_abi.so", said, sizeof said);
    assert_non_null(strstr(said, "made for interface " OTHER_ABI));

    put(LIBRARIES "device_size.so", "near.so");
    run_copy("TROUPE_CUDA_LIBRARY=near.so", said, sizeof said);
    assert_non_null(strstr(said, "has a table of kernels of"));

    run_copy("TROUPE_CUDA_LIBRARY=gone.so", said, sizeof said);
    assert_non_null(strstr(said, "there is no file gone.so"));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "open") == 0) return say_what_opens();
    unsetenv("CUDA_VISIBLE_DEVICES");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_libraries_that_are_not_fit_are_refused),
        cmocka_unit_test(test_machines_that_are_not_fit_are_refused),
        cmocka_unit_test(test_a_fit_library_gives_its_kernels_and_says_what_they_run_on),
        cmocka_unit_test(test_the_cpu_is_a_device),
        cmocka_unit_test(test_the_library_is_looked_for_beside_the_program_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
