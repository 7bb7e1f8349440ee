# SPDX-License-Identifier: Apache-2.0
# Compiler settings every target shares.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# A rebuild of what this checkout compiled before costs a lookup.
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER
    ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
endif()

set(HOLDFAST_SANITIZE "" CACHE STRING "Sanitizers: empty, 'address,undefined' or 'thread'")
option(HOLDFAST_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
option(HOLDFAST_TESTS "Build the tests" ON)
option(HOLDFAST_BENCH "Build the benchmarks" ON)

add_library(hf_options INTERFACE)
target_compile_options(hf_options INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wconversion -Wshadow -Wold-style-cast -Wnon-virtual-dtor
  -Woverloaded-virtual -Wimplicit-fallthrough -fno-strict-aliasing)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(hf_options INTERFACE -Wthread-safety -Wnull-dereference)
else()
  # g++ 12 reports these inside inlined libstdc++ code that is right (std::vector, std::streambuf)
  # and, under sanitizers, for variables that are set; clang and the sanitizers themselves look for
  # the real ones.
  target_compile_options(hf_options INTERFACE -Wno-array-bounds -Wno-stringop-overflow
    -Wno-maybe-uninitialized)
endif()
target_compile_definitions(hf_options INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64)

if(HOLDFAST_SANITIZE)
  target_compile_options(hf_options INTERFACE
    -fsanitize=${HOLDFAST_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(hf_options INTERFACE -fsanitize=${HOLDFAST_SANITIZE})
endif()
if(HOLDFAST_FUZZ)
  target_compile_options(hf_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_package(tl-expected REQUIRED)
find_package(fmt REQUIRED)
# What ships carries fmt inside, compiled once (src/base/fmt_code.cc says why). Builds for checking
# use the shared library.
add_library(hf_fmt INTERFACE)
if(HOLDFAST_SANITIZE OR CMAKE_CXX_COMPILER_ID MATCHES "Clang" OR CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_link_libraries(hf_fmt INTERFACE fmt::fmt)
else()
  add_library(fmt_code STATIC ${PROJECT_SOURCE_DIR}/src/base/fmt_code.cc)
  target_link_libraries(fmt_code PRIVATE hf_options)
  target_link_libraries(hf_fmt INTERFACE fmt_code)
endif()
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(libseccomp REQUIRED IMPORTED_TARGET libseccomp)
if(HOLDFAST_TESTS)
  find_package(GTest REQUIRED)
endif()
