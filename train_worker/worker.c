#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actor/typed.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/queue.h"
#include "config/source_set.h"
#include "job_options.h"
#include "learner.h"
#include "model/weight_board.h"
#include "model/weight_line.h"
#include "memory_plan.h"
#include "probe.h"
#include "rank_group.h"
#include "step_reply.h"
#include "rollout.pb-c.h"
#include "train.pb-c.h"

#define TASKS_MAX        16
#define DISK_PATIENCE_MS 600000 /* nothing that was handed to the disk in pieces takes longer */

typedef enum {
    TASK_BOOTSTRAP,
    TASK_START,
    TASK_CONFIGURE,
    TASK_STEP,
    TASK_EVALUATE,
    TASK_PUBLISH,
    TASK_MEET,
    TASK_SEND,
    TASK_SAVE,
    TASK_REST
} TaskKind;

/* One piece of work for the compute thread, and its answer on the way back. */
typedef struct Task {
    Worker *worker;
    TaskKind kind;
    Call *call;
    CommId tensor_id, data_id;           /* start; bootstrap: what it makes */
    bool wants_tensor_id, wants_data_id; /* bootstrap */
    char *path;                          /* start: checkpoint; save: folder */
    char *stage_start;                   /* start: checkpoint with which the stage began, or "" */
    int64_t first_seed;                  /* start: of the run's first stage */
    char *job_yaml;                      /* start, configure */
    FetchedPlan *plan;                   /* step, evaluate */
    LearnerStep step;                    /* but for the plan's micro-batches */
    SampleMeta *batch;                   /* of it; NULL in supervised training */
    int64_t version;                     /* publish */
    WeightMove move;                     /* send; meet: its size */
    PackedMessage answer;
    Status status;
    Error error;
} Task;

struct Worker {
    WorkerOptions options;
    PlanStore *plans;
    Queue *tasks;
    pthread_t thread;
    /* loop thread */
    int working;      /* tasks handed over and not done */
    uint64_t vouched; /* beats in which the compute thread waited for the disk */
    /* compute thread */
    const KernelTable *kernels;
    const DeviceMemory *memory; /* the device's; NULL: the host's is all there is */
    Learner *learner;
    bool rests;         /* the state is in the host's memory */
    WeightBoard *board; /* where rollout workers find the weights; NULL: nobody has asked */
    WeightBoardId board_id;
    _Atomic(WeightLine *) line; /* to rollout workers of other hosts; NULL: no GPU, or not yet */
    JobConfig *config;          /* in force: of the stage; NULL before the start */
    Probe *probe;
    int64_t created_ns;
    int64_t steps;      /* made by this process */
    bool probe_is_late; /* steps were made since the last measurement */
    /* both: set once by the compute thread, read for the beat */
    _Atomic(Comm *) tensor_comm, data_comm;
    _Atomic int64_t disk_wait_ms; /* since when it waits for the disk alone; 0: it does not */
};

/* ---- compute thread: start ---- */

static void pack_answer(Task *task, const ProtobufCMessage *message)
{
    task->answer = message_pack(message);
}

/* The ids that the ranks of its groups join by. Not on the loop thread: NCCL is loaded for it, and
 * looks for networks. */
static Status run_bootstrap(Worker *worker, Task *task, Error *err)
{
    const WorkerOptions *o = &worker->options;
    Troupe__BootstrapReply reply = TROUPE__BOOTSTRAP_REPLY__INIT;
    if (task->wants_tensor_id) {
        TRY(rank_group_id_create(o->config, o->tp_size, &task->tensor_id, err));
        reply.tensor_group_id =
            (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)task->tensor_id.bytes};
    }
    if (task->wants_data_id) {
        TRY(rank_group_id_create(o->config, o->dp_size, &task->data_id, err));
        reply.data_group_id = (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)task->data_id.bytes};
    }
    pack_answer(task, &reply.base);
    return OK;
}

static Status join(Worker *worker, const Task *task, const DeviceStreams *streams, Error *err)
{
    const WorkerOptions *o = &worker->options;
    CommDevice device = {.kernels = worker->kernels, .streams = streams};
    Comm *comm = NULL;
    TRY(rank_group_join(o->config, &device, &task->tensor_id, o->tp_rank, o->tp_size, &comm, err));
    atomic_store(&worker->tensor_comm, comm);
    TRY(rank_group_join(o->config, &device, &task->data_id, o->dp_rank, o->dp_size, &comm, err));
    atomic_store(&worker->data_comm, comm);
    return OK;
}

