// The calls that the NCCL communicator makes, against a stand-in for NCCL and CUDA that writes them down. What NCCL makes
// of them needs GPUs: tests/comm/nccl.cu.

#include <doctest/doctest.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <gradus/comm/nccl.hpp>

#include "support/refusal.hpp"

// ── a stand-in: rank 1 of 3, on device 0 ─────────────────────────────────────────────────────────────────────────────

namespace {

std::vector<std::string> calls;
ncclResult_t result = ncclSuccess, later = ncclSuccess;  // of the next calls, and what NCCL notices in the background
int events = 0, communicator_device = 0;
bool is_done = false;
char memory[3000];

std::string place(const void* p) { return std::to_string(static_cast<const char*>(p) - memory); }
ncclResult_t call(const std::string& text)
{
  calls.push_back(text);
  return result;
}

const ncclComm_t comm = reinterpret_cast<ncclComm_t>(memory);
const cudaStream_t stream = reinterpret_cast<cudaStream_t>(memory + 1),
                   own = reinterpret_cast<cudaStream_t>(memory + 2);
cudaStream_t backend = nullptr;  // the backend's stream, if operations have another
bool is_ours(ncclComm_t c, cudaStream_t s) { return c == comm && s == (backend ? own : stream); }

}  // namespace

extern "C" {

ncclResult_t ncclCommUserRank(const ncclComm_t, int* rank) { return *rank = 1, ncclSuccess; }
ncclResult_t ncclCommCount(const ncclComm_t, int* n) { return *n = 3, ncclSuccess; }
ncclResult_t ncclCommCuDevice(const ncclComm_t, int* device) { return *device = communicator_device, ncclSuccess; }
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* state) { return *state = later, ncclSuccess; }
ncclResult_t ncclCommAbort(ncclComm_t) { return call("abort"); }
const char* ncclGetErrorString(ncclResult_t) { return "an error"; }
const char* ncclGetLastError(ncclComm_t) { return "its reason"; }
ncclResult_t ncclGroupStart() { return call("["); }
ncclResult_t ncclGroupEnd() { return call("]"); }
ncclResult_t ncclSend(const void* from, size_t n, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t s)
{
  CHECK((type == ncclUint8 && is_ours(c, s)));
  return call("send " + place(from) + " +" + std::to_string(n) + " to " + std::to_string(peer));
}
ncclResult_t ncclRecv(void* to, size_t n, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t s)
{
  CHECK((type == ncclUint8 && is_ours(c, s)));
  return call("receive " + place(to) + " +" + std::to_string(n) + " from " + std::to_string(peer));
}
ncclResult_t ncclAllGather(const void* from, void* to, size_t n, ncclDataType_t type, ncclComm_t c, cudaStream_t s)
{
  CHECK((type == ncclUint8 && is_ours(c, s)));
  return call("gather " + place(from) + " +" + std::to_string(n) + " in " + place(to));
}
ncclResult_t ncclReduceScatter(const void* from, void* to, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t c,
                               cudaStream_t s)
{
  CHECK((op == ncclSum && is_ours(c, s)));
  return call("reduce " + place(from) + " +" + std::to_string(n) + (type == ncclFloat32 ? " floats" : "") +
              (type == ncclFloat64 ? " doubles" : "") + " to " + place(to));
}
ncclResult_t ncclAllReduce(const void* from, void* to, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t s)
{
  CHECK((type == ncclInt64 && op == ncclSum && from == to && is_ours(c, s)));
  return call("sum " + place(from) + " +" + std::to_string(n));
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t n, ncclDataType_t type, int root, ncclComm_t c,
                           cudaStream_t s)
{
  CHECK((type == ncclUint8 && from == to && is_ours(c, s)));
  return call("broadcast " + place(from) + " +" + std::to_string(n) + " from " + std::to_string(root));
}

cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an error"; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* made, unsigned flags)
{
  CHECK(flags == cudaEventDisableTiming);
  *made = reinterpret_cast<cudaEvent_t>(memory + ++events);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
  CHECK((s == stream || s == own));
  call(s == backend ? "mark " + place(e) + " of the backend" : "mark");
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
  call((s == backend ? "the backend waits for " : "wait for ") + place(e));
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) { return is_done ? cudaSuccess : cudaErrorNotReady; }
cudaError_t cudaEventDestroy(cudaEvent_t) { return --events, cudaSuccess; }

}  // extern "C"

