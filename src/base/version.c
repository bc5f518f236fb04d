/* version.c: what this build is and has. Its prototype is in quire.h. */
#include "quire/quire.h"

#define TEXT_OF(number) #number
#define NUMBER_TEXT(number) TEXT_OF(number)

#ifdef QUIRE_HAVE_CUDA
#define CUDA_TEXT ", cuda " QUIRE_CUDA_VERSION
#else
#define CUDA_TEXT ""
#endif

#ifdef QUIRE_DEBUG
#define DEBUG_TEXT "; with invariant checks"
#else
#define DEBUG_TEXT ""
#endif

const char *quire_version_string(void)
{
    return "quire " NUMBER_TEXT(QUIRE_VERSION_MAJOR) "." NUMBER_TEXT(QUIRE_VERSION_MINOR) "." NUMBER_TEXT(
        QUIRE_VERSION_PATCH) " (host, sim" CUDA_TEXT DEBUG_TEXT ")";
}
