#include "hub/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

#define PIECE_BYTES (1 << 20)

/* A download under way. */
typedef struct Download {
    const HubPlace *place;
    const HubFile *file;
    char *path, *what; /* ETAG.incomplete; for messages */
    int fd;
    int64_t offset; /* bytes that are in the file, and in the digest */
    EVP_MD_CTX *digest;
} Download;

/* ---- checksum ---- */

static bool is_large(const HubFile *file)
{
    return strlen(file->etag) == HUB_ETAG_BYTES - 1;
}

/* SHA-256 of the bytes, or git's: SHA-1 of "blob", the length and the bytes. */
static void begin_digest(Download *this)
{
    char head[32];
    int length = snprintf(head, sizeof head, "blob %lld", (long long)this->file->bytes);
    CHECK(EVP_DigestInit_ex(this->digest, is_large(this->file) ? EVP_sha256() : EVP_sha1(), NULL) ==
          1);
    if (!is_large(this->file)) CHECK(EVP_DigestUpdate(this->digest, head, (size_t)length + 1) == 1);
}

static void finish_digest(Download *this, char ret_hex[2 * EVP_MAX_MD_SIZE + 1])
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    CHECK(EVP_DigestFinal_ex(this->digest, bytes, &length) == 1);
    for (unsigned i = 0; i < length; i++)
        snprintf(ret_hex + 2 * i, 3, "%02x", bytes[i]);
}

/* ---- what is there already ---- */

static Status start_over(Download *this, Error *err)
{
    this->offset = 0;
    begin_digest(this);
    if (ftruncate(this->fd, 0) == 0) return OK;
    return error_set_errno(err, errno, "could not write %s", this->path);
}

static Status take_earlier_bytes(Download *this, Error *err)
{
    struct stat info;
    const HubWatch *watch = hub_client_watch(this->place->client);
    if (fstat(this->fd, &info) != 0)
        return error_set_errno(err, errno, "could not stat %s", this->path);
    if (info.st_size > this->file->bytes) return start_over(this, err);
    begin_digest(this);
    char *piece = mem_alloc(PIECE_BYTES);
    Status status = OK;
    while (status == OK && this->offset < info.st_size) {
        ssize_t got = pread(this->fd, piece, PIECE_BYTES, this->offset);
        if (got < 0) status = error_set_errno(err, errno, "could not read %s", this->path);
        if (got <= 0) break;
        CHECK(EVP_DigestUpdate(this->digest, piece, (size_t)got) == 1);
        this->offset += got;
        if (!hub_watch_goes_on(watch, got))
            status = error_set(err, ERR_CANCELLED, "the data is not wanted any more");
    }
    free(piece);
    return status;
}

/* ---- what comes ---- */

static int64_t begin_try(void *context)
{
    return ((Download *)context)->offset;
}

static Status refuse_other_file(const Download *this, const char *found, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s: the server sends another file than its list names\n  found: %s\n"
                     "  expected: checksum %s, %lld bytes, of commit %s\n  to do: look at "
                     "HF_ENDPOINT, and start again",
                     this->what, found, this->file->etag, (long long)this->file->bytes,
                     this->place->commit);
}

/* A server may answer with all of the file where a part was asked for. */
static Status take_answer(void *context, const HubHeader *header, Error *err)
{
    Download *this = context;
    char found[96];
    const char *linked = header->linked_etag;
    if (header->commit[0] != '\0' && strcmp(header->commit, this->place->commit) != 0)
        return refuse_other_file(this, header->commit, err);
    if (linked[0] != '\0' && strcmp(linked, this->file->etag) != 0)
        return refuse_other_file(this, linked, err);
    int64_t total = header->status == 206 ? header->range_total : header->length;
    if (total >= 0 && total != this->file->bytes) {
        snprintf(found, sizeof found, "%lld bytes", (long long)total);
        return refuse_other_file(this, found, err);
    }
    if (header->status == 206 && header->range_begin == this->offset) return OK;
    if (header->status == 206) {
        snprintf(found, sizeof found, "bytes from %lld on, where those from %lld on were wanted",
                 (long long)header->range_begin, (long long)this->offset);
        return refuse_other_file(this, found, err);
    }
    return this->offset > 0 ? start_over(this, err) : OK;
}

static Status refuse_full_disk(const Download *this, int why, Error *err)
{
    error_set_errno(err, why, "could not write %s", this->path);
    return error_append(err, "  to do: make room there, or move the cache (HF_HOME), and start "
                             "again: what was fetched is kept");
}

/* At its own place: should two processes write after all (there are file systems that lock
 * nothing), they write the same. */
static Status take_bytes(void *context, const void *bytes, size_t length, Error *err)
{
    Download *this = context;
    char found[64];
    if ((int64_t)length > this->file->bytes - this->offset) {
        snprintf(found, sizeof found, "more than %lld bytes", (long long)this->file->bytes);
        return refuse_other_file(this, found, err);
    }
    for (size_t done = 0; done < length;) {
        ssize_t put = pwrite(this->fd, (const char *)bytes + done, length - done,
                             this->offset + (int64_t)done);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return refuse_full_disk(this, put < 0 ? errno : ENOSPC, err);
        done += (size_t)put;
    }
    CHECK(EVP_DigestUpdate(this->digest, bytes, length) == 1);
    this->offset += (int64_t)length;
    return OK;
}

