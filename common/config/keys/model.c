#include "config/keys/keys.h"

static const KeyName init_names[] = {
    {"pretrained", INIT_PRETRAINED}, {"random", INIT_RANDOM}, {NULL, 0}};
static const KeyName dtype_names[] = {{"f32", MODEL_F32}, {"bf16", MODEL_BF16}, {NULL, 0}};

static const ConfigKey keys[] = {
    {.path = "model.path",
     .fixed = true,
     .type = KEY_PATH,
     .offset = AT(model.path),
     .required = true,
     .hub_model = true,
     .example = "models/Qwen3-0.6B",
     .also = "model_name_or_path hf_checkpoint base_model name model",
     .meaning = "Hugging Face model folder (config.json, safetensors, tokenizer), or OWNER/NAME of "
                "a model on the Hugging Face Hub, which is fetched; a run's folder "
                "or its checkpoints/latest stands for its newest checkpoint, and keeps standing "
                "for that one when this run is resumed"},
    {.path = "model.init",
     .fixed = true,
     .type = KEY_ENUM,
     .offset = AT(model.init),
     .preset = "pretrained",
     .names = init_names,
     .meaning =
         "where the first weights come from: the folder, or random numbers (which needs only "
         "config.json and a tokenizer)"},
    {.path = "model.config",
     .fixed = true,
     .type = KEY_PATH,
     .offset = AT(model.config),
     .derived = "config.json in model.path",
     .example = "models/tiny/config.json",
     .meaning = "the model's config.json"},
    {.path = "model.tokenizer",
     .fixed = true,
     .type = KEY_PATH,
     .offset = AT(model.tokenizer),
     .derived = "model.path",
     .example = "models/Qwen3-0.6B",
     .also = "tokenizer_path tokenizer_name_or_path tokenizer_name",
     .meaning = "folder with tokenizer.json, or that file"},
    {.path = "model.chat_template",
     .type = KEY_PATH,
     .offset = AT(model.chat_template),
     .derived = "the tokenizer folder's own",
     .example = "templates/chat.jinja",
     .also = "chat_template_path template",
     .meaning = "chat template (Jinja) used in place of the tokenizer's"},
    {.path = "model.dtype",
     .fixed = true,
     .type = KEY_ENUM,
     .offset = AT(model.dtype),
     .preset = "f32",
     .names = dtype_names,
     .also = "torch_dtype precision",
     .meaning = "type of weights and activations; optimizer and master weights are always f32"},
};

const ConfigSection model_section = {
    .name = "model",
    .meaning = "what is trained: a Hugging Face model folder",
    .key = keys,
    .num_keys = sizeof keys / sizeof *keys,
};
