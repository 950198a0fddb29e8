/* Tests of common/sample: the wire form of a Sample, and what it refuses. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/memory.h"
#include "base/rng.h"
#include "rollout.pb-c.h"
#include "sample/sample.h"

#define LENGTH 6

static Sample make_sample(bool log_probs)
{
    static const int32_t token[LENGTH] = {151644, 0, 872, 198, 2147483647, 7};
    static const uint8_t mask[LENGTH] = {0, 0, 0, 1, 0, 1};
    static const float log_prob[LENGTH] = {0, 0, 0, -1.5f, -INFINITY, -0.0f};
    Sample sample = {.position = 1LL << 40, .index = 3, .status = SAMPLE_TRUNCATED};
    sample.length = LENGTH;
    sample.prompt_length = 3;
    sample.reward = -0.25f;
    sample.weight_version = 12345678901;
    sample.token = memcpy(mem_alloc(sizeof token), token, sizeof token);
    sample.loss_mask = memcpy(mem_alloc(sizeof mask), mask, sizeof mask);
    if (!log_probs) return sample;
    static const VersionRun run[] = {{12345678901, 1}, {12345678903, 2}};
    sample.log_prob = memcpy(mem_alloc(sizeof log_prob), log_prob, sizeof log_prob);
    sample.temperature = 0.7f;
    sample.version_run = memcpy(mem_alloc(sizeof run), run, sizeof run);
    sample.num_version_runs = 2;
    sample.other_weights = true;
    return sample;
}

static void assert_same(const Sample *a, const Sample *b)
{
    assert_int_equal(a->position, b->position);
    assert_int_equal(a->index, b->index);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->reject_reason, b->reject_reason);
    assert_int_equal(a->length, b->length);
    assert_int_equal(a->prompt_length, b->prompt_length);
    assert_int_equal(a->weight_version, b->weight_version);
    assert_memory_equal(&a->reward, &b->reward, sizeof a->reward);
    assert_int_equal(a->token == NULL, b->token == NULL);
    assert_int_equal(a->log_prob == NULL, b->log_prob == NULL);
    assert_memory_equal(&a->temperature, &b->temperature, sizeof a->temperature);
    assert_int_equal(a->num_version_runs, b->num_version_runs);
    assert_int_equal(a->other_weights, b->other_weights);
    for (int32_t i = 0; i < a->num_version_runs; i++) {
        assert_int_equal(a->version_run[i].version, b->version_run[i].version);
        assert_int_equal(a->version_run[i].count, b->version_run[i].count);
    }
    if (a->length > 0) {
        assert_memory_equal(a->token, b->token, (size_t)a->length * 4);
        assert_memory_equal(a->loss_mask, b->loss_mask, (size_t)a->length);
        if (a->log_prob != NULL)
            assert_memory_equal(a->log_prob, b->log_prob, (size_t)a->length * 4);
    }
}

static void round_trip(Sample *sample)
{
    Error err = {0};
    uint8_t *bytes = NULL;
    size_t length = 0;
    Sample back = {0};
    sample_pack(sample, &bytes, &length);
    assert_ok(sample_unpack(bytes, length, &back, &err), &err);
    assert_same(sample, &back);
    if (sample->reject_message != NULL)
        assert_string_equal(sample->reject_message, back.reject_message);
    else
        assert_null(back.reject_message);
    free(bytes);
    sample_clear(&back);
}

static void test_sample_pack_round_trips_every_field(void **state)
{
    (void)state;
    for (int log_probs = 0; log_probs < 2; log_probs++) {
        Sample sample = make_sample(log_probs != 0);
        round_trip(&sample);
        sample_clear(&sample);
        assert_null(sample.token);
        assert_int_equal(sample.length, 0);
    }
}

static void test_sample_pack_round_trips_rejection(void **state)
{
    (void)state;
    Sample sample = {.position = 9, .status = SAMPLE_REJECTED};
    sample.reject_reason = REJECT_TEMPLATE;
    sample.reject_message = mem_strdup("train.jsonl:7: r\xc3\xb4le inconnu");
    round_trip(&sample);
    sample_clear(&sample);
}

static void test_sample_meta_counts_trained_tokens(void **state)
{
    (void)state;
    Sample sample = make_sample(false);
    SampleMeta meta = sample_meta(&sample);
    assert_int_equal(meta.position, sample.position);
    assert_int_equal(meta.length, LENGTH);
    assert_int_equal(meta.trained_tokens, 2);
    assert_int_equal(meta.status, SAMPLE_TRUNCATED);
    assert_int_equal(meta.weight_version, 12345678901);
    sample_clear(&sample);
}

static void test_sample_says_which_weights_made_a_token(void **state)
{
    (void)state;
    Sample sample = make_sample(true);
    assert_int_equal(sample_version_at(&sample, 3), 12345678901);
    assert_int_equal(sample_version_at(&sample, 4), 12345678903);
    assert_int_equal(sample_version_at(&sample, 5), 12345678903);
    sample.num_version_runs = 0;
    assert_int_equal(sample_version_at(&sample, 5), 12345678901);
    sample_clear(&sample);
}

static void test_sample_without_log_probs_is_no_policys(void **state)
{
    (void)state;
    Error err = {0};
    Sample sample = make_sample(false);
    assert_fails(sample_check_policy(&sample, &err), ERR_DATA, &err, "/3 has no log-probs");
    memset(sample.loss_mask, 0, LENGTH);
    assert_ok(sample_check_policy(&sample, &err), &err);
    sample_clear(&sample);
    sample = make_sample(true);
    assert_ok(sample_check_policy(&sample, &err), &err);
    sample_clear(&sample);
}

static void test_sample_names_cover_every_value(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_STATUS_COUNT; i++)
        assert_string_not_equal(sample_status_name((SampleStatus)i), "unknown");
    for (int i = 0; i < REJECT_REASON_COUNT; i++)
        assert_string_not_equal(reject_reason_name((RejectReason)i), "unknown");
    assert_string_equal(sample_status_name((SampleStatus)77), "unknown");
}

/* Packs a message that sample_pack could not make and expects its refusal. */
static void refuse(const Troupe__Sample *message, const char *text)
{
    Error err = {0};
    Sample untouched = {.position = 77};
    size_t length = troupe__sample__get_packed_size(message);
    uint8_t *bytes = mem_alloc(length);
    troupe__sample__pack(message, bytes);
    assert_fails(sample_unpack(bytes, length, &untouched, &err), ERR_DATA, &err, text);
    assert_int_equal(untouched.position, 77);
    assert_null(untouched.token);
    free(bytes);
}

