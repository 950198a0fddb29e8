#include "data_source/service.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hub_name.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/queue.h"
#include "config/source_set.h"
#include "data_source/file_list.h"
#include "job_data/job_data.h"
#include "rollout.pb-c.h"

enum {
    CALLS_MAX = 1024, /* waiting for a reader */
    ENTRIES_TOLD = 20,
    /* Where an answer ends: one more record still fits into a message. */
    ANSWER_BYTES = 8 << 20,
};
_Static_assert(ANSWER_BYTES + (uint64_t)JSONL_LINE_BYTES_MAX <= MESSAGE_BYTES_MAX, "records fit");

typedef struct SourceSet {
    const char *name, *key; /* of the configuration */
    MixtureSource source[INTERLEAVE_SOURCES_MAX];
    int num_sources;
    EvalSet eval;
    bool is_eval;
    bool mixed;                 /* these are data.sources */
    _Atomic(Mixture *) mixture; /* NULL until it was asked for; set once, under open_lock */
    atomic_bool said_wrong;     /* data.num_samples is another number than it has */
    atomic_bool told;           /* how many records it has, where that was not known at once */
} SourceSet;

struct DataService {
    Loop *loop;
    const JobConfig *config;
    char *index_folder;
    HubRoom *room;
    SourceSet *set; /* [num_sets]: train first, then those of evaluations */
    int num_sets;
    pthread_mutex_t open_lock;    /* one set is indexed at a time */
    _Atomic(SourceSet *) opening; /* that one */
    FilePool *pool;               /* of the data files of all sets, ... */
    IndexFolder *folder;          /* ... and what is known of them */
    atomic_bool settled;          /* nothing of it is left that no set uses */
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
    bool count_all;               /* of the set's records */
    char known[DIGEST_HEX_BYTES]; /* fingerprint; "": none */
    Status status;
    Error err;
    Str body, attachment;
    struct Task *previous, *next;
} Task;

/* ---- reader threads ---- */

static void log_opened(const SourceSet *set, const Mixture *mixture, int64_t ms)
{
    DatasetSummary sum = {0};
    for (int i = 0; i < set->num_sources; i++) {
        const Dataset *dataset = mixture_source_dataset(mixture, i);
        DatasetSummary summary = {.records = mixture_source_records(mixture, i)};
        if (dataset != NULL) summary = dataset_summary(dataset);
        if (set->num_sources > 1)
            log_event(LOG_INFO, "source_opened", F_STR("source", set->source[i].key),
                      F_INT("files", (int64_t)summary.files),
                      F_INT("records", (int64_t)summary.records));
        if (summary.warning != NULL)
            log_event(LOG_WARN, "data_set_warning", F_STR("set", set->name),
                      F_STR("reason", summary.warning));
        sum.files += summary.files;
        sum.bytes += summary.bytes;
        sum.files_indexed += summary.files_indexed;
    }
    log_event(
        LOG_INFO, "data_set_opened", F_STR("set", set->name), F_INT("files", (int64_t)sum.files),
        F_INT("records", (int64_t)mixture_records(mixture)), F_INT("bytes", (int64_t)sum.bytes),
        F_INT("files_indexed", (int64_t)sum.files_indexed), F_INT("ms", ms));
}

/* In the order `window` records are counted while the run goes on. */
static bool is_counted_late(const MixtureSource *source)
{
    return source->order.kind == ORDER_WINDOW && source->reader == NULL;
}

static bool has_late_source(const SourceSet *set)
{
    for (int i = 0; i < set->num_sources; i++)
        if (is_counted_late(&set->source[i])) return true;
    return false;
}

/* Once all of a set is counted, which may be long after its opening. The run goes by what the job
 * says then: a number that is wrong is no more than told. */
