#pragma once
// An optimizer with three tensors, whose checkpoints are saved, changed and loaded.

#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <gradus/gradus.hpp>

#include "support/checkpoint.hpp"

namespace support {

template <class T = float>
struct tensor {
  std::vector<T> weights, gradients;
  explicit tensor(std::size_t n, double start = 1) : weights(n), gradients(n)
  {
    for (std::size_t i = 0; i < n; ++i) {
      weights[i] = T(start * std::cos(double(i)));
      gradients[i] = T(std::sin(double(i) + start));
    }
  }
};

// Tensors a, b, c of 3, 40 and 5 elements in an optimizer, after so many steps.
template <class Opt>
struct model {
  using T = typename Opt::value_type;
  Opt opt;
  tensor<T> a{3}, b{40}, c{5};
  gradus::tensor_handle ha, hb, hc;

  template <class... Arguments>
  explicit model(int steps, const Arguments&... arguments) : opt(arguments...)
  {
    ha = opt.add("a", a.weights, a.gradients);
    hb = opt.add("b", b.weights, b.gradients);
    hc = opt.add("c", c.weights, c.gradients);
    for (int t = 0; t < steps; ++t)
      opt.step();
  }
};

// Loading fails with a message that has all these parts in it, and changes nothing.
template <class Opt>
void check_refused(Opt& opt, const std::string& bytes, const std::vector<std::string>& parts,
                   const gradus::load_options& o = {})
{
  const std::string before = checkpoint_of(opt);
  const std::string sentence = refusal([&] { load_bytes(opt, bytes, o); });
  for (const std::string& part : parts)
    CHECK_MESSAGE(contains(sentence, part), "expected \"", part, "\" in: ", sentence);
  CHECK(checkpoint_of(opt) == before);
}

inline const gradus::adams scheduled{.lr = 0.01, .beta2 = 0.9, .weight_decay = 0.01};

}  // namespace support