static void on_progress(void *argument)
{
    const Worker *worker = argument;
    worker->options.on_progress(worker->options.context);
}

static void on_disk_wait(void *argument, bool waits)
{
    atomic_store(&((Worker *)argument)->disk_wait_ms, waits ? clock_ms() : 0);
}

/* `memory_bytes` is what the device had free before any rank of this start took its share. */
static Status make_learner(Worker *worker, const Task *task, int64_t memory_bytes, Error *err)
{
    LearnerOptions options = {
        .config = worker->config,
        .kernels = worker->kernels,
        .memory = worker->memory,
        .tensor_comm = atomic_load(&worker->tensor_comm),
        .data_comm = atomic_load(&worker->data_comm),
        .memory_bytes = memory_bytes,
        .stage_start = task->stage_start[0] != '\0' ? task->stage_start : NULL,
        .first_seed = task->first_seed,
        .on_progress = on_progress,
        .on_disk_wait = on_disk_wait,
        .context = worker,
    };
    return learner_create(&options, task->path[0] != '\0' ? task->path : NULL, &worker->learner,
                          err);
}

/* What weights go to other hosts by; nothing is joined before they do. */
static void make_line(Worker *worker, const DeviceStreams *streams)
{
    const Weights *weights = trainer_weights(learner_policy(worker->learner));
    WeightLineOptions options = {
        .plan = weights->plan,
        .dtype = weights->dtype,
        .device = {.kernels = worker->kernels, .streams = streams},
        .timeout_ms = (int)worker->config->cluster.collective_timeout_s * 1000,
        .on_progress = on_progress,
        .context = worker,
    };
    if (streams != NULL) atomic_store(&worker->line, weight_line_create(&options));
}

/* The first measurement: nobody begins it before all ranks are there. */
static Status start_probe(Worker *worker, Error *err)
{
    TRY(comm_barrier(atomic_load(&worker->tensor_comm), err));
    TRY(comm_barrier(atomic_load(&worker->data_comm), err));
    worker->probe = probe_create(worker->kernels, job_dtype(worker->config));
    probe_run(worker->probe);
    return OK;
}

/* What a start takes, one part after the other, in seconds. */
typedef struct StartTimes {
    double device, join, probe, read, upload, prepare;
} StartTimes;

/* Seconds since *begin_ns, which becomes now. */
static double lap(int64_t *begin_ns)
{
    int64_t now = clock_ns();
    double seconds = (double)(now - *begin_ns) * 1e-9;
    *begin_ns = now;
    return seconds;
}

static void tell_start(const StartTimes *times)
{
    log_event(LOG_INFO, "start_up", F_REAL("device_s", times->device),
              F_REAL("join_s", times->join), F_REAL("probe_s", times->probe),
              F_REAL("read_s", times->read), F_REAL("upload_s", times->upload),
              F_REAL("prepare_s", times->prepare));
}

/* In the order in which people wait: device, ranks, the first measurement, the model. */
static Status bring_up(Worker *worker, const Task *task, DeviceInfo *device, StartTimes *times,
                       Error *err)
{
    int64_t begin = clock_ns();
    /* Nobody passes the join before all have read what is free: later, others may have begun to
     * allocate. */
    TRY(job_open_device(worker->config, &worker->kernels, device, err));
    worker->memory = device->memory;
    times->device = lap(&begin);
    TRY(join(worker, task, device->streams, err));
    times->join = lap(&begin);
    TRY(start_probe(worker, err));
    times->probe = lap(&begin);
    TRY(make_learner(worker, task, device->memory_free, err));
    make_line(worker, device->streams);
    worker->kernels->synchronize();
    LoadTimes load = learner_load_times(worker->learner);
    times->read = (double)load.read_ns * 1e-9;
    times->upload = (double)load.upload_ns * 1e-9;
    times->prepare = lap(&begin) - times->read - times->upload;
    return OK;
}

