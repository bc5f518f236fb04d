# Finds the CUDA toolkit: sets QUIRE_HAVE_CUDA, QUIRE_CUDA_VERSION, QUIRE_CUDA_LIBRARIES, and gives quire_kernels().
#
# The runtime is linked statically: the library then loads and runs on machines with neither toolkit nor driver, where
# it finds no GPU and says so.

set(QUIRE_HAVE_CUDA OFF)
set(QUIRE_CUDA_LIBRARIES "")

if(QUIRE_CUDA STREQUAL AUTO AND QUIRE_SANITIZE)
    message(STATUS "CUDA: off, as always with sanitizers")
elseif(QUIRE_CUDA)
    if(NOT CMAKE_CUDA_COMPILER)
        find_program(QUIRE_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH PATHS /usr/local/cuda/bin PATH_SUFFIXES bin)
        if(QUIRE_NVCC)
            set(CMAKE_CUDA_COMPILER ${QUIRE_NVCC})
        endif()
    endif()
    if(CMAKE_CUDA_COMPILER)
        set(CMAKE_CUDA_ARCHITECTURES ${QUIRE_CUDA_ARCHITECTURES})
        enable_language(CUDA)
        # What nvcc would link unasked: a second runtime, and libstdc++, which nothing here needs but the guards of static
        # variables in nvcc's launch stubs. Such a variable caches a handle that is the same whoever looks it up, so
        # without a guard two threads may look it up twice; x86 keeps the order of "handle written", "flag set".
        set(CMAKE_CUDA_RUNTIME_LIBRARY None)
        set(CMAKE_CUDA_IMPLICIT_LINK_LIBRARIES "")
        set(QUIRE_CUDA_HOST_FLAGS -fvisibility=hidden,-fno-exceptions,-fno-rtti)
        if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
            string(APPEND QUIRE_CUDA_HOST_FLAGS ,-fno-threadsafe-statics)
        else()
            list(APPEND QUIRE_CUDA_LIBRARIES stdc++)
        endif()
        find_package(CUDAToolkit REQUIRED)
        set(CMAKE_CUDA_STANDARD 17)
        set(CMAKE_CUDA_STANDARD_REQUIRED ON)
        set(QUIRE_HAVE_CUDA ON)
        set(QUIRE_CUDA_VERSION ${CUDAToolkit_VERSION_MAJOR}.${CUDAToolkit_VERSION_MINOR})
        list(APPEND QUIRE_CUDA_LIBRARIES CUDA::cudart_static)
        message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER} ${CUDAToolkit_VERSION}, sm ${QUIRE_CUDA_ARCHITECTURES}")
    elseif(QUIRE_CUDA STREQUAL AUTO)
        message(STATUS "CUDA: no nvcc found, host-only build")
    else()
        message(FATAL_ERROR "QUIRE_CUDA=ON, but no nvcc was found: set CMAKE_CUDA_COMPILER to it, or QUIRE_CUDA=OFF")
    endif()
else()
    message(STATUS "CUDA: off, host-only build")
endif()

# NCCL: only its header, of the toolkit, of Debian or of the Python package nvidia-nccl (CPATH); libnccl.so.2 is loaded at run
# time by those who use it.
set(QUIRE_HAVE_NCCL OFF)
if(QUIRE_HAVE_CUDA AND QUIRE_NCCL)
    find_path(QUIRE_NCCL_INCLUDE nccl.h HINTS ENV NCCL_HOME PATHS ${CUDAToolkit_INCLUDE_DIRS} ENV CPATH PATH_SUFFIXES include)
    if(QUIRE_NCCL_INCLUDE)
        set(QUIRE_HAVE_NCCL ON)
        message(STATUS "NCCL: ${QUIRE_NCCL_INCLUDE}/nccl.h")
    endif()
endif()
if(NOT QUIRE_HAVE_NCCL AND QUIRE_NCCL STREQUAL ON)
    message(FATAL_ERROR "QUIRE_NCCL=ON needs CUDA and nccl.h: set NCCL_HOME to where include/nccl.h is, or QUIRE_NCCL=OFF")
endif()

# quire_kernels(SOURCE.cu...): the CUDA kernels and their launchers.
function(quire_kernels)
    add_library(quire_kernels OBJECT ${ARGN})
    target_link_libraries(quire_kernels PRIVATE quire_flags)
    target_compile_options(quire_kernels PRIVATE
        "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xcompiler -Wall,-Wextra,${QUIRE_CUDA_HOST_FLAGS}>"
        # The toolkit's launch stubs look a kernel's handle up in a local static. Its guard would need libstdc++; doing
        # the look-up twice is harmless.
        "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xcompiler -fno-threadsafe-statics>")
    if(QUIRE_WERROR)
        target_compile_options(quire_kernels PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
    endif()
    set_target_properties(quire_kernels PROPERTIES
        POSITION_INDEPENDENT_CODE ON CUDA_ARCHITECTURES "${QUIRE_CUDA_ARCHITECTURES}")
    set_property(GLOBAL APPEND PROPERTY QUIRE_OBJECTS $<TARGET_OBJECTS:quire_kernels>)
endfunction()
