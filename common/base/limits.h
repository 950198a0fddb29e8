/* Every queue, table and input has a cap, and the caps stand here, so that what the system refuses
 * to hold can be read in one place. A cap that is met gives an error that names it. */
#ifndef TROUPE_BASE_LIMITS_H
#define TROUPE_BASE_LIMITS_H

#define ACTOR_NAME_MAX      64          /* bytes, with the NUL */
#define ENDPOINT_MAX        108         /* bytes, with the NUL: sockaddr_un's */
#define MESSAGE_BYTES_MAX   (64u << 20) /* one frame on a socket */
#define METHOD_NAME_MAX     64          /* bytes, with the NUL */
#define CALLS_IN_FLIGHT_MAX 65536       /* per handle */
#define CALL_QUEUE_BYTES_MAX                                                                       \
    (256u << 20)                    /* per handle: calls made before the peer can take them        \
                                     */
#define CALLERS_MAX            8192 /* connections an actor remembers against duplicates */
#define NODES_MAX              1024
#define NODE_GPUS_MAX          64   /* of one machine, instances of divided ones counted */
#define ACTORS_MAX             4096 /* per job */
#define BUNDLES_MAX            4096 /* per placement group */
#define WORLD_SIZE_MAX         1024 /* train workers per job */
#define SHM_RANKS_MAX          256  /* of one group on one host */
#define CONFIG_BYTES_MAX       (1u << 20)
#define CONFIG_NODES_MAX       20000        /* scalars, lists and sections of one YAML text */
#define CONFIG_DEPTH_MAX       16           /* lists and sections inside each other */
#define CONFIG_ALIASES_MAX     64           /* anchors, and uses of anchors, of one YAML text */
#define JSON_FILE_BYTES_MAX    (256u << 20) /* tokenizer.json of the largest vocabularies */
#define MODEL_PARAMETERS_MAX   ((int64_t)1 << 48)
#define MODEL_ROW_VALUES_MAX   ((int64_t)1 << 32) /* that all layers keep of one token */
#define SAFETENSORS_HEADER_MAX 100000000u         /* the format's own limit */
#define SAFETENSORS_SHARDS_MAX 1000               /* files of one model folder, all held open */
#define JSONL_LINE_BYTES_MAX   (48u << 20)        /* a record: it must fit into one message */
#define DATASET_FILES_MAX      65536              /* per set */
#define DATA_FILES_OPEN_MAX    65536              /* of them, held open at a time by a process */
#define READER_THREADS_MAX     256                /* of the data source */
#define WINDOW_MB_MAX          65536              /* of the order window */
#define NUM_SAMPLES_MAX        ((int64_t)1 << 48)
#define HF_BUFFER_MAX          (1 << 24)   /* records in the buffer of the order hf */
#define DATASET_CACHE_MAX      (64u << 20) /* bytes, of the decoded pieces of a set's files */
#define SAMPLE_STORE_BYTES_MAX (1u << 30)  /* samples that a rollout worker holds at a time */
#define LEASE_RECORDS_MAX      4096        /* positions of one lease */
#define LEASES_MAX             64          /* in work at one rollout worker */
#define LEDGER_LINE_BYTES_MAX  (16u << 20) /* one step */
#define STREAM_BYTES_MAX       (64u << 20) /* of what the controller knows of a window of positions */
#define SAMPLE_TOKENS_MAX      (1 << 22)
#define STEP_SAMPLES_MAX       (1 << 20) /* of all optimizer steps of a step */
#define GROUP_SAMPLES_MAX      1024      /* of one prompt */
#define REWARDS_MAX            16        /* of one weighted sum */
#define DOING_BYTES            320       /* of what an actor says that it is at; with the NUL */
#define SET_NAME_BYTES         40        /* of "train", "eval" and evaluation sets; with the NUL */
#define KEEP_BEST_MAX          32        /* checkpoints of best evaluations */
#define STDERR_TAIL_BYTES      4096      /* of a dead actor, in its death notice */

#endif
