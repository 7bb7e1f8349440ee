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

# hf_test(NAME SOURCES ... [DEPS ...] [NO_CTEST]): a GoogleTest program.
function(hf_test name)
  cmake_parse_arguments(arg "NO_CTEST" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest_main)
  # Test code is compiled once and run once: optimising it costs more than it gives.
  target_compile_options(${name} PRIVATE -O0)
  # Half of a test's compile time is gmock's headers. The clang preset goes without, so that a
  # missing include shows.
  list(LENGTH arg_SOURCES count)
  if(count GREATER 3 AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_precompile_headers(${name} PRIVATE <gmock/gmock.h> <gtest/gtest.h> <fmt/format.h>)
    target_compile_options(${name} PRIVATE -fpch-preprocess)  # for ccache
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
