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

add_executable(test_thrust_device backend/thrust_device.cpp)
gradus_thrust_test(test_thrust_device OMP)
add_test(NAME backend/thrust_device COMMAND test_thrust_device)

# Steps over device memory that several ranks share: threads, with Thrust's threads switched off.
add_executable(test_thrust_ranks backend/thrust_ranks.cpp)
gradus_thrust_test(test_thrust_ranks CPP)
add_test(NAME backend/thrust_ranks COMMAND test_thrust_ranks)

# Suites of the other backends, unchanged: compiled once, and run on each system.
function(gradus_thrust_suite target)  # further arguments: the suites
  list(TRANSFORM ARGN APPEND .cpp)
  add_executable(${target} ${ARGN})
  gradus_thrust_test(${target} CPP)
  target_compile_options(${target} PRIVATE "SHELL:-include support/thrust_under_test.hpp")
  foreach(system IN LISTS systems)
    string(REPLACE "test_" "" name ${target})
    add_test(NAME ${name}/${system} COMMAND ${target})
    set_tests_properties(${name}/${system} PROPERTIES ENVIRONMENT "GRADUS_TEST_SYSTEM=${system};OMP_NUM_THREADS=2;OMP_WAIT_POLICY=passive")
  endforeach()
endfunction()

# A step long enough to be cut into pieces, and everything that an optimizer can do. Golden trajectories are left out,
# because on a host they are the CPU backend's.
set(of_optimizer optimizer)
foreach(part cohorts decisions groups host_step mean_square options padding parts tensor_table visit)
  list(APPEND of_optimizer optimizer/${part})
endforeach()
gradus_thrust_suite(test_thrust_parallel backend/parallel)
target_compile_options(test_thrust_parallel PRIVATE -O1)
gradus_thrust_suite(test_thrust_optimizer ${of_optimizer})
gradus_thrust_suite(test_thrust_identities identities)
gradus_thrust_suite(test_thrust_trajectories bits/trajectories)

# The path of GPUs, on the host's systems.
gradus_thrust_suite(test_thrust_device_golden golden)
gradus_thrust_suite(test_thrust_device_optimizer ${of_optimizer})
gradus_thrust_suite(test_thrust_device_checkpoint checkpoint checkpoint/load_plan checkpoint/transfer)
foreach(suite golden optimizer checkpoint)
  target_compile_definitions(test_thrust_device_${suite} PRIVATE GRADUS_TEST_THRUST_DEVICE)
endforeach()

# What a GPU is tested by, on a CPU.
add_executable(test_thrust_gpu backend/thrust_gpu.cpp)
gradus_thrust_test(test_thrust_gpu OMP)
add_test(NAME backend/thrust_gpu COMMAND test_thrust_gpu)

# The page's own words on these systems.
find_package(Python3 QUIET COMPONENTS Interpreter)
if(Python3_EXECUTABLE)
  set(docs ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/docs.py)
  find_path(thrust_include_dir thrust/version.h PATH_SUFFIXES cccl HINTS /usr/local/cuda/include NO_CACHE)
  foreach(system IN LISTS systems)
    set(flags -DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_${system} ${OpenMP_CXX_FLAGS})
    if(NOT thrust_include_dir IN_LIST CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
      list(APPEND flags -isystem ${thrust_include_dir})
    endif()
    if(system STREQUAL "TBB")
      list(APPEND flags -ltbb)
    endif()
    add_test(NAME docs/${system} COMMAND ${docs} thrust ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_BINARY_DIR}/docs_${system}
                                         ${CMAKE_CXX_COMPILER} ${flags})
    set_tests_properties(docs/${system} PROPERTIES ENVIRONMENT "OMP_NUM_THREADS=2;OMP_WAIT_POLICY=passive")
  endforeach()
endif()

# CUDA itself is compiled and looked into where nvcc is, and run where a GPU is.
find_program(nvcc nvcc HINTS /usr/local/cuda/bin NO_CACHE)
add_test(NAME backend/thrust_cuda
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/backend/thrust_cuda.sh ${PROJECT_SOURCE_DIR}
                 ${CMAKE_CURRENT_SOURCE_DIR}/backend ${CMAKE_CURRENT_BINARY_DIR}/cuda ${nvcc})
set_tests_properties(backend/thrust_cuda PROPERTIES SKIP_RETURN_CODE 77 COST 250)  # seconds: long ones first
if(nvcc AND Python3_EXECUTABLE)
  add_test(NAME docs/cuda COMMAND ${docs} cuda ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_BINARY_DIR}/docs_cuda ${nvcc} -arch=sm_80)
endif()
