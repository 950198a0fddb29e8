#include "data_source/service.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/queue.h"
#include "config/eval_set.h"
#include "data_source/file_list.h"
#include "dataset/stream.h"
#include "rollout.pb-c.h"

enum {
    CALLS_MAX = 1024, /* waiting for a reader */
    /* Where an answer ends: one more record still fits into a message. */
    ANSWER_BYTES = 8 << 20,
};
_Static_assert(ANSWER_BYTES + (uint64_t)JSONL_LINE_BYTES_MAX <= MESSAGE_BYTES_MAX, "records fit");

typedef struct SourceSet {
    const char *name, *key; /* of the configuration */
    const StringList *paths;
    DataOrder order;
    _Atomic(Stream *) stream; /* NULL until it was asked for; set once, under open_lock */
} SourceSet;

struct DataService {
    Loop *loop;
    const JobConfig *config;
    char *index_folder, *hub_commits;
    SourceSet *set; /* [num_sets]: train first, then those of evaluations */
    int num_sets;
    pthread_mutex_t open_lock;    /* one set is indexed at a time */
    _Atomic(SourceSet *) opening; /* that one */
    Queue *tasks;
    pthread_t *reader; /* [num_readers]: they mostly wait for the disk */
    int num_readers;
    struct Task *in_work; /* every task from its call to its answer; loop thread */
    ReadWatch watch;
};

/* One call on its way through a reader thread. */
typedef struct Task {
    DataService *service;
    Call *call;
    int64_t deadline_ms;
    SourceSet *set;
    Status (*work)(struct Task *task); /* on a reader thread */
    uint64_t first;
    uint32_t count;
    char known[DIGEST_HEX_BYTES]; /* fingerprint; "": none */
    Status status;
    Error err;
    Str body, attachment;
    struct Task *previous, *next;
} Task;

/* ---- reader threads ---- */

static void log_opened(const SourceSet *set, const DatasetSummary *summary, int64_t ms)
{
    log_event(LOG_INFO, "data_set_opened", F_STR("set", set->name),
              F_INT("files", (int64_t)summary->files), F_INT("records", (int64_t)summary->records),
              F_INT("bytes", (int64_t)summary->bytes),
              F_INT("files_indexed", (int64_t)summary->files_indexed), F_INT("ms", ms));
    if (summary->warning != NULL)
        log_event(LOG_WARN, "index_not_kept", F_STR("set", set->name),
                  F_STR("reason", summary->warning));
}

static Status open_stream(DataService *service, SourceSet *set, Error *err)
{
    int64_t start = clock_ms();
    StreamOptions options = {
        .key = set->key,
        .path = (const char *const *)set->paths->item,
        .num_paths = set->paths->count,
        .index_folder = service->index_folder,
        .order = set->order,
        .seed = (uint64_t)service->config->seed,
        .watch = &service->watch,
        .hub_commits = service->hub_commits,
        .hub_bytes_max = (int64_t)(service->config->data.cache_gb * 1e9),
    };
    Stream *stream = NULL;
    TRY(stream_open(&options, &stream, err));
    DatasetSummary summary = dataset_summary(stream_dataset(stream));
    log_opened(set, &summary, clock_ms() - start);
    set->stream = stream;
    return OK;
}

/* Gives the set's stream, opening it if nobody did. */
static Status need_stream(DataService *service, SourceSet *set, const Stream **ret, Error *err)
{
    Status status = OK;
    if (set->stream == NULL) {
        pthread_mutex_lock(&service->open_lock);
        service->opening = set;
        if (set->stream == NULL) status = open_stream(service, set, err);
        service->opening = NULL;
        pthread_mutex_unlock(&service->open_lock);
    }
    *ret = set->stream;
    return status;
}

static void pack_body(Str *body, const ProtobufCMessage *message)
{
    str_reserve(body, protobuf_c_message_get_packed_size(message) + 1);
    body->length = protobuf_c_message_pack(message, (uint8_t *)body->data);
}

/* Which files are others than under the fingerprint that is known. Owned. */
static char *find_changes(const Task *task, const Dataset *dataset, const char *fingerprint)
{
    const char *folder = task->service->index_folder;
    file_list_keep(folder, fingerprint, dataset);
    if (task->known[0] == '\0' || strcmp(task->known, fingerprint) == 0) return mem_strdup("");
    return file_list_changes(folder, task->known, dataset);
}

static Status open_work(Task *task)
{
    const Stream *stream = NULL;
    TRY(need_stream(task->service, task->set, &stream, &task->err));
    const Dataset *dataset = stream_dataset(stream);
    DatasetSummary summary = dataset_summary(dataset);
    char fingerprint[DIGEST_HEX_BYTES];
    stream_fingerprint(stream, fingerprint);
    Troupe__OpenSetReply reply = TROUPE__OPEN_SET_REPLY__INIT;
    reply.records = stream_records(stream);
    reply.fingerprint = fingerprint;
    reply.files = summary.files;
    reply.bytes = summary.bytes;
    reply.changes = find_changes(task, dataset, fingerprint);
    pack_body(&task->body, &reply.base);
    free(reply.changes);
    return OK;
}