/* ---- a file ---- */

void hub_put_escaped(Str *out, const char *text, bool whole)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~";
    for (; *text != '\0'; text++) {
        if (strchr(plain, *text) != NULL || (*text == '/' && !whole))
            str_putc(out, *text);
        else
            str_printf(out, "%%%02X", (unsigned char)*text);
    }
}

/* What it is called in the Hub's addresses, before its name. */
static const char *place_prefix(const HubPlace *place)
{
    return place->model ? "" : "datasets/";
}

static char *make_url(const HubPlace *place, const HubFile *file)
{
    Str url = {0};
    str_printf(&url, "%s/%s%s/resolve/%s/", hub_client_access(place->client)->endpoint,
               place_prefix(place), place->repo, place->commit);
    hub_put_escaped(&url, file->path, false);
    return str_take(&url);
}

static Status explain_gated(const HubPlace *place, bool gated, Error *err)
{
    const HubAccess *access = hub_client_access(place->client);
    const char *kind = place->model ? "model" : "data set";
    if (gated)
        return error_append(err,
                            "  expected: a token (HF_TOKEN) of somebody who has accepted the terms "
                            "of this %s; %s\n  to do: accept them at %s/%s%s, then hf auth login",
                            kind, access->token == NULL ? "there is none" : "this one has not",
                            access->endpoint, place_prefix(place), place->repo);
    return error_append(err,
                        "  expected: a %s that is there, and for a private one a token "
                        "(HF_TOKEN); %s\n  to do: look at %s/%s%s, or hf auth login; a folder of "
                        "this machine is not there under that name either",
                        kind, access->token == NULL ? "there is none" : "this one was refused",
                        access->endpoint, place_prefix(place), place->repo);
}

bool hub_refuses_token(const HubPlace *place, const HubHeader *header)
{
    bool gated = strcmp(header->error_code, "GatedRepo") == 0;
    return header->status == 401 && !gated && hub_client_access(place->client)->token != NULL;
}

/* Its list was right when it was asked for: repositories are renamed, made private, taken away. */
static Status explain_absence(const HubPlace *place, Error *err)
{
    const HubAccess *access = hub_client_access(place->client);
    return error_append(err,
                        "  expected: the files of commit %s as they were listed\n  to do: look at "
                        "%s/%s%s, whether it is still there, and to be read by %s",
                        place->commit, access->endpoint, place_prefix(place), place->repo,
                        access->token == NULL ? "everybody: there is no token (HF_TOKEN)"
                                              : "the owner of this token (HF_TOKEN)");
}

Status hub_explain_refusal(const HubPlace *place, const HubHeader *header, Error *err)
{
    bool gated = strcmp(header->error_code, "GatedRepo") == 0;
    if (err->status == ERR_UNAVAILABLE || err->status == ERR_CANCELLED) return err->status;
    if (hub_refuses_token(place, header))
        return error_append(err,
                            "  expected: a token that is valid: this one (HF_TOKEN, or the file "
                            "that hf auth login writes) has expired, or was never one\n  to do: hf "
                            "auth login; or without any (unset HF_TOKEN, hf auth logout), which "
                            "is enough for what everybody may read");
    if (gated || header->status == 401 || header->status == 403)
        return explain_gated(place, gated, err);
    return header->status == 404 ? explain_absence(place, err) : err->status;
}

/* Fetches what is missing and compares. *ret_same: it is the file. */
static Status download(Download *this, bool *ret_same, Error *err)
{
    char *url = make_url(this->place, this->file), hex[2 * EVP_MAX_MD_SIZE + 1];
    HubRequest request = {.url = url,
                          .what = this->what,
                          .etag = this->file->etag,
                          .sink = {begin_try, take_answer, take_bytes, this}};
    HubHeader header = {0};
    Status status = OK;
    if (this->offset < this->file->bytes) {
        status = hub_client_get(this->place->client, &request, &header, err);
        bool no_part = header.status == 412 || header.status == 416;
        if (status == ERR_DATA && no_part && this->offset > 0) {
            hub_header_free(&header);
            status = start_over(this, err);
            if (status == OK) status = hub_client_get(this->place->client, &request, &header, err);
        }
        if (status != OK) hub_explain_refusal(this->place, &header, err);
    }
    if (status == OK) {
        finish_digest(this, hex);
        *ret_same = this->offset == this->file->bytes && strcmp(hex, this->file->etag) == 0;
    }
    hub_header_free(&header);
    free(url);
    return status;
}

