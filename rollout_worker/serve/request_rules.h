/* The fields of a request's body: tables of what each is, and the one reader of them. A field is
 * read, has no effect here and is passed over, or would change the answer in a way that this server
 * does not know and is refused; a name that is in no table is refused as well. Private to the
 * translation of requests. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_REQUEST_RULES_H
#define TROUPE_ROLLOUT_WORKER_SERVE_REQUEST_RULES_H

#include "rollout_worker/serve/request.h"

/* Fields by value, before prompts are made of them. Pointers borrow from the body. */
typedef struct RequestFields {
    double temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
    int64_t top_k, n, min_tokens, seed;
    int64_t max_tokens;            /* -1: not given */
    int64_t top_logprobs, best_of; /* best_of -1: not given */
    int64_t logprob_start;
    bool stream, include_usage, wants_logprobs, echo, ignore_eos, text_in_logprobs;
    bool skip_special, keep_stop, has_seed, add_generation_prompt, without_tools;
    const char *model, *rid;
    const cJSON *messages, *tools, *template_kwargs, *prompt, *text, *input_ids, *sampling_params;
    const char *stop[SAMPLING_STOPS_MAX];
    int32_t stop_token_id[SAMPLING_STOPS_MAX];
    int num_stop, num_stop_token_ids;
} RequestFields;

typedef enum {
    RULE_NUMBER, /* a double at offset, min to max */
    RULE_WHOLE,  /* an int64_t at offset, min to max */
    RULE_FLAG,   /* a bool at offset */
    RULE_STRING, /* a const char * at offset */
    RULE_VALUE,  /* a const cJSON * at offset */
    RULE_READ,   /* by a function */
    RULE_UNUSED, /* any value, without effect */
    RULE_ABSENT, /* refused, unless its value asks for nothing (null, false, 0, "", [], {}) */
} RuleKind;

typedef struct FieldRule {
    const char *name;
    RuleKind kind;
    size_t offset;
    double min, max;
    Status (*read)(RequestFields *fields, const cJSON *value, const char *param, Refusal *refusal);
    const char *accepted; /* in words; of an absent one, why or what to use instead */
} FieldRule;

typedef struct FieldTable {
    const FieldRule *rule;
    size_t count;
} FieldTable;

/* The fields of a body, and of sampling_params in /generate. */
FieldTable request_rules(ServeApi api);
FieldTable sampling_rules(void);

/* What stands where nothing is said. */
RequestFields request_fields_defaults(ServeApi api);

/* `prefix` goes before names in messages: "", or "sampling_params.". */
Status fields_read(RequestFields *fields, FieldTable table, const cJSON *object, const char *prefix,
                   Refusal *refusal);

#endif
