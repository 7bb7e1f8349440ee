# SPDX-License-Identifier: Apache-2.0
# hf_layer(NAME SOURCES ... [DEPS lower layers and libraries ...] [TESTS ...] [TEST_DEPS ...])
# One static library a folder, `hf_NAME`, and one test program `NAME_test` registered with CTest.
function(hf_layer name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;TESTS;TEST_DEPS" ${ARGN})
  add_library(hf_${name} STATIC ${arg_SOURCES})
  target_include_directories(hf_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>)
  target_link_libraries(hf_${name} PUBLIC hf_options tl::expected ${arg_DEPS})
  set_property(GLOBAL APPEND PROPERTY HOLDFAST_LAYERS hf_${name})
  if(HOLDFAST_TESTS AND arg_TESTS)
    hf_test(${name}_test SOURCES ${arg_TESTS} DEPS hf_${name} ${arg_TEST_DEPS})
  endif()
endfunction()

# Test code is compiled once and run once: optimising it costs more than it gives.
# -fpch-preprocess is for ccache.
set(HOLDFAST_TEST_OPTIONS -O0 $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)

# Half of a test's compile time is gmock's headers: they are compiled once, into 120 MB, for all test
# programs, which have the same options. The clang preset goes without, so that a missing include
# shows.
if(HOLDFAST_TESTS AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(source ${PROJECT_BINARY_DIR}/generated/test_headers.cc)
  file(CONFIGURE OUTPUT ${source} CONTENT "// Nothing but the headers.\n")
  add_executable(hf_test_headers EXCLUDE_FROM_ALL ${source})
  target_link_libraries(hf_test_headers PRIVATE hf_options hf_fmt GTest::gmock GTest::gtest_main)
  target_compile_options(hf_test_headers PRIVATE ${HOLDFAST_TEST_OPTIONS})
  target_precompile_headers(hf_test_headers PRIVATE
    <gmock/gmock.h> <gtest/gtest.h> <fmt/format.h>)
endif()

# hf_test(NAME SOURCES ... [DEPS ...] [NO_CTEST]): a GoogleTest program.
function(hf_test name)
  cmake_parse_arguments(arg "NO_CTEST" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_options(${name} PRIVATE ${HOLDFAST_TEST_OPTIONS})
  list(LENGTH arg_SOURCES count)
  if(count GREATER 3 AND TARGET hf_test_headers)
    target_precompile_headers(${name} REUSE_FROM hf_test_headers)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  if(NOT arg_NO_CTEST)
    add_test(NAME ${name} COMMAND ${name})
    set_property(GLOBAL APPEND PROPERTY HOLDFAST_UNIT_TESTS ${name})
  endif()
endfunction()

# hf_compile_alone(FILE ...): sources whose file-local names are also those of a neighbour, as each
# device model has its kProperties. The presets that join files to compile faster leave them out.
function(hf_compile_alone)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()
