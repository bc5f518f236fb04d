# Flags of everything that is built here, and quire_layer().
#
# Every layer is an object library of its own, compiled once for the static and the shared library.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(quire_flags INTERFACE)
target_include_directories(quire_flags INTERFACE
    ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/include ${CMAKE_CURRENT_SOURCE_DIR}/src)
target_compile_options(quire_flags INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra -Wpedantic>
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes>)
target_compile_definitions(quire_flags INTERFACE $<$<OR:$<BOOL:${QUIRE_DEBUG}>,$<CONFIG:Debug>>:QUIRE_DEBUG=1>)

if(QUIRE_WERROR)
    target_compile_options(quire_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Werror>)
endif()

if(QUIRE_SANITIZE)
    # -g1: functions and lines, all that a report prints; with variables the kernels take twice as long to compile.
    set(sanitize -fsanitize=${QUIRE_SANITIZE} -fno-omit-frame-pointer -g1)
    if(QUIRE_SANITIZE MATCHES undefined)
        list(APPEND sanitize -fno-sanitize-recover=undefined)
    endif()
    add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:${sanitize}>")
    add_link_options(-fsanitize=${QUIRE_SANITIZE})
endif()

# quire_layer(NAME SOURCE...): one layer of the library.
function(quire_layer name)
    add_library(quire_${name} OBJECT ${ARGN})
    target_link_libraries(quire_${name} PRIVATE quire_flags)
    set_target_properties(quire_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    if(QUIRE_HAVE_CUDA)
        target_compile_definitions(quire_${name} PRIVATE
            QUIRE_HAVE_CUDA=1 QUIRE_CUDA_VERSION="${QUIRE_CUDA_VERSION}")
        target_include_directories(quire_${name} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    endif()
    set_property(GLOBAL APPEND PROPERTY QUIRE_OBJECTS $<TARGET_OBJECTS:quire_${name}>)
endfunction()
