# Draws the pictures of docs/ anew: the same optimizers have to be in them, and each has to move.
# cmake -DPROGRAM=PROGRAM -DDOCS=FOLDER -P trajectories_test.cmake

set(folder ${CMAKE_CURRENT_BINARY_DIR}/pictures)  # trajectories is the program
file(MAKE_DIRECTORY ${folder})
execute_process(COMMAND ${PROGRAM} ${folder}/trajectories.svg ${folder}/race.svg RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE err)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "exit status ${result}:\n${out}${err}")
endif()

# The names of the rows, and the paths in blue with more than one point.
foreach(where folder DOCS)
  file(READ ${${where}}/trajectories.svg text)
  string(REGEX MATCHALL "<g id=\"[a-z_]+\"" ${where}_names "${text}")
  string(REGEX MATCHALL "class=\"path\" d=\"M[-0-9.]+ [-0-9.]+L" ${where}_paths "${text}")
  list(LENGTH ${where}_names ${where}_rows)
  list(LENGTH ${where}_paths ${where}_moving)
endforeach()
if(folder_rows LESS 20)
  message(FATAL_ERROR "${folder_rows} optimizers are drawn")
endif()
math(EXPR expected "3 * ${folder_rows}")
if(NOT folder_moving EQUAL expected)
  message(FATAL_ERROR "${folder_moving} of ${expected} paths have more than one point:\n${out}")
endif()
if(NOT folder_names STREQUAL DOCS_names)
  message(FATAL_ERROR "docs/trajectories.svg has other optimizers; ./dev docs --pictures draws it anew.\nthere: ${DOCS_names}\nhere: ${folder_names}")
endif()

execute_process(COMMAND ${PROGRAM} ${folder}/trajectories.svg RESULT_VARIABLE result ERROR_VARIABLE err)
if(NOT result EQUAL 2 OR NOT err MATCHES "usage")
  message(FATAL_ERROR "with one argument: exit status ${result}, ${err}")
endif()
