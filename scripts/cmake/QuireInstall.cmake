# `cmake --install`: the libraries, quire/*.h, and package files for CMake and pkg-config.
#
# The static library of a CUDA build needs the toolkit's runtime archive when a program is linked; its target is in a
# file of its own, so that the shared library can be used where there is no toolkit.

include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quire)

install(TARGETS quire EXPORT quireShared)
install(TARGETS quire_static EXPORT quireStatic)
install(DIRECTORY include/quire DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/quire)
install(EXPORT quireShared NAMESPACE quire:: FILE quireShared.cmake DESTINATION ${package_dir})
install(EXPORT quireStatic NAMESPACE quire:: FILE quireStatic.cmake DESTINATION ${package_dir})

configure_package_config_file(scripts/cmake/quireConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/quireConfig.cmake
    INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/quireConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quireConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/quireConfigVersion.cmake
    DESTINATION ${package_dir})

set(quire_private_libs "-pthread -lm")
if(QUIRE_HAVE_CUDA)
    list(GET CUDAToolkit_LIBRARY_DIR 0 cuda_library_dir)
    string(APPEND quire_private_libs " -L${cuda_library_dir} -lcudart_static -ldl -lrt")
endif()
file(RELATIVE_PATH quire_pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /) # so that the installed tree can be moved
configure_file(scripts/cmake/quire.pc.in ${CMAKE_CURRENT_BINARY_DIR}/quire.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quire.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
