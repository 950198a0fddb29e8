/* Supervision of actors: starting, the three signals of trouble (death, silence, no progress), and
 * what follows. Rollout workers and the data source are started again alone (one_for_one), a worker
 * whose ranks are processes with all of them; train ranks are a gang (one_for_all): when one is
 * lost all start again from the last committed state under a new generation. Restarts are counted
 * within a window, as Erlang's supervisors do: more than restarts_max in restarts_window_s ends the
 * run with the reason. */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

#include "base/plural.h"
#include "base/rng.h"
#include "core/own_code.h"

#define HELLO_TIMEOUT_MS 30000
#define KILL_AGAIN_MS    5000
/* What a process that is to leave may take to give up what it has in work. */
#define LEAVE_MS 10000
/* How long a death notice may be behind the broken connection: that of an agent comes when its
 * guard has cleaned up behind it. */
#define DEATH_NOTICE_MS 2000

bool supervise_ready(const Controller *c, int actor)
{
    ActorState state = c->actor[actor].state;
    return state == ACTOR_ALIVE || state == ACTOR_SUSPECT;
}

static void set_state(Controller *c, int actor, ActorState state, const char *reason)
{
    ActorRecord *record = &c->actor[actor];
    record->state = state;
    record->since_ms = c->now_ms;
    snprintf(record->reason, sizeof record->reason, "%s", reason);
    Effect *effect = effect_add(c->fx, FX_REPORT_ACTOR);
    effect->actor = actor;
    effect->incarnation = record->incarnation;
    effect->report.state = actor_state_name(state);
    effect->report.reason = arena_strndup(c->scratch, record->reason, strlen(record->reason));
}

static void kill_process(Controller *c, int actor)
{
    const ActorRecord *record = &c->actor[actor];
    if (!record->process) return;
    Effect *effect = effect_add(c->fx, FX_KILL);
    effect->actor = actor;
    effect->node = record->node;
    effect->incarnation = record->incarnation;
}

/* Restarts of the role within the last window_ms. */
static int64_t recent_restarts(const Controller *c, Role role, int64_t window_ms)
{
    const RestartBudget *budget = &c->budget[role];
    int64_t max = c->config->cluster.restarts_max;
    int64_t recent = 0;
    for (int64_t i = 0; i < budget->count && i < max; i++)
        if (c->now_ms - budget->time_ms[i] < window_ms) recent++;
    return recent;
}

/* Counts a restart; false when there were too many within the window. */
static bool spend(Controller *c, Role role)
{
    RestartBudget *budget = &c->budget[role];
    int64_t max = c->config->cluster.restarts_max;
    if (recent_restarts(c, role, c->config->cluster.restarts_window_s * 1000) >= max) return false;
    budget->time_ms[budget->count % max] = c->now_ms;
    budget->count++;
    return true;
}

/* Later restarts in a row wait longer: 0, 0.25, 0.5, 1, 2, 4, 4 ... seconds. */
static int64_t restart_delay_ms(const Controller *c, Role role)
{
    int64_t recent = recent_restarts(c, role, 60000);
    if (recent <= 1) return 0;
    return (int64_t)125 << (recent < 6 ? recent : 5);
}

static void prepare_restart(Controller *c, int actor, const char *reason)
{
    ActorRecord *record = &c->actor[actor];
    kill_process(c, actor);
    record->retry_ms = c->now_ms + restart_delay_ms(c, record->role);
    record->restarts++;
    record->doing[0] = record->waiting_for[0] = record->trouble[0] = '\0';
    set_state(c, actor, ACTOR_RESTARTING, reason);
}

/* Code of the user's that broke it each time will do so at the next start, too. */
static void too_many_restarts(Controller *c, Role role, const char *name, const char *reason,
                              bool own)
{
    char message[ERROR_MESSAGE_MAX];
    long long max = (long long)c->config->cluster.restarts_max;
    long long window_s = (long long)c->config->cluster.restarts_window_s;
    snprintf(message, sizeof message,
             "%s failed more than %lld time%s in %lld s (cluster.restarts_max, "
             "cluster.restarts_window_s).\nThe last time: %s",
             name, max, plural(max), window_s, reason);
    if (role == ROLE_TRAIN)
        core_finish(c, ERR_UNAVAILABLE, "%s", message);
    else if (own)
        core_finish_until(c, ERR_UNAVAILABLE, "mend what is said above", message);
    else
        core_finish_committed(c, ERR_UNAVAILABLE, "%s", message);
}

