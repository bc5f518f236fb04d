/*
 * test_emulator_refusals.cpp - what CUDA refuses to launch, the emulator refuses; a kernel that could only hang or read
 * garbage on a GPU ends with a message that says where.
 */
#include <cstdarg>
#include <cstddef>
#include <csetjmp>
#include <cstdint>
extern "C" {
#include <cmocka.h>
}

#include "cuda_compat.cuh"

#include <csignal>
#include <cstdio>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

constexpr unsigned kFull = 0xffffffffu;

/* ------------------------------------------------------------------------------------------------------ launch errors */

__global__ void set_flag(int *flag) {
    *flag = 1;
}

/* A kernel of its own, since what it is permitted stays permitted. */
__global__ void fill_dynamic_shared(int *flag, int words) {
    QK_DYNAMIC_SHARED(int, memory);
    for (int i = 0; i < words; i++) {
        memory[i] = i;
    }
    *flag = memory[words - 1];
}

static int status_of_launch(dim3 grid, dim3 block, size_t dynamic_shared) {
    int flag = 0;
    QK_LAUNCH(set_flag, grid, block, dynamic_shared, nullptr, &flag);
    const int status = qk_launch_status();
    assert_int_equal(flag, status == 0);
    assert_int_equal(qk_launch_status(), 0);
    return status;
}

static void a_bad_launch_configuration_is_an_error_and_runs_nothing(void **) {
    assert_int_equal(status_of_launch(dim3(1), dim3(1), 0), 0);
    assert_int_equal(status_of_launch(dim3(0), dim3(1), 0), emu::kInvalidConfiguration);
    assert_int_equal(status_of_launch(dim3(1, 65536), dim3(1), 0), emu::kInvalidConfiguration);
    assert_int_equal(status_of_launch(dim3(1, 1, 65536), dim3(1), 0), emu::kInvalidConfiguration);
    assert_int_equal(status_of_launch(dim3(0x80000000u), dim3(1), 0), emu::kInvalidConfiguration);
    assert_int_equal(status_of_launch(dim3(1), dim3(0), 0), emu::kInvalidConfiguration);
    assert_int_equal(status_of_launch(dim3(1), dim3(1025), 0), emu::kInvalidConfiguration);
    assert_int_equal(status_of_launch(dim3(1), dim3(32, 33), 0), emu::kInvalidConfiguration);
    assert_int_equal(status_of_launch(dim3(1), dim3(1, 1, 65), 0), emu::kInvalidConfiguration);
    assert_int_equal(status_of_launch(dim3(1), dim3(1), (48 << 10) + 1), emu::kInvalidValue);
}

static void large_dynamic_shared_memory_must_be_asked_for(void **) {
    constexpr int kWords = 25 << 10;
    int flag = 0;
    QK_LAUNCH(fill_dynamic_shared, 1, 1, kWords * sizeof(int), nullptr, &flag, kWords);
    assert_int_equal(qk_launch_status(), emu::kInvalidValue);
    assert_int_equal(qk_allow_dynamic_shared(fill_dynamic_shared, (227 << 10) + 1), emu::kInvalidValue);
    assert_int_equal(qk_allow_dynamic_shared(fill_dynamic_shared, kWords * sizeof(int)), 0);
    QK_LAUNCH(fill_dynamic_shared, 1, 1, kWords * sizeof(int), nullptr, &flag, kWords);
    assert_int_equal(qk_launch_status(), 0);
    assert_int_equal(flag, kWords - 1);
}

/* -------------------------------------------------------------------------------------------- kernels that must not pass */

__global__ void part_of_the_warp_shuffles(int *out) {
    if (threadIdx.x < 16) {
        out[threadIdx.x] = __shfl_sync(kFull, 1, 0);
    } else {
        __syncthreads();
    }
}

__global__ void two_barriers_at_once(int *out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    *out = 1;
}

__global__ void mask_without_caller(int *out) {
    out[threadIdx.x] = __shfl_sync(0xffff0000u, 1, 20);
}

