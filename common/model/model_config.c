#include "model/model_config.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/str.h"

/* Names that config.json gives in "model_type", and what of the common decoder each uses. */
static const struct {
    const char *model_type;
    bool qk_norm;
} ARCHITECTURES[ARCHITECTURE_COUNT] = {
    [ARCHITECTURE_QWEN3] = {"qwen3", true},
    [ARCHITECTURE_LLAMA] = {"llama", false},
};

static Status parse_architecture(const cJSON *json, const char *where, ModelConfig *config,
                                 Error *err)
{
    const char *model_type = NULL;
    TRY(json_string(json, "model_type", where, &model_type, err));
    for (int i = 0; i < ARCHITECTURE_COUNT; i++) {
        if (strcmp(model_type, ARCHITECTURES[i].model_type) != 0) continue;
        config->architecture = (Architecture)i;
        config->qk_norm = ARCHITECTURES[i].qk_norm;
        return OK;
    }
    Str names = {0};
    for (int i = 0; i < ARCHITECTURE_COUNT; i++)
        str_printf(&names, "%s%s", i > 0 ? ", " : "", ARCHITECTURES[i].model_type);
    Status status =
        error_set(err, ERR_UNSUPPORTED,
                  "%s: model_type \"%s\" is not one this build can train (it knows: %s)", where,
                  model_type, str_text(&names));
    str_free(&names);
    return status;
}

static Status parse_int(const cJSON *json, const char *key, const char *where, int *ret, Error *err)
{
    int64_t value = 0;
    TRY(json_int(json, key, where, 1, 1 << 24, &value, err));
    *ret = (int)value;
    return OK;
}

static Status parse_sizes(const cJSON *json, const char *where, ModelConfig *config, Error *err)
{
    /* Ids travel as int32 and, in the vocabulary-parallel arg max, as exact float32 integers. */
    TRY(json_int(json, "vocab_size", where, 1, 1 << 24, &config->vocab_size, err));
    TRY(parse_int(json, "hidden_size", where, &config->hidden_size, err));
    TRY(parse_int(json, "intermediate_size", where, &config->intermediate_size, err));
    TRY(parse_int(json, "num_hidden_layers", where, &config->num_hidden_layers, err));
    TRY(parse_int(json, "num_attention_heads", where, &config->num_attention_heads, err));
    int64_t heads = config->num_attention_heads, kv_heads = heads, head_dim = 0;
    TRY(json_int_or(json, "num_key_value_heads", where, 1, heads, &kv_heads, err));
    if (heads % kv_heads != 0)
        return error_set(
            err, ERR_INVALID,
            "%s: num_attention_heads %lld is not a multiple of num_key_value_heads %lld", where,
            (long long)heads, (long long)kv_heads);
    config->num_key_value_heads = (int)kv_heads;
    TRY(json_int_or(json, "head_dim", where, 2, 1024, &head_dim, err));
    if (head_dim == 0) {
        head_dim = config->hidden_size / heads;
        if (config->hidden_size % heads != 0)
            return error_set(err, ERR_INVALID,
                             "%s: no head_dim, and hidden_size %d is not a multiple of "
                             "num_attention_heads %lld",
                             where, config->hidden_size, (long long)heads);
    }
    if (head_dim % 2 != 0)
        return error_set(err, ERR_INVALID, "%s: head_dim %lld is odd, RoPE needs pairs", where,
                         (long long)head_dim);
    config->head_dim = (int)head_dim;
    return OK;
}

/* RoPE stands at the top level (rope_theta, rope_scaling) or, in newer files, in rope_parameters.
 */
