// AdamW of gradus and of other libraries that C++ can call, behind one C interface, so that peers.py measures them and
// the Python libraries in one process, interleaved. float32, the same parameters and gradients for all; on one thread, or
// those that can on several. And the recipes that PyTorch has too, each to be measured beside PyTorch's own.

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>

#include <gradus/executor/thread_pool.hpp>
#include <gradus/gradus.hpp>

#include "../model.hpp"
#include "../twins.hpp"
#include "plain.hpp"

#if defined(BENCH_EIGEN)
#include <Eigen/Core>
#endif
#if defined(BENCH_ARMADILLO)
#include <armadillo>
#endif
#if defined(BENCH_DLIB)
#include <dlib/cuda/cpu_dlib.h>
#include <dlib/cuda/tensor.h>
#endif

namespace {

using bench::shape;

/// One implementation with one model.
struct peer {
  bench::model<float> x;
  gradus::adamw h;
  std::vector<bench::buffer<float>> memory;
  double t = 0;

  peer(const shape& s, double weight_decay) : x(s), h{.weight_decay = weight_decay} {}
  peer(const peer&) = delete;
  virtual ~peer() = default;
  virtual void step() = 0;
  virtual const float* result(std::size_t k) { return x.parameters(k); }

 protected:
  /// m(k) and v(k) are the two slots of tensor k, filled with zeros.
  void make_slots()
  {
    for (int i = 0; i < 2; ++i)
      std::memset(memory.emplace_back(x.length()).data(), 0, x.length() * sizeof(float));
  }
  float* m(std::size_t k) { return memory[0].data() + x.starts[k]; }
  float* v(std::size_t k) { return memory[1].data() + x.starts[k]; }

