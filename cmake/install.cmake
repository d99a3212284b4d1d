# Where `cmake --install` puts things: libraries side by side (the engine looks for the core beside itself), tool, headers, documents.
# SPDX-License-Identifier: BSD-3-Clause
install(CODE "
  file(GLOB libraries \"${PROJECT_BINARY_DIR}/libzpstack*.so\")
  list(FILTER libraries EXCLUDE REGEX \"/libzpstack-test-\")
  file(INSTALL DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}\" TYPE SHARED_LIBRARY FILES \${libraries})
")
if(TARGET zpstack)
  install(TARGETS zpstack RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES zpoline/hook.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/zpstack)
install(FILES README.md LICENSE NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR})
