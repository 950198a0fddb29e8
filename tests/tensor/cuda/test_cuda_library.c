/* libtroupe_cuda.so as the loader finds it, on a machine with a GPU or without: it loads, says what
 * it is, and what it misses in a sentence. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/cuda/library.h"
#include "test.h"

static const CudaLibrary *library;

static int load(void **state)
{
    (void)state;
    void *file = dlopen(PROJECT_BINARY_DIR "/bin/" CUDA_LIBRARY_NAME, RTLD_NOW | RTLD_LOCAL);
    if (file == NULL) fail_msg("%s", dlerror());
    const CudaLibrary *(*get)(void);
    *(void **)&get = dlsym(file, CUDA_LIBRARY_SYMBOL);
    assert_non_null(get);
    library = get();
    return 0;
}

static void test_library_is_of_this_source(void **state)
{
    (void)state;
    assert_int_equal(library->abi, CUDA_LIBRARY_ABI);
    assert_int_equal(library->kernel_table_bytes, sizeof(KernelTable));
    assert_int_equal(library->streams()->bytes, sizeof(DeviceStreams));
}

/* A device number, and what stands in `text` when it is not there. */
static void assert_refuses(int device)
{
    char text[512] = "";
    CudaDevice found = {.sm = -1};
    assert_false(library->describe(device, &found, text, sizeof text));
    assert_int_equal(found.sm, -1);
    assert_true(strlen(text) > 20);
    text[0] = '\0';
    assert_null(library->open(device, text, sizeof text));
    assert_true(strlen(text) > 20);
}

static void test_devices_are_counted_or_their_lack_is_explained(void **state)
{
    (void)state;
    char text[512] = "";
    int count = library->count(text, sizeof text);
    if (count == 0) {
        assert_non_null(strstr(text, "NVIDIA driver"));
        assert_refuses(0);
        return;
    }
    assert_string_equal(text, "");
    assert_refuses(count);
}

static void test_sentences_are_cut_to_their_place(void **state)
{
    (void)state;
    char text[8] = "", beyond[8] = "beyond";
    assert_false(library->describe(999, &(CudaDevice){0}, text, sizeof text));
    assert_int_equal(strlen(text), sizeof text - 1);
    assert_string_equal(beyond, "beyond");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_library_is_of_this_source),
        cmocka_unit_test(test_devices_are_counted_or_their_lack_is_explained),
        cmocka_unit_test(test_sentences_are_cut_to_their_place),
    };
    return cmocka_run_group_tests(tests, load, NULL);
}