  /// The scalars of the next step.
  plain_coefficients next() noexcept
  {
    ++t;
    const double bc1 = 1 - std::pow(h.beta1, t), root_bc2 = std::sqrt(1 - std::pow(h.beta2, t));
    return {float(h.beta1), float(h.beta2), float(h.lr * root_bc2 / bc1), float(h.eps * root_bc2),
            float(1 - h.lr * h.weight_decay)};
  }
};

struct by_gradus final : peer {
  gradus::optimizer<gradus::adamw> opt;
  by_gradus(const shape& s, double weight_decay) : peer(s, weight_decay), opt(h) { x.add_to(opt); }
  void step() override { opt.step(); }
};

/// On as many threads as OMP_NUM_THREADS says, like the others.
struct by_gradus_on_threads final : peer {
  using backend = gradus::backend::parallel<gradus::default_backend, gradus::executor::thread_pool>;
  gradus::optimizer<gradus::adamw, float, backend> opt;
  by_gradus_on_threads(const shape& s, double weight_decay)
      : peer(s, weight_decay),
        opt(h, backend({}, gradus::executor::thread_pool(unsigned(std::atoi(std::getenv("OMP_NUM_THREADS"))))))
  {
    x.add_to(opt);
  }
  void step() override { opt.step(); }
};

template <bool Prefetch>
struct traffic final : peer {
  traffic(const shape& s, double weight_decay) : peer(s, weight_decay) { make_slots(); }
  void step() override
  {
    for (std::size_t k = 0; k < x.s.tensors(); ++k)
      twins::traffic<Prefetch>(x.s.sizes[k], x.gradients(k), x.parameters(k), m(k), v(k));
  }
};

#if TWINS
struct intrinsics final : peer {
  intrinsics(const shape& s, double weight_decay) : peer(s, weight_decay) { make_slots(); }
  void step() override
  {
    double sum = 0;
    const auto c = twins::prepare<float>(h, ++t, sum, 0, 0);
    for (std::size_t k = 0; k < x.s.tensors(); ++k) {
      float* const slots[] = {m(k), v(k)};
      twins::step(h, c, x.parameters(k), x.gradients(k), slots, x.s.sizes[k]);
    }
  }
};
#endif

template <void (*Loop)(const plain_coefficients&, float*, const float*, float*, float*, std::size_t)>
struct plain final : peer {
  plain(const shape& s, double weight_decay) : peer(s, weight_decay) { make_slots(); }
  void step() override
  {
    const plain_coefficients c = next();
    for (std::size_t k = 0; k < x.s.tensors(); ++k)
      Loop(c, x.parameters(k), x.gradients(k), m(k), v(k), x.s.sizes[k]);
  }
};

#if defined(BENCH_EIGEN)
struct eigen final : peer {
  eigen(const shape& s, double weight_decay) : peer(s, weight_decay) { make_slots(); }
  void step() override
  {
    const plain_coefficients c = next();
    for (std::size_t k = 0; k < x.s.tensors(); ++k) {
      const auto map = [&](float* p) {
        return Eigen::Map<Eigen::ArrayXf, Eigen::Aligned64>(p, Eigen::Index(x.s.sizes[k]));
      };
      auto theta = map(x.parameters(k)), g = map(x.gradients(k)), first = map(m(k)), second = map(v(k));
      first = c.beta1 * first + (1 - c.beta1) * g;
      second = c.beta2 * second + (1 - c.beta2) * g.square();
      theta = c.kept * theta - c.numerator * first / (second.sqrt() + c.eps);
    }
  }
};
#endif

#if defined(BENCH_ARMADILLO)
/// The expressions of ensmallen's Adam, with a factor for the weight decay.
struct armadillo final : peer {
  struct state {
    arma::fvec theta, g, m, v;
  };
  std::vector<state> states;
  armadillo(const shape& s, double weight_decay) : peer(s, weight_decay)
  {
    for (std::size_t k = 0; k < s.tensors(); ++k) {
      const std::size_t n = s.sizes[k];
      states.push_back({arma::fvec(x.parameters(k), n), arma::fvec(x.gradients(k), n), arma::zeros<arma::fvec>(n),
                        arma::zeros<arma::fvec>(n)});
    }
  }
  void step() override
  {
    const plain_coefficients c = next();
    for (state& y : states) {
      y.m *= c.beta1;
      y.m += (1 - c.beta1) * y.g;
      y.v *= c.beta2;
      y.v += (1 - c.beta2) * (y.g % y.g);
      y.theta *= c.kept;
      y.theta -= c.numerator * y.m / (arma::sqrt(y.v) + c.eps);
    }
  }
  const float* result(std::size_t k) override { return states[k].theta.memptr(); }
};
#endif

#if defined(BENCH_DLIB)
/// dlib's solver computes the step, and its trainer adds it. Its weight decay is L2, not decoupled.
struct dlib_adam final : peer {
  struct state {
    dlib::resizable_tensor theta, g, s, m, v;
  };
  std::vector<state> states;
  dlib_adam(const shape& of, double weight_decay) : peer(of, weight_decay), states(of.tensors())
  {
    for (std::size_t k = 0; k < of.tensors(); ++k) {
      state& y = states[k];
      for (dlib::resizable_tensor* p : {&y.theta, &y.g, &y.s, &y.m, &y.v}) {
        p->set_size(static_cast<long long>(of.sizes[k]));
        *p = 0;
      }
      std::memcpy(y.theta.host(), x.parameters(k), of.sizes[k] * sizeof(float));
      std::memcpy(y.g.host(), x.gradients(k), of.sizes[k] * sizeof(float));
    }
  }
  void step() override
  {
    ++t;
    for (state& y : states) {
      dlib::cpu::compute_adam_update(0, y.theta.size(), y.s, y.m, y.v, float(t), float(h.lr), float(h.weight_decay),
                                     float(h.beta1), float(h.beta2), y.theta, y.g);
      dlib::cpu::add(1, y.theta, 1, y.s);
    }
  }
  const float* result(std::size_t k) override { return states[k].theta.host(); }
};
#endif

struct entry {
  const char* name;
  std::function<peer*(const shape&, double)> open;
};
template <class P>
entry make(const char* name)
{
  return {name, [](const shape& s, double weight_decay) -> peer* { return new P(s, weight_decay); }};
}

const entry on_one_thread[] = {
    make<by_gradus>("gradus"),
    make<traffic<false>>("traffic"),
    make<traffic<true>>("traffic, prefetching"),
#if TWINS
    make<intrinsics>("hand-written intrinsics"),
#endif
    make<plain<plain_default>>("plain loop"),
    make<plain<plain_no_math_errno>>("plain loop, -fno-math-errno"),
#if defined(BENCH_EIGEN)
    make<eigen>("Eigen expressions"),
#endif
#if defined(BENCH_ARMADILLO)
    make<armadillo>("Armadillo, as ensmallen writes it"),
#endif
#if defined(BENCH_DLIB)
    make<dlib_adam>("dlib"),
#endif
};
const entry on_threads[] = {
    make<by_gradus_on_threads>("gradus"),
#if defined(BENCH_OPENMP)
    make<plain<plain_openmp>>("plain loop, OpenMP"),
#endif
};

template <class Recipe>
struct recipe final : peer {
  gradus::optimizer<Recipe> opt;
  recipe(const shape& s, double weight_decay) : peer(s, weight_decay), opt(bench::measured<Recipe>()) { x.add_to(opt); }
  void step() override { opt.step(); }
};
const entry recipes[] = {
    make<recipe<gradus::sgd>>("sgd"),           make<recipe<gradus::adam>>("adam"),
    make<recipe<gradus::adamw>>("adamw"),       make<recipe<gradus::amsgrad>>("amsgrad"),
    make<recipe<gradus::radam>>("radam"),       make<recipe<gradus::adagrad>>("adagrad"),
    make<recipe<gradus::adadelta>>("adadelta"), make<recipe<gradus::adamax>>("adamax"),
    make<recipe<gradus::rmsprop>>("rmsprop"),   make<recipe<gradus::nadam>>("nadam"),
};

std::span<const entry> entries(bool threads)
{
  return threads ? std::span<const entry>(on_threads) : std::span<const entry>(on_one_thread);
}

}  // namespace

