#include "base/limits.h"
#include "config/keys/keys.h"

static const KeyName length_policy_names[] = {
    {"skip", POLICY_SKIP}, {"truncate", POLICY_TRUNCATE}, {"stop", POLICY_STOP}, {NULL, 0}};
static const KeyName keep_policy_names[] = {
    {"skip", POLICY_SKIP}, {"keep", POLICY_KEEP}, {"stop", POLICY_STOP}, {NULL, 0}};
static const KeyName policy_names[] = {{"skip", POLICY_SKIP}, {"stop", POLICY_STOP}, {NULL, 0}};

static const KeyName order_names[] = {
    {"full", ORDER_FULL}, {"window", ORDER_WINDOW}, {"hf", ORDER_HF}, {NULL, 0}};
static const KeyName remainder_names[] = {
    {"wrap", REMAINDER_WRAP}, {"drop", REMAINDER_DROP}, {"pad", REMAINDER_PAD}, {NULL, 0}};
static const KeyName hf_version_names[] = {
    {"4.3", HF_4_3}, {"4.8", HF_4_8}, {"5.0", HF_5_0}, {"5.2", HF_5_2}, {NULL, 0}};
static const ConfigForeign other_orders[] = {
    {"random shuffle shuffled global", "Write order: full, in which any record may follow any"},
    {"sequential none file files in_order", "For the order of the files write shuffle: false"},
    {"buffer streaming local", "Write order: window, or hf for that of the package `datasets`"},
    {NULL, NULL}};
static const ConfigForeign other_remainders[] = {{"drop_last true", "Write remainder: drop"},
                                                 {"false keep carry", "Write remainder: wrap"},
                                                 {NULL, NULL}};
static const ConfigForeign other_releases[] = {
    {"5.1 5.2.0 5.1.0", "Write hf_version: 5.2, which has the order of 5.1, too"},
    {"4.4 4.5 4.6 4.7 4.8.2", "Write hf_version: 4.8, which has the order of 4.4 to 4.7, too"},
    {"3.0 3.6 4.0 4.1 4.2", "Write hf_version: 4.3, which has the order of those before it, too"},
    {NULL, NULL}};
static const ConfigForeign other_policies[] = {
    {"drop ignore pass continue filter discard remove warn", "Write skip"},
    {"error raise fail abort strict", "Write stop"},
    {NULL, NULL}};

/* ---- a row of data.sources ---- */

#define IN(field) offsetof(SourceRow, field)

static const ConfigKey source_keys[] = {
    {.path = "path",
     .type = KEY_PATHS,
     .offset = IN(path),
     .derived = "none: its reader knows",
     .example = "data/chat*.jsonl",
     .also = "paths files dataset file data prompt_data name_or_path data_files",
     .meaning = "data of the source, as in data.train"},
    {.path = "weight",
     .type = KEY_NUMBER,
     .offset = IN(weight),
     .derived = "1",
     .example = "0.3",
     .min = 0,
     .above_min = true,
     .max = 1e12,
     .also = "weights prob probability probabilities proportion ratio share sampling_weight",
     .meaning = "share of the source in the records that are read, in relation to the other "
                "weights; in any unit"},
    {.path = "repeat",
     .type = KEY_INT,
     .offset = IN(repeat),
     .derived = "0: any number",
     .example = "2",
     .max = 1000000,
     .also = "repetitions max_epochs epochs num_epochs passes",
     .meaning = "passes over the source at most: a run that takes more is refused"},
    {.path = "shuffle",
     .type = KEY_BOOL,
     .offset = IN(shuffle),
     .derived = "data.shuffle",
     .example = "false",
     .meaning = "visit the records of each pass in a new order, decided by the seed"},
    {.path = "reader",
     .type = KEY_PATH,
     .offset = IN(reader),
     .derived = "none: JSONL, Parquet, Arrow",
     .example = "my_reader.so",
     .also = "library plugin backend",
     .meaning = "a shared object of your own that reads the source"},
    {.path = "reader_options",
     .type = KEY_OBJECT,
     .offset = IN(reader_options),
     .derived = "none",
     .example = "{delimiter: \";\"}",
     .also = "options",
     .meaning = "what the reader is told"},
    RECORD_KEYS(IN),
};

static const ConfigSection source_section = {
    .name = "",
    .meaning = "a source of a mixture",
    .key = source_keys,
    .num_keys = sizeof source_keys / sizeof *source_keys,
};
static const ConfigSection *const source_sections[] = {&source_section};
static const ConfigTable source_table = {.section = source_sections, .num_sections = 1};

/* ---- the section ---- */

