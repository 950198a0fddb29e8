#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

#define PIECE_BYTES ((size_t)1 << 20)

struct Digest {
    EVP_MD_CTX *context;
};

Digest *digest_create(void)
{
    Digest *digest = mem_calloc(1, sizeof *digest);
    digest->context = EVP_MD_CTX_new();
    CHECK(digest->context != NULL);
    CHECK(EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) == 1);
    return digest;
}

void digest_destroy(Digest *digest)
{
    if (digest == NULL) return;
    EVP_MD_CTX_free(digest->context);
    free(digest);
}

void digest_update(Digest *digest, const void *bytes, size_t length)
{
    CHECK(EVP_DigestUpdate(digest->context, bytes, length) == 1);
}

void digest_finish(Digest *digest, char ret_hex[DIGEST_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[DIGEST_BYTES];
    unsigned length = 0;
    CHECK(EVP_DigestFinal_ex(digest->context, raw, &length) == 1 && length == DIGEST_BYTES);
    for (int i = 0; i < DIGEST_BYTES; i++) {
        ret_hex[2 * i] = digits[raw[i] >> 4];
        ret_hex[2 * i + 1] = digits[raw[i] & 15];
    }
    ret_hex[2 * DIGEST_BYTES] = '\0';
}

void digest_bytes(const void *bytes, size_t length, char ret_hex[DIGEST_HEX_BYTES])
{
    Digest *digest = digest_create();
    digest_update(digest, bytes, length);
    digest_finish(digest, ret_hex);
    digest_destroy(digest);
}

Status digest_file(const char *path, char ret_hex[DIGEST_HEX_BYTES], int64_t *ret_length,
                   Error *err)
{
    Status status = OK;
    Digest *digest = digest_create();
    char *piece = mem_alloc(PIECE_BYTES);
    int64_t total = 0;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        status = error_set_errno(err, errno, "could not open %s", path);
        goto done;
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = error_set(err, ERR_INVALID, "%s is not a regular file", path);
        goto done;
    }
    for (;;) {
        ssize_t got = read(fd, piece, PIECE_BYTES);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = error_set_errno(err, errno, "could not read %s", path);
            goto done;
        }
        if (got == 0) break;
        digest_update(digest, piece, (size_t)got);
        total += got;
    }
    digest_finish(digest, ret_hex);
    if (ret_length != NULL) *ret_length = total;
done:
    if (fd >= 0) close(fd);
    free(piece);
    digest_destroy(digest);
    return status;
}
