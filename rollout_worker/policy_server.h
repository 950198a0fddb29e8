/* PolicyServer: a rollout worker that answers HTTP requests beside its rollouts, with the newest
 * weights that it has (docs/serving.md). Answers of rollouts do not change by it: no row of a batch
 * depends on the others. */
#ifndef TROUPE_ROLLOUT_WORKER_POLICY_SERVER_H
#define TROUPE_ROLLOUT_WORKER_POLICY_SERVER_H

#include "rollout_worker/chat_text.h"
#include "rollout_worker/policy.h"

typedef struct PolicyServer PolicyServer;

/* As rollout.serve_* of the job say; worker `index` listens at serve_port + index. *ret is NULL
 * where the job wants none. ERR_EXISTS: the port is in use. Borrows both. */
Status policy_server_start(const ChatText *text, const Policy *policy, int index,
                           PolicyServer **ret, Error *err);

/* What can be found wrong before a run: the token file, and, if `ports`, a port that another
 * program listens at. */
Status policy_server_check(const JobConfig *config, bool ports, Error *err);

/* Requests in work end as aborted. Before the policy is destroyed. Accepts NULL. */
void policy_server_stop(PolicyServer *server);

const char *policy_server_url(const PolicyServer *server); /* borrowed */

#endif
