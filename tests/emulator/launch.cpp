/* launch.cpp - see launch.h. Nothing here runs on a fiber. */
#include "launch.h"

#include "block.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace emu {

constexpr size_t kDynamicSharedWithoutAsking = 48 << 10;
constexpr uint32_t kMaxOsThreads = 64;

static uint32_t setting_from_environment(const char *name, uint32_t least, uint32_t most, uint32_t otherwise) {
    const char *text = getenv(name);
    if (text == nullptr || *text == '\0') {
        return otherwise;
    }
    char *end = nullptr;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || *text < '0' || *text > '9' || value < least || value > most) {
        fprintf(stderr, "kernel emulator: %s is '%s', expected a whole number from %u to %u\n", name, text, least, most);
        abort();
    }
    return static_cast<uint32_t>(value);
}

static Settings settings_from_environment() {
    const uint32_t processors = std::min(std::max(1u, std::thread::hardware_concurrency()), kMaxOsThreads);
    return Settings{setting_from_environment("QUIRE_EMU_SEED", 0, UINT32_MAX, 0),
                    setting_from_environment("QUIRE_EMU_THREADS", 1, kMaxOsThreads, processors)};
}

Settings &settings() {
    static Settings in_force = settings_from_environment();
    return in_force;
}

static thread_local int launch_error = kLaunchSuccess;

int take_launch_error() {
    const int error = launch_error;
    launch_error = kLaunchSuccess;
    return error;
}

static std::mutex shared_limits_lock;

/* By kernel; guarded by shared_limits_lock. */
static std::map<const void *, size_t> &shared_limits() {
    static std::map<const void *, size_t> limits;
    return limits;
}

int allow_dynamic_shared(const void *kernel, size_t bytes) {
    if (bytes > kSharedLimit) {
        return kInvalidValue;
    }
    const std::lock_guard<std::mutex> guard(shared_limits_lock);
    shared_limits()[kernel] = bytes;
    return kLaunchSuccess;
}

static size_t dynamic_shared_limit(const void *kernel) {
    const std::lock_guard<std::mutex> guard(shared_limits_lock);
    const auto found = shared_limits().find(kernel);
    return found == shared_limits().end() ? kDynamicSharedWithoutAsking
                                          : std::max(found->second, kDynamicSharedWithoutAsking);
}

static int check_shape(const LaunchShape &shape) {
    const dim3 g = shape.grid;
    const dim3 b = shape.block;
    if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > INT32_MAX || g.y > 65535 || g.z > 65535) {
        return kInvalidConfiguration;
    }
    if (b.x == 0 || b.y == 0 || b.z == 0 || b.x > kMaxThreads || b.y > kMaxThreads || b.z > 64 ||
        uint64_t(b.x) * b.y * b.z > kMaxThreads) {
        return kInvalidConfiguration;
    }
    return shape.dynamic_shared > dynamic_shared_limit(shape.kernel) ? kInvalidValue : kLaunchSuccess;
}

/* Blocks between launches: they own fiber stacks, which are dear to make. */
class BlockStore {
  public:
    std::unique_ptr<Block> take() {
        const std::lock_guard<std::mutex> guard(lock_);
        if (idle_.empty()) {
            return std::make_unique<Block>();
        }
        std::unique_ptr<Block> block = std::move(idle_.back());
        idle_.pop_back();
        return block;
    }

    void give_back(std::unique_ptr<Block> block) {
        const std::lock_guard<std::mutex> guard(lock_);
        idle_.push_back(std::move(block));
    }

  private:
    std::mutex lock_;
    std::vector<std::unique_ptr<Block>> idle_;
};

static void run_share(Block &block, const Grid &grid, uint64_t first, uint64_t stride, uint64_t count) {
    block.begin_grid(grid);
    for (uint64_t number = first; number < count; number += stride) {
        block.run(number);
    }
    block.end_grid();
}

/* Workers get their Block before any starts and hand it back after all have ended: no lock is taken in between, which
 * would order the workers' memory and hide races between blocks from TSan. */
static void run_on_workers(const Grid &grid, uint64_t workers, uint64_t count) {
    static BlockStore store;
    std::vector<std::unique_ptr<Block>> blocks;
    for (uint64_t i = 0; i < workers; i++) {
        blocks.push_back(store.take());
    }
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < workers; i++) {
        others.emplace_back(run_share, std::ref(*blocks[i]), std::cref(grid), i, workers, count);
    }
    run_share(*blocks[0], grid, 0, workers, count);
    for (std::thread &other : others) {
        other.join();
    }
    for (std::unique_ptr<Block> &block : blocks) {
        store.give_back(std::move(block));
    }
}

void run_grid(const LaunchShape &shape, const std::function<void()> &body) {
    const int error = check_shape(shape);
    if (error != kLaunchSuccess) {
        launch_error = launch_error == kLaunchSuccess ? error : launch_error;
        return;
    }
    Grid grid;
    grid.kernel = shape.name;
    grid.size = shape.grid;
    grid.block = shape.block;
    grid.dynamic_shared = shape.dynamic_shared;
    grid.body = &body;
    grid.seed = settings().seed;

    const uint64_t count = uint64_t(shape.grid.x) * shape.grid.y * shape.grid.z;
    run_on_workers(grid, std::min<uint64_t>(count, settings().os_threads), count);
}

}  // namespace emu