static Status parse_rope(const cJSON *json, const char *where, ModelConfig *config, Error *err)
{
    config->rope_theta = 10000.0;
    TRY(json_double_or(json, "rope_theta", where, &config->rope_theta, err));
    const char *const places[] = {"rope_parameters", "rope_scaling"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const cJSON *rope = cJSON_GetObjectItemCaseSensitive(json, places[i]);
        if (rope == NULL || cJSON_IsNull(rope)) continue;
        if (!cJSON_IsObject(rope))
            return error_set(err, ERR_INVALID, "%s: key \"%s\" is %s, expected an object", where,
                             places[i], json_type_name(rope));
        const char *type = "default";
        TRY(json_string_or(rope, "type", where, &type, err));
        TRY(json_string_or(rope, "rope_type", where, &type, err));
        if (strcmp(type, "default") != 0)
            return error_set(err, ERR_UNSUPPORTED,
                             "%s: %s has rope_type \"%s\", only \"default\" is supported", where,
                             places[i], type);
        TRY(json_double_or(rope, "rope_theta", where, &config->rope_theta, err));
    }
    if (!(config->rope_theta > 0.0))
        return error_set(err, ERR_INVALID, "%s: rope_theta is %g, expected a positive number",
                         where, config->rope_theta);
    return OK;
}

/* Keys that, when set, mean another computation than ours. */
static Status refuse_unsupported(const cJSON *json, const char *where, Error *err)
{
    const char *activation = "silu";
    TRY(json_string_or(json, "hidden_act", where, &activation, err));
    if (strcmp(activation, "silu") != 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: hidden_act \"%s\", only \"silu\" is supported",
                         where, activation);
    const char *const switches[] = {"attention_bias", "mlp_bias", "use_sliding_window"};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        bool on = false;
        TRY(json_bool_or(json, switches[i], where, &on, err));
        if (on)
            return error_set(err, ERR_UNSUPPORTED, "%s: %s is true, only false is supported", where,
                             switches[i]);
    }
    double dropout = 0.0;
    TRY(json_double_or(json, "attention_dropout", where, &dropout, err));
    if (dropout != 0.0)
        return error_set(err, ERR_UNSUPPORTED, "%s: attention_dropout is %g, only 0 is supported",
                         where, dropout);
    const cJSON *quantization = cJSON_GetObjectItemCaseSensitive(json, "quantization_config");
    if (quantization != NULL && !cJSON_IsNull(quantization))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: quantization_config is set; training needs the unquantised model",
                         where);
    return OK;
}

/* Sizes are products of these numbers, and of tokens: here is seen to it that none leaves int64. */
static Status check_size(const ModelConfig *config, const char *where, Error *err)
{
    double heads = (double)config->num_attention_heads * config->head_dim;
    double hidden = config->hidden_size, layers = config->num_hidden_layers;
    double row = layers * (8 * hidden + 4 * heads + 3.0 * config->intermediate_size);
    double parameters = layers * hidden * (4 * heads + 3.0 * config->intermediate_size + 4) +
                        2.0 * (double)config->vocab_size * hidden;
    if (parameters <= (double)MODEL_PARAMETERS_MAX && row <= (double)MODEL_ROW_VALUES_MAX)
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: num_hidden_layers %d, hidden_size %d, intermediate_size %d, %d heads of "
                     "%d and vocab_size %lld make a model of %.2g parameters; at most %.2g are "
                     "possible, and %.2g values that all layers keep of a token (it has %.2g)",
                     where, config->num_hidden_layers, config->hidden_size,
                     config->intermediate_size, config->num_attention_heads, config->head_dim,
                     (long long)config->vocab_size, parameters, (double)MODEL_PARAMETERS_MAX,
                     (double)MODEL_ROW_VALUES_MAX, row);
}

static Status parse_json(const cJSON *json, const char *where, ModelConfig *ret, Error *err)
{
    ModelConfig config = {0};
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_INVALID, "%s: is %s, expected an object", where,
                         json_type_name(json));
    TRY(parse_architecture(json, where, &config, err));
    TRY(parse_sizes(json, where, &config, err));
    TRY(check_size(&config, where, err));
    TRY(parse_rope(json, where, &config, err));
    TRY(refuse_unsupported(json, where, err));
    config.max_position_embeddings = 32768;
    TRY(json_int_or(json, "max_position_embeddings", where, 1, 1 << 30,
                    &config.max_position_embeddings, err));
    double eps = 1e-6, range = 0.02;
    TRY(json_double_or(json, "rms_norm_eps", where, &eps, err));
    TRY(json_double_or(json, "initializer_range", where, &range, err));
    if (!(eps > 0.0 && eps < 1.0) || !(range >= 0.0 && range < 100.0))
        return error_set(err, ERR_INVALID,
                         "%s: rms_norm_eps %g or initializer_range %g is out of range", where, eps,
                         range);
    config.rms_norm_eps = (float)eps;
    config.initializer_range = (float)range;
    TRY(json_bool_or(json, "tie_word_embeddings", where, &config.tie_word_embeddings, err));
    *ret = config;
    return OK;
}

