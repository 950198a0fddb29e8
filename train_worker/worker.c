#include "worker.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actor/typed.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/queue.h"
#include "job_options.h"
#include "memory_plan.h"
#include "model/lr_schedule.h"
#include "probe.h"
#include "train.pb-c.h"

#define TASKS_MAX 16
#define STAGING_BYTES                                                                              \
    ((size_t)512 << 10) /* per rank and communicator: the most that comm.h takes */
#define JOIN_TIMEOUT_MS 30000

typedef enum { TASK_START, TASK_STEP, TASK_EVALUATE, TASK_SAVE } TaskKind;

/* One piece of work for the compute thread, and its answer on the way back. */
typedef struct Task {
    Worker *worker;
    TaskKind kind;
    Call *call;
    CommId tensor_id, data_id; /* start */
    char *path;                /* start: checkpoint; save: folder */
    FetchedPlan *plan;         /* step, evaluate */
    int64_t step, trained_tokens, total_steps;
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
    CommId own_tensor_id, own_data_id;
    /* compute thread */
    const KernelTable *kernels;
    Trainer *trainer;
    Probe *probe;
    int64_t steps;      /* made by this process */
    bool probe_is_late; /* steps were made since the last measurement */
    /* both: set once by the compute thread, read for the beat */
    _Atomic(Comm *) tensor_comm, data_comm;
    atomic_bool waits_for_disk;
};

/* ---- compute thread: start ---- */

static int num_threads(const JobConfig *config)
{
    if (config->train.threads > 0) return (int)config->train.threads;
    int cpus = (int)floor(config->cluster.cpus_per_train_worker);
    return cpus > 1 ? cpus : 1;
}

static Status join(Worker *worker, const Task *task, Error *err)
{
    const WorkerOptions *o = &worker->options;
    Comm *comm = NULL;
    TRY(comm_create(o->tp_size > 1 ? COMM_SHM : COMM_SELF, &task->tensor_id, o->tp_rank, o->tp_size,
                    JOIN_TIMEOUT_MS, &comm, err));
    atomic_store(&worker->tensor_comm, comm);
    comm_set_timeout(comm, (int)o->config->cluster.collective_timeout_s * 1000);
    TRY(comm_create(o->dp_size > 1 ? COMM_SHM : COMM_SELF, &task->data_id, o->dp_rank, o->dp_size,
                    JOIN_TIMEOUT_MS, &comm, err));
    atomic_store(&worker->data_comm, comm);
    comm_set_timeout(comm, (int)o->config->cluster.collective_timeout_s * 1000);
    return OK;
}

static void on_progress(void *argument)
{
    const Worker *worker = argument;
    worker->options.on_progress(worker->options.context);
}

static void on_disk_wait(void *argument, bool waits)
{
    atomic_store(&((Worker *)argument)->waits_for_disk, waits);
}

/* `memory_bytes` is what was free before any rank of this start took its share. */
static Status make_trainer(Worker *worker, int64_t memory_bytes, Error *err)
{
    TrainerOptions options = {0};
    TRY(job_trainer_options(worker->options.config, memory_bytes, &options, err));
    options.kernels = worker->kernels;
    options.tensor_comm = atomic_load(&worker->tensor_comm);
    options.data_comm = atomic_load(&worker->data_comm);
    options.on_progress = on_progress;
    options.on_disk_wait = on_disk_wait;
    options.progress_context = worker;
    return trainer_create(&options, &worker->trainer, err);
}

/* The first measurement: nobody begins it before all ranks are there. */
static Status start_probe(Worker *worker, Error *err)
{
    TRY(comm_barrier(atomic_load(&worker->tensor_comm), err));
    TRY(comm_barrier(atomic_load(&worker->data_comm), err));
    worker->probe = probe_create(worker->kernels, job_dtype(worker->options.config));
    probe_run(worker->probe);
    return OK;
}

static void pack_answer(Task *task, const ProtobufCMessage *message)
{
    task->answer = message_pack(message);
}

