#include "rollout_worker/engine/scheduler.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

Scheduler *scheduler_create(const EngineOptions *options, int num_pages)
{
    Scheduler *s = mem_calloc(1, sizeof *s);
    s->pool = page_pool_create(num_pages);
    s->max_samples = options->max_samples;
    s->max_step_tokens = options->max_step_tokens;
    s->forgets_prefixes = options->forgets_prefixes;
    s->running = mem_calloc((size_t)options->max_samples, sizeof *s->running);
    s->stats.pages = num_pages;
    return s;
}

void scheduler_destroy(Scheduler *s)
{
    if (s == NULL) return;
    page_pool_destroy(s->pool);
    free(s->running);
    free(s);
}

/* ---- who waits and who runs ---- */

static void insert_waiting(Scheduler *s, Sequence *sequence)
{
    Sequence *before = s->last_waiting;
    if (before != NULL && before->order > sequence->order) {
        before = NULL;
        for (Sequence *w = s->first_waiting; w->order < sequence->order; w = w->next)
            before = w;
    }
    sequence->previous = before;
    sequence->next = before != NULL ? before->next : s->first_waiting;
    *(before != NULL ? &before->next : &s->first_waiting) = sequence;
    *(sequence->next != NULL ? &sequence->next->previous : &s->last_waiting) = sequence;
    sequence->running = false;
    s->num_waiting++;
}

static void remove_waiting(Scheduler *s, Sequence *w)
{
    *(w->previous != NULL ? &w->previous->next : &s->first_waiting) = w->next;
    *(w->next != NULL ? &w->next->previous : &s->last_waiting) = w->previous;
    w->previous = w->next = NULL;
    s->num_waiting--;
}

static void insert_running(Scheduler *s, Sequence *sequence)
{
    CHECK(s->num_running < s->max_samples);
    int at = s->num_running++;
    for (; at > 0 && s->running[at - 1]->order > sequence->order; at--)
        s->running[at] = s->running[at - 1];
    s->running[at] = sequence;
    sequence->running = true;
}

static void remove_running(Scheduler *s, Sequence *sequence)
{
    int at = 0;
    while (s->running[at] != sequence)
        at++;
    for (s->num_running--; at < s->num_running; at++)
        s->running[at] = s->running[at + 1];
    sequence->running = false;
}

static void start(Scheduler *s, Sequence *sequence)
{
    remove_waiting(s, sequence);
    insert_running(s, sequence);
    if (sequence->started_ns == 0) sequence->started_ns = clock_ns();
}

/* ---- pages ---- */

static int pages_of(int32_t positions)
{
    return (positions + KV_PAGE - 1) / KV_PAGE;
}

static void add_page(Sequence *sequence, int32_t page)
{
    if (sequence->num_pages == sequence->pages_capacity) {
        sequence->pages_capacity = sequence->pages_capacity * 2 + 8;
        sequence->page =
            mem_realloc(sequence->page, (size_t)sequence->pages_capacity, sizeof *sequence->page);
    }
    sequence->page[sequence->num_pages++] = page;
}

/* The page before page i. */
static int32_t page_before(const Sequence *sequence, int i)
{
    return i > 0 ? sequence->page[i - 1] : NO_PAGE;
}

/* Pages for so many positions, as far as there are any; false when there are too few. */
static bool grow(Scheduler *s, Sequence *sequence, int32_t positions)
{
    while (sequence->num_pages < pages_of(positions)) {
        int32_t page = page_pool_take(s->pool);
        if (page == NO_PAGE) return false;
        add_page(sequence, page);
    }
    return true;
}

static bool shares_pages(const Scheduler *s, const Sequence *sequence)
{
    return !s->forgets_prefixes && !sequence->mixed;
}

static void publish_full_pages(Scheduler *s, Sequence *sequence)
{
    if (!shares_pages(s, sequence)) return;
    for (int i = sequence->num_published; (i + 1) * KV_PAGE <= sequence->computed; i++) {
        sequence->page[i] = page_pool_publish(s->pool, page_before(sequence, i),
                                              sequence->token + i * KV_PAGE, sequence->page[i]);
        sequence->num_published = i + 1;
    }
}

/* The last page first, as the pool wants it. With `keep`, what was computed can be found again. */
static void give_back(Scheduler *s, Sequence *sequence, bool keep)
{
    int full = sequence->computed / KV_PAGE, rest = sequence->computed % KV_PAGE;
    bool park = keep && rest > 0 && shares_pages(s, sequence) && sequence->num_published == full;
    for (int i = sequence->num_pages - 1; i >= 0; i--) {
        if (park && i == full)
            page_pool_park(s->pool, page_before(sequence, i), sequence->token + i * KV_PAGE, rest,
                           sequence->page[i]);
        else
            page_pool_release(s->pool, sequence->page[i]);
    }
    sequence->num_pages = sequence->computed = sequence->num_published = 0;
    sequence->mixed = false;
}

