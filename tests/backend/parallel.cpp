// A backend whose steps are cut into pieces, for an executor to run.

#include <doctest/doctest.h>

#include <gradus/backend/parallel.hpp>
#include <gradus/gradus.hpp>

#include "support/executor.hpp"

namespace {

using support::check_executor, support::same, support::train;

// The caller's own executor: it makes the calls in reverse order, to show that none relies on another.
struct backwards {
  static inline int runs = 0;
  void run(std::size_t n, gradus::executor::work f) const
  {
    CHECK(n > 1);
    ++runs;
    while (n > 0)
      f(--n);
  }
};

}  // namespace

TEST_CASE("parallel: runs the pieces by the serial executor and by the caller's own")
{
  check_executor(gradus::executor::serial{});
  check_executor(backwards{});
  CHECK(backwards::runs > 0);  // the model is large enough to be cut
  const gradus::adams adams{.weight_decay = 0.1};
  CHECK(same(train(adams, gradus::default_backend{}),
             train(adams, gradus::backend::parallel(gradus::backend::scalar{}, backwards{}))));
}

TEST_CASE("parallel: smaller steps use an executor whose threads are awake")
{
  struct wakeful : backwards {
    bool awake = false;
    bool is_awake() const { return awake; }
  };
  static_assert(gradus::tells_awake<wakeful> && !gradus::tells_awake<backwards>);
  const auto uses_it = [](bool awake, std::size_t n, gradus::backend::division division = {}) {
    std::vector<float> w(n, 1.0f), g(n, 0.5f);
    gradus::optimizer opt(gradus::sgd{},
                          gradus::backend::parallel(gradus::default_backend{}, wakeful{{}, awake}, division));
    opt.add(w, g);
    const int before = backwards::runs;
    opt.step();
    return backwards::runs > before;
  };
  CHECK(uses_it(true, 1 << 15));
  CHECK_FALSE(uses_it(true, (1 << 15) - 1));
  CHECK_FALSE(uses_it(false, (1 << 18) - 1));
  CHECK(uses_it(false, 1 << 18));
  CHECK_FALSE(uses_it(true, 1 << 16, {.from = 1 << 20}));
  CHECK_FALSE(uses_it(true, 1 << 18, {.from = std::size_t(-1)}));
}