namespace {

// What f says before it ends its process.
template <class F>
std::string last_words(const F& f)
{
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    std::signal(SIGABRT, SIG_DFL);
    f();
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char text[1000];
  for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;)
    said.append(text, std::size_t(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  return said;
}

}  // namespace

TEST_CASE("comm::nccl: the calls of each operation")
{
  {
    gradus::comm::nccl world(comm, stream);
    CHECK(world.rank() == 1);
    CHECK(world.size() == 3);
    CHECK(world.stream() == stream);
    using words = std::vector<std::string>;
    const auto calls_of = [&](const auto& start) {
      calls.clear();
      start();
      return calls;
    };
    char* const at = memory;
    CHECK(calls_of([&] { world.exchange(at, at + 300, 100); }) ==
          words{"[", "send 0 +100 to 0", "receive 300 +100 from 0", "send 100 +100 to 1", "receive 400 +100 from 1",
                "send 200 +100 to 2", "receive 500 +100 from 2", "]", "mark"});
    CHECK(calls_of([&] { world.all_gather(at + 600, 50); }) == words{"gather 650 +50 in 600", "mark"});
    CHECK(calls_of([&] {
            world.reduce_scatter(reinterpret_cast<float*>(at + 800), reinterpret_cast<float*>(at + 1000), 7);
          }) == words{"reduce 800 +7 floats to 1000", "mark"});
    CHECK(calls_of([&] {
            world.reduce_scatter(reinterpret_cast<double*>(at + 800), reinterpret_cast<double*>(at + 1000), 7);
          }) == words{"reduce 800 +7 doubles to 1000", "mark"});
    CHECK(calls_of([&] { world.sum(reinterpret_cast<std::int64_t*>(at + 16), 77); }) == words{"sum 16 +77", "mark"});
    auto r = world.broadcast(at + 5, 9, 2);
    CHECK(calls_of([&] { world.follow(r); }) == words{});  // on one stream there is nothing to do
    CHECK(calls_of([&] { world.broadcast(at + 5, 9, 2); }) == words{"broadcast 5 +9 from 2", "mark"});
    CHECK(events == 7);
  }
  CHECK(events == 0);
}

TEST_CASE("comm::nccl: on a stream of their own, operations wait for the backend's, which waits for those it follows")
{
  backend = stream;
  {
    gradus::comm::nccl world(comm, stream, own);
    CHECK(events == 1);
    calls.clear();
    auto r = world.broadcast(memory + 5, 9, 2);
    CHECK(calls == std::vector<std::string>{"mark 1 of the backend", "wait for 1", "broadcast 5 +9 from 2", "mark"});
    calls.clear();
    world.follow(r);
    CHECK(calls == std::vector<std::string>{"the backend waits for 2"});
  }
  CHECK(events == 0);
  backend = nullptr;
}

TEST_CASE("comm::nccl: an operation is complete when the device has reached its end, and its event is used again")
{
  gradus::comm::nccl world(comm, stream);
  is_done = false;
  auto first = world.broadcast(memory, 1, 0), second = world.broadcast(memory, 1, 0);
  CHECK(events == 2);
  CHECK(!world.test(first));
  later = ncclInProgress;  // of a communicator that does not block
  CHECK(!world.test(second));
  later = ncclSuccess;
  is_done = true;
  CHECK(world.test(first));
  auto third = world.broadcast(memory, 1, 0);
  CHECK(events == 2);
  CHECK(world.test(second));
  CHECK(world.test(third));
  result = ncclInProgress;
  world.sum(reinterpret_cast<std::int64_t*>(memory), 1);
  result = ncclSuccess;
}

TEST_CASE("comm::nccl: errors end the process with a sentence")
{
  gradus::comm::nccl world(comm, stream);
  auto r = world.broadcast(memory, 1, 0);
  CHECK(last_words([&] {
          result = ncclInvalidArgument;
          world.broadcast(memory, 1, 0);
        }) == "gradus: rank 1: ncclBroadcast failed: an error (its reason); expected every rank to make the same calls "
              "with the same sizes\n");
  CHECK(last_words([&] {
          later = ncclRemoteError;
          world.test(r);
        }) == "gradus: rank 1: an operation failed: an error (its reason); expected every rank to make the same calls "
              "with the same sizes\n");
  CHECK(last_words([&] {
          result = ncclInProgress;
          later = ncclSystemError;
          world.broadcast(memory, 1, 0);
        }).starts_with("gradus: rank 1: ncclBroadcast failed"));
  is_done = false;
  CHECK(last_words([&] {
          gradus::detail::wait_for(world, r, std::chrono::milliseconds(20), "step 7", "sum");
        }).starts_with("gradus: rank 1 of 3 waited 20 ms in step 7 for the others (sum)"));
}

TEST_CASE("comm::nccl: a communicator that is null or of another device is refused")
{
  CHECK(support::refusal([] { gradus::comm::nccl(nullptr, stream); }) ==
        "gradus: the communicator of comm::nccl is null; expected one from ncclCommInitRank");
  communicator_device = 4;
  CHECK(support::refusal([] { gradus::comm::nccl(comm, stream); }) ==
        "gradus: the communicator of comm::nccl is on device 4; expected the current device, 0");
  communicator_device = 0;
}
