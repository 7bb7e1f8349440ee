# SPDX-License-Identifier: Apache-2.0
set(BASE_LOG_SOURCES log.cc trace.cc)
set(BASE_LOG_TESTS log_test.cc trace_test.cc)
