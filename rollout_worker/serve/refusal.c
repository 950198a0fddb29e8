#include "rollout_worker/serve/refusal.h"

#include <stdio.h>

#include "base/json.h"

Status refuse_param(Refusal *refusal, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_setv(&refusal->error, ERR_INVALID, format, args);
    va_end(args);
    snprintf(refusal->param, sizeof refusal->param, "%s", param);
    refusal->code = NULL;
    refusal->http_status = 400;
    return ERR_INVALID;
}

Status refuse_request(Refusal *refusal, int http_status, const char *code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_setv(&refusal->error, ERR_INVALID, format, args);
    va_end(args);
    refusal->param[0] = '\0';
    refusal->code = code;
    refusal->http_status = http_status;
    return ERR_INVALID;
}

int refusal_http_status(const Refusal *refusal)
{
    if (refusal->http_status != 0) return refusal->http_status;
    switch (refusal->error.status) {
    case ERR_INVALID:
    case ERR_DATA:
    case ERR_UNSUPPORTED:
    case ERR_NOT_FOUND:
        return 400;
    case ERR_RESOURCE:
        return 429;
    case ERR_UNAVAILABLE:
    case ERR_CANCELLED:
    case ERR_TIMEOUT:
        return 503;
    default:
        return 500;
    }
}

static const char *type_of(int http_status)
{
    switch (http_status) {
    case 401:
    case 403:
        return "authentication_error";
    case 429:
        return "rate_limit_error";
    default:
        return http_status < 500 ? "invalid_request_error" : "server_error";
    }
}

void refusal_append_json(const Refusal *refusal, Str *out)
{
    str_puts(out, "{\"error\":{\"message\":");
    json_append_string(out, refusal->error.message);
    str_printf(out, ",\"type\":\"%s\",\"param\":", type_of(refusal_http_status(refusal)));
    if (refusal->param[0] != '\0')
        json_append_string(out, refusal->param);
    else
        str_puts(out, "null");
    str_puts(out, ",\"code\":");
    if (refusal->code != NULL)
        json_append_string(out, refusal->code);
    else
        str_puts(out, "null");
    str_puts(out, "}}");
}
