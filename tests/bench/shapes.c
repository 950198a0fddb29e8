#include "shapes.h"

#include <string.h>

#include "base/memory.h"

typedef struct Shape {
    const char *name;
    int64_t vocab_size;
    int hidden_size, intermediate_size, num_hidden_layers;
    int num_attention_heads, num_key_value_heads, head_dim;
    bool qwen3, tied;
} Shape;

static const Shape SHAPES[] = {
    {"toy", 2048, 256, 512, 2, 4, 2, 64, true, true},
    {"qwen3-0.6b", 151936, 1024, 3072, 28, 16, 8, 128, true, true},
    {"qwen3-1.7b", 151936, 2048, 6144, 28, 16, 8, 128, true, true},
    {"qwen3-4b", 151936, 2560, 9728, 36, 32, 8, 128, true, true},
    {"qwen3-8b", 151936, 4096, 12288, 36, 32, 8, 128, true, false},
    {"qwen2.5-0.5b", 151936, 896, 4864, 24, 14, 2, 64, false, true},
    {"qwen2.5-1.5b", 151936, 1536, 8960, 28, 12, 2, 128, false, true},
};

bool shape_find(const char *name, int layers, ModelConfig *ret)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) {
        const Shape *shape = &SHAPES[i];
        if (strcmp(shape->name, name) != 0) continue;
        *ret = (ModelConfig){
            .architecture = shape->qwen3 ? ARCHITECTURE_QWEN3 : ARCHITECTURE_LLAMA,
            .vocab_size = shape->vocab_size,
            .hidden_size = shape->hidden_size,
            .intermediate_size = shape->intermediate_size,
            .num_hidden_layers = layers > 0 ? layers : shape->num_hidden_layers,
            .num_attention_heads = shape->num_attention_heads,
            .num_key_value_heads = shape->num_key_value_heads,
            .head_dim = shape->head_dim,
            .max_position_embeddings = 40960,
            .rope_theta = 1e6,
            .rms_norm_eps = 1e-6f,
            .initializer_range = 0.02f,
            .qk_norm = shape->qwen3,
            .tie_word_embeddings = shape->tied,
        };
        return true;
    }
    return false;
}

const char *shape_names(void)
{
    return "toy, qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-8b, qwen2.5-0.5b or qwen2.5-1.5b";
}

char *shape_json(const ModelConfig *config)
{
    bool qwen3 = config->architecture == ARCHITECTURE_QWEN3;
    return mem_printf(
        "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n"
        "  \"vocab_size\": %lld,\n  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n"
        "  \"num_hidden_layers\": %d,\n  \"num_attention_heads\": %d,\n"
        "  \"num_key_value_heads\": %d,\n  \"head_dim\": %d,\n  \"hidden_act\": \"silu\",\n"
        "  \"attention_bias\": false,\n  \"max_position_embeddings\": %lld,\n"
        "  \"rope_theta\": %.1f,\n  \"rms_norm_eps\": %g,\n  \"initializer_range\": %g,\n"
        "  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"bfloat16\"\n}\n",
        qwen3 ? "Qwen3ForCausalLM" : "LlamaForCausalLM", qwen3 ? "qwen3" : "llama",
        (long long)config->vocab_size, config->hidden_size, config->intermediate_size,
        config->num_hidden_layers, config->num_attention_heads, config->num_key_value_heads,
        config->head_dim, (long long)config->max_position_embeddings, config->rope_theta,
        (double)config->rms_norm_eps, (double)config->initializer_range,
        config->tie_word_embeddings ? "true" : "false");
}
