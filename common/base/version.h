/* The version of this build, as every process says it in its hello: processes of other versions are
 * refused by name. */
#ifndef TROUPE_BASE_VERSION_H
#define TROUPE_BASE_VERSION_H

#define TROUPE_VERSION "0.1.0"

#endif
