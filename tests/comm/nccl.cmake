# The NCCL communicator: its calls against a stand-in, for which the headers of NCCL and CUDA are enough; and with nvcc, NCCL
# itself is linked with, and run where there is a GPU.
find_path(nccl_include_dir nccl.h HINTS ${NCCL_ROOT}/include $ENV{NCCL_ROOT}/include /usr/local/cuda/include NO_CACHE)
find_path(cuda_include_dir cuda_runtime_api.h HINTS /usr/local/cuda/include NO_CACHE)
if(nccl_include_dir AND cuda_include_dir)
  gradus_test(comm/nccl)
  target_include_directories(test_comm_nccl PRIVATE ${PROJECT_SOURCE_DIR}/backends/nccl/include)
  target_include_directories(test_comm_nccl SYSTEM PRIVATE ${nccl_include_dir} ${cuda_include_dir})
else()
  message(STATUS "gradus: the tests of comm::nccl are left out, as they need nccl.h and cuda_runtime_api.h")
endif()
find_program(nvcc nvcc HINTS /usr/local/cuda/bin NO_CACHE)
add_test(NAME comm/nccl_cuda COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/comm/nccl.sh ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_BINARY_DIR}/nccl_cuda ${nvcc})
set_tests_properties(comm/nccl_cuda PROPERTIES SKIP_RETURN_CODE 77)