static void preempt(Scheduler *s, Sequence *sequence)
{
    give_back(s, sequence, true);
    remove_running(s, sequence);
    insert_waiting(s, sequence);
    sequence->preemptions++;
    s->stats.preemptions++;
}

/* ---- beginnings that stand in pages already ---- */

/* Positions [0, count) of `source`, whose pages hold them: full pages are shared, of the last one
 * there is a copy to be made. The caller has made sure of a page for it. */
static void take_beginning(Scheduler *s, Sequence *sequence, const Sequence *source, int32_t count,
                           PageCopies *copies)
{
    int full = count / KV_PAGE;
    CHECK(sequence->num_pages == 0);
    for (int i = 0; i < full; i++) {
        page_pool_share(s->pool, source->page[i]);
        add_page(sequence, source->page[i]);
    }
    sequence->num_published = full < source->num_published ? full : source->num_published;
    if (count % KV_PAGE == 0) return;
    int32_t page = page_pool_take(s->pool);
    CHECK(page != NO_PAGE);
    step_plan_copy_page(copies, source->page[full], page);
    add_page(sequence, page);
}

/* Looks for the sequence's beginning in the pool; its last token is always computed, for what it
 * predicts. */
static void find_beginning(Scheduler *s, Sequence *sequence)
{
    int32_t most = sequence->length - 1;
    if (s->forgets_prefixes) return;
    while (sequence->computed + KV_PAGE <= most) {
        int32_t before = page_before(sequence, sequence->num_pages);
        int32_t page = page_pool_find(s->pool, before, sequence->token + sequence->computed);
        if (page == NO_PAGE) break;
        add_page(sequence, page);
        sequence->computed += KV_PAGE;
        sequence->num_published++;
    }
    int common = 0,
        left = most - sequence->computed < KV_PAGE ? most - sequence->computed : KV_PAGE;
    int32_t page = page_pool_unpark(s->pool, page_before(sequence, sequence->num_pages),
                                    sequence->token + sequence->computed, left, &common);
    if (page == NO_PAGE) return;
    add_page(sequence, page);
    sequence->computed += common;
}

static void count_found(Scheduler *s, Sequence *sequence, int32_t positions)
{
    int32_t prompt = sequence->request->prompt_length;
    sequence->found += positions;
    s->stats.prompt_tokens_found += positions < prompt ? positions : prompt;
}

/* ---- what a step feeds ---- */

static int32_t pending(const Sequence *sequence)
{
    return sequence->length - sequence->computed;
}

/* Feeds the next `count` tokens; after the last one there is, a token is drawn. Returns the last
 * row. */
static int32_t feed(Scheduler *s, StepPlan *plan, Sequence *sequence, int32_t count)
{
    int32_t prompt_left = sequence->request->prompt_length - sequence->computed;
    int32_t prompt = prompt_left < 0 ? 0 : prompt_left < count ? prompt_left : count;
    bool last = count == pending(sequence);
    int32_t row = step_plan_feed(plan, sequence, count);
    if (last) step_plan_draw(plan, sequence, row);
    sequence->planned = true;
    s->rows_left -= count;
    s->stats.prompt_tokens_computed += prompt;
    s->stats.other_tokens_computed += count - prompt - (last && count > prompt);
    return row;
}

static void plan_decodes(Scheduler *s, StepPlan *plan)
{
    for (int i = 0; i < s->num_running; i++) {
        Sequence *sequence = s->running[i];
        if (sequence->planned || pending(sequence) != 1) continue;
        /* Whoever gives way is newer than those that have their rows already. */
        while (sequence->running && !grow(s, sequence, sequence->length))
            preempt(s, s->running[s->num_running - 1]);
        if (sequence->running) feed(s, plan, sequence, 1);
    }
}

/* The others of a request, whose prompt ends in this step's `row`, draw from it too. */
static void join_members(Scheduler *s, StepPlan *plan, const Sequence *leader, int32_t row)
{
    const Request *request = leader->request;
    int32_t prompt = request->prompt_length;
    if (leader->length != prompt || leader->mixed) return;
    for (int i = 0; i < request->num_members && s->num_running < s->max_samples; i++) {
        Sequence *member = request->member[i];
        if (member == NULL || member->running || member->length != prompt) continue;
        if (prompt % KV_PAGE != 0 && page_pool_available(s->pool) == 0) return;
        start(s, member);
        take_beginning(s, member, leader, prompt, &plan->after);
        step_plan_join(plan, member, prompt);
        step_plan_draw(plan, member, row);
        member->planned = true;
        count_found(s, member, prompt);
    }
}

/* As much of what the sequence has to compute as rows and pages allow. */
static void plan_chunk(Scheduler *s, StepPlan *plan, Sequence *sequence)
{
    int32_t count = pending(sequence);
    if (count > s->rows_left) count = (int32_t)s->rows_left;
    grow(s, sequence, sequence->computed + count);
    int32_t room = sequence->num_pages * KV_PAGE - sequence->computed;
    if (count > room) count = room;
    if (count <= 0) return;
    bool last = count == pending(sequence);
    int32_t row = feed(s, plan, sequence, count);
    if (last) join_members(s, plan, sequence, row);
}

