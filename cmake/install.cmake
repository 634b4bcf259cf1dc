include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/gradus)
set(generated ${CMAKE_CURRENT_BINARY_DIR}/cmake)

install(DIRECTORY include/gradus DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} PATTERN backend/scalar.hpp EXCLUDE PATTERN backend/simd.hpp EXCLUDE
        PATTERN backend/dispatch.hpp EXCLUDE)
get_property(backend_headers GLOBAL PROPERTY GRADUS_BACKEND_HEADERS)
install(FILES ${backend_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/gradus/backend)

install(TARGETS gradus EXPORT gradus)
install(EXPORT gradus NAMESPACE gradus:: DESTINATION ${config_dir} FILE gradusTargets.cmake)
if(TARGET gradus_simd)
  install(TARGETS gradus_simd EXPORT gradus_simd)
  install(EXPORT gradus_simd NAMESPACE gradus:: DESTINATION ${config_dir} FILE gradusSimdTargets.cmake)
endif()
if(TARGET gradus_dispatch AND GRADUS_DISPATCH)
  install(TARGETS gradus_dispatch EXPORT gradus_dispatch DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT gradus_dispatch NAMESPACE gradus:: DESTINATION ${config_dir} FILE gradusDispatchTargets.cmake)
endif()
configure_package_config_file(cmake/gradusConfig.cmake.in ${generated}/gradusConfig.cmake INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(${generated}/gradusConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${generated}/gradusConfig.cmake ${generated}/gradusConfigVersion.cmake DESTINATION ${config_dir})