static void log_counted(const DataService *service, SourceSet *set)
{
    if (set->told || !has_late_source(set)) return;
    uint64_t records = mixture_records(set->mixture);
    int64_t said = service->config->data.num_samples;
    if (records == 0 || atomic_exchange(&set->told, true)) return;
    log_event(LOG_INFO, "data_set_counted", F_STR("set", set->name),
              F_INT("records", (int64_t)records));
    if (said == 0 || said == (int64_t)records) return;
    log_event(LOG_WARN, "num_samples_wrong", F_STR("set", set->name), F_INT("num_samples", said),
              F_INT("records", (int64_t)records));
    atomic_store(&set->said_wrong, true);
}

void data_service_notice(const DataService *service, char *ret, size_t size)
{
    ret[0] = '\0';
    for (int i = 0; i < service->num_sets; i++) {
        const SourceSet *set = &service->set[i];
        if (!atomic_load(&set->said_wrong)) continue;
        char *wrong = train_wrong_count(service->config, (int64_t)mixture_records(set->mixture));
        snprintf(ret, size, "%s", wrong != NULL ? wrong : "");
        free(wrong);
    }
}

static Status open_mixture(DataService *service, SourceSet *set, Error *err)
{
    int64_t start = clock_ms();
    if (service->folder == NULL)
        service->folder = index_folder_open(service->index_folder, false, service->pool);
    JobDataOptions options = {
        .config = service->config,
        .eval = set->is_eval ? &set->eval : NULL,
        .pool = service->pool,
        .folder = service->folder,
        .room = service->room,
        .watch = &service->watch,
    };
    Mixture *mixture = NULL;
    TRY(job_data_open(&options, &mixture, err));
    log_opened(set, mixture, clock_ms() - start);
    set->mixture = mixture;
    return OK;
}

/* Gives what the set's records are taken from, opening it if nobody did. */
static Status need_mixture(DataService *service, SourceSet *set, const Mixture **ret, Error *err)
{
    Status status = OK;
    if (set->mixture == NULL) {
        pthread_mutex_lock(&service->open_lock);
        service->opening = set;
        if (set->mixture == NULL) status = open_mixture(service, set, err);
        service->opening = NULL;
        pthread_mutex_unlock(&service->open_lock);
    }
    *ret = set->mixture;
    return status;
}

/* Whether some of it is on the Hub, of which nothing is known until it has answered. */
static bool is_of_hub(const SourceSet *set)
{
    for (int i = 0; i < set->num_sources; i++)
        for (int p = 0; p < set->source[i].num_paths; p++)
            if (str_starts_with(set->source[i].path[p], HUB_SCHEME)) return true;
    return false;
}

static bool all_are_open(const DataService *service)
{
    for (int i = 0; i < service->num_sets; i++)
        if (service->set[i].mixture == NULL) return false;
    return true;
}

/* Once the run reads and has all sets open: whoever has named other data by mistake loses nothing.
 * A set is read before the others are open, and does not wait for them. */
static void settle_index(DataService *service)
{
    bool of_hub = false;
    if (service->settled || !all_are_open(service)) return;
    pthread_mutex_lock(&service->open_lock);
    for (int i = 0; i < service->num_sets; i++)
        of_hub = of_hub || is_of_hub(&service->set[i]);
    if (!service->settled) {
        int removed = index_folder_remove_unused(service->folder);
        if (removed > 0)
            log_event(LOG_INFO, "index_files_removed", F_INT("files", removed),
                      F_STR("reason", "no set of the job has the data files that they were of"));
        if (!of_hub) index_folder_rest(service->folder); /* those of the Hub open files again */
        service->settled = true;
    }
    pthread_mutex_unlock(&service->open_lock);
}

static void pack_body(Str *body, const ProtobufCMessage *message)
{
    str_reserve(body, protobuf_c_message_get_packed_size(message) + 1);
    body->length = protobuf_c_message_pack(message, (uint8_t *)body->data);
}

/* Which files are others than under the fingerprint that is known. Owned. */
static char *find_changes(const Task *task, const Mixture *mixture, const char *fingerprint)
{
    const char *folder = task->service->index_folder;
    file_list_keep(folder, fingerprint, mixture);
    if (task->known[0] == '\0' || strcmp(task->known, fingerprint) == 0) return mem_strdup("");
    return file_list_changes(folder, task->known, mixture);
}

