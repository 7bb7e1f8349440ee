# SPDX-License-Identifier: Apache-2.0
# libholdfast: the layers' objects in one archive, for people who write monitors.
get_property(layers GLOBAL PROPERTY HOLDFAST_LAYERS)
set(objects "")
foreach(layer ${layers})
  list(APPEND objects $<TARGET_OBJECTS:${layer}>)
endforeach()
if(TARGET fmt_code)
  list(APPEND objects $<TARGET_OBJECTS:fmt_code>)
endif()
add_library(holdfast_library STATIC ${objects})
set_target_properties(holdfast_library PROPERTIES OUTPUT_NAME holdfast EXPORT_NAME holdfast
  LINKER_LANGUAGE CXX)
target_include_directories(holdfast_library PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(holdfast_library PUBLIC tl::expected PRIVATE Threads::Threads)
if(NOT TARGET fmt_code)
  target_link_libraries(holdfast_library PRIVATE $<BUILD_INTERFACE:hf_fmt>)
endif()
target_compile_features(holdfast_library PUBLIC cxx_std_20)
add_library(holdfast::holdfast ALIAS holdfast_library)