Status model_config_parse(const char *text, size_t length, const char *where, ModelConfig *ret,
                          Error *err)
{
    cJSON *json = NULL;
    TRY(json_parse(text, length, where, &json, err));
    Status status = parse_json(json, where, ret, err);
    cJSON_Delete(json);
    return status;
}

Status model_config_read(const char *path, ModelConfig *ret, Error *err)
{
    cJSON *json = NULL;
    char *file = path_is_folder(path) ? path_join(path, "config.json") : path_join("", path);
    Status status = json_read(file, CONFIG_BYTES_MAX, &json, err);
    if (status == OK) status = parse_json(json, file, ret, err);
    cJSON_Delete(json);
    free(file);
    return status;
}

Status model_config_check_parallel(const ModelConfig *config, int tp_size, Error *err)
{
    int heads = config->num_attention_heads, kv_heads = config->num_key_value_heads;
    if (tp_size < 1)
        return error_set(err, ERR_INVALID, "tp_size is %d, expected 1 or more", tp_size);
    if (heads % tp_size != 0)
        return error_set(err, ERR_INVALID,
                         "tp_size %d does not divide the model's %d attention heads", tp_size,
                         heads);
    if (kv_heads % tp_size != 0 && tp_size % kv_heads != 0)
        return error_set(
            err, ERR_INVALID,
            "tp_size %d neither divides the model's %d key-value heads nor is a multiple "
            "of them",
            tp_size, kv_heads);
    if (config->intermediate_size % tp_size != 0)
        return error_set(err, ERR_INVALID, "tp_size %d does not divide intermediate_size %d",
                         tp_size, config->intermediate_size);
    if (config->vocab_size < tp_size)
        return error_set(err, ERR_INVALID, "tp_size %d is more than the vocabulary's %lld rows",
                         tp_size, (long long)config->vocab_size);
    return OK;
}

Status model_config_check_tokenizer(const ModelConfig *config, const char *config_path,
                                    int64_t tokenizer_size, const char *tokenizer_path, Error *err)
{
    if (tokenizer_size <= config->vocab_size) return OK;
    return error_set(
        err, ERR_INVALID,
        "the tokenizer %s has ids up to %lld, but the model %s has vocab_size %lld: ids "
        "from %lld on would have no embedding; take the model's own tokenizer",
        tokenizer_path, (long long)tokenizer_size - 1, config_path, (long long)config->vocab_size,
        (long long)config->vocab_size);
}

/* Multiply-adds of one row through the matrices of one layer: also their number of weights. */
static int64_t layer_matrix_parameters(const ModelConfig *config)
{
    int64_t h = config->hidden_size, d = config->head_dim;
    int64_t heads = config->num_attention_heads, kv_heads = config->num_key_value_heads;
    return h * d * (2 * heads + 2 * kv_heads) + 3 * h * config->intermediate_size;
}

int64_t model_config_parameters(const ModelConfig *config)
{
    int64_t h = config->hidden_size;
    int64_t norms = 2 * h + (config->qk_norm ? 2 * (int64_t)config->head_dim : 0);
    int64_t tables = config->tie_word_embeddings || config->value_head ? 1 : 2;
    return config->num_hidden_layers * (layer_matrix_parameters(config) + norms) +
           tables * config->vocab_size * h + (config->value_head ? 2 : 1) * h;
}

double model_config_forward_flops(const ModelConfig *config, const FlopCount *count)
{
    double layers = config->num_hidden_layers;
    double linear = 2.0 * (double)layer_matrix_parameters(config) * layers;
    double head =
        2.0 * (config->value_head ? 1.0 : (double)config->vocab_size) * config->hidden_size;
    /* Scores and values: 2 products x 2 FLOPs x half of length^2 x heads x head_dim. */
    double attention = 2.0 * (double)config->num_attention_heads * config->head_dim * layers;
    return linear * (double)count->tokens + head * (double)count->head_rows +
           attention * count->squared_lengths;
}