static Status run_start(Worker *worker, Task *task, Error *err)
{
    const JobConfig *config = worker->options.config;
    if (worker->trainer != NULL)
        return error_set(err, ERR_INTERNAL, "this rank was started before");
    worker->kernels = cpu_kernels(num_threads(config));
    /* Nobody passes the join before all have read it: later, others may have begun to allocate. */
    int64_t memory_bytes = memory_available();
    TRY(join(worker, task, err));
    TRY(start_probe(worker, err));
    TRY(make_trainer(worker, memory_bytes, err));
    if (task->path[0] != '\0')
        TRY(trainer_load(worker->trainer, task->path, err));
    else if (config->model.init == INIT_RANDOM)
        TRY(trainer_init_random(worker->trainer, config->seed, err));
    else
        TRY(trainer_load_weights(worker->trainer, config->model.path, err));
    ModelConfig model;
    TRY(model_config_read(config->model.config, &model, err));
    Troupe__StartReply reply = TROUPE__START_REPLY__INIT;
    reply.step = (uint64_t)trainer_step(worker->trainer);
    reply.parameters = (uint64_t)model_config_parameters(&model);
    reply.memory_bytes = (uint64_t)trainer_memory_bytes(worker->trainer);
    reply.memory_plan = (char *)trainer_memory_plan(worker->trainer);
    reply.peak_flops = probe_rate(worker->probe);
    if (job_dtype(config) == DTYPE_BF16 && cpu_kernels_note() != NULL)
        reply.note = (char *)cpu_kernels_note();
    pack_answer(task, &reply.base);
    return OK;
}

/* ---- compute thread: steps and saves ---- */

static void pack_result(Task *task, const StepResult *result, double lr)
{
    Troupe__StepReply reply = TROUPE__STEP_REPLY__INIT;
    reply.loss_sum = result->loss_sum;
    reply.trained_tokens = (uint64_t)result->trained_tokens;
    reply.tokens = (uint64_t)result->tokens;
    reply.correct = (uint64_t)result->correct;
    reply.grad_norm = result->grad_norm;
    reply.skipped = result->skipped;
    reply.forward_s = result->forward_s;
    reply.backward_s = result->backward_s;
    reply.comm_s = result->comm_s;
    reply.optimizer_s = result->optimizer_s;
    reply.flops = result->flops;
    reply.lr = lr;
    reply.peak_flops = probe_rate(task->worker->probe);
    pack_answer(task, &reply.base);
}

static Status run_step(Worker *worker, Task *task, Error *err)
{
    const JobConfig *config = worker->options.config;
    LrPlan schedule = {
        .schedule = config->train.lr_schedule,
        .lr = config->train.lr,
        .min_lr = config->train.min_lr,
        .num_steps = task->total_steps,
        .warmup_steps = config->train.warmup_steps,
        .decay_steps = config->train.decay_steps,
    };
    TrainStep step = {
        .micro_batch = task->plan->micro_batch,
        .num_micro_batches = task->plan->num_micro_batches,
        .step = task->step,
        .trained_tokens = task->trained_tokens,
        .lr = lr_plan_at(&schedule, task->step),
    };
    StepResult result;
    if (trainer_step(worker->trainer) + 1 != task->step)
        return error_set(err, ERR_INTERNAL, "asked for step %lld, this rank stands at step %lld",
                         (long long)task->step, (long long)trainer_step(worker->trainer));
    TRY(trainer_train_step(worker->trainer, &step, &result, err));
    pack_result(task, &result, step.lr);
    return OK;
}

static Status run_evaluate(Worker *worker, Task *task, Error *err)
{
    StepResult result;
    TRY(trainer_evaluate(worker->trainer, task->plan->micro_batch, task->plan->num_micro_batches,
                         NULL, &result, err));
    pack_result(task, &result, 0);
    return OK;
}

