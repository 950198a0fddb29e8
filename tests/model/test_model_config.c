/* Tests of config.json reading, of the model's arithmetic (parameters, FLOPs) and of the learning
 * rate. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"
#include "model/lr_schedule.h"
#include "model/model_config.h"

/* Qwen3-0.6B as published. */
static const char *const QWEN3_06B =
    "{\"architectures\": [\"Qwen3ForCausalLM\"], \"attention_bias\": false, "
    "\"attention_dropout\": 0.0, \"head_dim\": 128, \"hidden_act\": \"silu\", \"hidden_size\": "
    "1024, "
    "\"initializer_range\": 0.02, \"intermediate_size\": 3072, \"max_position_embeddings\": 40960, "
    "\"model_type\": \"qwen3\", \"num_attention_heads\": 16, \"num_hidden_layers\": 28, "
    "\"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-06, \"rope_scaling\": null, "
    "\"rope_theta\": 1000000, \"sliding_window\": null, \"tie_word_embeddings\": true, "
    "\"torch_dtype\": \"bfloat16\", \"use_sliding_window\": false, \"vocab_size\": 151936}";

static Status parse(const char *text, ModelConfig *config, Error *err)
{
    return model_config_parse(text, strlen(text), "config.json", config, err);
}

/* The published text with `old` replaced by `new_text`. */
static const char *changed(const char *old, const char *new_text)
{
    static char text[4096];
    const char *at = strstr(QWEN3_06B, old);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - QWEN3_06B), QWEN3_06B, new_text,
             at + strlen(old));
    return text;
}

static void test_config_reads_published_qwen3(void **state)
{
    (void)state;
    Error err = {0};
    ModelConfig config;
    assert_ok(parse(QWEN3_06B, &config, &err), &err);
    assert_int_equal(config.architecture, ARCHITECTURE_QWEN3);
    assert_int_equal(config.vocab_size, 151936);
    assert_int_equal(config.head_dim, 128);
    assert_true(config.qk_norm && config.tie_word_embeddings);
    assert_true(config.rope_theta == 1e6 && config.rms_norm_eps == 1e-6f);
    /* 0.596 B, of which 0.440 B are not embedding: the model card's figures */
    assert_int_equal(model_config_parameters(&config), 596049920);
    /* newer files keep RoPE in rope_parameters */
    const char *newer =
        changed("\"rope_theta\": 1000000",
                "\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"default\"}");
    assert_ok(parse(newer, &config, &err), &err);
    assert_true(config.rope_theta == 5e5);
}

static void test_config_refuses_what_it_would_compute_wrongly(void **state)
{
    (void)state;
    static const struct {
        const char *old, *new_text;
        Status status;
        const char *message;
    } CASES[] = {
        {"\"qwen3\"", "\"mamba\"", ERR_UNSUPPORTED,
         "\"mamba\" is not one this build can train (it knows: qwen3"},
        {"\"attention_bias\": false", "\"attention_bias\": true", ERR_UNSUPPORTED,
         "attention_bias"},
        {"\"use_sliding_window\": false", "\"use_sliding_window\": true", ERR_UNSUPPORTED,
         "use_sliding_window"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"yarn\"}", ERR_UNSUPPORTED,
         "\"yarn\""},
        {"\"silu\"", "\"gelu\"", ERR_UNSUPPORTED, "\"gelu\""},
        {"\"attention_dropout\": 0.0", "\"attention_dropout\": 0.1", ERR_UNSUPPORTED,
         "attention_dropout is 0.1"},
        {"\"hidden_size\": 1024,", "", ERR_NOT_FOUND, "\"hidden_size\""},
        {"\"vocab_size\": 151936", "\"vocab_size\": \"many\"", ERR_INVALID,
         "\"vocab_size\" is a string"},
        {"\"num_key_value_heads\": 8", "\"num_key_value_heads\": 7", ERR_INVALID,
         "16 is not a multiple of num_key_value_heads 7"},
        {"\"head_dim\": 128", "\"head_dim\": 127", ERR_INVALID, "127 is odd"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Error err = {0};
        ModelConfig config;
        assert_fails(parse(changed(CASES[i].old, CASES[i].new_text), &config, &err),
                     CASES[i].status, &err, CASES[i].message);
        assert_non_null(strstr(err.message, "config.json"));
    }
}

/* Whatever numbers a config.json has, it is refused or its sizes can be computed with. */
static void test_config_refuses_a_model_that_cannot_be_counted(void **state)
{
    (void)state;
    int refused = 0, counted = 0;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        int bits[6];
        for (uint64_t i = 0; i < 6; i++)
            bits[i] = (int)(rng_mix(seed * 6 + i) % 25); /* each number up to 2^24 */
        char text[512];
        snprintf(text, sizeof text,
                 "{\"model_type\": \"qwen3\", \"vocab_size\": %d, \"hidden_size\": %d, "
                 "\"intermediate_size\": %d, \"num_hidden_layers\": %d, "
                 "\"num_attention_heads\": %d, \"head_dim\": %d}",
                 1 << bits[0], 1 << bits[1], 1 << bits[2], 1 << bits[3], 1 << bits[4],
                 2 << bits[5] % 10);
        Error err = {0};
        ModelConfig c;
        if (parse(text, &c, &err) != OK) {
            assert_int_equal(err.status, ERR_INVALID);
            assert_non_null(strstr(err.message, "num_hidden_layers"));
            refused++;
            continue;
        }
        double layer = 4.0 * c.hidden_size * c.num_attention_heads * c.head_dim +
                       3.0 * c.hidden_size * c.intermediate_size + 2.0 * c.hidden_size +
                       2.0 * c.head_dim;
        double expected =
            layer * c.num_hidden_layers +
            (c.tie_word_embeddings ? 1.0 : 2.0) * (double)c.vocab_size * c.hidden_size +
            c.hidden_size;
        assert_true(fabs((double)model_config_parameters(&c) - expected) <= 1e-9 * expected);
        counted++;
    }
    assert_true(refused > 100 && counted > 100);
}

