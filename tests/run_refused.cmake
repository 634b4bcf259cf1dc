# Runs PROGRAM with each argument that makes it fail, and looks at how it ends. cmake -DPROGRAM=… -P run_refused.cmake
set(sentence "gradus: lr is -1; expected a finite number >= 0")

execute_process(COMMAND ${PROGRAM} refuse RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE err)
if(result EQUAL 0 OR NOT err STREQUAL "${sentence}\n")
  message(FATAL_ERROR "refuse: expected an abort with the sentence on stderr, got ${result}: ${out}${err}")
endif()
execute_process(COMMAND ${PROGRAM} handled RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE err)
if(NOT result EQUAL 7 OR NOT out STREQUAL "handled: ${sentence}\n")
  message(FATAL_ERROR "handled: expected exit 7 by the handler, got ${result}: ${out}${err}")
endif()
