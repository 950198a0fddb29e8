/* Tests of the sharding plan: parts cover every tensor, fused matrices are where matmul expects
 * them. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/weight_plan.h"

static ModelConfig small_config(int kv_heads, bool tied)
{
    return (ModelConfig){
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = 131,
        .hidden_size = 32,
        .intermediate_size = 24,
        .num_hidden_layers = 2,
        .num_attention_heads = 8,
        .num_key_value_heads = kv_heads,
        .head_dim = 6,
        .qk_norm = true,
        .tie_word_embeddings = tied,
    };
}

/* Slices a tensor of distinct numbers into all parts and puts it together again; counts who counts
 * what. */
static void check_spec(WeightPlan *const *plans, int tp_size, int s)
{
    const WeightSpec *spec = &plans[0]->spec[s];
    int64_t count = spec->rows * spec->cols;
    int *seen = mem_calloc((size_t)count, sizeof *seen);
    int *counted = mem_calloc((size_t)count, sizeof *counted);
    for (int r = 0; r < tp_size; r++) {
        const WeightSpec *mine = &plans[r]->spec[s];
        assert_string_equal(mine->name, spec->name);
        int64_t filled = 0;
        for (int64_t i = 0; i < weight_spec_segments(mine); i++) {
            WeightSegment run = weight_spec_segment(mine, r, tp_size, i);
            assert_int_equal(run.local_first, filled);
            filled += run.count;
            for (int64_t k = 0; k < run.count; k++) {
                assert_in_range(run.global_first + k, 0, count - 1);
                seen[run.global_first + k]++;
                counted[run.global_first + k] += mine->counted;
            }
        }
        assert_int_equal(filled, mine->local_rows * mine->local_cols);
    }
    for (int64_t i = 0; i < count; i++) {
        assert_true(seen[i] >= 1);
        assert_int_equal(counted[i], 1);
    }
    free(seen);
    free(counted);
}

static void check_layout(const WeightPlan *plan)
{
    char *used = mem_calloc((size_t)plan->size, 1);
    for (int s = 0; s < plan->num_specs; s++) {
        const WeightSpec *spec = &plan->spec[s];
        const WeightRange *range = spec->rank == 1 ? &plan->vectors : &plan->matrices;
        assert_in_range(spec->offset, range->first, range->first + range->count - 1);
        for (int64_t i = 0; i < spec->local_rows * spec->local_cols; i++) {
            assert_true(spec->offset + i < plan->size);
            assert_int_equal(used[spec->offset + i], 0);
            used[spec->offset + i] = 1;
        }
    }
    const LayerPlan *layer = &plan->layer[1];
    const WeightSpec *q = &plan->spec[layer->q_proj], *k = &plan->spec[layer->k_proj];
    const WeightSpec *v = &plan->spec[layer->v_proj];
    assert_int_equal(k->offset, q->offset + q->local_rows * q->local_cols);
    assert_int_equal(v->offset, k->offset + k->local_rows * k->local_cols);
    assert_int_equal(q->local_rows, plan->num_heads * plan->config.head_dim);
    assert_int_equal(k->local_rows, plan->num_kv_heads * plan->config.head_dim);
    free(used);
}

static void test_plan_covers_every_element_once(void **state)
{
    (void)state;
    for (int kv_heads = 1; kv_heads <= 8; kv_heads *= 2)
        for (int tp_size = 1; tp_size <= 8; tp_size *= 2) {
            ModelConfig config = small_config(kv_heads, kv_heads % 4 == 0);
            WeightPlan *plans[8] = {0};
            for (int r = 0; r < tp_size; r++) {
                plans[r] = weight_plan_create(&config, r, tp_size);
                check_layout(plans[r]);
            }
            int64_t parameters = 0;
            for (int s = 0; s < plans[0]->num_specs; s++) {
                check_spec(plans, tp_size, s);
                parameters += plans[0]->spec[s].rows * plans[0]->spec[s].cols;
            }
            assert_int_equal(parameters, model_config_parameters(&config));
            for (int r = 0; r < tp_size; r++)
                weight_plan_destroy(plans[r]);
        }
}

/* A query head must meet on its rank the kv head that it reads in the whole model. */
static void test_plan_keeps_query_heads_with_their_kv_head(void **state)
{
    (void)state;
    for (int kv_heads = 1; kv_heads <= 8; kv_heads *= 2)
        for (int rank = 0; rank < 4; rank++) {
            ModelConfig config = small_config(kv_heads, true);
            WeightPlan *plan = weight_plan_create(&config, rank, 4);
            WeightRange q = weight_spec_part(&plan->spec[plan->layer[0].q_proj], rank, 4);
            WeightRange k = weight_spec_part(&plan->spec[plan->layer[0].k_proj], rank, 4);
            for (int h = 0; h < plan->num_heads; h++) {
                int64_t whole_head = q.first / config.head_dim + h;
                int64_t expected = whole_head / (config.num_attention_heads / kv_heads);
                int64_t found =
                    k.first / config.head_dim + h / (plan->num_heads / plan->num_kv_heads);
                assert_int_equal(found, expected);
            }
            weight_plan_destroy(plan);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_covers_every_element_once),
        cmocka_unit_test(test_plan_keeps_query_heads_with_their_kv_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
