#include "rollout_worker/engine/step_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

StepPlan *step_plan_create(void)
{
    StepPlan *plan = mem_calloc(1, sizeof *plan);
    plan->batch = batch_create();
    return plan;
}

void step_plan_destroy(StepPlan *plan)
{
    if (plan == NULL) return;
    batch_destroy(plan->batch);
    free(plan->before.copy);
    free(plan->after.copy);
    free(plan->draw);
    free(plan->edits.edit);
    free(plan->part);
    free(plan->drawer);
    free(plan->bytes);
    free(plan);
}

void step_plan_clear(StepPlan *plan)
{
    batch_clear(plan->batch);
    plan->before.count = plan->after.count = plan->edits.count = 0;
    plan->num_draws = plan->num_parts = 0;
    plan->stop = plan->meet = false;
}

/* ---- filling ---- */

static void reserve_copies(PageCopies *copies, int count)
{
    if (count <= copies->capacity) return;
    copies->capacity = 2 * count + 16;
    copies->copy = mem_realloc(copies->copy, (size_t)copies->capacity, sizeof *copies->copy);
}

void step_plan_copy_page(PageCopies *copies, int32_t from, int32_t to)
{
    reserve_copies(copies, copies->count + 1);
    copies->copy[copies->count++] = (PageCopy){from, to};
}

void step_plan_join(StepPlan *plan, Sequence *sequence, int32_t computed)
{
    if (plan->num_parts == plan->part_capacity) {
        plan->part_capacity = plan->part_capacity * 2 + 16;
        plan->part = mem_realloc(plan->part, (size_t)plan->part_capacity, sizeof *plan->part);
    }
    plan->part[plan->num_parts++] = (PlanPart){sequence, computed};
}

int32_t step_plan_feed(StepPlan *plan, Sequence *sequence, int32_t count)
{
    int32_t end = sequence->computed + count;
    batch_add_chunk(plan->batch, sequence->token + sequence->computed, count, sequence->computed,
                    sequence->page, (end + KV_PAGE - 1) / KV_PAGE);
    step_plan_join(plan, sequence, end);
    return (int32_t)plan->batch->num_rows - 1;
}

static void reserve_draws(StepPlan *plan, int count)
{
    if (count <= plan->draw_capacity) return;
    plan->draw_capacity = 2 * count + 16;
    size_t n = (size_t)plan->draw_capacity;
    plan->draw = mem_realloc(plan->draw, n, sizeof *plan->draw);
    plan->drawer = mem_realloc(plan->drawer, n, sizeof *plan->drawer);
}

void step_plan_draw(StepPlan *plan, Sequence *sequence, int32_t row)
{
    reserve_draws(plan, plan->num_draws + 1);
    Draw *draw = &plan->draw[plan->num_draws];
    sequence_next_draw(sequence, draw, &plan->edits);
    draw->row = row;
    plan->drawer[plan->num_draws++] = sequence;
}

static void point_draws(StepPlan *plan)
{
    int64_t first = 0; /* an address would be counted from NULL where nobody has edits */
    for (int i = 0; i < plan->num_draws; i++) {
        plan->draw[i].edit = plan->edits.edit == NULL ? NULL : plan->edits.edit + first;
        first += plan->draw[i].num_edits;
    }
}

/* ---- to the other ranks ---- */

typedef struct PlanHeader {
    int64_t weight_version, switches;
    int32_t stop, meet, rows, sequences, pages, before, after, draws, edits;
} PlanHeader;

static PlanHeader header_of(const StepPlan *plan)
{
    const Batch *batch = plan->batch;
    return (PlanHeader){
        .weight_version = plan->weight_version,
        .switches = plan->switches,
        .stop = plan->stop,
        .meet = plan->meet,
        .rows = (int32_t)batch->num_rows,
        .sequences = batch->num_sequences,
        .pages = batch->first_page[batch->num_sequences],
        .before = plan->before.count,
        .after = plan->after.count,
        .draws = plan->num_draws,
        .edits = plan->edits.count,
    };
}