#define EXPORT extern "C" [[gnu::visibility("default")]]

EXPORT const char* peers_compiler() { return BENCH_COMPILER; }
EXPORT const char* peers_flags() { return BENCH_FLAGS; }
/// The name of the i-th implementation on one thread or on several; null after the last.
EXPORT const char* peer_name(std::size_t i, bool threads)
{
  return i < entries(threads).size() ? entries(threads)[i].name : nullptr;
}
EXPORT peer* peer_open(const char* name, bool threads, std::size_t tensors, const std::size_t* sizes,
                       double weight_decay)
{
  shape s(0, 0);
  s.sizes.assign(sizes, sizes + tensors);
  for (const entry& e : entries(threads))
    if (std::string_view(e.name) == name)
      return e.open(s, weight_decay);
  return nullptr;
}
/// The same for a recipe, with the defaults of bench::measured.
EXPORT peer* recipe_open(const char* name, std::size_t tensors, const std::size_t* sizes)
{
  shape s(0, 0);
  s.sizes.assign(sizes, sizes + tensors);
  for (const entry& e : recipes)
    if (std::string_view(e.name) == name)
      return e.open(s, 0);
  return nullptr;
}
EXPORT void peer_close(peer* p) { delete p; }
EXPORT void peer_run(peer* p, std::size_t steps)
{
  for (std::size_t i = 0; i < steps; ++i) {
    p->step();
    bench::clobber();
  }
}
EXPORT const float* peer_result(peer* p, std::size_t tensor) { return p->result(tensor); }
EXPORT float* peer_parameters(peer* p, std::size_t tensor) { return p->x.parameters(tensor); }
EXPORT float* peer_gradients(peer* p, std::size_t tensor) { return p->x.gradients(tensor); }
/// The largest absolute difference between two results of n elements.
EXPORT double peers_distance(const float* a, const float* b, std::size_t n)
{
  double most = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double d = std::fabs(double(a[i]) - double(b[i]));
    if (!(d <= most))
      most = d;  // keeps a NaN
  }
  return most;
}
