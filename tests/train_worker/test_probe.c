/* The measured matrix rate that MFU is a share of. */
#include "test.h"

#include "probe.h"

static int64_t last_flops;
static int calls, waits;

static void product_in_no_time(Tensor y, Tensor x, const Weight *w)
{
    last_flops = 2 * x.shape[0] * x.shape[1] * w->plain.shape[0];
    assert_int_equal(y.shape[1], w->plain.shape[0]);
    calls++;
}

static void count_wait(void)
{
    waits++;
}

/* On a device that is too fast for small products it would be measured how soon a call begins. */
static void test_probe_gives_a_fast_device_more_to_do(void **state)
{
    (void)state;
    KernelTable fast = *cpu_kernels(1);
    fast.host_memory = false;
    fast.matmul = product_in_no_time;
    fast.synchronize = count_wait;
    Probe *probe = probe_create(&fast, DTYPE_BF16);
    calls = waits = 0;
    probe_run(probe);
    assert_true(last_flops == 2ll * 2048 * 4096 * 4096);
    assert_true(waits > 0 && calls == 8 * waits);
    assert_true(probe_rate(probe) > 0);
    probe_destroy(probe);
}

static void test_probe_keeps_the_highest_rate(void **state)
{
    (void)state;
    const DType types[] = {DTYPE_F32, DTYPE_BF16};
    for (int t = 0; t < 2; t++) {
        Probe *probe = probe_create(cpu_kernels(1), types[t]);
        assert_true(probe_rate(probe) == 0);
        double last = 0;
        for (int i = 0; i < 4; i++) {
            probe_run(probe);
            assert_true(probe_rate(probe) >= last);
            last = probe_rate(probe);
        }
        assert_true(last > 1e6 && last < 1e15); /* FLOP/s, not GFLOP/s, of one core */
        probe_destroy(probe);
    }
}

static void test_probe_is_repeated_ever_more_seldom(void **state)
{
    (void)state;
    int early = 0, all = 0;
    for (int64_t step = 0; step < 100000; step++) {
        if (!probe_is_due(step)) continue;
        early += step <= 4;
        all++;
    }
    assert_int_equal(early, 2);
    assert_int_equal(all, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe_keeps_the_highest_rate),
        cmocka_unit_test(test_probe_gives_a_fast_device_more_to_do),
        cmocka_unit_test(test_probe_is_repeated_ever_more_seldom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
