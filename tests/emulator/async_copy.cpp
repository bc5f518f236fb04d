/* async_copy.cpp - see async_copy.h. The functions are checked by the sanitizers: these are the kernel's accesses. */
#include "async_copy.h"

#include "block.h"

#include <cstring>

namespace emu {

constexpr size_t kBytes = 16;

static void carry_out(const AsyncCopy &copy) {
    if (copy.from == nullptr) {
        memset(copy.to, 0, kBytes);
    } else {
        memcpy(copy.to, copy.from, kBytes);
    }
}

void AsyncCopies::reset() {
    pending_.clear();
    committed_ = 0;
}

void AsyncCopies::add(const AsyncCopy &copy) {
    pending_.push_back(copy);
}

void AsyncCopies::commit() {
    committed_++;
}

void AsyncCopies::wait(uint64_t groups_left) {
    size_t ended = 0;
    while (ended < pending_.size() && pending_[ended].group + groups_left < committed_) {
        carry_out(pending_[ended]);
        ended++;
    }
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(ended));
}

/* Reads what the launching thread wrote and what no thread changes, so it need not be seen. */
EMU_UNCHECKED static bool copies_are_eager() {
    return (this_block().grid.seed & 1) != 0;
}

EMU_UNCHECKED static void require_legal(const void *shared, const void *global, const Place &where) {
    Block &block = this_block();
    if (reinterpret_cast<uintptr_t>(shared) % kBytes != 0 || reinterpret_cast<uintptr_t>(global) % kBytes != 0) {
        block.die("cp.async of 16 bytes with an address that is not a multiple of 16", &where);
    }
    if (!block.is_shared(shared, kBytes)) {
        block.die("cp.async to an address outside shared memory", &where);
    }
}

void async_copy_16(void *shared, const void *global, bool valid, Place where) {
    require_legal(shared, global, where);
    AsyncCopies &copies = this_thread().copies;
    const AsyncCopy copy = {static_cast<unsigned char *>(shared),
                            valid ? static_cast<const unsigned char *>(global) : nullptr, copies.open_group()};
    announce_write(shared, kBytes);
    if (valid) {
        announce_read(global, kBytes);
    }
    if (copies_are_eager()) {
        carry_out(copy);
    } else {
        copies.add(copy);
    }
}

void async_copy_commit() {
    this_thread().copies.commit();
}

void async_copy_wait(unsigned groups_left) {
    this_thread().copies.wait(groups_left);
}

}  // namespace emu
