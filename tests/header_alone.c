/* quire.h is all that a program includes: it compiles first and alone, as C11. */
#include "quire/quire.h"
#include "quire/quire_backend.h"
#include "quire/quire_peer.h"

int main(void)
{
    return quire_status_name(QUIRE_OK) == NULL;
}
