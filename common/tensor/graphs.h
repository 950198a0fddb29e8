/* DeviceGraphs: kernels that are recorded once and launched again as one, for devices on which a
 * launch costs the host and the device about as much as a small kernel takes. What is recorded are
 * the kernels with their arguments: addresses, shapes, host_... arrays as they were; the contents
 * of device memory are those of the time of the launch.
 *
 * Between `begin` and `end` the calling thread's kernels do not run: nothing but them, `copy` and
 * `fill_zero` can be recorded, and products only of matrices that have been multiplied before with
 * this type and shape. Anything else is done at once, and `end` says that nothing came of the
 * recording; so it says of a kernel that fails meanwhile. Other threads' kernels run as ever.
 * Memory of a graph is the device's, beside what `alloc` gives. One thread records at a time. */
#ifndef TROUPE_TENSOR_GRAPHS_H
#define TROUPE_TENSOR_GRAPHS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct DeviceGraph DeviceGraph;

typedef struct DeviceGraphs {
    size_t bytes; /* sizeof(DeviceGraphs), for whoever loads it */
    /* False with a sentence in `text`: the device does not record, and kernels run as ever. */
    bool (*begin)(char *text, size_t size);
    /* Ends it in any case. NULL with a sentence: nothing came of it, no kernel has run. */
    DeviceGraph *(*end)(char *text, size_t size);
    /* In the order of all kernels, as if they were called now. */
    void (*launch)(DeviceGraph *graph);
    void (*destroy)(DeviceGraph *graph); /* accepts NULL; what was launched runs to its end */
} DeviceGraphs;

#endif