static Troupe__Sample make_message(int32_t *token, uint8_t *mask, float *log_prob)
{
    Troupe__Sample message = TROUPE__SAMPLE__INIT;
    message.prompt_length = 1;
    message.token = (ProtobufCBinaryData){8, (uint8_t *)token};
    message.loss_mask = (ProtobufCBinaryData){2, mask};
    message.log_prob = (ProtobufCBinaryData){8, (uint8_t *)log_prob};
    message.temperature = 1;
    return message;
}

static void test_sample_unpack_refuses_what_does_not_fit_together(void **state)
{
    (void)state;
    int32_t token[2] = {1, 2}, negative[2] = {1, -2};
    uint8_t mask[2] = {0, 1}, first[2] = {1, 1}, two[2] = {0, 2};
    float log_prob[2] = {0, -1}, not_a_number[2] = {0, NAN};
    const Troupe__Sample good = make_message(token, mask, log_prob);
    Troupe__Sample bad = good;
    bad.token.len = 7;
    refuse(&bad, "token has 7 bytes");
    bad = good;
    bad.loss_mask.len = 1;
    refuse(&bad, "loss_mask has 1 entries for 2 tokens");
    bad = good;
    bad.log_prob.len = 4;
    refuse(&bad, "log_prob has 4 bytes, expected none or 8");
    bad = good;
    bad.prompt_length = 3;
    refuse(&bad, "prompt_length is 3 of 2");
    bad = (Troupe__Sample)TROUPE__SAMPLE__INIT;
    refuse(&bad, "completed holds 0 token bytes");
    bad = good;
    bad.status = SAMPLE_STATUS_COUNT;
    refuse(&bad, "status 4");
    bad = good;
    bad.status = SAMPLE_REJECTED;
    refuse(&bad, "does not go with reject_reason none");
    bad.reject_reason = REJECT_TOO_LONG;
    refuse(&bad, "rejected holds 8 token bytes");
    bad = good;
    bad.reject_message = "why?";
    refuse(&bad, "not rejected");
    bad = good;
    bad.position = 1ULL << 63;
    refuse(&bad, "position 9223372036854775808");
    bad = good;
    bad.index = 1u << 31;
    refuse(&bad, "index 2147483648");
    bad = good;
    bad.reward = NAN;
    refuse(&bad, "reward");
    bad = make_message(negative, mask, log_prob);
    refuse(&bad, "token 1 has the negative id -2");
    bad = make_message(token, first, log_prob);
    refuse(&bad, "loss_mask[0] is 1");
    bad = make_message(token, two, log_prob);
    refuse(&bad, "loss_mask[1] is 2");
    bad = make_message(token, mask, not_a_number);
    refuse(&bad, "log_prob[1] is not a number");
}

static void test_sample_unpack_refuses_what_no_policy_sampled(void **state)
{
    (void)state;
    int32_t token[2] = {1, 2};
    uint8_t mask[2] = {0, 1};
    float log_prob[2] = {0, -1}, above[2] = {0, 0.25f}, impossible[2] = {0, -INFINITY};
    Troupe__Sample bad = make_message(token, mask, above);
    refuse(&bad, "log_prob[1] is 0.25, but the token is to be trained");
    bad = make_message(token, mask, impossible);
    refuse(&bad, "log_prob[1] is -inf");
    bad = make_message(token, mask, log_prob);
    bad.temperature = 0;
    refuse(&bad, "log_prob has 8 bytes at temperature 0, expected both or neither");
    bad.temperature = NAN;
    refuse(&bad, "temperature is nan");
    bad.temperature = 1;
    bad.log_prob.len = 0;
    refuse(&bad, "log_prob has 0 bytes at temperature 1");
}