/* Reads one record into the attachment; a record that cannot be read by itself is told in its
 * `error`. */
static Status read_record(Task *task, StreamReader *reader, uint64_t position, Troupe__Record *ret)
{
    StreamRecord record;
    size_t before = task->attachment.length;
    Status status = stream_read(reader, position, &task->attachment, &record, &task->err);
    if (status != OK && status != ERR_DATA) return status;
    troupe__record__init(ret);
    ret->position = position;
    ret->epoch = (uint32_t)record.epoch;
    ret->source = mem_printf("%s:%llu", record.source.path, (unsigned long long)record.source.line);
    if (status == OK)
        ret->length = (uint32_t)(task->attachment.length - before);
    else
        ret->error = mem_strdup(task->err.message);
    return OK;
}

static void free_record(Troupe__Record *record)
{
    free(record->source);
    if (record->error != protobuf_c_empty_string) free(record->error);
}

static Status read_work(Task *task)
{
    const Stream *stream = NULL;
    TRY(need_stream(task->service, task->set, &stream, &task->err));
    StreamReader *reader = stream_reader_open(stream);
    Troupe__Record *record = mem_calloc(task->count, sizeof *record);
    Troupe__Record **list = mem_calloc(task->count, sizeof *list);
    Status status = OK;
    size_t count = 0;
    while (count < task->count && task->attachment.length < ANSWER_BYTES) {
        status = read_record(task, reader, task->first + count, &record[count]);
        if (status != OK) break;
        list[count] = &record[count];
        count++;
        task->service->watch.progress++;
    }
    if (status == OK) {
        Troupe__ReadReply reply = TROUPE__READ_REPLY__INIT;
        reply.n_records = count;
        reply.records = list;
        pack_body(&task->body, &reply.base);
    }
    for (size_t i = 0; i < count; i++)
        free_record(&record[i]);
    stream_reader_close(reader);
    free(list);
    free(record);
    return status;
}

static void finish_task(void *argument);

static void *reader_main(void *argument)
{
    DataService *service = argument;
    for (Task *task; (task = queue_take(service->tasks, -1)) != NULL;) {
        /* Nobody waits for an answer after the deadline: the time is better spent on the next call.
         */
        if (clock_ms() >= task->deadline_ms)
            task->status = error_set(&task->err, ERR_TIMEOUT, "the data source was too busy");
        else
            task->status = task->work(task);
        loop_post(service->loop, finish_task, task);
    }
    return NULL;
}

/* ---- loop thread ---- */

static void free_task(Task *task)
{
    DataService *service = task->service;
    if (task->previous != NULL) task->previous->next = task->next;
    if (task->next != NULL) task->next->previous = task->previous;
    if (service->in_work == task) service->in_work = task->next;
    str_free(&task->body);
    str_free(&task->attachment);
    free(task);
}

static void finish_task(void *argument)
{
    Task *task = argument;
    if (task->status == OK)
        call_reply(task->call, (Bytes){(uint8_t *)task->body.data, task->body.length},
                   (Bytes){(uint8_t *)task->attachment.data, task->attachment.length});
    else
        call_fail(task->call, &task->err);
    free_task(task);
}

static void start_task(DataService *service, Call *call, const Task *wanted)
{
    Task *task = mem_alloc(sizeof *task);
    *task = *wanted;
    task->service = service;
    task->call = call;
    task->deadline_ms = call_deadline_ms(call);
    task->next = service->in_work;
    if (task->next != NULL) task->next->previous = task;
    service->in_work = task;
    if (queue_try_put(service->tasks, task)) return;
    call_failf(call, ERR_RESOURCE, "the data source has %d calls waiting and takes no more",
               CALLS_MAX);
    free_task(task);
}

static Status find_set(DataService *service, const char *name, SourceSet **ret, Error *err)
{
    for (int i = 0; i < service->num_sets; i++) {
        if (strcmp(service->set[i].name, name) != 0) continue;
        *ret = &service->set[i];
        return OK;
    }
    if (strcmp(name, "eval") == 0)
        return error_set(err, ERR_NOT_FOUND, "the job names no files for data.eval");
    return error_set(err, ERR_INVALID, "there is no set \"%.40s\" in the job", name);
}

