# cpack -G DEB in a build folder that was configured with -DCMAKE_INSTALL_PREFIX=/usr: libgradus-dev with the headers, for every
# architecture; with GRADUS_C also libgradus0. The preset deb configures such a folder.
set(CPACK_PACKAGE_NAME gradus)
set(CPACK_PACKAGE_CONTACT "The gradus authors <unset@invalid>")  # no address: whoever distributes the package gives theirs
set(CPACK_PACKAGE_HOMEPAGE_URL "")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR})
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_COMPONENTS_ALL development)

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libgradus-dev)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
  "first-order optimizers for C++20 (headers)\n The code between a gradient and the new weights: more than twenty\n optimizers, from SGD to Schedule-Free, composed of small rules, with\n the same results for every SIMD width and number of threads.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_RECOMMENDS libxsimd-dev)
if(NOT (GRADUS_DISPATCH OR GRADUS_COMPILED OR GRADUS_C OR GRADUS_C_CUDA))
  set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_ARCHITECTURE all)
endif()
if(GRADUS_C)
  list(APPEND CPACK_COMPONENTS_ALL library)
  set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libgradus${PROJECT_VERSION_MAJOR})
  set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "first-order optimizers (C library)\n The recipes of gradus behind a C interface, with the loops for each\n instruction set, chosen at run time.")
  set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
  set(CPACK_DEBIAN_LIBRARY_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_LIBRARY_PACKAGE_GENERATE_SHLIBS ON)
  set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libgradus${PROJECT_VERSION_MAJOR} (= ${PROJECT_VERSION})")
endif()
include(CPack)
