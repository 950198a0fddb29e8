/* Tests of what is found of GPUs, with a library in NVML's place (nvml_library.c). */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "agent/gpu_inventory.h"

static GpuInventory found;

/* NULL: not set. */
static void read_case(const char *name, const char *visible)
{
    setenv("TEST_NVML", name, 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
    if (visible != NULL) setenv("CUDA_VISIBLE_DEVICES", visible, 1);
    gpu_inventory_read(&found);
    unsetenv("CUDA_VISIBLE_DEVICES");
}

static void assert_none(const char *why)
{
    assert_int_equal(found.count, 0);
    if (strstr(found.why_none, why) == NULL) fail_msg("\"%s\" lacks \"%s\"", found.why_none, why);
}

static void test_gpus_have_ids_memory_and_cpus_near_them(void **state)
{
    (void)state;
    read_case("two", NULL);
    assert_int_equal(found.count, 2);
    assert_string_equal(found.why_none, "");
    assert_string_equal(found.gpu[0].id, "GPU-a000-of-a-test");
    assert_string_equal(found.gpu[1].id, "GPU-b000-of-a-test");
    assert_string_equal(found.gpu[1].name, "Test GPU");
    assert_true(found.gpu[1].memory_bytes == (int64_t)80 << 30);
    assert_true(CPU_COUNT(&found.gpu[1].cpus) == 1 && CPU_ISSET(1, &found.gpu[1].cpus));
    assert_ptr_equal(gpu_inventory_freest(&found), &found.gpu[1]);
}

static void test_cuda_visible_devices_hides_what_it_hides_from_cuda(void **state)
{
    const struct {
        const char *visible, *first;
        int count;
    } cases[] = {
        {"0,1", "GPU-a000-of-a-test", 2},    {"1", "GPU-b000-of-a-test", 1},
        {" 1 , 0", "GPU-a000-of-a-test", 2}, {"GPU-b", "GPU-b000-of-a-test", 1},
        {"0,-1,1", "GPU-a000-of-a-test", 1}, {"7,GPU-b000-of-a-test", "GPU-b000-of-a-test", 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        read_case("two", cases[i].visible);
        assert_int_equal(found.count, cases[i].count);
        assert_string_equal(found.gpu[0].id, cases[i].first);
    }
    read_case("two", "");
    assert_none("of 2 that are there CUDA_VISIBLE_DEVICES= shows none");
    read_case("two", "GPU-of-another-machine");
    assert_none("CUDA_VISIBLE_DEVICES=GPU-of-another-machine shows none");
}

static void test_instances_stand_for_a_divided_gpu(void **state)
{
    (void)state;
    read_case("divided", NULL);
    assert_int_equal(found.count, 2);
    assert_string_equal(found.gpu[0].id, "MIG-instance-1");
    assert_string_equal(found.gpu[1].id, "MIG-instance-2");
    assert_true(found.gpu[1].memory_bytes == (int64_t)40 << 30);
    assert_true(CPU_ISSET(0, &found.gpu[1].cpus)); /* the whole GPU's */
}

static void test_a_machine_without_gpus_says_why(void **state)
{
    const char *library = getenv("TROUPE_NVML_LIBRARY");
    char before[4096];
    (void)state;
    strncpy(before, library, sizeof before - 1);
    before[sizeof before - 1] = '\0';
    read_case("none", NULL);
    assert_none("the NVIDIA driver sees none");
    assert_null(gpu_inventory_freest(&found));
    read_case("no_driver", NULL);
    assert_none("NVML does not start: Driver Not Loaded");
    read_case("lost", NULL);
    assert_none("NVML does not show a GPU: GPU is lost");
    setenv("TROUPE_NVML_LIBRARY", "/nowhere/nvml.so", 1);
    read_case("two", NULL);
    assert_none("/nowhere/nvml.so cannot be loaded: there is no NVIDIA driver");
    setenv("TROUPE_NVML_LIBRARY", "libm.so.6", 1);
    read_case("two", NULL);
    assert_none("NVML has no nvmlErrorString: the driver is too old");
    setenv("TROUPE_NVML_LIBRARY", before, 1);
}

int main(void)
{
    setenv("TROUPE_NVML_LIBRARY", PROJECT_BINARY_DIR "/bin/nvml_library.so", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpus_have_ids_memory_and_cpus_near_them),
        cmocka_unit_test(test_cuda_visible_devices_hides_what_it_hides_from_cuda),
        cmocka_unit_test(test_instances_stand_for_a_divided_gpu),
        cmocka_unit_test(test_a_machine_without_gpus_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
