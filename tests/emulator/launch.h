/*
 * launch.h - starting a kernel: what <<<grid, block, shared, stream>>> does.
 *
 * A launch runs the whole grid before it returns; streams are not modelled. Blocks are dealt to OS threads in turn (block
 * i to worker i modulo their number), each worker runs its share in order. So which worker runs which block is always
 * the same, two blocks on different workers really run at once, and to TSan nothing orders them but fences.
 *
 * Arguments are converted to the kernel's parameter types and copied once, at the launch; every CUDA thread gets a copy.
 *
 * A configuration that CUDA would refuse runs nothing and is kept, per calling thread, for take_launch_error.
 *
 * Environment, read once:
 *   QUIRE_EMU_SEED     0 to 4294967295, default 0. Not 0: threads are scheduled in random order, the same for the same
 *                      seed. Odd: cp.async copies at the call instead of the wait (async_copy.h).
 *   QUIRE_EMU_THREADS  1 to 64, default: as many as the machine has.
 * A malformed value is a message on stderr and abort(): the emulator is a test tool.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector_types.h>

namespace emu {

struct Settings {
    uint32_t seed;
    uint32_t os_threads;
};

/* The settings in force. A test may change them between launches. */
Settings &settings();

/* cudaError_t values, by number: the emulator does without the runtime's headers. */
enum LaunchError { kLaunchSuccess = 0, kInvalidValue = 1, kInvalidConfiguration = 9 };

/* The first error since the last call, and forgets it; like cudaGetLastError. */
int take_launch_error();

/* Permits `kernel` to be launched with that much dynamic shared memory; needed above 48 KiB, as on a GPU. */
int allow_dynamic_shared(const void *kernel, size_t bytes);

struct LaunchShape {
    const char *name;
    const void *kernel;
    dim3 grid;
    dim3 block;
    size_t dynamic_shared;
};

void run_grid(const LaunchShape &shape, const std::function<void()> &body);

/* launch(name, kernel, grid, block, shared)(arguments...) */
template <class... Parameters> class Launch {
  public:
    Launch(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_shared)
        : kernel_(kernel), shape_{name, reinterpret_cast<const void *>(kernel), grid, block, dynamic_shared} {}

    void operator()(Parameters... arguments) const {
        run_grid(shape_, [&] { kernel_(arguments...); });
    }

  private:
    void (*kernel_)(Parameters...);
    LaunchShape shape_;
};

}  // namespace emu
