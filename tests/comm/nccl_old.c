/* A library that calls itself an NCCL of another version, or says nothing of the kind: what the
 * loader must refuse. */
#define EXPORT __attribute__((visibility("default")))

#ifdef OLD_VERSION
EXPORT int ncclGetVersion(int *version);

EXPORT int ncclGetVersion(int *version)
{
    *version = OLD_VERSION;
    return 0;
}
#else
EXPORT int not_nccl(void);

EXPORT int not_nccl(void)
{
    return 0;
}
#endif