/* The first lines of what its entries became; borrowed from the mixture. */
static size_t list_entries(const Mixture *mixture, char *ret[ENTRIES_TOLD])
{
    size_t count = 0;
    for (int i = 0; i < mixture_num_sources(mixture); i++) {
        const Dataset *dataset = mixture_source_dataset(mixture, i);
        const StringList *lines = dataset != NULL ? dataset_entries(dataset) : NULL;
        for (int l = 0; lines != NULL && l < lines->count && count < ENTRIES_TOLD; l++)
            ret[count++] = lines->item[l];
    }
    return count;
}

static Status open_work(Task *task)
{
    const Mixture *mixture = NULL;
    TRY(need_mixture(task->service, task->set, &mixture, &task->err));
    if (task->count_all) TRY(mixture_count(mixture, &task->err));
    Troupe__SourceInfo info[INTERLEAVE_SOURCES_MAX], *list[INTERLEAVE_SOURCES_MAX];
    Troupe__OpenSetReply reply = TROUPE__OPEN_SET_REPLY__INIT;
    char fingerprint[DIGEST_HEX_BYTES];
    mixture_fingerprint(mixture, fingerprint);
    bool told = task->count_all || !has_late_source(task->set); /* see OpenSetReply */
    reply.records = told ? mixture_records(mixture) : 0;
    reply.fingerprint = fingerprint;
    reply.sources = list;
    reply.n_sources = (size_t)mixture_num_sources(mixture);
    for (int i = 0; i < mixture_num_sources(mixture); i++) {
        const Dataset *dataset = mixture_source_dataset(mixture, i);
        list[i] = &info[i];
        troupe__source_info__init(&info[i]);
        info[i].name = (char *)mixture_source_name(mixture, i);
        told = task->count_all || !is_counted_late(&task->set->source[i]);
        info[i].records = told ? mixture_source_records(mixture, i) : 0;
        if (dataset == NULL) continue;
        reply.files += dataset_summary(dataset).files;
        reply.bytes += dataset_summary(dataset).bytes;
    }
    reply.changes = find_changes(task, mixture, fingerprint);
    char *entry[ENTRIES_TOLD];
    reply.entries = entry;
    reply.n_entries = list_entries(mixture, entry);
    pack_body(&task->body, &reply.base);
    free(reply.changes);
    return OK;
}

/* Reads one record into the attachment; a record that cannot be read by itself is told in its
 * `error`. */
static Status read_record(Task *task, MixtureReader *reader, uint64_t position, Troupe__Record *ret)
{
    Str *text = &task->attachment, place = {0};
    MixtureRecord record;
    size_t before = text->length;
    Status status = mixture_read(reader, position, text, &place, &record, &task->err);
    if (status != OK) {
        str_free(&place);
        return status;
    }
    troupe__record__init(ret);
    ret->position = position;
    ret->epoch = (uint32_t)record.pass;
    ret->source = str_take(&place);
    ret->at = mem_strdup(record.at);
    if (task->set->mixed) ret->part = (char *)task->set->source[record.source].name;
    if (record.bad) {
        ret->error = mem_strndup(text->data + before, text->length - before);
        text->length = before;
    } else {
        ret->length = (uint32_t)(text->length - before);
    }
    return OK;
}

static void free_record(Troupe__Record *record)
{
    free(record->source);
    free(record->at);
    if (record->error != protobuf_c_empty_string) free(record->error);
}

static Status read_work(Task *task)
{
    const Mixture *mixture = NULL;
    TRY(need_mixture(task->service, task->set, &mixture, &task->err));
    settle_index(task->service);
    MixtureReader *reader = mixture_reader_open(mixture);
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
    log_counted(task->service, task->set);
    if (status == OK) {
        Troupe__ReadReply reply = TROUPE__READ_REPLY__INIT;
        reply.n_records = count;
        reply.records = list;
        pack_body(&task->body, &reply.base);
    }
    for (size_t i = 0; i < count; i++)
        free_record(&record[i]);
    mixture_reader_close(reader);
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
        task.count_all = request->count;
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
    for (int i = 0; i < service->num_sets; i++) {
        SourceSet *set = &service->set[i];
        set->is_eval = i > 0;
        if (set->is_eval) set->eval = eval_set(config, i - 1);
        set->mixed = !set->is_eval && config->data.sources.count > 0;
        set->name = set->is_eval ? set->eval.name : "train";
        set->num_sources = job_data_sources(config, set->is_eval ? &set->eval : NULL, set->source);
        set->key = set->mixed ? "data.sources" : set->source[0].key;
    }
}