static const KeyName stopping_names[] = {
    {"first_exhausted", STOP_FIRST_EXHAUSTED}, {"all_exhausted", STOP_ALL_EXHAUSTED}, {NULL, 0}};

static const ConfigKey keys[] = {
    {.path = "data.train",
     .type = KEY_PATHS,
     .offset = AT(data.train),
     .derived = "required, unless there are data.sources or a data.reader",
     .example = "data/train*.jsonl",
     .also = "prompt_data dataset datasets train_files path files train_data train_file",
     .meaning = "data to train on: files (JSONL, Parquet, Arrow), globs, folders, data sets of the "
                "Hugging Face Hub (`openai/gsm8k@main/train`), slices of them"},
    {.path = "data.sources",
     .type = KEY_ROWS,
     .offset = AT(data.sources),
     .rows = &source_table,
     .row_bytes = sizeof(SourceRow),
     .derived = "none: data.train alone",
     .example = "{chat: {path: chat.jsonl, weight: 7}, math: {path: math/*.parquet, weight: 3}}",
     .also = "mixture blend datasets dataset_mixture data_mix interleave",
     .meaning = "a mixture to train on, in place of data.train: sources, each with a name, a "
                "weight and keys of its own"},
    {.path = "data.stopping_strategy",
     .type = KEY_ENUM,
     .offset = AT(data.stopping_strategy),
     .preset = "first_exhausted",
     .names = stopping_names,
     .also = "stop mix_strategy interleave_strategy",
     .meaning = "what an epoch of data.sources is: until the first source, or the last one, has "
                "been gone through; sources that are smaller than their share repeat"},
    {.path = "data.reader",
     .type = KEY_PATH,
     .offset = AT(data.reader),
     .derived = "none: JSONL, Parquet, Arrow",
     .example = "my_reader.so",
     .also = "reader_plugin custom_dataset data_backend dataset_class",
     .meaning = "a shared object of your own that reads data.train"},
    {.path = "data.reader_options",
     .type = KEY_OBJECT,
     .offset = AT(data.reader_options),
     .derived = "none",
     .example = "{delimiter: \";\"}",
     .meaning = "what the reader is told"},
    {.path = "data.eval",
     .type = KEY_PATHS,
     .offset = AT(data.eval),
     .derived = "none",
     .example = "data/test.jsonl",
     .also = "validation val_files test eval_data eval_file val test_files eval_files "
             "validation_file validation_files test_file",
     .meaning = "data to evaluate on, never trained"},
    {.path = "data.input_key",
     .type = KEY_STRING,
     .offset = AT(data.input_key),
     .derived = "told by the record's keys",
     .example = "messages",
     .also = "messages_key prompt_key",
     .meaning = "field of a record that holds the conversation (a list of messages) or a prompt"},
    {.path = "data.label_key",
     .type = KEY_STRING,
     .offset = AT(data.label_key),
     .preset = "label",
     .also = "answer_key",
     .meaning = "field that holds the reference answer"},
    {.path = "data.tool_key",
     .type = KEY_STRING,
     .offset = AT(data.tool_key),
     .preset = "tools",
     .also = "tools_key",
     .meaning = "field that holds the tool descriptions"},
    {.path = "data.metadata_key",
     .type = KEY_STRING,
     .offset = AT(data.metadata_key),
     .preset = "metadata",
     .meaning = "field that is passed on unread, but for `tools` in it"},
    {.path = "data.apply_chat_template_kwargs",
     .type = KEY_OBJECT,
     .offset = AT(data.apply_chat_template_kwargs),
     .derived = "none",
     .example = "{enable_thinking: false}",
     .also = "chat_template_kwargs template_kwargs",
     .meaning = "what else the chat template is told; a record's own `chat_template_kwargs` win"},
    {.path = "data.shuffle",
     .type = KEY_BOOL,
     .offset = AT(data.shuffle),
     .preset = "true",
     .also = "rollout_shuffle",
     .meaning = "visit the records of each epoch in a new order, decided by the seed"},
    {.path = "data.order",
     .type = KEY_ENUM,
     .offset = AT(data.order.kind),
     .preset = "full",
     .names = order_names,
     .foreign = other_orders,
     .meaning = "which order that is: any record anywhere; near records together (window), which "
                "needs no look at all files before the first step; or that of the package "
                "`datasets` (hf)"},
    {.path = "data.window_mb",
     .type = KEY_INT,
     .offset = AT(data.order.window_mb),
     .preset = "128",
     .min = 1,
     .max = WINDOW_MB_MAX,
     .meaning = "with order: window, MB of the files among whose records each one is drawn"},
    {.path = "data.hf_version",
     .type = KEY_ENUM,
     .offset = AT(data.order.hf_release),
     .preset = "5.2",
     .names = hf_version_names,
     .foreign = other_releases,
     .meaning =
         "with order: hf, the release of `datasets`: up to 4.3, 4.4 to 4.8, 5.0, 5.1 to 5.2"},
    {.path = "data.hf_buffer_size",
     .type = KEY_INT,
     .offset = AT(data.order.hf_buffer_size),
     .preset = "10000",
     .min = 1,
     .max = HF_BUFFER_MAX,
     .alias = "hf_dataset_shuffle_buffer",
     .also = "shuffle_buffer_size shuffle_buffer",
     .meaning = "with order: hf, the records of its shuffle buffer"},
    {.path = "data.num_samples",
     .type = KEY_INT,
     .offset = AT(data.num_samples),
     .preset = "0",
     .max = NUM_SAMPLES_MAX,
     .meaning = "records of data.train, for a train.num_epochs that is not to wait until they are "
                "counted, which order: window need not; 0: count them"},
    {.path = "data.remainder",
     .type = KEY_ENUM,
     .offset = AT(data.remainder),
     .preset = "wrap",
     .names = remainder_names,
     .foreign = other_remainders,
     .also = "drop_last dataloader_drop_last drop_last_batch pad_samples_to_global_batch_size",
     .meaning =
         "records at the end of an epoch that do not fill a batch: wrap begins the next "
         "epoch's first batch with them, drop passes over them, pad trains them as a smaller "
         "batch"},
    {.path = "data.reader_threads",
     .type = KEY_INT,
     .offset = AT(data.reader_threads),
     .preset = "8",
     .min = 1,
     .max = READER_THREADS_MAX,
     .alias = "num_proc hf_dataset_num_proc",
     .also = "dataloader_num_workers preprocessing_num_workers",
     .meaning = "threads of the data source that read records; more than files are of use, too"},
    {.path = "data.max_length",
     .type = KEY_INT,
     .offset = AT(data.max_length),
     .preset = "2048",
     .min = 2,
     .max = SAMPLE_TOKENS_MAX,
     .also =
         "max_seq_length max_seq_len seq_length sequence_len cutoff_len rollout_max_context_len",
     .meaning = "tokens that a sample may have"},
    {.path = "data.too_long",
     .type = KEY_ENUM,
     .offset = AT(data.too_long),
     .preset = "skip",
     .names = length_policy_names,
     .foreign = other_policies,
     .also = "truncation",
     .meaning = "what happens to a longer sample; truncate keeps its head"},
    {.path = "data.nothing_to_train",
     .type = KEY_ENUM,
     .offset = AT(data.nothing_to_train),
     .preset = "skip",
     .names = policy_names,
     .foreign = other_policies,
     .meaning = "what happens to a conversation without a token that carries loss"},
    {.path = "data.bad_record",
     .type = KEY_ENUM,
     .offset = AT(data.bad_record),
     .preset = "stop",
     .names = policy_names,
     .foreign = other_policies,
     .meaning = "what happens to a line that is not a valid conversation"},
    {.path = "data.not_rendered",
     .type = KEY_ENUM,
     .offset = AT(data.not_rendered),
     .preset = "stop",
     .names = keep_policy_names,
     .foreign = other_policies,
     .meaning = "what happens to a conversation of which the chat template passes over a message, "
                "its tool calls or the tools; keep trains the rest"},
    {.path = "data.bad_records_max",
     .type = KEY_INT,
     .offset = AT(data.bad_records_max),
     .preset = "100",
     .max = STEPS_MAX,
     .meaning = "with bad_record: skip, stop when data.train has more bad records than this, or an "
                "evaluation does; 0: no limit"},
    {.path = "data.accept_changed",
     .type = KEY_STRING,
     .offset = AT(data.accept_changed),
     .derived = "none",
     .example = "9f3c2b1a7d4e5f60",
     .meaning = "go on with data.train though it has changed since the checkpoint: the new "
                "fingerprint, at least 8 digits of it, as the refusal prints it"},
    {.path = "data.cache_gb",
     .type = KEY_NUMBER,
     .offset = AT(data.cache_gb),
     .preset = "0",
     .max = 1e6,
     .meaning =
         "GB that the run may add to the cache of the Hugging Face Hub, for all of its data sets "
         "together; of larger ones files are dropped and fetched again, in the order of the files "
         "only (`shuffle: false`); 0: what the disk has"},
};

const ConfigSection data_section = {
    .name = "data",
    .meaning = "conversations, one JSON object a line, or a row of a table",
    .key = keys,
    .num_keys = sizeof keys / sizeof *keys,
};