static Status run_start(Worker *worker, Task *task, Error *err)
{
    if (worker->learner != NULL || worker->config != NULL)
        return error_set(err, ERR_INTERNAL, "this rank was started before");
    TRY(job_config_parse(task->job_yaml, "the configuration", "/", &worker->config, err));
    const JobConfig *config = worker->config;
    DeviceInfo device;
    StartTimes times = {0};
    TRY(bring_up(worker, task, &device, &times, err));
    tell_start(&times);
    ModelConfig model;
    TRY(model_config_read(config->model.config, &model, err));
    Troupe__StartReply reply = TROUPE__START_REPLY__INIT;
    reply.step = (uint64_t)trainer_step(learner_policy(worker->learner));
    reply.parameters = (uint64_t)model_config_parameters(&model);
    reply.peak_flops = probe_rate(worker->probe);
    reply.memory_bytes = (uint64_t)learner_memory_bytes(worker->learner);
    reply.memory_available = (uint64_t)device.memory_free;
    reply.memory_plan = (char *)learner_memory_plan(worker->learner);
    if (job_device(config) != DEVICE_CPU) reply.device = device.text;
    if (job_dtype(config) == DTYPE_BF16 && device.note != NULL) reply.note = (char *)device.note;
    pack_answer(task, &reply.base);
    return OK;
}

static Status run_configure(Worker *worker, Task *task, Error *err)
{
    JobConfig *config = NULL;
    TRY(job_config_parse(task->job_yaml, "the new configuration", "/", &config, err));
    Status status = learner_configure(worker->learner, config, err);
    if (status != OK) {
        job_config_destroy(config);
        return status;
    }
    job_config_destroy(worker->config);
    worker->config = config;
    Troupe__ConfigureReply reply = TROUPE__CONFIGURE_REPLY__INIT;
    reply.memory_bytes = (uint64_t)learner_memory_bytes(worker->learner);
    pack_answer(task, &reply.base);
    return OK;
}

/* ---- compute thread: steps and saves ---- */

/* Of a process: what is made once, when it is first needed, is in its time. */
static void tell_first_step(const Worker *worker, int64_t begin_ns)
{
    int64_t now = clock_ns();
    log_event(LOG_INFO, "first_step", F_REAL("step_s", (double)(now - begin_ns) * 1e-9),
              F_REAL("since_start_s", (double)(now - worker->created_ns) * 1e-9));
}

static Status run_step(Worker *worker, Task *task, Error *err)
{
    int64_t stands = trainer_step(learner_policy(worker->learner));
    LearnerStep *step = &task->step;
    LearnerResult result;
    if (stands + 1 != step->step)
        return error_set(err, ERR_INTERNAL, "asked for step %lld, this rank stands at step %lld",
                         (long long)step->step, (long long)stands);
    step->micro_batch = task->plan->micro_batch;
    step->num_micro_batches = task->plan->num_micro_batches;
    if (train_source_count(worker->config) > 1) step->source = task->plan->source;
    int64_t begin = clock_ns();
    TRY(learner_step(worker->learner, step, &result, err));
    if (worker->steps == 0) tell_first_step(worker, begin);
    task->answer = step_reply_of_step(&result, step->batch != NULL, probe_rate(worker->probe));
    return OK;
}

static Status run_evaluate(Worker *worker, Task *task, Error *err)
{
    StepResult result;
    TRY(trainer_evaluate(learner_policy(worker->learner), task->plan->micro_batch,
                         task->plan->num_micro_batches, NULL, &result, err));
    task->answer = step_reply_of_evaluation(&result, probe_rate(worker->probe));
    return OK;
}

/* On the GPU that the weights are on, where that can be shared with rollout workers. */
static Status make_board(Worker *worker, const Weights *weights, Error *err)
{
    WeightBoardOptions options = {
        .plan = weights->plan,
        .dtype = weights->dtype,
        .memory = worker->memory,
        .num_slots = job_shown_weights(worker->config),
    };
    TRY(weight_board_create(&options, &worker->board_id, &worker->board, err));
    const char *note = weight_board_note(worker->board);
    if (note != NULL) log_event(LOG_WARN, "weights_through_host", F_STR("why", note));
    return OK;
}

static Status check_version(const Worker *worker, int64_t version, Error *err)
{
    int64_t stands = trainer_step(learner_policy(worker->learner));
    if (stands + 1 == version) return OK;
    return error_set(err, ERR_INTERNAL,
                     "asked for the weights of step %lld, this rank stands at step %lld",
                     (long long)version - 1, (long long)stands);
}