DataService *data_service_create(Loop *loop, const JobConfig *config)
{
    DataService *service = mem_calloc(1, sizeof *service);
    service->loop = loop;
    service->config = config;
    service->index_folder = path_join(config->run_dir, "index");
    service->room = job_data_room(config);
    add_sets(service);
    service->pool = file_pool_create(0);
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
        mixture_close(service->set[i].mixture);
    free(service->set);
    index_folder_close(service->folder);
    file_pool_destroy(service->pool);
    hub_room_release(service->room);
    queue_destroy(service->tasks);
    pthread_mutex_destroy(&service->open_lock);
    free(service->index_folder);
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

/* Whether code of the user's reads some of it. */
static bool has_reader(const SourceSet *set)
{
    for (int i = 0; i < set->num_sources; i++)
        if (set->source[i].reader != NULL) return true;
    return false;
}

/* "next_batch of the reader csv (/lib/csv.so) of data.train" */
static bool describe_reader(const DataService *service, char *text, size_t size)
{
    for (int i = 0; i < service->num_sets; i++) {
        const Mixture *mixture = service->set[i].mixture;
        if (mixture != NULL && mixture_describe(mixture, text, size)) return true;
    }
    return false;
}

/* ", 41.3 of 100.0 GB", while files are being indexed; "" else. */
static void describe_index(const DataService *service, char *ret, size_t size)
{
    double read = (double)service->watch.bytes_read, total = (double)service->watch.bytes_total;
    ret[0] = '\0';
    if (read < total) snprintf(ret, size, ", %.1f of %.1f GB", read * 1e-9, total * 1e-9);
}

void data_service_describe(DataService *service, char *ret_doing, size_t size)
{
    const SourceSet *opening = service->opening;
    const Task *task = service->in_work;
    char reader[128], index[64], other[READ_WAITS_BYTES];
    int64_t fetched = service->watch.fetched, to_fetch = service->watch.to_fetch;
    describe_index(service, index, sizeof index);
    if (opening == NULL && task != NULL && task->work == open_work) opening = task->set;
    bool small = to_fetch < 1000000;
    if (task != NULL && read_watch_said(&service->watch, other, sizeof other))
        snprintf(ret_doing, size, "waiting for %s", other);
    else if (opening != NULL && fetched < to_fetch)
        snprintf(ret_doing, size, "fetching %s from the Hub: %.1f of %.1f %s", opening->key,
                 (double)fetched / (small ? 1e3 : 1e6), (double)to_fetch / (small ? 1e3 : 1e6),
                 small ? "KB" : "MB");
    else if (opening != NULL && is_of_hub(opening) && index[0] == '\0')
        snprintf(ret_doing, size, "asking the Hub for %s, or indexing it", opening->key);
    else if (opening != NULL)
        snprintf(ret_doing, size, "indexing the files of %s%s%s", opening->key,
                 has_reader(opening) ? " (with a reader of yours)" : "", index);
    else if (task != NULL && describe_reader(service, reader, sizeof reader))
        snprintf(ret_doing, size, "%s", reader);
    else if (task != NULL)
        snprintf(ret_doing, size, "reading %s %llu..%llu%s%s", task->set->name,
                 (unsigned long long)task->first,
                 (unsigned long long)(task->first + task->count - 1),
                 index[0] != '\0' ? ", indexing" : "", index);
    else
        snprintf(ret_doing, size, "idle%s%s", index[0] != '\0' ? ", indexing" : "", index);
}
