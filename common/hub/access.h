/* HubAccess: where the Hugging Face Hub is, who we are there, and where what comes from it is kept:
 * the environment variables and files of huggingface_hub, so that what works for `hf download`
 * works here. Plain data. */
#ifndef TROUPE_HUB_ACCESS_H
#define TROUPE_HUB_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct HubAccess {
    char *endpoint;   /* HF_ENDPOINT, without a slash at its end; https://huggingface.co */
    char *token;      /* HF_TOKEN, or the first line of HF_TOKEN_PATH (HF_HOME/token); NULL: none */
    char *cache;      /* HF_HUB_CACHE, or HF_HOME/hub */
    char *ca_file;    /* SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE; NULL: the system's */
    bool offline;     /* HF_HUB_OFFLINE */
    int64_t stall_ms; /* without a byte, after which a try has failed */
    int64_t attempts; /* without a new byte */
    int64_t tell_ms;  /* without a byte, or with hardly any, after which whoever waits is told */
    int64_t backoff_ms, backoff_ms_max; /* between them; the first is doubled up to the second */
} HubAccess;

/* What the environment says, as `variable` gives it (getenv). ERR_INVALID names the variable. */
Status hub_access_read(char *(*variable)(const char *name), HubAccess *ret, Error *err);
void hub_access_free(HubAccess *access); /* leaves an empty one */

#endif
