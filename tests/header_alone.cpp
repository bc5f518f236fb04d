// The same as C++17.
#include "quire/quire.h"

int main()
{
    return quire_status_name(QUIRE_OK) == nullptr;
}
