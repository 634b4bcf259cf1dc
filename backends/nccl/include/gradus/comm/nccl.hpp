#pragma once
/// \file
/// The communicator over NCCL 2.13 or later, for memory of CUDA devices. The only header of gradus that includes nccl.h. In
/// CMake: gradus::nccl.

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <gradus/distributed/communicator.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace comm {

/// The ranks of an NCCL communicator, and a stream of its device, which must be the backend's. All memory is device memory,
/// also the words of `sum`. Operations run one after another, and after what was enqueued on the stream before; `test`
/// asks the device and does not wait for it. The device must be the calling thread's current one. Given a second stream,
/// operations are enqueued there, so that a bucket is gathered while the next is updated.
///
/// Communicator and streams are the caller's: they must outlive this object, which does not communicate when it is
/// destroyed. An error of NCCL or CUDA, also one of another rank that NCCL notices while it works, and a rank that waited
/// in vain end the process: the sentence is written to stderr, the communicator is aborted, and std::abort is called, so
/// that the launcher ends the others.
class nccl {
 public:
  static constexpr bool on_device = true;  ///< pointers are to device memory

  /// An operation that runs.
  class request {
   public:
    request() = default;

   private:
    friend nccl;
    std::size_t number = 0;
  };

  /// Views a communicator and a stream. \param own  the stream of the operations
  /// \throws std::invalid_argument for no communicator, or one of another device than the current one
  nccl(ncclComm_t given, cudaStream_t stream, cudaStream_t own) : comm_(given), stream_(stream), own_(own)
  {
    if (!given)
      detail::fail("the communicator of comm::nccl is null; expected one from ncclCommInitRank");
    int n = 0, device = 0, current = 0;
    check(ncclCommCuDevice(comm_, &device), "ncclCommCuDevice");
    check(cudaGetDevice(&current), "cudaGetDevice");
    if (device != current)
      detail::fail("the communicator of comm::nccl is on device " + std::to_string(device) +
                   "; expected the current device, " + std::to_string(current));
    check(ncclCommUserRank(comm_, &n), "ncclCommUserRank");
    rank_ = std::size_t(n);
    check(ncclCommCount(comm_, &n), "ncclCommCount");
    size_ = std::size_t(n);
    if (own_ != stream_)
      check(cudaEventCreateWithFlags(&begin_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
  /// The same with one stream for all.
  explicit nccl(ncclComm_t given, cudaStream_t stream = nullptr) : nccl(given, stream, stream) {}
  nccl(const nccl&) = delete;
  nccl& operator=(const nccl&) = delete;
  ~nccl()
  {
    for (const running& o : running_)
      cudaEventDestroy(o.end);
    if (begin_)
      cudaEventDestroy(begin_);
  }

  std::size_t rank() const noexcept { return rank_; }       ///< of this process, from 0
  std::size_t size() const noexcept { return size_; }       ///< the number of ranks
  cudaStream_t stream() const noexcept { return stream_; }  ///< the backend's

  // ── see `communicator` ─────────────────────────────────────────────────────────────────────────────────────────────

  request exchange(const void* from, void* to, std::size_t bytes)
  {
    begin();
    check(ncclGroupStart(), "ncclGroupStart");
    for (std::size_t r = 0; r < size_; ++r) {
      check(ncclSend(static_cast<const char*>(from) + r * bytes, bytes, ncclUint8, int(r), comm_, own_), "ncclSend");
      check(ncclRecv(static_cast<char*>(to) + r * bytes, bytes, ncclUint8, int(r), comm_, own_), "ncclRecv");
    }
    check(ncclGroupEnd(), "ncclGroupEnd");
    return enqueued();
  }
  request reduce_scatter(const float* from, float* to, std::size_t n) { return add_up(from, to, n, ncclFloat32); }
  request reduce_scatter(const double* from, double* to, std::size_t n) { return add_up(from, to, n, ncclFloat64); }
  request all_gather(void* all, std::size_t bytes)
  {
    begin();
    // In place: this rank's piece is where its result is.
    check(ncclAllGather(static_cast<char*>(all) + rank_ * bytes, all, bytes, ncclUint8, comm_, own_), "ncclAllGather");
    return enqueued();
  }
  request sum(std::int64_t* words, std::size_t n)
  {
    begin();
    check(ncclAllReduce(words, words, n, ncclInt64, ncclSum, comm_, own_), "ncclAllReduce");
    return enqueued();
  }
  request broadcast(void* bytes, std::size_t n, std::size_t root)
  {
    begin();
    check(ncclBroadcast(bytes, bytes, n, ncclUint8, int(root), comm_, own_), "ncclBroadcast");
    return enqueued();
  }
  bool test(request& r)
  {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
    if (state != ncclInProgress)
      check(state, "an operation");
    const cudaError_t end = cudaEventQuery(running_[r.number].end);
    if (end == cudaErrorNotReady)
      return false;
    check(end, "cudaEventQuery");
    running_[r.number].is_free = true;
    return true;
  }
  /// Makes what is enqueued on the backend's stream from now on wait for an operation.
  void follow(request& r)
  {
    if (own_ != stream_)
      check(cudaStreamWaitEvent(stream_, running_[r.number].end, 0), "cudaStreamWaitEvent");
  }
  [[noreturn]] void give_up(const std::string& sentence)
  {
    std::fprintf(stderr, "gradus: %s\n", sentence.c_str());
    std::fflush(stderr);
    ncclCommAbort(comm_);
    std::abort();
  }

 private:
  struct running {
    cudaEvent_t end;
    bool is_free;
  };

  /// Makes an operation wait for what was enqueued on the backend's stream before.
  void begin()
  {
    if (own_ == stream_)
      return;
    check(cudaEventRecord(begin_, stream_), "cudaEventRecord");
    check(cudaStreamWaitEvent(own_, begin_, 0), "cudaStreamWaitEvent");
  }
  template <class X>
  request add_up(const X* from, X* to, std::size_t n, ncclDataType_t type)
  {
    begin();
    check(ncclReduceScatter(from, to, n, type, ncclSum, comm_, own_), "ncclReduceScatter");
    return enqueued();
  }
  /// Marks the end of what has been enqueued. There are as many events as operations ever run at a time.
  request enqueued()
  {
    request r;
    while (r.number < running_.size() && !running_[r.number].is_free)
      ++r.number;
    if (r.number == running_.size()) {
      cudaEvent_t made = nullptr;
      check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "cudaEventCreateWithFlags");
      running_.push_back({made, true});
    }
    check(cudaEventRecord(running_[r.number].end, own_), "cudaEventRecord");
    running_[r.number].is_free = false;
    return r;
  }

  void check(ncclResult_t code, const char* call)
  {
    // A communicator that does not block accepts a call and is not done with it.
    while (code == ncclInProgress)
      if (ncclCommGetAsyncError(comm_, &code) != ncclSuccess)
        break;
    if (code != ncclSuccess)
      give_up("rank " + std::to_string(rank_) + ": " + call + " failed: " + ncclGetErrorString(code) + " (" +
              ncclGetLastError(comm_) + "); expected every rank to make the same calls with the same sizes");
  }
  void check(cudaError_t code, const char* call)
  {
    if (code != cudaSuccess)
      give_up("rank " + std::to_string(rank_) + ": " + call + " failed: " + cudaGetErrorString(code));
  }

  ncclComm_t comm_;
  cudaStream_t stream_, own_;
  cudaEvent_t begin_ = nullptr;
  std::size_t rank_ = 0, size_ = 1;
  std::vector<running> running_;
};

}  // namespace comm
static_assert(communicator<comm::nccl>);
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
