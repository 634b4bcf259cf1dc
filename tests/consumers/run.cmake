# Takes gradus in as users do, builds the consumer and runs it.
# cmake -DWAY=… -DSOURCE=… -DCOMPILER=… -DWORK=… -P run.cmake
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK}/project)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}\n${out}")
  endif()
endfunction()

if(WAY STREQUAL "install" OR WAY STREQUAL "bare_install")
  run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/gradus -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_INSTALL_PREFIX=${WORK}/prefix)
  run(${CMAKE_COMMAND} --install ${WORK}/gradus)
  file(READ ${WORK}/prefix/include/gradus/backend/simd.hpp header)
  if(header MATCHES "\\.\\./")
    message(FATAL_ERROR "the installed backend/simd.hpp points outside the installation")
  endif()
endif()

if(WAY MATCHES "^bare")
  set(include ${SOURCE}/include)
  if(WAY STREQUAL "bare_install")
    set(include ${WORK}/prefix/include)
  endif()
  foreach(definition "" -DGRADUS_NO_XSIMD)
    run(${COMPILER} -std=c++20 -O1 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -fno-exceptions -fno-rtti ${definition}
        -I${include} ${SOURCE}/tests/consumers/main.cpp -o ${WORK}/consumer)
    run(${WORK}/consumer)
  endforeach()
  return()
endif()

configure_file(${SOURCE}/tests/consumers/project.cmake.in ${WORK}/project/CMakeLists.txt @ONLY)
run(${CMAKE_COMMAND} -S ${WORK}/project -B ${WORK}/build -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)
# Taken in as a part, gradus brings targets and nothing else.
file(STRINGS ${WORK}/build/CMakeCache.txt leaked REGEX "^GRADUS_|^BUILD_TESTING")
if(leaked)
  message(FATAL_ERROR "gradus left options in its user's cache: ${leaked}")
endif()
