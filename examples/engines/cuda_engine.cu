// gradus in an engine with memory and a stream of its own: one pool over one cudaMalloc holds the data, the weights, the
// gradients and gradus's state, and everything runs on the engine's stream. Trains a classifier on Fashion-MNIST, beside
// an optimizer in host memory that gets the same gradients. For CUDA:
//
//     nvcc -std=c++20 -O3 --expt-relaxed-constexpr -Iinclude -Ibackends/thrust/include -isystem /usr/include/eigen3
//     examples/engines/cuda_engine.cu -lz
//
// It has been compiled and linked by nvcc 13, and not run on a GPU. The same file on a CPU, over Thrust's OpenMP system (or
// CPP):
//
//     g++ -std=c++20 -O3 -march=native -fopenmp -DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_OMP -Iinclude
//     -Ibackends/simd/include -Ibackends/thrust/include -I/usr/include/eigen3 -x c++ examples/engines/cuda_engine.cu -lz

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <span>
#include <vector>

#include <thrust/device_ptr.h>
#include <thrust/execution_policy.h>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

#include "images.hpp"

// ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────

namespace engine {

#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
void check(cudaError_t error)
{
  if (error != cudaSuccess) {
    std::fprintf(stderr, "cuda_engine: %s\n", cudaGetErrorString(error));
    std::exit(1);
  }
}

/// A stream. The policy enqueues Thrust's work and gradus's on it, and waits for nothing.
class stream {
 public:
  stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  stream(const stream&) = delete;
  ~stream() { cudaStreamDestroy(stream_); }
  auto policy() const { return thrust::cuda::par_nosync.on(stream_); }
  void copy(void* to, const void* from, std::size_t bytes) const
  {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_));
    check(cudaStreamSynchronize(stream_));
  }

 private:
  cudaStream_t stream_ = {};
};
void* take_slab(std::size_t bytes)
{
  void* slab = nullptr;
  check(cudaMalloc(&slab, bytes));
  return slab;
}
void give_slab(void* slab) { cudaFree(slab); }
#else
/// A CPU has no stream: work is done when a call returns.
struct stream {
  static auto policy() { return thrust::device; }
  static void copy(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
};
void* take_slab(std::size_t bytes) { return std::aligned_alloc(256, bytes); }
void give_slab(void* slab) { std::free(slab); }
#endif

/// Blocks of one slab of device memory, aligned to 256 bytes. What is given back can be taken at once, without waiting,
/// because all of it is used in the order of one stream.
class pool {
 public:
  explicit pool(std::size_t bytes) : slab_(static_cast<unsigned char*>(take_slab(bytes))) { free_[0] = bytes; }
  pool(const pool&) = delete;
  ~pool() { give_slab(slab_); }

  unsigned char* take(std::size_t bytes)
  {
    bytes = (bytes + 255) / 256 * 256;
    for (auto block = free_.begin(); block != free_.end(); ++block)
      if (const auto [at, size] = *block; size >= bytes) {
        free_.erase(block);
        if (size > bytes)
          free_[at + bytes] = size - bytes;
        used_ += bytes;
        return slab_ + at;
      }
    throw std::bad_alloc();  // gradus's call then fails, and has changed nothing
  }
  void give(unsigned char* p, std::size_t bytes)
  {
    bytes = (bytes + 255) / 256 * 256;
    used_ -= bytes;
    auto block = free_.emplace(std::size_t(p - slab_), bytes).first;
    if (const auto next = std::next(block); next != free_.end() && block->first + block->second == next->first) {
      block->second += next->second;
      free_.erase(next);
    }
    if (block != free_.begin())
      if (const auto before = std::prev(block); before->first + before->second == block->first) {
        before->second += block->second;
        free_.erase(block);
      }
  }
  template <class T>
  std::span<T> array(std::size_t n)
  {
    return {reinterpret_cast<T*>(take(n * sizeof(T))), n};
  }
  std::size_t used() const { return used_; }

 private:
  unsigned char* slab_;
  std::map<std::size_t, std::size_t> free_;  // offset and size of the free blocks
  std::size_t used_ = 0;
};

/// The pool as an allocator, which is all that gradus needs to keep its state there.
struct pool_allocator {
  using value_type = unsigned char;
  using pointer = thrust::device_ptr<unsigned char>;
  pool* of;

  pointer allocate(std::size_t bytes) { return pointer(of->take(bytes)); }
  void deallocate(pointer p, std::size_t bytes) { of->give(thrust::raw_pointer_cast(p), bytes); }
};

}  // namespace engine

// ── softmax regression, in device memory ─────────────────────────────────────────────────────────────────────────────

namespace {

constexpr std::size_t pixels = 784, classes = 10, train_images = 3000, test_images = 1000, batch = 100;

/// What the network answers for image i of the batch, minus what is right.
struct residual {
  const float* image;
  const unsigned char* label;
  const float *weights, *bias;
  float* r;