static Status run_publish(Worker *worker, Task *task, Error *err)
{
    int64_t begin_ns = clock_ns();
    const Weights *weights = trainer_weights(learner_policy(worker->learner));
    TRY(check_version(worker, task->version, err));
    if (worker->board == NULL) TRY(make_board(worker, weights, err));
    weight_board_publish(worker->board, task->version, weights->kernels, weights->flat);
    Troupe__PublishReply reply = TROUPE__PUBLISH_REPLY__INIT;
    reply.board = (ProtobufCBinaryData){sizeof worker->board_id, (uint8_t *)worker->board_id.bytes};
    reply.bytes = (uint64_t)weights->plan->size * dtype_size(weights->dtype);
    reply.seconds = (double)(clock_ns() - begin_ns) / 1e9;
    reply.digest = weight_board_digest(worker->board, task->version);
    pack_answer(task, &reply.base);
    return OK;
}

/* Not on the loop thread, as NCCL looks for networks. */
static Status run_meet(Worker *worker, Task *task, Error *err)
{
    Troupe__MeetReply reply = TROUPE__MEET_REPLY__INIT;
    (void)worker;
    TRY(weight_line_id_create(task->move.size, &task->move.group, err));
    reply.group = (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)task->move.group.bytes};
    pack_answer(task, &reply.base);
    return OK;
}

/* From where training computes: it goes on when they are through. */
static Status run_send(Worker *worker, Task *task, Error *err)
{
    int64_t begin_ns = clock_ns();
    WeightLine *line = atomic_load(&worker->line);
    Troupe__SendReply reply = TROUPE__SEND_REPLY__INIT;
    if (line == NULL)
        return error_set(err, ERR_UNSUPPORTED, "weights go to other hosts from GPUs alone");
    TRY(check_version(worker, task->move.version, err));
    void *flat = trainer_weights(learner_policy(worker->learner))->flat;
    TRY(weight_line_move(line, &task->move, flat, &reply.digest, err));
    reply.seconds = (double)(clock_ns() - begin_ns) / 1e9;
    pack_answer(task, &reply.base);
    return OK;
}

static Status run_save(Worker *worker, Task *task, Error *err)
{
    SavedFiles files = {0};
    TRY(learner_save(worker->learner, task->path, &files, err));
    Arena *arena = arena_create();
    Troupe__SaveReply reply = TROUPE__SAVE_REPLY__INIT;
    reply.n_files = (size_t)files.num_files;
    reply.files = arena_alloc(arena, reply.n_files * sizeof(void *));
    for (int f = 0; f < files.num_files; f++) {
        const SavedFile *from = &files.file[f];
        Troupe__SavedFile *file = arena_alloc(arena, sizeof *file);
        troupe__saved_file__init(file);
        file->name = from->name;
        file->bytes = (uint64_t)from->bytes;
        file->sha256 = (char *)from->sha256;
        file->n_tensors = (size_t)from->num_tensors;
        file->tensors = arena_alloc(arena, file->n_tensors * sizeof(void *));
        for (int t = 0; t < from->num_tensors; t++) {
            Troupe__SavedTensor *tensor = arena_alloc(arena, sizeof *tensor);
            troupe__saved_tensor__init(tensor);
            tensor->name = from->tensor[t].name;
            tensor->bytes = (uint64_t)from->tensor[t].bytes;
            file->tensors[t] = tensor;
        }
        reply.files[f] = file;
    }
    pack_answer(task, &reply.base);
    arena_destroy(arena);
    saved_files_clear(&files);
    return OK;
}

/* ---- compute thread: turns on a GPU ---- */

/* All that was allocated for training, but for what the communicators have. */
static Status run_rest(Worker *worker, Task *task, Error *err)
{
    int64_t begin_ns = clock_ns();
    const DeviceMemory *memory = learner_pools(worker->learner);
    Troupe__RestReply reply = TROUPE__REST_REPLY__INIT;
    if (memory == NULL)
        return error_set(err, ERR_INTERNAL, "this rank was not made to rest (rollout.offload)");
    int64_t bytes = memory->pool_release(POOL_STATE, true);
    bytes += memory->pool_release(POOL_SCRATCH, false);
    worker->rests = true;
    reply.bytes = (uint64_t)bytes;
    reply.seconds = (double)(clock_ns() - begin_ns) / 1e9;
    pack_answer(task, &reply.base);
    return OK;
}

