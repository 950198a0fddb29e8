/* Prints the reference of job.yaml as Markdown. */
#include <stdio.h>
#include <stdlib.h>

#include "config/job.h"

int main(void)
{
    char *reference = job_config_reference();
    int code = fputs(reference, stdout) == EOF || fflush(stdout) != 0;
    free(reference);
    return code;
}