/* A wrong checksum may be that of bytes which an earlier try left. */
static Status download_same(Download *this, Error *err)
{
    bool same = false;
    TRY(take_earlier_bytes(this, err));
    for (int i = 0; i < 2 && !same; i++) {
        if (i > 0) TRY(start_over(this, err));
        TRY(download(this, &same, err));
    }
    if (same) return OK;
    unlink(this->path);
    return refuse_other_file(this, "another checksum, twice", err);
}

/* From ETAG.incomplete to ETAG, on the disk. */
static Status finish(Download *this, int64_t modified_ns, Error *err)
{
    char *blob = hub_cache_blob(this->place->cache, this->file->etag);
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    Status status = OK;
    if (modified_ns > 0)
        times[1] = (struct timespec){modified_ns / 1000000000, modified_ns % 1000000000};
    if (futimens(this->fd, times) != 0 || fsync(this->fd) != 0)
        status = refuse_full_disk(this, errno, err);
    else if (rename(this->path, blob) != 0 && !hub_cache_has_blob(this->place->cache, this->file))
        status = error_set_errno(err, errno, "could not rename %s to %s", this->path, blob);
    free(blob);
    return status;
}

static Status fetch_blob(const HubPlace *place, const HubFile *file, int64_t modified_ns,
                         Error *err)
{
    char *blob = hub_cache_blob(place->cache, file->etag), *folder = path_folder(blob);
    Download this = {.place = place, .file = file, .fd = -1};
    this.path = mem_printf("%s.incomplete", blob);
    this.what = mem_printf("%s of %s", file->path, place->repo);
    this.digest = EVP_MD_CTX_new();
    CHECK(this.digest != NULL);
    Status status = folder_create(folder, err);
    if (status == OK) {
        this.fd = open(this.path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (this.fd < 0) status = error_set_errno(err, errno, "could not create %s", this.path);
    }
    if (status == OK) status = download_same(&this, err);
    if (status == OK) status = finish(&this, modified_ns, err);
    if (this.fd >= 0) close(this.fd);
    EVP_MD_CTX_free(this.digest);
    free(this.what);
    free(this.path);
    free(folder);
    free(blob);
    return status;
}

/* A blob of the right name and another length is a broken one. */
static void remove_broken(const HubCache *cache, const HubFile *file)
{
    char *blob = hub_cache_blob(cache, file->etag);
    unlink(blob);
    free(blob);
}

/* Trying again does not help: not ERR_UNAVAILABLE. */
static Status refuse_offline(const HubPlace *place, const HubFile *file, Error *err)
{
    return error_set(err, ERR_RESOURCE,
                     "%s of %s is not in the cache (%s), and HF_HUB_OFFLINE asks nobody\n"
                     "  expected: all files of the %s there\n  to do: unset HF_HUB_OFFLINE, or "
                     "fetch them first: hf download %s--revision %s %s",
                     file->path, place->repo, place->cache->folder,
                     place->model ? "model" : "split", place->model ? "" : "--repo-type dataset ",
                     place->commit, place->repo);
}

Status hub_fetch(const HubPlace *place, const HubFile *file, HubFetch *fetch, Error *err)
{
    int lock = -1;
    fetch->fetched = false;
    if (hub_cache_has(place->cache, place->commit, file)) return OK;
    if (hub_cache_has_blob(place->cache, file))
        return hub_cache_link(place->cache, place->commit, file, err);
    if (hub_client_access(place->client)->offline) return refuse_offline(place, file, err);
    TRY(hub_cache_lock(place->cache, file, hub_client_watch(place->client), &lock, err));
    Status status = OK;
    if (!hub_cache_has_blob(place->cache, file)) {
        fetch->fetched = true;
        remove_broken(place->cache, file);
        status = fetch_blob(place, file, fetch->modified_ns, err);
    }
    if (status == OK) status = hub_cache_link(place->cache, place->commit, file, err);
    close(lock);
    return status;
}

int64_t hub_fetch_bytes_begun(const HubCache *cache, const HubFile *file)
{
    struct stat info;
    char *blob = hub_cache_blob(cache, file->etag), *path = mem_printf("%s.incomplete", blob);
    bool begun = stat(path, &info) == 0 && info.st_size <= file->bytes;
    free(path);
    free(blob);
    return begun ? info.st_size : 0;
}

int64_t hub_fetch_bytes_left(const HubCache *cache, const char *commit, const HubFile *file)
{
    if (hub_cache_has(cache, commit, file) || hub_cache_has_blob(cache, file)) return 0;
    return file->bytes - hub_fetch_bytes_begun(cache, file);
}

static bool nobody_waits(void *context, int64_t new_bytes)
{
    (void)context, (void)new_bytes;
    return false;
}

void hub_fetch_forget(const HubCache *cache, const HubFile *file)
{
    int lock = -1;
    HubWatch now = {.go_on = nobody_waits};
    if (hub_cache_lock(cache, file, &now, &lock, NULL) != OK) return;
    char *blob = hub_cache_blob(cache, file->etag), *path = mem_printf("%s.incomplete", blob);
    unlink(path);
    free(path);
    free(blob);
    close(lock);
}