static Status wake(Worker *worker, Error *err)
{
    char why[256] = "";
    const DeviceMemory *memory = learner_pools(worker->learner);
    if (!worker->rests) return OK;
    if (!memory->pool_restore(POOL_STATE, why, sizeof why) ||
        !memory->pool_restore(POOL_SCRATCH, why, sizeof why))
        return error_set(err, ERR_RESOURCE,
                         "the GPU's memory that this rank had given back is not to be had again: "
                         "%s.\nSee that nothing else uses the GPU, or lower train.memory_gb.",
                         why);
    worker->rests = false;
    return OK;
}

static Status run_task(Worker *worker, Task *task)
{
    static Status (*const run[])(Worker *, Task *, Error *) = {
        [TASK_BOOTSTRAP] = run_bootstrap, [TASK_START] = run_start,
        [TASK_CONFIGURE] = run_configure, [TASK_STEP] = run_step,
        [TASK_EVALUATE] = run_evaluate,   [TASK_PUBLISH] = run_publish,
        [TASK_SAVE] = run_save,           [TASK_REST] = run_rest,
        [TASK_MEET] = run_meet,           [TASK_SEND] = run_send,
    };
    if (task->kind > TASK_START && worker->learner == NULL)
        return error_set(&task->error, ERR_INTERNAL, "this rank was not started");
    if (task->kind > TASK_START) TRY(wake(worker, &task->error));
    return run[task->kind](worker, task, &task->error);
}

/* ---- between the threads ---- */

static void task_destroy(Task *task)
{
    fetched_plan_destroy(task->plan);
    free(task->batch);
    free(task->path);
    free(task->stage_start);
    free(task->job_yaml);
    free(task->answer.data);
    free(task);
}

static void task_done(void *argument)
{
    Task *task = argument;
    task->worker->working--;
    task->worker->options.on_doing(task->worker->options.context, "idle");
    if (task->status == OK)
        call_reply(task->call, (Bytes){task->answer.data, task->answer.length}, (Bytes){0});
    else
        call_fail(task->call, &task->error);
    task_destroy(task);
}

/* When the answer is on its way, so that no step counts the time; all ranks are here at once, since
 * a step ends with what they do together. */
static void measure_again(Worker *worker, TaskKind done)
{
    if (done == TASK_STEP) {
        worker->steps++;
        worker->probe_is_late = true;
        if (!probe_is_due(worker->steps)) return;
    } else if (done != TASK_EVALUATE || !worker->probe_is_late) {
        return;
    }
    probe_run(worker->probe);
    worker->probe_is_late = false;
}

static void *compute(void *argument)
{
    Worker *worker = argument;
    for (Task *task; (task = queue_take(worker->tasks, -1)) != NULL;) {
        TaskKind kind = task->kind;
        Status status = task->status = run_task(worker, task);
        loop_post(worker->options.loop, task_done, task);
        if (status == OK) measure_again(worker, kind);
    }
    return NULL;
}

static Task *new_task(Worker *worker, TaskKind kind, Call *call, const char *path)
{
    Task *task = mem_calloc(1, sizeof *task);
    task->worker = worker;
    task->kind = kind;
    task->call = call;
    task->path = mem_strdup(path);
    return task;
}

static void submit(Task *task, const char *doing)
{
    Worker *worker = task->worker;
    worker->options.on_doing(worker->options.context, doing);
    if (queue_try_put(worker->tasks, task)) {
        worker->working++;
        return;
    }
    call_failf(task->call, ERR_RESOURCE, "more than %d tasks wait in this rank", TASKS_MAX);
    task_destroy(task);
}

/* ---- loop thread: methods ---- */

static void on_bootstrap(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__BootstrapRequest *request =
        troupe__bootstrap_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
        return;
    }
    Task *task = new_task(self, TASK_BOOTSTRAP, call, NULL);
    task->wants_tensor_id = request->tensor_group;
    task->wants_data_id = request->data_group;
    submit(task, "meeting the other ranks");
    troupe__bootstrap_request__free_unpacked(request, NULL);
}

static void on_start(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__StartRequest *request = troupe__start_request__unpack(NULL, body.length, body.data);
    if (request == NULL || request->tensor_group_id.len != COMM_ID_BYTES ||
        request->data_group_id.len != COMM_ID_BYTES) {
        call_refuse_unreadable(call);
    } else {
        Task *task = new_task(self, TASK_START, call, request->checkpoint);
        task->job_yaml = mem_strdup(request->job_yaml);
        task->stage_start = mem_strdup(request->stage_start);
        task->first_seed = request->first_seed;
        memcpy(task->tensor_id.bytes, request->tensor_group_id.data, COMM_ID_BYTES);
        memcpy(task->data_id.bytes, request->data_group_id.data, COMM_ID_BYTES);
        submit(task, "loading the model");
    }
    if (request != NULL) troupe__start_request__free_unpacked(request, NULL);
}