void supervise_restart_gang(Controller *c, const char *reason)
{
    if (c->phase == PHASE_ENDING) return;
    if (!spend(c, ROLE_TRAIN)) {
        too_many_restarts(c, ROLE_TRAIN, "the train group", reason, false);
        return;
    }
    char cause[REASON_MAX];
    snprintf(cause, sizeof cause, "%s", reason);
    c->generation++;
    for (int i = c->first_train; i < c->num_actors; i++)
        if (c->actor[i].state != ACTOR_PENDING) prepare_restart(c, i, cause);
    gang_reset(c);
    job_roll_back(c);
    core_log(c, LOG_WARN, "gang_restart", "from step %lld%s, generation %u: %s", (long long)c->step,
             c->save.rewind_owed ? ", or the one whose checkpoint is being committed" : "",
             c->generation, cause);
}

static bool is_up(const Controller *c, int actor)
{
    return c->actor[actor].state == ACTOR_STARTING || supervise_ready(c, actor);
}

static void tell_job(Controller *c, int actor)
{
    if (c->actor[actor].role == ROLE_ROLLOUT)
        lease_worker_lost(c, actor);
    else
        lease_source_lost(c);
}

/* An actor that is restarted alone, its restart being paid for. Of a rollout worker whose ranks are
 * processes all are: those that are left could go on with nothing. */
static void restart_alone(Controller *c, int actor, const char *reason)
{
    int leader = ranks_leader(c, actor);
    char cause[REASON_MAX + ACTOR_NAME_MAX];
    snprintf(cause, sizeof cause, "%s: %s", c->actor[actor].name, reason);
    prepare_restart(c, actor, reason);
    for (int i = -1; i < ranks_count(c, leader); i++) {
        int other = i < 0 ? leader : ranks_follower(c, leader, i);
        if (is_up(c, other)) prepare_restart(c, other, cause);
    }
    if (c->actor[leader].role == ROLE_ROLLOUT) ranks_reset(c, leader);
    tell_job(c, leader);
}

/* Without it the run ends, but the train ranks can commit yet what they have. */
static void give_up_alone(Controller *c, int actor, const char *reason)
{
    int leader = ranks_leader(c, actor);
    const ActorRecord *lost = &c->actor[actor];
    too_many_restarts(c, lost->role, lost->name, reason, lost->own_fault);
    for (int i = -1; i < ranks_count(c, leader); i++) {
        int other = i < 0 ? leader : ranks_follower(c, leader, i);
        kill_process(c, other);
        set_state(c, other, ACTOR_DEAD, reason);
    }
    if (c->actor[leader].role == ROLE_ROLLOUT) ranks_reset(c, leader);
    tell_job(c, leader);
}

void supervise_lost(Controller *c, int actor, const char *reason)
{
    ActorRecord *record = &c->actor[actor];
    if (!is_up(c, actor) || c->phase == PHASE_ENDING) return;
    char cause[REASON_MAX];
    snprintf(cause, sizeof cause, "%s: %s", record->name, reason);
    if (record->role == ROLE_TRAIN) {
        supervise_restart_gang(c, cause);
        return;
    }
    if (!spend(c, record->role)) {
        give_up_alone(c, actor, cause);
        return;
    }
    restart_alone(c, actor, reason);
}

void supervise_node_lost(Controller *c, const char *reason)
{
    bool paid[ROLE_COUNT] = {false};
    supervise_restart_gang(c, reason);
    for (int i = 0; i < c->first_train && c->phase != PHASE_ENDING; i++) {
        Role role = c->actor[i].role;
        if (!is_up(c, i)) continue;
        if (!paid[role] && !spend(c, role)) {
            give_up_alone(c, i, reason);
            continue;
        }
        paid[role] = true;
        restart_alone(c, i, reason);
    }
}