  GRADUS_HOST_DEVICE void operator()(std::size_t i) const
  {
    float* const p = r + i * classes;
    float largest = -1e30f, sum = 0;
    for (std::size_t c = 0; c < classes; ++c) {
      p[c] = bias[c];
      for (std::size_t k = 0; k < pixels; ++k)
        p[c] += weights[c * pixels + k] * image[i * pixels + k];
      largest = p[c] > largest ? p[c] : largest;
    }
    for (std::size_t c = 0; c < classes; ++c)
      sum += p[c] = std::exp(p[c] - largest);
    for (std::size_t c = 0; c < classes; ++c)
      p[c] = p[c] / sum - float(label[i] == c);
  }
};

/// The gradient of weight k, or of bias k − classes · pixels.
struct gradient {
  const float *image, *r;
  float *weights, *bias;

  GRADUS_HOST_DEVICE void operator()(std::size_t k) const
  {
    const bool is_bias = k >= classes * pixels;
    const std::size_t c = is_bias ? k - classes * pixels : k / pixels, pixel = k % pixels;
    float sum = 0;
    for (std::size_t i = 0; i < batch; ++i)
      sum += r[i * classes + c] * (is_bias ? 1 : image[i * pixels + pixel]);
    (is_bias ? bias[c] : weights[k]) = sum / batch;
  }
};

}  // namespace

int main()
{
#if THRUST_DEVICE_SYSTEM == THRUST_DEVICE_SYSTEM_CUDA
  int devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess) {
    std::printf("cuda_engine: needs a GPU: %s\n", cudaGetErrorString(error));
    return 77;
  }
#endif
  engine::stream stream;
  engine::pool pool(std::size_t(16) << 20);
  const auto policy = stream.policy();
  const auto for_each = [&](std::size_t n, const auto& f) {
    thrust::for_each_n(policy, thrust::counting_iterator<std::size_t>(0), n, f);
  };
  const auto on_device = [&]<class T>(std::span<const T> values) {
    const std::span<T> there = pool.array<T>(values.size());
    stream.copy(there.data(), values.data(), values.size_bytes());
    return there;
  };

  const images::training_set set("cuda_engine", train_images + test_images);
  const auto [pictures, labels] = set.of_step(0, train_images + test_images);
  const auto x = on_device(pictures);
  const auto y = on_device(labels);
  std::vector<float> host_w(classes * pixels), host_b(classes), host_dw = host_w, host_db = host_b;
  const auto w = on_device(std::span<const float>(host_w)), b = on_device(std::span<const float>(host_b));
  const auto dw = pool.array<float>(w.size()), db = pool.array<float>(b.size());
  const auto r = pool.array<float>(batch * classes);
  const std::size_t used_by_engine = pool.used();

  double largest = 0;
  std::size_t state_bytes = 0, wrong = 0;
  {
    using device = gradus::backend::thrust_device<std::remove_cv_t<decltype(policy)>, engine::pool_allocator>;
    const gradus::adams recipe{.lr = 2e-3, .weight_decay = 1e-3};
    gradus::optimizer opt(recipe, device(policy, engine::pool_allocator{&pool}));
    opt.add("weights", w, dw);
    opt.add("bias", b, db);
    gradus::optimizer<gradus::adams, float, gradus::backend::scalar> twin(recipe);
    twin.add("weights", host_w, host_dw);
    twin.add("bias", host_b, host_db);
    state_bytes = opt.state_bytes();

    const gradus::schedule::cosine schedule{.t_max = 4.0 * train_images / batch};
    int t = 0;
    for (int epoch = 0; epoch < 4; ++epoch)
      for (std::size_t i = 0; i < train_images; i += batch, ++t) {
        const float* const first = &x[i * pixels];
        for_each(batch, residual{first, &y[i], w.data(), b.data(), r.data()});
        for_each(classes * pixels + classes, gradient{first, r.data(), dw.data(), db.data()});
        const gradus::step_options options{.lr_scale = schedule(t), .max_grad_norm = 1, .skip_nonfinite = true};
        opt.step(options);  // enqueued after the gradients; nothing waits

        // For the comparison alone: the copies wait for the stream.
        stream.copy(host_dw.data(), dw.data(), dw.size_bytes());
        stream.copy(host_db.data(), db.data(), db.size_bytes());
        twin.step(options);
      }
    if (!opt.report().applied) {  // waits for the stream
      std::puts("cuda_engine: the last step was skipped");
      return 1;
    }
    std::vector<float> found(w.size());
    stream.copy(found.data(), w.data(), w.size_bytes());
    for (std::size_t k = 0; k < found.size(); ++k)
      largest = std::fmax(largest, std::fabs(double(found[k]) - host_w[k]));

    std::vector<float> residuals(r.size());
    for (std::size_t i = train_images; i < train_images + test_images; i += batch) {
      for_each(batch, residual{&x[i * pixels], &y[i], w.data(), b.data(), r.data()});
      stream.copy(residuals.data(), r.data(), r.size_bytes());
      for (std::size_t k = 0; k < batch; ++k)
        wrong += residuals[k * classes + labels[i + k]] < -0.5f;
    }
  }
  std::printf(
      "cuda_engine: test error at most %.1f %%, %zu bytes of state in the pool, largest difference from the host %g\n",
      100.0 * double(wrong) / test_images, state_bytes, largest);
  const bool given_back = pool.used() == used_by_engine;
  return given_back && largest < 1e-6 && wrong < test_images * 3 / 10 ? 0 : 1;
}
