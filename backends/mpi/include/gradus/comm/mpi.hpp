#pragma once
/// \file
/// The communicator over MPI 3.0 or later, for memory of the host: Open MPI, MPICH and others. The only header of gradus
/// that includes mpi.h. In CMake: gradus::mpi.

// The C++ bindings, which MPI 3 has removed, would be linked with.
#if !defined(OMPI_SKIP_MPICXX)
#define OMPI_SKIP_MPICXX 1
#endif
#if !defined(MPICH_SKIP_MPICXX)
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/checkpoint/posix.hpp>
#include <gradus/distributed/communicator.hpp>
#include <gradus/error.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
/// Communicators: they move bytes between the ranks of a sharded optimizer.
namespace comm {

/// The ranks of an MPI communicator. It works on a duplicate, so its messages do not meet the program's own. MPI must have
/// been initialised, with MPI_THREAD_FUNNELED or more if the program has threads, and all calls come from one thread.
///
/// The destructor does not communicate, and may run after MPI_Finalize or in a program that is being ended by an
/// exception; the duplicate is freed only by `close`. An error of MPI, and a rank that waited in vain, end the program:
/// the sentence is written to stderr, and after one to two seconds, in which the other ranks can say theirs, MPI_Abort is
/// called.
class mpi {
 public:
  /// Operations that run: several MPI requests each, if an array exceeds what one call can take.
  class request {
   public:
    request() = default;

   private:
    friend mpi;
    std::size_t number = 0;
  };

  /// Duplicates the communicator, which is collective.
  /// \param given  its ranks are the optimizer's
  /// \param most  the most bytes in one MPI call for each rank, which counts in `int`. A test may lower it.
  explicit mpi(MPI_Comm given = MPI_COMM_WORLD, std::size_t most = std::size_t(1) << 30) : most_(most)
  {
    int is_running = 0, is_over = 0;
    MPI_Initialized(&is_running);
    MPI_Finalized(&is_over);
    if (!is_running || is_over)
      detail::fail(std::string("comm::mpi is made ") + (is_over ? "after MPI_Finalize" : "before MPI_Init") +
                   "; expected it between the two");
    if (most == 0 || most > std::size_t(1) << 30)
      detail::fail("most is " + std::to_string(most) + "; expected 1 to 2^30 bytes");
    check(MPI_Comm_dup(given, &comm_), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    int n = 0;
    check(MPI_Comm_rank(comm_, &n), "MPI_Comm_rank");
    rank_ = std::size_t(n);
    check(MPI_Comm_size(comm_, &n), "MPI_Comm_size");
    size_ = std::size_t(n);
  }
  mpi(const mpi&) = delete;
  mpi& operator=(const mpi&) = delete;
  ~mpi() = default;

  std::size_t rank() const noexcept { return rank_; }  ///< of this process, from 0
  std::size_t size() const noexcept { return size_; }  ///< the number of ranks

  /// Frees the duplicate of the communicator. Collective, and before MPI_Finalize. Optional, and the last call.
  void close()
  {
    if (comm_ != MPI_COMM_NULL)
      check(MPI_Comm_free(&comm_), "MPI_Comm_free");
  }

  // ── see `communicator` ─────────────────────────────────────────────────────────────────────────────────────────────

  request exchange(const void* from, void* to, std::size_t bytes)
  {
    return in_pieces(bytes, [&](std::size_t at, int count, MPI_Datatype type, MPI_Request* r) {
      return MPI_Ialltoall(static_cast<const char*>(from) + at, count, type, static_cast<char*>(to) + at, count, type,
                           comm_, r);
    });
  }
  request all_gather(void* all, std::size_t bytes)
  {
    return in_pieces(bytes, [&](std::size_t at, int count, MPI_Datatype type, MPI_Request* r) {
      return MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, static_cast<char*>(all) + at, count, type, comm_, r);
    });
  }
  request reduce_scatter(const float* from, float* to, std::size_t n) { return add_up(from, to, n, MPI_FLOAT); }
  request reduce_scatter(const double* from, double* to, std::size_t n) { return add_up(from, to, n, MPI_DOUBLE); }
  request sum(std::int64_t* words, std::size_t n)
  {
    return in_parts(n, sizeof *words, [&](std::size_t at, int count, MPI_Request* r) {
      return MPI_Iallreduce(MPI_IN_PLACE, words + at, count, MPI_INT64_T, MPI_SUM, comm_, r);
    });
  }
  request broadcast(void* bytes, std::size_t n, std::size_t root)
  {
    return in_parts(n, 1, [&](std::size_t at, int count, MPI_Request* r) {
      return MPI_Ibcast(static_cast<char*>(bytes) + at, count, MPI_BYTE, int(root), comm_, r);
    });
  }
  bool test(request& r)
  {
    running& o = running_[r.number];
    int is_done = 0;
    check(MPI_Testall(int(o.requests.size()), o.requests.data(), &is_done, MPI_STATUSES_IGNORE), "MPI_Testall");
    if (is_done) {
      o.requests.clear();
      o.is_free = true;
    }
    return is_done != 0;
  }
  [[noreturn]] void give_up(const std::string& sentence)
  {
    std::fprintf(stderr, "gradus: %s\n", sentence.c_str());
    std::fflush(stderr);
#if GRADUS_POSIX
    // The ranks abort one after another, because Open MPI's mpirun may crash or hang if several do at once. The first one
    // that does ends the others.
    struct timespec delay = {1, long(rank_ < 9 ? rank_ : 9) * 100'000'000};
    nanosleep(&delay, nullptr);
#endif
    MPI_Abort(MPI_COMM_WORLD, 1);
    std::abort();
  }

