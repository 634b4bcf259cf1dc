# The Thrust backend on the systems CPP, OMP and TBB.
if(NOT TARGET gradus_thrust OR NOT OpenMP_CXX_FOUND)
  message(STATUS "gradus: the tests of the Thrust backend are left out, as they need Thrust and OpenMP")
  return()
endif()
set(systems CPP OMP)
if(TBB_FOUND)
  list(APPEND systems TBB)
endif()

# What all of Thrust's systems together need. Their speed is not at issue, that of the compiler is: -O0.
function(gradus_thrust_test target system)
  target_link_libraries(${target} PRIVATE gradus_thrust gradus_test_main OpenMP::OpenMP_CXX Threads::Threads)
  if(TBB_FOUND)
    target_link_libraries(${target} PRIVATE TBB::tbb)
    target_compile_definitions(${target} PRIVATE GRADUS_TEST_TBB)
  endif()
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE ${GRADUS_TEST_FLAGS} -O0)
  target_link_options(${target} PRIVATE ${GRADUS_TEST_FLAGS})
  target_compile_definitions(${target} PRIVATE GRADUS_TEST_DATA="${CMAKE_CURRENT_SOURCE_DIR}"
                             THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_${system})
endfunction()

foreach(system IN LISTS systems)
  add_executable(test_thrust_${system} backend/thrust.cpp)
  gradus_thrust_test(test_thrust_${system} ${system})
  add_test(NAME backend/thrust/${system} COMMAND test_thrust_${system})
endforeach()

# The suites of the other backends, unchanged: compiled once, and run on each system.
foreach(suite golden bits/trajectories identities optimizer executor)
  string(REPLACE "/" "_" target "test_thrust_${suite}")
  add_executable(${target} ${suite}.cpp)
  gradus_thrust_test(${target} CPP)
  if(suite STREQUAL "executor")
    target_compile_options(${target} PRIVATE -O1)  # it computes more than the others
  endif()
  target_compile_options(${target} PRIVATE "SHELL:-include support/thrust_under_test.hpp")
  foreach(system IN LISTS systems)
    add_test(NAME thrust/${system}/${suite} COMMAND ${target})
    set_tests_properties(thrust/${system}/${suite} PROPERTIES ENVIRONMENT GRADUS_TEST_SYSTEM=${system})
  endforeach()
endforeach()
