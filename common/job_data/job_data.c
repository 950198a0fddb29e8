#include "job_data/job_data.h"

#include <stdlib.h>

#include "base/file.h"
#include "config/source_set.h"
#include "dataset/hub_set.h"

static MixtureSource training_source(const JobConfig *config, int index)
{
    TrainSource source = train_source(config, index);
    return (MixtureSource){
        .name = source.name,
        .key = source.key,
        .weight = source.weight,
        .path = (const char *const *)source.path->item,
        .num_paths = source.path->count,
        .order = source.order,
        .reader = source.reader,
        .reader_options = source.reader_options,
    };
}

int job_data_sources(const JobConfig *config, const EvalSet *eval,
                     MixtureSource ret[INTERLEAVE_SOURCES_MAX])
{
    if (eval != NULL) {
        ret[0] = (MixtureSource){
            .name = eval->name,
            .key = eval->key,
            .weight = 1,
            .path = (const char *const *)eval->path->item,
            .num_paths = eval->path->count,
        };
        return 1;
    }
    int count = train_source_count(config);
    CHECK(count <= INTERLEAVE_SOURCES_MAX);
    for (int i = 0; i < count; i++)
        ret[i] = training_source(config, i);
    return count;
}

static HubRoom *make_room(const JobConfig *config)
{
    return hub_room_create((int64_t)(config->data.cache_gb * 1e9));
}

HubRoom *job_data_room(const JobConfig *config)
{
    HubRoom *room = make_room(config);
    char *index_folder = path_join(config->run_dir, "index");
    hub_set_add_leftovers(room, index_folder);
    free(index_folder);
    return room;
}

/* What the options of a mixture borrow while it is opened. */
typedef struct Opening {
    MixtureSource source[INTERLEAVE_SOURCES_MAX];
    char *index_folder, *hub_commits;
    HubRoom *room;
    DatasetHub hub;
    MixtureOptions mixture;
} Opening;

static void make_opening(const JobDataOptions *options, Opening *ret)
{
    const JobConfig *config = options->config;
    ret->index_folder = path_join(config->run_dir, "index");
    ret->hub_commits = path_join(config->run_dir, DATASET_HUB_COMMITS);
    ret->room = options->room != NULL ? hub_room_hold(options->room) : make_room(config);
    ret->hub = (DatasetHub){.commits = ret->hub_commits, .room = ret->room};
    bool all = config->data.stopping_strategy == STOP_ALL_EXHAUSTED;
    ret->mixture = (MixtureOptions){
        .source = ret->source,
        .num_sources = job_data_sources(config, options->eval, ret->source),
        .epoch_end = all ? EPOCH_ALL_EXHAUSTED : EPOCH_FIRST_EXHAUSTED,
        .index_folder = ret->index_folder,
        .index_read_only = options->look_only,
        .records_max = options->records_max,
        .seed = (uint64_t)config->seed,
        .pool = options->pool,
        .folder = options->folder,
        .hub = &ret->hub,
        .watch = options->watch,
    };
    for (int i = 0; i < ret->mixture.num_sources && options->readers_in_order; i++)
        if (ret->source[i].reader != NULL) ret->source[i].order = (DataOrder){.kind = ORDER_FILES};
}

static void free_opening(Opening *opening)
{
    hub_room_release(opening->room);
    free(opening->index_folder);
    free(opening->hub_commits);
}

Status job_data_open(const JobDataOptions *options, Mixture **ret, Error *err)
{
    Opening opening;
    make_opening(options, &opening);
    Status status = mixture_open(&opening.mixture, ret, err);
    free_opening(&opening);
    return status;
}

Status job_data_check_windows(const JobDataOptions *options, const Mixture *mixture, Error *err)
{
    Opening opening;
    make_opening(options, &opening);
    Status status = mixture_check_windows(mixture, &opening.mixture, err);
    free_opening(&opening);
    return status;
}
