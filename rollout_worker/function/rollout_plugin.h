/* The interface between Troupe and a rollout function in a shared object: `rollout.function:
 * plugin:PATH`. Include this file and nothing else of Troupe; docs/rollout-function.md tells how,
 * deploy/examples/rollout_plugin has one.
 *
 * The object exports one function, rollout_plugin, that returns a table of functions. The table
 * begins with the number of the interface it was compiled against: an object of another number is
 * refused before any other field is read. The number changes with every change of this file.
 *
 * A plugin runs inside of the rollout worker: it is for code that is trusted. run is called for
 * each record, from several threads at a time, on what open returned; it says what the record's
 * samples are made of, and may ask for generations in between, as often as it likes. The same
 * record must give the same samples, whichever thread, process or day: no clock, no random numbers
 * but those that the position decides.
 *
 * Texts are UTF-8 that ends with a NUL. What the worker hands out lives until run returns. */
#ifndef TROUPE_ROLLOUT_PLUGIN_H
#define TROUPE_ROLLOUT_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ROLLOUT_PLUGIN_ABI 1

enum {                             /* what run and generate return */
       ROLLOUT_PLUGIN_OK = 0,      /* it is done */
       ROLLOUT_PLUGIN_REFUSED = 1, /* run: the record cannot be used; generate: what was asked for
                                      cannot be, the host's `error` says why, and run may go on */
       ROLLOUT_PLUGIN_FAILED = 2,  /* run: not the record's fault: try again */
       ROLLOUT_PLUGIN_OVER = 3,    /* generate: nobody wants these samples any more: run returns at
                                      once, whatever */
};

enum { ROLLOUT_FINISH_STOP, ROLLOUT_FINISH_LENGTH }; /* RolloutOutput.finish */

/* A record that is to become samples. JSON is what docs/rollout-function.md says of programs. */
typedef struct RolloutPluginRecord {
    int64_t position;     /* of the record in the data */
    int32_t samples;      /* to be made of it: sample 0 to samples - 1 */
    int32_t max_length;   /* tokens of a sample */
    int32_t evaluation;   /* 1: of an evaluation, 0: of training */
    const char *messages; /* JSON: the conversation up to what is to be answered */
    const char *label;    /* the expected answer as text, or NULL */
    const char *metadata; /* JSON, or NULL */
    const char *tools;    /* JSON, or NULL */
    const char *sampling; /* JSON: the run's temperature, top_p and so on */
    const char *record;   /* JSON: all of it */
} RolloutPluginRecord;

typedef struct RolloutPluginRun RolloutPluginRun; /* the call of run that is going on */
typedef struct RolloutSequence RolloutSequence;   /* what a prompt or a sample is made of */

/* How to generate; zeros are the defaults. */
typedef struct RolloutPluginRequest {
    int32_t samples;      /* outputs from this prompt; 0: 1 */
    int32_t index;        /* of the first of them among the record's samples: decides the noise */
    int64_t draw;         /* another number, another answer to the same question */
    const char *sampling; /* JSON: in place of the run's, {"max_new_tokens": 8}; NULL: as the run */
} RolloutPluginRequest;

/* What was generated. */
typedef struct RolloutOutput {
    int32_t id; /* for add_output */
    int32_t finish;
    const char *text; /* without the token that ended it; may hold a NUL: text_bytes counts */
    size_t text_bytes;
    const int32_t *token;  /* [length] */
    const float *log_prob; /* [length] */
    int32_t length;
} RolloutOutput;

/* What the worker offers; the same table in each call. */
typedef struct RolloutPluginHost {
    uint32_t abi;
    /* A new sequence: empty, or (`like` is not NULL) with what that one holds. */
    RolloutSequence *(*sequence)(RolloutPluginRun *run, const RolloutSequence *like);
    /* Append to it. messages (JSON, a list) as the chat template renders them with the header of
     * the answer, tools and template_kwargs (JSON, or NULL) with them: at the beginning. */
    void (*add_messages)(RolloutSequence *sequence, const char *messages, const char *tools,
                         const char *template_kwargs);
    /* Right behind an output: what the template writes from the end of that turn to the header of
     * the next, with these messages (JSON, a list) between. */
    void (*add_follow)(RolloutSequence *sequence, const char *messages);
    /* Control tokens are recognised in it only if `special`. */
    void (*add_text)(RolloutSequence *sequence, const char *text, int special);
    void (*add_tokens)(RolloutSequence *sequence, const int32_t *token, int32_t count);
    /* `trained` only behind the very tokens that it was generated from. */
    void (*add_output)(RolloutSequence *sequence, int32_t id, int trained);
    /* Fills ret[request->samples]. Blocks. */
    int (*generate)(RolloutPluginRun *run, const RolloutSequence *prompt,
                    const RolloutPluginRequest *request, RolloutOutput *ret);
    /* Why generate refused. */
    const char *(*error)(const RolloutPluginRun *run);
    /* Sample `index` is this, and is worth `reward`; NULL: the job's rewards judge the text of its
     * last output. right: 1 or 0. extra: JSON that is kept with the sample, or NULL. */
    void (*set_sample)(RolloutPluginRun *run, int32_t index, const RolloutSequence *sequence,
                       const double *reward, int right, const char *extra);
    /* Sample `index` is not to be. */
    void (*reject_sample)(RolloutPluginRun *run, int32_t index, const char *why);
} RolloutPluginHost;

typedef struct RolloutPlugin {
    uint32_t abi;     /* ROLLOUT_PLUGIN_ABI */
    const char *name; /* for messages */
    /* Reads rollout.function_options (JSON, "{}" when there are none) and makes what run shares.
     * Returns 0, or anything else and a sentence in `message`. */
    int (*open)(const char *options, void **ret_self, char *message, size_t message_bytes);
    void (*close)(void *self);
    /* Sets each of record->samples samples once. Other than ROLLOUT_PLUGIN_OK: a sentence in
     * `message`. */
    int (*run)(void *self, const RolloutPluginHost *host, RolloutPluginRun *run,
               const RolloutPluginRecord *record, char *message, size_t message_bytes);
} RolloutPlugin;

/* What the shared object exports. */
__attribute__((visibility("default"))) const RolloutPlugin *rollout_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