static void on_open(void *self, Call *call)
{
    DataService *service = self;
    Bytes body = call_body(call);
    Troupe__OpenSetRequest *request =
        troupe__open_set_request__unpack(NULL, body.length, body.data);
    Task task = {.work = open_work};
    Error err = {0};
    if (request == NULL)
        call_failf(call, ERR_INVALID, "the body of data_source.open is not an OpenSetRequest");
    else if (find_set(service, request->set, &task.set, &err) != OK)
        call_fail(call, &err);
    else {
        snprintf(task.known, sizeof task.known, "%s", request->known);
        start_task(service, call, &task);
    }
    if (request != NULL) troupe__open_set_request__free_unpacked(request, NULL);
}

static void on_read(void *self, Call *call)
{
    DataService *service = self;
    Bytes body = call_body(call);
    Troupe__ReadRequest *request = troupe__read_request__unpack(NULL, body.length, body.data);
    Task task = {.work = read_work};
    Error err = {0};
    if (request == NULL) {
        call_failf(call, ERR_INVALID, "the body of data_source.read is not a ReadRequest");
        return;
    }
    if (request->count == 0 || request->count > LEASE_RECORDS_MAX ||
        request->first > INT64_MAX / 2) {
        call_failf(call, ERR_INVALID,
                   "cannot read %u records from position %llu: 1 to %d are read at a time",
                   request->count, (unsigned long long)request->first, LEASE_RECORDS_MAX);
    } else if (find_set(service, request->set, &task.set, &err) != OK) {
        call_fail(call, &err);
    } else {
        task.first = request->first;
        task.count = request->count;
        start_task(service, call, &task);
    }
    troupe__read_request__free_unpacked(request, NULL);
}

const ActorMethod data_service_methods[] = {
    {"data_source.open", on_open},
    {"data_source.read", on_read},
};
const int data_service_num_methods = 2;

static void add_sets(DataService *service)
{
    const JobConfig *config = service->config;
    service->num_sets = 1 + eval_set_count(config);
    service->set = mem_calloc((size_t)service->num_sets, sizeof *service->set);
    service->set[0] = (SourceSet){.name = "train",
                                  .key = "data.train",
                                  .paths = &config->data.train,
                                  .order = job_data_order(config)};
    for (int i = 1; i < service->num_sets; i++) {
        EvalSet set = eval_set(config, i - 1);
        service->set[i].name = set.name;
        service->set[i].key = set.key;
        service->set[i].paths = set.path;
    }
}

DataService *data_service_create(Loop *loop, const JobConfig *config)
{
    DataService *service = mem_calloc(1, sizeof *service);
    service->loop = loop;
    service->config = config;
    service->index_folder = path_join(config->run_dir, "index");
    service->hub_commits = path_join(config->run_dir, DATASET_HUB_COMMITS);
    add_sets(service);
    pthread_mutex_init(&service->open_lock, NULL);
    service->tasks = queue_create(CALLS_MAX);
    service->num_readers = (int)config->data.reader_threads;
    service->reader = mem_calloc((size_t)service->num_readers, sizeof *service->reader);
    for (int i = 0; i < service->num_readers; i++)
        CHECK(pthread_create(&service->reader[i], NULL, reader_main, service) == 0);
    return service;
}

void data_service_destroy(DataService *service)
{
    if (service == NULL) return;
    service->watch.cancelled = true;
    queue_close(service->tasks);
    while (queue_take(service->tasks, 0) != NULL) /* not begun: freed with the others below */
        ;
    for (int i = 0; i < service->num_readers; i++)
        pthread_join(service->reader[i], NULL);
    free(service->reader);
    while (service->in_work != NULL)
        free_task(service->in_work);
    for (int i = 0; i < service->num_sets; i++)
        stream_close(service->set[i].stream);
    free(service->set);
    queue_destroy(service->tasks);
    pthread_mutex_destroy(&service->open_lock);
    free(service->index_folder);
    free(service->hub_commits);
    free(service);
}

uint64_t data_service_progress(DataService *service)
{
    return service->watch.progress;
}

int data_service_working(const DataService *service)
{
    int working = 0;
    for (const Task *task = service->in_work; task != NULL; task = task->next)
        working++;
    return working;
}

void data_service_describe(DataService *service, char *ret_doing, size_t size)
{
    const SourceSet *opening = service->opening;
    const Task *task = service->in_work;
    int64_t fetched = service->watch.fetched, to_fetch = service->watch.to_fetch;
    if (opening != NULL && fetched < to_fetch)
        snprintf(ret_doing, size, "fetching %s from the Hub: %.1f of %.1f MB", opening->key,
                 (double)fetched / 1e6, (double)to_fetch / 1e6);
    else if (opening != NULL)
        snprintf(ret_doing, size, "indexing the files of %s", opening->key);
    else if (task != NULL)
        snprintf(ret_doing, size, "reading %s %llu..%llu", task->set->name,
                 (unsigned long long)task->first,
                 (unsigned long long)(task->first + task->count - 1));
    else
        snprintf(ret_doing, size, "idle");
}
