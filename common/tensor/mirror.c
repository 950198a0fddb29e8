#include "tensor/mirror.h"

#include <stdlib.h>

#include "base/memory.h"

Mirror mirror_create(const KernelTable *kernels, size_t bytes)
{
    Mirror mirror = {.kernels = kernels, .bytes = bytes};
    mirror.device = kernels->alloc(bytes);
    mirror.host = kernels->host_memory ? mirror.device : mem_calloc(bytes, 1);
    return mirror;
}

void mirror_destroy(Mirror *mirror)
{
    if (mirror->device == NULL) return;
    if (mirror->host != mirror->device) free(mirror->host);
    mirror->kernels->free(mirror->device);
    *mirror = (Mirror){0};
}

void mirror_reserve(Mirror *mirror, const KernelTable *kernels, size_t bytes)
{
    if (mirror->device != NULL && mirror->bytes >= bytes) return;
    mirror_destroy(mirror);
    *mirror = mirror_create(kernels, bytes + bytes / 4);
}

void mirror_push(const Mirror *mirror, size_t first, size_t bytes)
{
    CHECK(first + bytes <= mirror->bytes);
    if (mirror->host == mirror->device || bytes == 0) return;
    mirror->kernels->upload(mirror->device + first, mirror->host + first, bytes);
}

void mirror_pull(const Mirror *mirror, size_t first, size_t bytes)
{
    CHECK(first + bytes <= mirror->bytes);
    if (mirror->host == mirror->device || bytes == 0) return;
    mirror->kernels->download(mirror->host + first, mirror->device + first, bytes);
}