static void on_fetch(void *self, Call *call)
{
    Worker *worker = self;
    plan_store_fetch(worker->plans, call);
}

static bool is_whole_batch(const Troupe__PolicyBatch *batch)
{
    return batch == NULL || (batch->n_position > 0 && batch->n_position == batch->n_index &&
                             batch->n_position == batch->n_reward);
}

static void take_batch(Task *task, const Troupe__PolicyBatch *batch)
{
    task->batch = mem_calloc(batch->n_position, sizeof *task->batch);
    for (size_t i = 0; i < batch->n_position; i++)
        task->batch[i] = (SampleMeta){
            .position = (int64_t)batch->position[i],
            .index = (int32_t)batch->index[i],
            .reward = batch->reward[i],
        };
    task->step.batch = task->batch;
    task->step.batch_size = (int)batch->n_position;
    task->step.weight_version = (int64_t)batch->weight_version;
}

static void on_step(void *self, Call *call)
{
    Worker *worker = self;
    Bytes body = call_body(call);
    Troupe__StepRequest *request = troupe__step_request__unpack(NULL, body.length, body.data);
    FetchedPlan *plan = NULL;
    Error err;
    if (request == NULL || !is_whole_batch(request->policy)) {
        call_refuse_unreadable(call);
    } else if (plan_store_take(worker->plans, request->plan, &plan, &err) != OK) {
        call_fail(call, &err);
    } else {
        char doing[64];
        snprintf(doing, sizeof doing, "step %llu", (unsigned long long)request->step);
        Task *task = new_task(worker, TASK_STEP, call, NULL);
        task->plan = plan;
        task->step.step = (int64_t)request->step;
        task->step.trained_tokens = (int64_t)request->trained_tokens;
        task->step.first_step = (int64_t)request->first_step;
        task->step.total_steps = (int64_t)request->total_steps;
        if (request->policy != NULL) take_batch(task, request->policy);
        submit(task, doing);
    }
    if (request != NULL) troupe__step_request__free_unpacked(request, NULL);
}

static void on_evaluate(void *self, Call *call)
{
    Worker *worker = self;
    Bytes body = call_body(call);
    Troupe__EvaluateRequest *request =
        troupe__evaluate_request__unpack(NULL, body.length, body.data);
    FetchedPlan *plan = NULL;
    Error err;
    if (request == NULL) {
        call_refuse_unreadable(call);
    } else if (plan_store_take(worker->plans, request->plan, &plan, &err) != OK) {
        call_fail(call, &err);
    } else {
        Task *task = new_task(worker, TASK_EVALUATE, call, NULL);
        task->plan = plan;
        submit(task, "evaluation");
    }
    if (request != NULL) troupe__evaluate_request__free_unpacked(request, NULL);
}

static void on_configure(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__ConfigureRequest *request =
        troupe__configure_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
    } else {
        Task *task = new_task(self, TASK_CONFIGURE, call, NULL);
        task->job_yaml = mem_strdup(request->job_yaml);
        plan_store_forget(((Worker *)self)->plans);
        submit(task, "the next stage");
        troupe__configure_request__free_unpacked(request, NULL);
    }
}

static void on_publish(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__PublishRequest *request = troupe__publish_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
    } else {
        Task *task = new_task(self, TASK_PUBLISH, call, NULL);
        task->version = (int64_t)request->version;
        submit(task, "weights for generation");
        troupe__publish_request__free_unpacked(request, NULL);
    }
}

static void on_meet(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__MeetRequest *request = troupe__meet_request__unpack(NULL, body.length, body.data);
    if (request == NULL || request->size < 2 || request->size > INT32_MAX) {
        call_refuse_unreadable(call);
    } else {
        Task *task = new_task(self, TASK_MEET, call, NULL);
        task->move.size = (int)request->size;
        submit(task, "meeting rollout workers of other hosts");
    }
    if (request != NULL) troupe__meet_request__free_unpacked(request, NULL);
}