void supervise_replace(Controller *c, int actor, const char *reason)
{
    ActorRecord *record = &c->actor[actor];
    if (record->state == ACTOR_PENDING || record->state == ACTOR_DEAD) return;
    if (supervise_ready(c, actor))
        core_call(c, actor, CALL_LEAVE, 0, LEAVE_MS); /* killed if it does not */
    else
        kill_process(c, actor);
    record->retry_ms = 0;
    record->doing[0] = record->waiting_for[0] = record->trouble[0] = '\0';
    set_state(c, actor, ACTOR_LEAVING, reason);
}

void supervise_kill_all(Controller *c)
{
    for (int i = 0; i < c->num_actors; i++) {
        kill_process(c, i);
        if (c->actor[i].state != ACTOR_DEAD) set_state(c, i, ACTOR_DEAD, "the run is over");
    }
}

bool supervise_all_gone(const Controller *c)
{
    for (int i = 0; i < c->num_actors; i++)
        if (c->actor[i].process) return false;
    return true;
}

void supervise_call_failed(Controller *c, int actor, const char *message)
{
    ActorRecord *record = &c->actor[actor];
    if (!is_up(c, actor) || record->failed_ms != 0) return;
    record->failed_ms = c->now_ms;
    snprintf(record->failure, sizeof record->failure, "%s", message);
}

void supervise_reply_failed(Controller *c, const Event *event)
{
    if (gang_is_retryable(event->status))
        supervise_call_failed(c, event->actor, event->message);
    else if (c->actor[event->actor].role == ROLE_TRAIN)
        core_finish(c, event->status, "%s", event->message);
    else
        core_finish_until(c, event->status, "mend what is said above", event->message);
}

/* ---- events ---- */

static void on_exit(Controller *c, const Event *event)
{
    ActorRecord *record = &c->actor[event->actor];
    record->process = false;
    record->pid = 0;
    if (record->state != ACTOR_STARTING && !supervise_ready(c, event->actor)) return;
    const char *tail = event->exited.stderr_tail;
    char reason[ERROR_MESSAGE_MAX], own[128] = "";
    bool suspect = own_code_is_suspect(event->message, tail);
    if (record->role == ROLE_ROLLOUT && suspect) own_code_describe(c->config, own, sizeof own);
    if (record->role == ROLE_DATA_SOURCE && suspect)
        own_code_describe_reader(c->config, own, sizeof own);
    snprintf(reason, sizeof reason, "%s%s%s%s%s", event->message,
             own[0] != '\0' ? "; code of yours runs in it: " : "", own,
             tail != NULL && tail[0] != '\0' ? "; its last words: " : "", tail != NULL ? tail : "");
    record->own_fault = own[0] != '\0';
    supervise_lost(c, event->actor, reason);
}

static void on_spawn_reply(Controller *c, const Event *event)
{
    ActorRecord *record = &c->actor[event->actor];
    if (event->status == OK) {
        record->pid = event->hello.pid;
        return;
    }
    record->process = false;
    if (record->state != ACTOR_STARTING) return;
    if (event->status == ERR_UNAVAILABLE || event->status == ERR_TIMEOUT)
        supervise_call_failed(c, event->actor, event->message); /* its agent, more likely */
    else
        core_finish(c, event->status, "%s could not be started: %s", record->name, event->message);
}

static void on_hello(Controller *c, const Event *event)
{
    ActorRecord *record = &c->actor[event->actor];
    if (record->state != ACTOR_STARTING) return;
    record->pid = event->hello.pid;
    snprintf(record->endpoint, sizeof record->endpoint, "%s", event->hello.endpoint);
    record->beat_ms = record->progress_ms = c->now_ms;
    record->progress = 0;
    set_state(c, event->actor, ACTOR_ALIVE, "said hello");
}

static void on_beat(Controller *c, const Event *event)
{
    ActorRecord *record = &c->actor[event->actor];
    if (!supervise_ready(c, event->actor)) return;
    record->beat_ms = c->now_ms;
    record->working = event->beat.working;
    if (event->beat.progress != record->progress) {
        record->progress = event->beat.progress;
        record->progress_ms = c->now_ms;
    }
    snprintf(record->doing, sizeof record->doing, "%s", event->beat.doing);
    snprintf(record->waiting_for, sizeof record->waiting_for, "%s", event->beat.waiting_for);
    snprintf(record->trouble, sizeof record->trouble, "%s",
             event->beat.trouble != NULL ? event->beat.trouble : "");
    const char *notice = event->beat.notice != NULL ? event->beat.notice : "";
    if (notice[0] != '\0' && strcmp(record->notice, notice) != 0) {
        snprintf(record->notice, sizeof record->notice, "%s", notice);
        core_log(c, LOG_WARN, "notice", "%s", notice);
    }
    record->rss_bytes = event->beat.rss_bytes;
    if (record->state == ACTOR_SUSPECT) set_state(c, event->actor, ACTOR_ALIVE, "heard again");
}