static Status run_save(Worker *worker, Task *task, Error *err)
{
    SavedFiles files = {0};
    TRY(trainer_save(worker->trainer, task->path, &files, err));
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

static Status run_task(Worker *worker, Task *task)
{
    static Status (*const run[])(Worker *, Task *, Error *) = {
        [TASK_START] = run_start,
        [TASK_STEP] = run_step,
        [TASK_EVALUATE] = run_evaluate,
        [TASK_SAVE] = run_save,
    };
    if (task->kind != TASK_START && worker->trainer == NULL)
        return error_set(&task->error, ERR_INTERNAL, "this rank was not started");
    return run[task->kind](worker, task, &task->error);
}

/* ---- between the threads ---- */

static void task_destroy(Task *task)
{
    fetched_plan_destroy(task->plan);
    free(task->path);
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
    Worker *worker = self;
    const WorkerOptions *o = &worker->options;
    Bytes body = call_body(call);
    Troupe__BootstrapRequest *request =
        troupe__bootstrap_request__unpack(NULL, body.length, body.data);
    Troupe__BootstrapReply reply = TROUPE__BOOTSTRAP_REPLY__INIT;
    Error err;
    Status status = OK;
    bool tensor = request != NULL && request->tensor_group,
         data = request != NULL && request->data_group;
    if (tensor)
        status = comm_id_create(o->tp_size > 1 ? COMM_SHM : COMM_SELF, o->tp_size, STAGING_BYTES,
                                &worker->own_tensor_id, &err);
    if (status == OK && data)
        status = comm_id_create(o->dp_size > 1 ? COMM_SHM : COMM_SELF, o->dp_size, STAGING_BYTES,
                                &worker->own_data_id, &err);
    if (status != OK) {
        call_fail(call, &err);
    } else {
        if (tensor)
            reply.tensor_group_id =
                (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)worker->own_tensor_id.bytes};
        if (data)
            reply.data_group_id =
                (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)worker->own_data_id.bytes};
        call_reply_message(call, &reply.base);
    }
    if (request != NULL) troupe__bootstrap_request__free_unpacked(request, NULL);
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

static void on_step(void *self, Call *call)
{
    Worker *worker = self;
    Bytes body = call_body(call);
    Troupe__StepRequest *request = troupe__step_request__unpack(NULL, body.length, body.data);
    FetchedPlan *plan = NULL;
    Error err;
    if (request == NULL) {
        call_refuse_unreadable(call);
    } else if (plan_store_take(worker->plans, request->plan, &plan, &err) != OK) {
        call_fail(call, &err);
    } else {
        char doing[64];
        snprintf(doing, sizeof doing, "step %llu", (unsigned long long)request->step);
        Task *task = new_task(worker, TASK_STEP, call, NULL);
        task->plan = plan;
        task->step = (int64_t)request->step;
        task->trained_tokens = (int64_t)request->trained_tokens;
        task->total_steps = (int64_t)request->total_steps;
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

const ActorMethod worker_methods[] = {
    {"train.bootstrap", on_bootstrap}, {"train.start", on_start},       {"train.fetch", on_fetch},
    {"train.step", on_step},           {"train.evaluate", on_evaluate}, {"train.save", on_save},
};
const int worker_num_methods = sizeof worker_methods / sizeof *worker_methods;

void worker_describe_wait(const Worker *worker, char *text, size_t size)
{
    const Comm *comms[] = {atomic_load(&worker->tensor_comm), atomic_load(&worker->data_comm)};
    text[0] = '\0';
    for (int i = 0; i < 2 && text[0] == '\0'; i++)
        if (comms[i] != NULL) comm_describe_wait(comms[i], text, size);
}

int worker_working(const Worker *worker)
{
    return worker->working;
}

uint64_t worker_vouch(Worker *worker)
{
    if (atomic_load(&worker->waits_for_disk)) worker->vouched++;
    return worker->vouched;
}

/* ---- life ---- */

Worker *worker_create(const WorkerOptions *options)
{
    Worker *worker = mem_calloc(1, sizeof *worker);
    worker->options = *options;
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
    queue_close(worker->tasks);
    pthread_join(worker->thread, NULL);
    trainer_destroy(worker->trainer);
    probe_destroy(worker->probe);
    comm_destroy(tensor_comm);
    comm_destroy(data_comm);
    plan_store_destroy(worker->plans);
    queue_destroy(worker->tasks);
    free(worker);
}