static void on_send(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__SendRequest *request = troupe__send_request__unpack(NULL, body.length, body.data);
    if (request == NULL || request->group.len != COMM_ID_BYTES || request->id == 0 ||
        request->size < 2 || request->size > INT32_MAX) {
        call_refuse_unreadable(call);
    } else {
        Task *task = new_task(self, TASK_SEND, call, NULL);
        task->move = (WeightMove){
            .id = request->id, .version = (int64_t)request->version, .size = (int)request->size};
        memcpy(task->move.group.bytes, request->group.data, COMM_ID_BYTES);
        submit(task, "weights to other hosts");
    }
    if (request != NULL) troupe__send_request__free_unpacked(request, NULL);
}

static void on_abandon(void *self, Call *call)
{
    Worker *worker = self;
    Bytes body = call_body(call);
    Troupe__AbandonRequest *request = troupe__abandon_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
        return;
    }
    WeightLine *line = atomic_load(&worker->line);
    if (line != NULL) weight_line_abandon(line, request->id);
    call_reply(call, (Bytes){0}, (Bytes){0});
    troupe__abandon_request__free_unpacked(request, NULL);
}

static void on_save(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__SaveRequest *request = troupe__save_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
    } else {
        submit(new_task(self, TASK_SAVE, call, request->folder), "checkpoint");
        troupe__save_request__free_unpacked(request, NULL);
    }
}

static void on_rest(void *self, Call *call)
{
    submit(new_task(self, TASK_REST, call, NULL), "giving the GPU to generation");
}

const ActorMethod worker_methods[] = {
    {"train.bootstrap", on_bootstrap}, {"train.start", on_start}, {"train.configure", on_configure},
    {"train.fetch", on_fetch},         {"train.step", on_step},   {"train.evaluate", on_evaluate},
    {"train.publish", on_publish},     {"train.save", on_save},   {"train.rest", on_rest},
    {"train.meet", on_meet},           {"train.send", on_send},   {"weights.abandon", on_abandon},
};
const int worker_num_methods = sizeof worker_methods / sizeof *worker_methods;

void worker_describe_wait(const Worker *worker, char *text, size_t size)
{
    const Comm *comms[] = {atomic_load(&worker->tensor_comm), atomic_load(&worker->data_comm)};
    text[0] = '\0';
    for (int i = 0; i < 2 && text[0] == '\0'; i++)
        if (comms[i] != NULL) comm_describe_wait(comms[i], text, size);
    WeightLine *line = atomic_load(&worker->line);
    if (text[0] == '\0' && line != NULL) weight_line_describe_wait(line, text, size);
}

int worker_working(const Worker *worker)
{
    return worker->working;
}

uint64_t worker_vouch(Worker *worker)
{
    int64_t since_ms = atomic_load(&worker->disk_wait_ms);
    if (since_ms != 0 && clock_ms() - since_ms < DISK_PATIENCE_MS) worker->vouched++;
    return worker->vouched;
}

/* ---- life ---- */

Worker *worker_create(const WorkerOptions *options)
{
    Worker *worker = mem_calloc(1, sizeof *worker);
    worker->options = *options;
    worker->created_ns = clock_ns();
    worker->plans = plan_store_create(options->loop, options->self);
    worker->tasks = queue_create(TASKS_MAX);
    int failed = pthread_create(&worker->thread, NULL, compute, worker);
    CHECKF(failed == 0, "could not start the compute thread: %s", strerror(failed));
    return worker;
}

void worker_destroy(Worker *worker)
{
    if (worker == NULL) return;
    Comm *tensor_comm = atomic_load(&worker->tensor_comm),
         *data_comm = atomic_load(&worker->data_comm);
    if (tensor_comm != NULL) comm_abort(tensor_comm);
    if (data_comm != NULL) comm_abort(data_comm);
    if (atomic_load(&worker->line) != NULL)
        weight_line_abandon(atomic_load(&worker->line), UINT64_MAX);
    queue_close(worker->tasks);
    pthread_join(worker->thread, NULL);
    probe_destroy(worker->probe);
    weight_board_destroy(worker->board); /* its plan is the learner's */
    weight_line_destroy(atomic_load(&worker->line));
    learner_destroy(worker->learner);
    job_config_destroy(worker->config);
    comm_destroy(tensor_comm);
    comm_destroy(data_comm);
    plan_store_destroy(worker->plans);
    queue_destroy(worker->tasks);
    free(worker);
}
