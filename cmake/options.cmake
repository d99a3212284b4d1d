# Compiler options: one interface target for warnings, one for code that runs inside the hook.
# SPDX-License-Identifier: BSD-3-Clause
add_library(zps_warnings INTERFACE)
target_compile_options(zps_warnings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wcast-align -Wno-unused-parameter)

# Code of the hook namespace: legacy SSE only (the entry keeps xmm0-15 and nothing above), no exceptions, no RTTI, its own symbols.
# Not with -fno-plt: where __tls_get_addr() is the library's own (shim/thread_storage.h), ld makes its calls direct ones with an operand size of
# 16 bits, which AMD's processors heed.
add_library(zps_inside INTERFACE)
target_compile_options(zps_inside INTERFACE
  -mno-avx -fvisibility=hidden -ffunction-sections -fdata-sections
  $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions -fno-rtti -fvisibility-inlines-hidden -fno-threadsafe-statics>)
target_link_libraries(zps_inside INTERFACE zps_warnings)
target_include_directories(zps_inside INTERFACE ${PROJECT_SOURCE_DIR})

set(ZPS_SANITIZE "" CACHE STRING "Sanitizers for the linked unit tests: address, thread, undefined")
if(ZPS_SANITIZE)
  add_compile_options(-fsanitize=${ZPS_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${ZPS_SANITIZE})
endif()

option(ZPS_FUZZ "Fuzz targets, which need clang (tests/fuzz)" OFF)
