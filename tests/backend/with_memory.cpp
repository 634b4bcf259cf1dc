// A backend whose state is in the caller's memory.

#include <doctest/doctest.h>

#include <cstddef>
#include <map>
#include <memory_resource>
#include <new>
#include <vector>

#include <gradus/backend/parallel.hpp>
#include <gradus/backend/with_memory.hpp>
#include <gradus/checkpoint.hpp>
#include <gradus/gradus.hpp>

#include "support/executor.hpp"

namespace {

using gradus::backend::with_memory;
using support::same;

// An arena that knows what was taken from it, can run dry, and may be misaligned.
struct arena {
  std::map<void*, std::size_t> taken = {};
  std::size_t left = 1u << 20, off = 0;
  int calls = 0;

  void* allocate(std::size_t bytes, std::size_t alignment)
  {
    ++calls;
    if (bytes > left)
      return nullptr;
    left -= bytes;
    void* const p = static_cast<char*>(::operator new(bytes + off, std::align_val_t(alignment))) + off;
    taken[p] = bytes;
    return p;
  }
  void deallocate(void* p, std::size_t bytes, std::size_t alignment)
  {
    CHECK(taken.at(p) == bytes);
    taken.erase(p);
    left += bytes;
    ::operator delete(static_cast<char*>(p) - off, std::align_val_t(alignment));
  }
  bool has(const void* p) const
  {
    for (const auto& [from, bytes] : taken)
      if (p >= from && p < static_cast<const char*>(from) + bytes)
        return true;
    return false;
  }
};

using masters = gradus::precision<gradus::bfloat16, gradus::bfloat16, float, float>;

}  // namespace

TEST_CASE("with_memory: state comes from the resource and goes back; steps take nothing and have the backend's bits")
{
  arena a;
  std::vector<float> weights(1000, 1.0f), gradients(1000, 0.5f), twin_weights = weights;
  {
    gradus::optimizer opt(gradus::adams{}, with_memory(gradus::default_backend{}, a));
    gradus::optimizer twin(gradus::adams{});
    const auto tensor = opt.add("w", weights, gradients);
    twin.add("w", twin_weights, gradients);
    CHECK(a.has(opt.state("w", "exp_avg").data()));
    CHECK(a.has(opt.state("w", "exp_avg_sq").data()));
    const int calls = a.calls;
    for (int t = 0; t < 5; ++t) {
      opt.step({.max_grad_norm = 1, .skip_nonfinite = true});
      twin.step({.max_grad_norm = 1, .skip_nonfinite = true});
    }
    CHECK(a.calls == calls);
    CHECK(same(weights, twin_weights));
    auto moved = std::move(opt);
    moved.step();
    moved.remove(tensor, gradus::removed_state::dropped);
    CHECK(a.taken.empty());
    moved.add("w", weights, gradients);
    CHECK(a.taken.size() == 2);
  }
  CHECK(a.taken.empty());
}

TEST_CASE("with_memory: master weights too; inside parallel, and around it")
{
  arena a;
  std::vector<gradus::bfloat16> weights(1000), gradients(1000);
  {
    using inside = decltype(gradus::backend::parallel(with_memory(gradus::default_backend{}, a),
                                                      gradus::executor::serial{}));
    gradus::optimizer<gradus::adamw, masters, inside> opt(
        {}, gradus::backend::parallel(with_memory(gradus::default_backend{}, a), gradus::executor::serial{}));
    opt.add(weights, gradients);
    opt.step();
    CHECK(a.taken.size() == 3);
  }
  CHECK(a.taken.empty());
  {
    const auto around = with_memory(gradus::backend::parallel(gradus::default_backend{}, gradus::executor::serial{}),
                                    a);
    gradus::optimizer<gradus::adamw, masters, std::remove_const_t<decltype(around)>> opt({}, around);
    opt.add(weights, gradients);
    opt.step();
    CHECK(a.taken.size() == 3);
  }
  CHECK(a.taken.empty());
}

TEST_CASE("with_memory: std::pmr")
{
  std::pmr::monotonic_buffer_resource buffer(std::pmr::new_delete_resource());
  std::pmr::memory_resource& resource = buffer;
  std::vector<float> weights(100, 1.0f), gradients(100, 0.5f);
  gradus::optimizer opt(gradus::sgd{.momentum = 0.9}, with_memory(gradus::backend::scalar{}, resource));
  opt.add(weights, gradients);
  CHECK(opt.step().applied);
}

TEST_CASE("with_memory: a resource that is dry or misaligned changes nothing")
{
  arena a{.left = 1000 * sizeof(float)};  // enough for one of two slots
  std::vector<float> weights(1000, 1.0f), gradients(1000, 0.5f);
  gradus::optimizer opt(gradus::adamw{}, with_memory(gradus::default_backend{}, a));
  CHECK_THROWS_AS(opt.add(weights, gradients), std::bad_alloc);
  CHECK(opt.parameter_count() == 0);
  CHECK(a.taken.empty());

  a.left = 1u << 20;
  a.off = 4;
  CHECK_THROWS_WITH_AS(opt.add(weights, gradients),
                       "gradus: resource returned an address that is 4 more than a multiple of 64; expected a multiple",
                       std::invalid_argument);
  CHECK(opt.parameter_count() == 0);
  CHECK(a.taken.empty());
  a.off = 0;
  opt.add(weights, gradients);
  CHECK(opt.step().applied);
}
