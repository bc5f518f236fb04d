// The same as C++17.
#include "quire/quire.h"
#include "quire/quire_backend.h"
#include "quire/quire_peer.h"

int main()
{
    return quire_status_name(QUIRE_OK) == nullptr;
}
