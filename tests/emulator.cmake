# The CUDA kernels as C++, on the CPU: see emulator/README.md. They need NVIDIA's headers (types and the conversions of
# small floats), not nvcc.

find_path(QUIRE_CUDA_HEADERS cuda_fp8.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ENV CUDA_PATH PATHS /usr/local/cuda
    PATH_SUFFIXES include)

if(NOT QUIRE_CUDA_HEADERS)
    message(STATUS "Kernel emulator: left out, no CUDA headers found")
    quire_script_test(emulated_kernels sh -c "echo 'no CUDA headers on this machine'; exit 77")
    return()
endif()

set(emulator_sources
    emulator/async_copy.cpp
    emulator/block.cpp
    emulator/cuda_language.cpp
    emulator/fiber.cpp
    emulator/launch.cpp
    emulator/tensor_core.cpp
    emulator/warp.cpp)

add_library(emulator STATIC ${emulator_sources})
target_include_directories(emulator PUBLIC ${CMAKE_CURRENT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/kernels)
target_include_directories(emulator SYSTEM PUBLIC ${QUIRE_CUDA_HEADERS})
# NVIDIA's small-float headers read one type through another.
target_compile_options(emulator PUBLIC -fno-strict-aliasing)
target_link_libraries(emulator PRIVATE quire_flags PUBLIC Threads::Threads)

quire_test(emulator SOURCES test_emulator.cpp LIBRARIES emulator LABELS emulator)
quire_test(emulator_refusals SOURCES test_emulator_refusals.cpp LIBRARIES emulator LABELS emulator)

if(QUIRE_SANITIZE STREQUAL thread)
    add_executable(planted_race emulator/planted_race.cpp)
    target_link_libraries(planted_race PRIVATE quire_flags emulator)
    quire_script_test(planted_races sh ${CMAKE_CURRENT_SOURCE_DIR}/emulator/planted_race.sh
        $<TARGET_FILE:planted_race>)
    set_tests_properties(planted_races PROPERTIES LABELS emulator)
endif()

# The same sources that nvcc compiles.
set_source_files_properties(../bench/gpu_kernels.cu PROPERTIES LANGUAGE CXX)
list(TRANSFORM QUIRE_KERNEL_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/ OUTPUT_VARIABLE kernel_sources)
set_source_files_properties(${kernel_sources} PROPERTIES LANGUAGE CXX)
add_library(emulated_kernels STATIC ${kernel_sources})
target_link_libraries(emulated_kernels PRIVATE quire_flags PUBLIC emulator)

quire_test(kernels SOURCES test_kernels.cpp LIBRARIES emulated_kernels LABELS emulator TIMEOUT 1200)
quire_test(kernels_copy SOURCES test_kernels_copy.cpp LIBRARIES emulated_kernels LABELS emulator)
quire_test(kernels_latent SOURCES test_kernels_latent.cpp LIBRARIES emulated_kernels LABELS emulator)
quire_test(attend_kernels SOURCES test_attend_kernels.cpp LIBRARIES emulated_kernels LABELS emulator TIMEOUT 1200)
quire_test(kernels_shared SOURCES test_kernels_shared.cpp LIBRARIES emulated_kernels LABELS emulator)
quire_test(kernels_pack SOURCES test_kernels_pack.cpp LIBRARIES emulated_kernels LABELS emulator)
quire_test(cuda_model SOURCES test_cuda_model.cpp LIBRARIES emulator LABELS emulator)
quire_test(bench_kernels SOURCES test_bench_kernels.cpp ../bench/gpu_kernels.cu LIBRARIES emulator LABELS emulator)

# The attention kernels with a mistake planted in them.
foreach(mistake 0 1 2)
    add_executable(planted_attend_${mistake} emulator/planted_attend.cpp)
    target_compile_definitions(planted_attend_${mistake} PRIVATE QK_PLANTED=${mistake})
    target_link_libraries(planted_attend_${mistake} PRIVATE quire_flags emulator quire_static m)
endforeach()
quire_script_test(planted_attend sh ${CMAKE_CURRENT_SOURCE_DIR}/emulator/planted_attend.sh "sanitizer=${QUIRE_SANITIZE}"
    $<TARGET_FILE:planted_attend_0> $<TARGET_FILE:planted_attend_1> $<TARGET_FILE:planted_attend_2>)
set_tests_properties(planted_attend PROPERTIES LABELS emulator)
