/* What a request may ask for, and the noise behind its tokens. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "rollout_worker/engine/sampling.h"

static SamplingParams valid(void)
{
    SamplingParams params = sampling_defaults();
    params.max_new_tokens = 10;
    return params;
}

static void test_defaults_are_those_of_training(void **state)
{
    (void)state;
    Error err = {0};
    SamplingParams params = valid();
    assert_ok(sampling_check(&params, 100, &err), &err);
    assert_true(sampling_is_plain(&params));
    params = sampling_defaults();
    assert_fails(sampling_check(&params, 100, &err), ERR_INVALID, &err,
                 "max_new_tokens is 0, allowed is 1 or more");
}

static void test_wrong_numbers_are_refused_by_name(void **state)
{
    (void)state;
    Error err = {0};
    struct {
        SamplingParams params;
        const char *message;
    } cases[16];
    int n = 0;
#define CASE(field, value, text)                                                                   \
    do {                                                                                           \
        cases[n].params = valid();                                                                 \
        cases[n].params.field = (value);                                                           \
        cases[n++].message = (text);                                                               \
    } while (0)
    CASE(temperature, -1.0, "temperature is -1, allowed is 0 (the most likely token");
    CASE(temperature, 1e-6, "temperature is 1e-06");
    CASE(temperature, 0.0 / 0.0, "temperature is");
    CASE(top_p, 0.0, "top_p is 0, allowed is above 0");
    CASE(top_p, 1.5, "top_p is 1.5");
    CASE(top_k, -2, "top_k is -2, allowed is 1 or more, or 0 or -1");
    CASE(min_p, 1.1, "min_p is 1.1");
    CASE(repetition_penalty, 0.0, "repetition_penalty is 0");
    CASE(frequency_penalty, 2.1, "frequency_penalty is 2.1");
    CASE(presence_penalty, -3.0, "presence_penalty is -3");
    CASE(max_new_tokens, -1, "max_new_tokens is -1");
    CASE(min_new_tokens, 11, "min_new_tokens is 11, allowed is 0 to max_new_tokens");
#undef CASE
    for (int i = 0; i < n; i++)
        assert_fails(sampling_check(&cases[i].params, 100, &err), ERR_INVALID, &err,
                     cases[i].message);
}

static void test_wrong_stops_are_refused_by_place(void **state)
{
    (void)state;
    Error err = {0};
    char longest[SAMPLING_STOP_BYTES_MAX + 2];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    const char *const wrong[] = {"", "\xC3", longest};
    const char *const messages[] = {"stop[1] has 0 bytes", "stop[1] is not UTF-8",
                                    "stop[1] has 257 bytes, allowed are 1 to 256"};
    for (int i = 0; i < 3; i++) {
        const char *const stop[] = {"fine", wrong[i]};
        SamplingParams params = valid();
        params.stop = stop;
        params.num_stop = 2;
        assert_fails(sampling_check(&params, 100, &err), ERR_INVALID, &err, messages[i]);
    }
    const int32_t ids[] = {99, 100};
    SamplingParams params = valid();
    params.stop_token_id = ids;
    params.num_stop_token_ids = 2;
    assert_fails(sampling_check(&params, 100, &err), ERR_INVALID, &err,
                 "stop_token_ids[1] is 100, the model's ids are 0 to 99");
    assert_ok(sampling_check(&params, 101, &err), &err);
    params.num_stop = SAMPLING_STOPS_MAX + 1;
    assert_fails(sampling_check(&params, 101, &err), ERR_INVALID, &err, "65 stop strings");
}

static void test_copy_owns_its_stops(void **state)
{
    (void)state;
    char text[] = "stop";
    const char *const stop[] = {text};
    int32_t id = 7;
    SamplingParams params = valid(), copy;
    params.stop = stop;
    params.num_stop = 1;
    params.stop_token_id = &id;
    params.num_stop_token_ids = 1;
    sampling_copy(&copy, &params);
    text[0] = 'x';
    id = 8;
    assert_string_equal(copy.stop[0], "stop");
    assert_int_equal(copy.stop_token_id[0], 7);
    sampling_clear(&copy);
    assert_int_equal(copy.num_stop, 0);
}

/* Each part of the key changes the draw, and draws fill [0, 1) evenly: chi-square of 64 cells. */
static void test_noise_is_uniform_in_every_part_of_its_key(void **state)
{
    (void)state;
    enum { CELLS = 64, DRAWS = 64000 };
    for (int part = 0; part < 4; part++) {
        int seen[CELLS] = {0};
        double chi_square = 0.0, expected = (double)DRAWS / CELLS;
        for (int i = 0; i < DRAWS; i++) {
            NoiseKey key = {5, 6, 7};
            if (part == 0) key.seed = (uint64_t)i;
            if (part == 1) key.sample = (uint64_t)i;
            if (part == 2) key.index = (uint32_t)i;
            double u = sampling_noise(&key, part == 3 ? i : 8);
            assert_true(u >= 0.0 && u < 1.0);
            seen[(int)(u * CELLS)]++;
        }
        for (int c = 0; c < CELLS; c++)
            chi_square += (seen[c] - expected) * (seen[c] - expected) / expected;
        /* 63 degrees of freedom: 1 in 10^5 lies above 122, and 1 in 10^5 below 25. */
        if (chi_square < 25.0 || chi_square > 122.0) fail_msg("part %d: %g", part, chi_square);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_those_of_training),
        cmocka_unit_test(test_wrong_numbers_are_refused_by_name),
        cmocka_unit_test(test_wrong_stops_are_refused_by_place),
        cmocka_unit_test(test_copy_owns_its_stops),
        cmocka_unit_test(test_noise_is_uniform_in_every_part_of_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
