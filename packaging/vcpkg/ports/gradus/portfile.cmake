# From a checkout of gradus: vcpkg install gradus --overlay-ports=gradus/packaging/vcpkg/ports
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)
set(VCPKG_BUILD_TYPE release)  # headers are the same for both

vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}")
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/gradus)
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