void supervise_event(Controller *c, const Event *event)
{
    CHECK(event->actor >= 0 && event->actor < c->num_actors);
    if (event->incarnation != c->actor[event->actor].incarnation) return;
    switch (event->kind) {
    case EV_SPAWN_REPLY:
        on_spawn_reply(c, event);
        break;
    case EV_ACTOR_HELLO:
        on_hello(c, event);
        break;
    case EV_ACTOR_BEAT:
        on_beat(c, event);
        break;
    default:
        on_exit(c, event);
        break;
    }
}

/* ---- time ---- */

static void spawn(Controller *c, int actor)
{
    ActorRecord *record = &c->actor[actor];
    record->incarnation = rng_mix(c->nonce ^ core_next_id(c));
    record->process = true;
    record->pid = 0;
    record->endpoint[0] = '\0';
    record->failed_ms = record->lease_after_ms = 0;
    record->owed = record->working = 0;
    record->own_fault = false;
    record->adopted = record->adopting = record->received = 0;
    record->send_id = 0;
    record->adopt_out = false;
    record->awake = false;
    record->rest_id = 0;
    set_state(c, actor, ACTOR_STARTING, "spawned");
    Effect *effect = effect_add(c->fx, FX_SPAWN);
    effect->actor = actor;
    effect->node = record->node;
    effect->incarnation = record->incarnation;
    effect->spawn.group = c->group_id;
    effect->spawn.bundle = actor;
}

/* ---- no progress ---- */

static bool is_owed(CallKind call)
{
    return call == CALL_OPEN_SET || call == CALL_START || call == CALL_CONFIGURE ||
           call == CALL_STEP || call == CALL_EVALUATE || call == CALL_PUBLISH ||
           call == CALL_JOIN || call == CALL_ADOPT || call == CALL_MEET || call == CALL_RECEIVE ||
           call == CALL_SAVE || call == CALL_REST || call == CALL_REST_RANK;
}

void supervise_call_made(Controller *c, int actor, CallKind call)
{
    if (is_owed(call)) c->actor[actor].owed++;
}

void supervise_call_answered(Controller *c, int actor, CallKind call)
{
    if (is_owed(call)) c->actor[actor].owed--;
}

/* Does it have work that nobody else holds up? A rank that has answered does not; nor does a
 * rollout worker that waits for the data source. */
static bool is_busy(const Controller *c, int actor)
{
    const ActorRecord *record = &c->actor[actor];
    return record->owed > 0 || (record->role != ROLE_TRAIN && record->working > 0);
}

/* For how long it has stood still, its work undone. Ranks wait for each other: the gang gets on
 * when one of them does. */
static int64_t standing_ms(const Controller *c, int actor)
{
    int64_t moved_ms = c->actor[actor].progress_ms;
    if (c->actor[actor].role == ROLE_TRAIN)
        for (int i = c->first_train; i < c->num_actors; i++)
            if (is_busy(c, i) && c->actor[i].progress_ms > moved_ms)
                moved_ms = c->actor[i].progress_ms;
    return c->now_ms - moved_ms;
}

/* Says where everybody of the role stands before anything is killed: the laggard is the one to look
 * at. */
static void report_stall(Controller *c, int actor)
{
    for (int i = 0; i < c->num_actors; i++) {
        const ActorRecord *record = &c->actor[i];
        if (record->role != c->actor[actor].role || !is_busy(c, i)) continue;
        core_log(c, LOG_WARN, "no_progress", "%s: %s%s%s, no progress for %lld s", record->name,
                 record->doing, record->waiting_for[0] != '\0' ? ", waits for " : "",
                 record->waiting_for, (long long)((c->now_ms - record->progress_ms) / 1000));
    }
}