static void plan_prefills(Scheduler *s, StepPlan *plan)
{
    for (int i = 0; i < s->num_running && s->rows_left > 0; i++)
        if (!s->running[i]->planned) plan_chunk(s, plan, s->running[i]);
}

/* ---- admission ---- */

/* A running sequence of the same request whose pages hold the beginning, `count` positions.
 * *ret_wait: one that is about to. */
static Sequence *find_source(const Sequence *sequence, int32_t count, bool *ret_wait)
{
    const Request *request = sequence->request;
    *ret_wait = false;
    for (int i = 0; i < request->num_members && count > 0; i++) {
        Sequence *member = request->member[i];
        if (member == NULL || !member->running || member->mixed) continue;
        if (member->computed >= count) return member;
        if (member->computed < request->prompt_length) *ret_wait = true;
    }
    return NULL;
}

typedef enum { ADMITTED, WAITS_FOR_PROMPT, NO_ROOM } Admission;

/* Every running sequence may want a page soon: so many are left alone. */
static bool has_room(const Scheduler *s, int pages)
{
    return page_pool_available(s->pool) >= pages + s->num_running;
}

static Admission admit(Scheduler *s, StepPlan *plan, Sequence *sequence)
{
    int32_t prompt = sequence->request->prompt_length;
    int32_t common = prompt < sequence->length - 1 ? prompt : sequence->length - 1;
    bool wait = false;
    const Sequence *source = find_source(sequence, common, &wait);
    if (source != NULL) {
        if (!has_room(s, pages_of(sequence->length) - common / KV_PAGE)) return NO_ROOM;
        take_beginning(s, sequence, source, common, &plan->before);
        sequence->computed = common;
    } else if (wait) {
        return WAITS_FOR_PROMPT;
    } else {
        find_beginning(s, sequence);
        if (!has_room(s, pages_of(sequence->length) - sequence->num_pages)) {
            give_back(s, sequence, true);
            return NO_ROOM;
        }
    }
    start(s, sequence);
    count_found(s, sequence, sequence->computed);
    plan_chunk(s, plan, sequence);
    return ADMITTED;
}

static void plan_admissions(Scheduler *s, StepPlan *plan)
{
    Sequence *sequence = s->first_waiting;
    while (sequence != NULL && s->num_running < s->max_samples && s->rows_left > 0) {
        Admission admission = admit(s, plan, sequence);
        if (admission == NO_ROOM) return;
        /* An admission may take others from the list, but none before it. */
        sequence = admission == ADMITTED ? s->first_waiting : sequence->next;
    }
}

void scheduler_plan(Scheduler *s, StepPlan *plan)
{
    s->rows_left = s->max_step_tokens;
    for (int i = 0; i < s->num_running; i++)
        s->running[i]->planned = false;
    plan_decodes(s, plan);
    plan_prefills(s, plan);
    plan_admissions(s, plan);
    /* All are prompts that hold some pages and want more: the newest give way until one goes on. */
    while (plan->batch->num_rows == 0 && s->num_running > 0) {
        CHECK(s->num_running > 1);
        preempt(s, s->running[s->num_running - 1]);
        plan_prefills(s, plan);
    }
    CHECK(plan->batch->num_rows > 0 || s->num_waiting == 0);
}

void scheduler_commit(Scheduler *s, const StepPlan *plan)
{
    for (int i = 0; i < plan->num_parts; i++) {
        plan->part[i].sequence->computed = plan->part[i].computed;
        publish_full_pages(s, plan->part[i].sequence);
    }
    s->stats.steps += plan->batch->num_rows > 0;
    s->stats.generated_tokens += plan->num_draws;
}

/* ---- comings and goings ---- */

void scheduler_add(Scheduler *s, Sequence *sequence)
{
    insert_waiting(s, sequence);
}

void scheduler_remove(Scheduler *s, Sequence *sequence)
{
    give_back(s, sequence, true);
    if (sequence->running)
        remove_running(s, sequence);
    else
        remove_waiting(s, sequence);
}

/* To begin again, as if nothing of it had been computed. */
static void send_back(Scheduler *s, Sequence *sequence)
{
    give_back(s, sequence, false);
    remove_running(s, sequence);
    insert_waiting(s, sequence);
}

void scheduler_retreat(Scheduler *s)
{
    while (s->num_running > 0)
        send_back(s, s->running[s->num_running - 1]);
}

void scheduler_mix(Scheduler *s)
{
    for (int i = s->num_running - 1; i >= 0; i--) {
        Sequence *sequence = s->running[i];
        if (sequence_generated(sequence) == 0) {
            send_back(s, sequence);
        } else {
            sequence->mixed = sequence->computed > 0;
            sequence->num_published = 0;
        }
    }
    page_pool_forget(s->pool);
}