/* The pieces of the wire form one after the other: where each lies in the plan. */
typedef struct Pieces {
    struct {
        void *data;
        size_t bytes;
    } at[10];
    int count;
    int64_t bytes;
} Pieces;

static void add_piece(Pieces *pieces, void *data, int32_t count, size_t size)
{
    CHECK(count >= 0);
    size_t bytes = (size_t)count * size;
    pieces->at[pieces->count].data = data;
    pieces->at[pieces->count++].bytes = bytes;
    pieces->bytes += (int64_t)bytes;
}

static Pieces pieces_of(StepPlan *plan, const PlanHeader *h)
{
    Pieces pieces = {.count = 0};
    Batch *batch = plan->batch;
    add_piece(&pieces, plan->draw, h->draws, sizeof *plan->draw);
    add_piece(&pieces, plan->edits.edit, h->edits, sizeof *plan->edits.edit);
    add_piece(&pieces, plan->before.copy, h->before, sizeof *plan->before.copy);
    add_piece(&pieces, plan->after.copy, h->after, sizeof *plan->after.copy);
    add_piece(&pieces, batch->token, h->rows, sizeof *batch->token);
    add_piece(&pieces, batch->position, h->rows, sizeof *batch->position);
    add_piece(&pieces, batch->cu_seqlens, h->sequences + 1, sizeof *batch->cu_seqlens);
    add_piece(&pieces, batch->first_position, h->sequences, sizeof *batch->first_position);
    add_piece(&pieces, batch->first_page, h->sequences + 1, sizeof *batch->first_page);
    add_piece(&pieces, batch->page, h->pages, sizeof *batch->page);
    return pieces;
}

/* Makes room for what a header announces and takes its counts over. */
static void adopt_header(StepPlan *plan, const PlanHeader *h)
{
    plan->weight_version = h->weight_version;
    plan->switches = h->switches;
    plan->stop = h->stop != 0;
    plan->meet = h->meet != 0;
    batch_resize(plan->batch, h->rows, h->sequences, h->pages);
    reserve_copies(&plan->before, h->before);
    reserve_copies(&plan->after, h->after);
    reserve_draws(plan, h->draws);
    if (h->edits > plan->edits.capacity) {
        plan->edits.capacity = 2 * h->edits;
        plan->edits.edit =
            mem_realloc(plan->edits.edit, (size_t)plan->edits.capacity, sizeof *plan->edits.edit);
    }
    plan->before.count = h->before;
    plan->after.count = h->after;
    plan->num_draws = h->draws;
    plan->edits.count = h->edits;
}

Status step_plan_share(StepPlan *plan, Comm *comm, Error *err)
{
    if (comm == NULL || comm_size(comm) == 1) {
        point_draws(plan);
        return OK;
    }
    PlanHeader header = header_of(plan);
    TRY(comm_broadcast_host(comm, &header, sizeof header, 0, err));
    bool first = comm_rank(comm) == 0;
    if (!first) adopt_header(plan, &header);
    Pieces pieces = pieces_of(plan, &header);
    if (pieces.bytes > plan->bytes_capacity) {
        plan->bytes_capacity = 2 * pieces.bytes;
        plan->bytes = mem_realloc(plan->bytes, (size_t)plan->bytes_capacity, 1);
    }
    char *at = plan->bytes;
    for (int i = 0; i < pieces.count && first; at += pieces.at[i++].bytes)
        if (pieces.at[i].bytes > 0) memcpy(at, pieces.at[i].data, pieces.at[i].bytes);
    TRY(comm_broadcast_host(comm, plan->bytes, (size_t)pieces.bytes, 0, err));
    at = plan->bytes;
    for (int i = 0; i < pieces.count && !first; at += pieces.at[i++].bytes)
        if (pieces.at[i].bytes > 0) memcpy(pieces.at[i].data, at, pieces.at[i].bytes);
    point_draws(plan);
    return OK;
}