static void test_sample_unpack_refuses_versions_that_do_not_cover_the_tokens(void **state)
{
    (void)state;
    int32_t token[3] = {1, 2, 3};
    uint8_t mask[3] = {0, 1, 1};
    float log_prob[3] = {0, -1, -2};
    Troupe__Sample good = make_message(token, mask, log_prob), bad;
    good.token.len = good.log_prob.len = 12;
    good.loss_mask.len = 3;
    good.weight_version = 5;
    uint64_t versions[] = {5, 6}, falling[] = {5, 5}, later[] = {6, 7}, huge[] = {5, 1ULL << 63};
    uint32_t counts[] = {1, 1}, few[] = {1, 0}, many[] = {1, 2};
    good.n_run_version = good.n_run_count = 2;
    good.run_version = versions;
    good.run_count = counts;
    size_t length = troupe__sample__get_packed_size(&good);
    uint8_t *bytes = mem_alloc(length);
    troupe__sample__pack(&good, bytes);
    Sample sample = {0};
    Error err = {0};
    assert_ok(sample_unpack(bytes, length, &sample, &err), &err);
    assert_int_equal(sample_version_at(&sample, 2), 6);
    sample_clear(&sample);
    free(bytes);
    bad = good;
    bad.run_version = falling;
    refuse(&bad, "run 1 is of version 5, expected ascending");
    bad.run_version = later;
    refuse(&bad, "run 0 is of version 6");
    bad.run_version = huge;
    refuse(&bad, "run 1 is of version 9223372036854775808");
    bad = good;
    bad.run_count = few;
    refuse(&bad, "run 1 has 0 tokens");
    bad.run_count = many;
    refuse(&bad, "run 1 has 2 tokens, 1 are left");
    bad = good;
    bad.n_run_version = bad.n_run_count = 1;
    refuse(&bad, "leave out 1 tokens");
    bad.n_run_version = 2;
    refuse(&bad, "run_version has 2 entries, run_count 1");
    bad = good;
    bad.log_prob.len = 0;
    bad.temperature = 0;
    refuse(&bad, "2 runs of versions, but no log-probs");
}

static void test_sample_unpack_refuses_too_many_tokens(void **state)
{
    (void)state;
    size_t count = (size_t)SAMPLE_TOKENS_MAX + 1;
    int32_t *token = mem_calloc(count, 4);
    uint8_t *mask = mem_calloc(count, 1);
    Troupe__Sample message = TROUPE__SAMPLE__INIT;
    message.token = (ProtobufCBinaryData){count * 4, (uint8_t *)token};
    message.loss_mask = (ProtobufCBinaryData){count, mask};
    refuse(&message, "at most 4194304 tokens");
    free(token);
    free(mask);
}

/* Cut and flipped messages: refused, or understood as something that again fits together. */
static void test_sample_unpack_survives_damage(void **state)
{
    (void)state;
    Sample sample = make_sample(true);
    uint8_t *bytes = NULL;
    size_t length = 0;
    sample_pack(&sample, &bytes, &length);
    for (uint64_t round = 0; round < 20000; round++) {
        uint8_t *copy = memcpy(mem_alloc(length), bytes, length);
        size_t cut = round % 2 == 0 ? length : (size_t)rng_below(1, round, length);
        if (round % 2 == 0)
            copy[rng_below(2, round, length)] ^= (uint8_t)(1u << rng_below(3, round, 8));
        Error err = {0};
        Sample back = {0};
        if (sample_unpack(copy, cut, &back, &err) == OK) {
            round_trip(&back);
            sample_clear(&back);
        } else {
            assert_int_equal(err.status, ERR_DATA);
        }
        free(copy);
    }
    free(bytes);
    sample_clear(&sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sample_pack_round_trips_every_field),
        cmocka_unit_test(test_sample_pack_round_trips_rejection),
        cmocka_unit_test(test_sample_meta_counts_trained_tokens),
        cmocka_unit_test(test_sample_says_which_weights_made_a_token),
        cmocka_unit_test(test_sample_without_log_probs_is_no_policys),
        cmocka_unit_test(test_sample_names_cover_every_value),
        cmocka_unit_test(test_sample_unpack_refuses_what_does_not_fit_together),
        cmocka_unit_test(test_sample_unpack_refuses_what_no_policy_sampled),
        cmocka_unit_test(test_sample_unpack_refuses_versions_that_do_not_cover_the_tokens),
        cmocka_unit_test(test_sample_unpack_refuses_too_many_tokens),
        cmocka_unit_test(test_sample_unpack_survives_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
