# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` and CPack put where. Two components, two Debian packages: `runtime` is
# holdfast (the programs), `dev` is libholdfast-dev (the library). `licence` goes only into a plain
# installation: Debian has the text in /usr/share/common-licenses.
include(CMakePackageConfigHelpers)

set(HOLDFAST_CONTACT "The Holdfast maintainers <maintainers@holdfast.example>" CACHE STRING
  "Who answers for packages built from this tree")
set(package_dir ${PROJECT_SOURCE_DIR}/cmake/package)
set(package_out ${PROJECT_BINARY_DIR}/package)

# ---- Compressed files: manual pages and the packages' changelog ---------------------------------
find_program(HOLDFAST_GZIP gzip REQUIRED)
set(compressed "")
function(hf_compress source)
  get_filename_component(name ${source} NAME)
  add_custom_command(OUTPUT ${package_out}/${name}.gz
    COMMAND ${HOLDFAST_GZIP} -9nc ${source} > ${package_out}/${name}.gz
    DEPENDS ${source} VERBATIM)
  set(compressed ${compressed} ${package_out}/${name}.gz PARENT_SCOPE)
endfunction()
string(TIMESTAMP HOLDFAST_DATE "%a, %d %b %Y %H:%M:%S +0000" UTC)  # SOURCE_DATE_EPOCH, if set
configure_file(${package_dir}/changelog.in ${package_out}/changelog @ONLY)
hf_compress(${package_out}/changelog)
foreach(program holdfast holdfastctl holdfast-conformance)
  hf_compress(${PROJECT_BINARY_DIR}/man/${program}.1)
  install(FILES ${package_out}/${program}.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1
    COMPONENT runtime)
endforeach()
add_custom_target(compressed_files ALL DEPENDS ${compressed})
add_dependencies(compressed_files man)

# ---- Programs -----------------------------------------------------------------------------------
install(TARGETS holdfast holdfastctl holdfast-conformance
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
set(doc_dir ${CMAKE_INSTALL_DATAROOTDIR}/doc)
install(FILES README.md DESTINATION ${doc_dir}/holdfast COMPONENT runtime)
install(DIRECTORY docs/ DESTINATION ${doc_dir}/holdfast/docs COMPONENT runtime
  FILES_MATCHING PATTERN "*.md" PATTERN "*.png" PATTERN "*.svg")
install(FILES LICENSE DESTINATION ${doc_dir}/holdfast COMPONENT licence)

# ---- Library ------------------------------------------------------------------------------------
install(TARGETS holdfast_library EXPORT holdfast-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
# A packaged archive carries no debugging information (CPack strips only what can run).
install(CODE "if(CMAKE_INSTALL_DO_STRIP)
  execute_process(COMMAND ${CMAKE_STRIP} --strip-debug --enable-deterministic-archives
    \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/libholdfast.a\"
    COMMAND_ERROR_IS_FATAL ANY)
endif()" COMPONENT dev)
install(DIRECTORY include/holdfast DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev
  FILES_MATCHING PATTERN "*.h")
install(DIRECTORY examples DESTINATION ${doc_dir}/libholdfast-dev COMPONENT dev)

set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/holdfast)
configure_package_config_file(${package_dir}/holdfast-config.cmake.in
  ${package_out}/holdfast-config.cmake INSTALL_DESTINATION ${cmake_dir})
# Before 1.0 a minor release may change the interface.
write_basic_package_version_file(${package_out}/holdfast-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${package_out}/holdfast-config.cmake ${package_out}/holdfast-config-version.cmake
  DESTINATION ${cmake_dir} COMPONENT dev)
install(EXPORT holdfast-targets NAMESPACE holdfast:: DESTINATION ${cmake_dir} COMPONENT dev)

# From the .pc file to the prefix, so that the installed tree may be moved.
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH HOLDFAST_PC_PREFIX /prefix/${pkgconfig_dir} /prefix)
configure_file(${package_dir}/holdfast.pc.in ${package_out}/holdfast.pc @ONLY)
install(FILES ${package_out}/holdfast.pc DESTINATION ${pkgconfig_dir} COMPONENT dev)

# ---- Debian packages ----------------------------------------------------------------------------
foreach(pair "runtime;holdfast" "dev;libholdfast-dev")
  list(GET pair 0 component)
  list(GET pair 1 package)
  install(FILES ${package_dir}/copyright ${package_out}/changelog.gz
    DESTINATION ${doc_dir}/${package} COMPONENT ${component})
endforeach()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME holdfast)
set(CPACK_PACKAGE_VENDOR "Holdfast")
# Each package's description brings its own first line.
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")
set(CPACK_PACKAGE_CONTACT "${HOLDFAST_CONTACT}")
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_SOURCE_DIR}/build/package)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE
  GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_COMPONENTS_ALL runtime dev)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME holdfast)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
# Loaded when the first user network is made, so that no program shows it.
set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS "libslirp0 (>= 4.7.0)")
# Reads disk images that are not raw.
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SUGGESTS "qemu-system-common, qemu-utils")
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "virtual machine monitor with guest RAM in guest_memfd
Holdfast runs Linux guests on KVM. All of a guest's RAM lies in a guest_memfd,
and the command line is that of qemu-system-x86_64 for the options it has.
It needs Linux 6.18 or later.")

set(CPACK_DEBIAN_DEV_PACKAGE_NAME libholdfast-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libexpected-dev")
set(CPACK_COMPONENT_DEV_DESCRIPTION "library for virtual machine monitors on guest_memfd
The library under Holdfast: KVM, guest_memfd and memslots with owners and
checked errors, in C++20. Static library, headers, CMake package and
pkg-config file.")
include(CPack)
