#pragma once
/// \file
/// Past one machine: one optimizer whose state is spread over several processes (docs/distributed.md). Needs a
/// communicator, such as comm/mpi.hpp.

#include <gradus/distributed/checkpoint.hpp>
#include <gradus/distributed/communicator.hpp>
#include <gradus/distributed/reduction.hpp>
#include <gradus/distributed/sharded.hpp>
#include <gradus/distributed/staged.hpp>