/* Of the ranks that stand still the one that waits for no other; else the one asked about. */
static int find_laggard(const Controller *c, int actor)
{
    for (int i = c->first_train; i < c->num_actors && c->actor[actor].role == ROLE_TRAIN; i++)
        if (is_busy(c, i) && c->actor[i].waiting_for[0] == '\0') return i;
    return actor;
}

static void check_progress(Controller *c, int actor)
{
    char reason[REASON_MAX];
    if (!is_busy(c, actor)) {
        c->actor[actor].progress_ms = c->now_ms;
        return;
    }
    int64_t standing = standing_ms(c, actor);
    if (standing <= c->config->cluster.progress_s * 1000) return;
    report_stall(c, actor);
    int laggard = find_laggard(c, actor);
    ActorRecord *record = &c->actor[laggard];
    bool waits = record->waiting_for[0] != '\0';
    snprintf(reason, sizeof reason,
             "no progress for %lld s (cluster.progress_s); it was in: %s%s%s",
             (long long)(standing / 1000), record->doing, waits ? " " : "", record->waiting_for);
    record->own_fault = record->role == ROLE_DATA_SOURCE && own_code_is_at(record->doing);
    supervise_lost(c, laggard, reason);
}

/* ---- time ---- */

static void check_alive(Controller *c, int actor)
{
    ActorRecord *record = &c->actor[actor];
    int64_t silence = c->now_ms - record->beat_ms;
    char reason[REASON_MAX];
    if (record->failed_ms != 0 && c->now_ms - record->failed_ms > DEATH_NOTICE_MS) {
        snprintf(reason, sizeof reason, "%s", record->failure);
        supervise_lost(c, actor, reason);
    } else if (silence > c->config->cluster.dead_ms) {
        snprintf(reason, sizeof reason, "silent for %lld ms (cluster.dead_ms)", (long long)silence);
        supervise_lost(c, actor, reason);
    } else if (silence > c->config->cluster.suspect_ms && record->state == ACTOR_ALIVE) {
        snprintf(reason, sizeof reason, "silent for %lld ms", (long long)silence);
        set_state(c, actor, ACTOR_SUSPECT, reason);
    } else {
        check_progress(c, actor);
    }
}

static void check_start(Controller *c, int actor)
{
    ActorRecord *record = &c->actor[actor];
    char reason[REASON_MAX];
    if (record->failed_ms != 0 && c->now_ms - record->failed_ms > DEATH_NOTICE_MS) {
        snprintf(reason, sizeof reason, "%s", record->failure);
        supervise_lost(c, actor, reason);
    } else if (c->now_ms - record->since_ms > HELLO_TIMEOUT_MS) {
        supervise_lost(c, actor, "did not say hello within 30 s of its start");
    }
}

/* With a process that is to end, before it is killed, or killed again. */
static int64_t patience_ms(const ActorRecord *record)
{
    return record->state == ACTOR_LEAVING ? LEAVE_MS : KILL_AGAIN_MS;
}

void supervise_advance(Controller *c)
{
    for (int i = 0; i < c->num_actors && c->phase != PHASE_ENDING; i++) {
        ActorRecord *record = &c->actor[i];
        switch (record->state) {
        case ACTOR_PENDING:
            if (c->group_state == GROUP_READY && c->now_ms >= record->retry_ms && stage_wants(c, i))
                spawn(c, i);
            break;
        case ACTOR_STARTING:
            check_start(c, i);
            break;
        case ACTOR_ALIVE:
        case ACTOR_SUSPECT:
            check_alive(c, i);
            break;
        case ACTOR_RESTARTING:
        case ACTOR_LEAVING:
            if (!record->process) {
                record->state = ACTOR_PENDING;
                i--; /* it may be started at once */
            } else if (c->now_ms - record->since_ms > patience_ms(record)) {
                record->since_ms = c->now_ms;
                if (record->state == ACTOR_LEAVING)
                    core_log(c, LOG_WARN, "killed", "%s was asked to leave and is there after %d s",
                             record->name, LEAVE_MS / 1000);
                kill_process(c, i);
            }
            break;
        case ACTOR_DEAD:
            break;
        }
    }
}