__global__ void different_warp_operations(unsigned *out) {
    if (threadIdx.x == 3) {
        out[threadIdx.x] = __shfl_sync(kFull, 1u, 0);
    } else {
        out[threadIdx.x] = __ballot_sync(kFull, 1);
    }
}

__global__ void async_copy_into_global(uint4 *memory) {
    qk_cp_async16(memory, memory + 1);
}

__global__ void misaligned_async_copy(const char *source) {
    QK_SHARED(uint4, stage);
    qk_cp_async16(&stage, source + 8);
}

__global__ void too_much_static_shared(int *out) {
    QK_SHARED(int[8 << 10], first);
    QK_SHARED(int[8 << 10], second);
    *out = first[0] + second[0];
}

/* Runs `body` in a child process; returns what it wrote to stderr, having checked that it ended by abort(). */
template <class Body> static std::string last_words(Body body) {
    int channel[2];
    assert_int_equal(pipe(channel), 0);
    fflush(nullptr);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(channel[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        emu::settings().os_threads = 1;
        body();
        _exit(0);
    }
    close(channel[1]);
    std::string text;
    char buffer[512];
    for (ssize_t n; (n = read(channel[0], buffer, sizeof buffer)) > 0;) {
        text.append(buffer, size_t(n));
    }
    close(channel[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    return text;
}

static void assert_says(const std::string &text, const char *expected) {
    if (text.find(expected) == std::string::npos) {
        fail_msg("expected a message with '%s', got: %s", expected, text.c_str());
    }
}

static void a_deadlock_is_reported_with_where_threads_wait(void **) {
    static int out[32];
    const std::string text = last_words([] { QK_LAUNCH(part_of_the_warp_shuffles, 1, 32, 0, nullptr, out); });
    assert_says(text, "deadlock");
    assert_says(text, "in kernel part_of_the_warp_shuffles, block (0,0,0)");
    assert_says(text, "16 waiting at __shfl_sync");
    assert_says(text, "16 waiting at __syncthreads");
    assert_says(text, "test_emulator_refusals.cpp:");
    assert_says(text, "the first is thread (16,0,0)");
    assert_says(text, "mask 0xffffffff");
}

static void a_divergent_barrier_is_reported(void **) {
    static int out;
    assert_says(last_words([] { QK_LAUNCH(two_barriers_at_once, 1, 64, 0, nullptr, &out); }), "divergent barrier");
}

static void misuse_of_warp_operations_is_reported(void **) {
    static int out[32];
    static unsigned words[32];
    assert_says(last_words([] { QK_LAUNCH(mask_without_caller, 1, 32, 0, nullptr, out); }), "mask does not name it");
    assert_says(last_words([] { QK_LAUNCH(different_warp_operations, 1, 32, 0, nullptr, words); }),
                "different warp operations");
}

static void misuse_of_async_copies_and_shared_memory_is_reported(void **) {
    alignas(16) static uint4 memory[2];
    static int out;
    assert_says(last_words([] { QK_LAUNCH(async_copy_into_global, 1, 1, 0, nullptr, memory); }),
                "outside shared memory");
    assert_says(last_words([] {
                    QK_LAUNCH(misaligned_async_copy, 1, 1, 0, nullptr, reinterpret_cast<const char *>(memory));
                }),
                "not a multiple of 16");
    assert_says(last_words([] { QK_LAUNCH(too_much_static_shared, 1, 1, 0, nullptr, &out); }), "exceed 48 KiB");
}

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_launch_configuration_is_an_error_and_runs_nothing),
        cmocka_unit_test(large_dynamic_shared_memory_must_be_asked_for),
        cmocka_unit_test(a_deadlock_is_reported_with_where_threads_wait),
        cmocka_unit_test(a_divergent_barrier_is_reported),
        cmocka_unit_test(misuse_of_warp_operations_is_reported),
        cmocka_unit_test(misuse_of_async_copies_and_shared_memory_is_reported),
    };
    return cmocka_run_group_tests_name("emulator refusals", tests, nullptr, nullptr);
}
