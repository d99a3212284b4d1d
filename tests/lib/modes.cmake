# Registers one test per mode: <name>_kernel, <name>_zpstack_veth, <name>_zpstack_memif; <name>_zpstack_host, <name>_zpstack_afxdp if asked for.
# SPDX-License-Identifier: BSD-3-Clause
#
# zps_add_modes(name TIMEOUT seconds [MODES kernel zpstack-veth ...] COMMAND ... ): "@mode@" in the command becomes the mode. The hooked
# modes exist in builds that make the library; they measure time and use both cores, hence run one at a time.
include_guard(GLOBAL)

function(zps_add_modes name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "MODES;COMMAND")
  if(NOT arg_MODES)
    set(arg_MODES kernel zpstack-veth zpstack-memif)
  endif()
  foreach(mode IN LISTS arg_MODES)
    if(NOT mode STREQUAL "kernel" AND NOT "shim" IN_LIST ZPS_ROOMS)
      continue()
    endif()
    string(REPLACE "-" "_" suffix ${mode})
    string(REPLACE "@mode@" "${mode}" command "${arg_COMMAND}")
    add_test(NAME ${name}_${suffix} COMMAND ${command})
    set_tests_properties(${name}_${suffix} PROPERTIES TIMEOUT ${arg_TIMEOUT} RESOURCE_LOCK zps_cores LABELS "${mode}")
  endforeach()
endfunction()
