/* ModelConfig: what a Hugging Face config.json says of a dense decoder (Qwen3; Llama where it needs
 * no more). Plain data with Hugging Face's names, copied by value. Anything in the file that would
 * change the numbers and that this build does not do (sliding windows, scaled RoPE, biases,
 * quantisation, another activation) is refused by name: a model is never computed as something near
 * to what it is. */
#ifndef TROUPE_MODEL_MODEL_CONFIG_H
#define TROUPE_MODEL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum { ARCHITECTURE_QWEN3, ARCHITECTURE_LLAMA, ARCHITECTURE_COUNT } Architecture;

typedef struct ModelConfig {
    Architecture architecture;
    int64_t vocab_size;
    int hidden_size, intermediate_size, num_hidden_layers;
    int num_attention_heads, num_key_value_heads, head_dim;
    int64_t max_position_embeddings;
    double rope_theta;
    float rms_norm_eps, initializer_range;
    bool qk_norm; /* q and k heads are RMS-normalised before RoPE (Qwen3) */
    bool tie_word_embeddings;
    bool value_head; /* a critic: one row, score.weight, in place of the output matrix. Never in
                        config.json: whoever makes a critic of a model sets it. */
} ModelConfig;

/* Reads <path>; a folder means its config.json. Messages name the file and the key. */
Status model_config_read(const char *path, ModelConfig *ret, Error *err);

/* The same from text; `where` names it in messages. */
Status model_config_parse(const char *text, size_t length, const char *where, ModelConfig *ret,
                          Error *err);

/* Whether tensor parallelism over tp_size ranks can split this model: heads divide evenly, kv heads
 * divide evenly or are replicated evenly, intermediate_size divides, every rank owns a row of the
 * vocabulary. */
Status model_config_check_parallel(const ModelConfig *config, int tp_size, Error *err);

/* The tokenizer may have fewer ids than the model has rows (models pad), never more.
 * `tokenizer_size` is one more than its largest id; the paths are for the message. */
Status model_config_check_tokenizer(const ModelConfig *config, const char *config_path,
                                    int64_t tokenizer_size, const char *tokenizer_path, Error *err);

int64_t model_config_parameters(const ModelConfig *config); /* a tied head counts once */

/* Model FLOPs of one pass over packed documents: two per multiply-add of every matrix, attention
 * over the causal half of each document's true length, the head for the rows that go through it,
 * nothing for embedding look-ups, norms or recomputation. The backward pass counts twice the
 * forward pass. */
typedef struct FlopCount {
    int64_t tokens;         /* rows through the layers */
    int64_t head_rows;      /* rows through the head */
    double squared_lengths; /* sum of length^2 over documents */
} FlopCount;
double model_config_forward_flops(const ModelConfig *config, const FlopCount *count);

#endif