 private:
  struct running {
    std::vector<MPI_Request> requests;
    bool is_free = true;
  };

  /// A place for an operation. There are as many as ever run at a time.
  request begin()
  {
    request r;
    while (r.number < running_.size() && !running_[r.number].is_free)
      ++r.number;
    if (r.number == running_.size())
      running_.emplace_back();
    running_[r.number].is_free = false;
    return r;
  }
  MPI_Request* next(const request& r)
  {
    running_[r.number].requests.push_back(MPI_REQUEST_NULL);
    return &running_[r.number].requests.back();
  }

  /// Cuts an operation on n elements into calls of at most most_ bytes.
  template <class Start>
  request in_parts(std::size_t n, std::size_t bytes, const Start& start)
  {
    const request r = begin();
    const std::size_t at_once = most_ / bytes > 0 ? most_ / bytes : 1;
    for (std::size_t at = 0; at < n; at += at_once)
      check(start(at, int(n - at < at_once ? n - at : at_once), next(r)), "a collective call");
    return r;
  }
  /// The same for one piece of so many bytes for each rank, one after the other in memory: the calls need a type that is
  /// as long as the piece, of which they use a part.
  template <class Start>
  request in_pieces(std::size_t bytes, const Start& start)
  {
    const request r = begin();
    if (bytes <= most_) {
      check(start(0, int(bytes), MPI_BYTE, next(r)), "a collective call");
      return r;
    }
    for (std::size_t at = 0; at < bytes; at += most_) {
      MPI_Datatype part = MPI_DATATYPE_NULL, spread = MPI_DATATYPE_NULL;
      check(MPI_Type_contiguous(int(bytes - at < most_ ? bytes - at : most_), MPI_BYTE, &part), "MPI_Type_contiguous");
      check(MPI_Type_create_resized(part, 0, MPI_Aint(bytes), &spread), "MPI_Type_create_resized");
      check(MPI_Type_commit(&spread), "MPI_Type_commit");
      check(start(at, 1, spread, next(r)), "a collective call");
      MPI_Type_free(&part);
      MPI_Type_free(&spread);
    }
    return r;
  }
  /// A reduce-scatter cannot be cut, because its pieces lie one after the other.
  template <class X>
  request add_up(const X* from, X* to, std::size_t n, MPI_Datatype type)
  {
    if (n > most_ / sizeof(X))
      detail::fail("reduction is engine, with " + std::to_string(n) +
                   " gradients a rank in a bucket; expected at most " + std::to_string(most_ / sizeof(X)) +
                   ": give a smaller bucket");
    const request r = begin();
    check(MPI_Ireduce_scatter_block(from, to, int(n), type, MPI_SUM, comm_, next(r)), "MPI_Ireduce_scatter_block");
    return r;
  }

  void check(int code, const char* call)
  {
    if (code == MPI_SUCCESS)
      return;
    char text[MPI_MAX_ERROR_STRING + 1] = {};
    int length = 0;
    MPI_Error_string(code, text, &length);
    give_up("rank " + std::to_string(rank_) + ": " + call + " failed: " + std::string(text, std::size_t(length)) +
            "; expected every rank to make the same calls with the same sizes");
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  std::size_t most_, rank_ = 0, size_ = 1;
  std::vector<running> running_;
};

}  // namespace comm
static_assert(communicator<comm::mpi>);
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