static void test_config_names_missing_file(void **state)
{
    (void)state;
    Error err = {0};
    ModelConfig config;
    assert_ok(folder_create("empty_model", &err), &err);
    assert_fails(model_config_read("empty_model", &config, &err), ERR_NOT_FOUND, &err,
                 "empty_model/config.json");
}

static void test_parallel_check_explains_what_does_not_divide(void **state)
{
    (void)state;
    Error err = {0};
    ModelConfig config;
    assert_ok(parse(QWEN3_06B, &config, &err), &err);
    for (int tp = 1; tp <= 16; tp *= 2)
        assert_ok(model_config_check_parallel(&config, tp, &err), &err);
    assert_fails(model_config_check_parallel(&config, 3, &err), ERR_INVALID, &err,
                 "does not divide the model's 16 attention heads");
    config.num_attention_heads = 24;
    assert_fails(model_config_check_parallel(&config, 12, &err), ERR_INVALID, &err,
                 "8 key-value heads");
    config.intermediate_size = 3073;
    assert_fails(model_config_check_parallel(&config, 2, &err), ERR_INVALID, &err, "3073");
}

static void test_tokenizer_larger_than_vocabulary_is_refused(void **state)
{
    (void)state;
    Error err = {0};
    ModelConfig config;
    assert_ok(parse(QWEN3_06B, &config, &err), &err);
    assert_ok(model_config_check_tokenizer(&config, "m/config.json", 151669, "t.json", &err), &err);
    config.vocab_size = 151668;
    assert_fails(model_config_check_tokenizer(&config, "m/config.json", 151669, "t.json", &err),
                 ERR_INVALID, &err, "t.json has ids up to 151668");
    assert_non_null(strstr(err.message, "m/config.json has vocab_size 151668"));
}

/* reference/training.md section 1: 4.99 GFLOP a token for forward and backward at 4096 tokens,
 * causal. */
static void test_flops_agree_with_published_arithmetic(void **state)
{
    (void)state;
    Error err = {0};
    ModelConfig config;
    assert_ok(parse(QWEN3_06B, &config, &err), &err);
    FlopCount count = {.tokens = 4096, .head_rows = 4096, .squared_lengths = 4096.0 * 4096.0};
    double per_token = 3.0 * model_config_forward_flops(&config, &count) / 4096.0;
    assert_true(fabs(per_token / 4.99e9 - 1.0) < 2e-3);
    count.squared_lengths = 8 * 512.0 * 512.0;
    per_token = 3.0 * model_config_forward_flops(&config, &count) / 4096.0;
    assert_true(fabs(per_token / 3.75e9 - 1.0) < 2e-3);
}

static void test_lr_follows_its_schedule(void **state)
{
    (void)state;
    LrPlan plan = {
        .lr = 1.0, .min_lr = 0.1, .num_steps = 100, .warmup_steps = 10, .decay_steps = 20};
    for (int kind = SCHEDULE_CONSTANT; kind <= SCHEDULE_WSD; kind++) {
        plan.schedule = (LrSchedule)kind;
        assert_true(fabs(lr_plan_at(&plan, 1) - 0.1) < 1e-12);
        assert_true(fabs(lr_plan_at(&plan, 5) - 0.5) < 1e-12);
        assert_true(lr_plan_at(&plan, 10) == 1.0);
        assert_true(lr_plan_at(&plan, 11) == 1.0);
    }
    plan.schedule = SCHEDULE_LINEAR;
    assert_true(fabs(lr_plan_at(&plan, 56) - 0.55) < 1e-12);
    assert_true(fabs(lr_plan_at(&plan, 100) - (0.1 + 0.9 / 90)) < 1e-12);
    assert_true(fabs(lr_plan_at(&plan, 101) - 0.1) < 1e-12);
    plan.schedule = SCHEDULE_COSINE;
    assert_true(fabs(lr_plan_at(&plan, 56) - 0.55) < 1e-12);
    assert_true(fabs(lr_plan_at(&plan, 34) - (0.1 + 0.45 * (1 + cos(acos(-1) * 23 / 90)))) < 1e-12);
    plan.schedule = SCHEDULE_WSD;
    assert_true(lr_plan_at(&plan, 81) == 1.0);
    assert_true(fabs(lr_plan_at(&plan, 91) - 0.55) < 1e-12);
    plan.schedule = SCHEDULE_CONSTANT;
    assert_true(lr_plan_at(&plan, 1000) == 1.0);
    plan.warmup_steps = 0;
    assert_true(lr_plan_at(&plan, 1) == 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_reads_published_qwen3),
        cmocka_unit_test(test_config_refuses_what_it_would_compute_wrongly),
        cmocka_unit_test(test_config_refuses_a_model_that_cannot_be_counted),
        cmocka_unit_test(test_config_names_missing_file),
        cmocka_unit_test(test_parallel_check_explains_what_does_not_divide),
        cmocka_unit_test(test_tokenizer_larger_than_vocabulary_is_refused),
        cmocka_unit_test(test_flops_agree_with_published_arithmetic),
        cmocka_unit_test(test_lr_follows_its_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
