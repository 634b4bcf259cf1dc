# The version stands twice, here and in config.hpp, for those who build without CMake; they must agree.
file(READ ${CMAKE_CURRENT_SOURCE_DIR}/include/gradus/config.hpp config)
foreach(part MAJOR MINOR PATCH)
  string(REGEX MATCH "GRADUS_VERSION_${part} ([0-9]+)" _ "${config}")
  if(NOT CMAKE_MATCH_1 EQUAL PROJECT_VERSION_${part})
    message(FATAL_ERROR "gradus: GRADUS_VERSION_${part} is ${CMAKE_MATCH_1} in config.hpp; expected ${PROJECT_VERSION_${part}}")
  endif()
endforeach()
