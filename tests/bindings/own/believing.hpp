// A recipe in a namespace, of rules that are not gradus's: with a switch, a condition on two fields, and a decay that takes
// more than one pass.

#include <gradus/gradus.hpp>

#include "support/own_rules.hpp"

namespace mine {

struct believing {
  double lr = 1e-3, alpha = 0.25;
  bool plain = false;
  double beta2 = 0.99, weight_decay = 1e-2;

  static constexpr std::string_view name = "believing";
  static constexpr auto fields = gradus::fields(gradus::hyper::lr(&believing::lr),
                                                gradus::field{"alpha", &believing::alpha, gradus::range::zero_to_one},
                                                gradus::field{"plain", &believing::plain, gradus::range::yes_or_no},
                                                gradus::hyper::beta2(&believing::beta2),
                                                gradus::hyper::weight_decay(&believing::weight_decay));
  void validate() const
  {
    if (plain && alpha == 1)
      gradus::refuse("plain is 1 and alpha is 1; expected alpha below 1");
  }
  constexpr auto rule() const noexcept
  {
    return gradus::compose(lr, own::blended{{0.9}, alpha, plain}, own::belief{beta2},
                           gradus::step_size::adaptive{.eps = 1e-16}, gradus::decay::scheduled{weight_decay});
  }
};

}  // namespace mine
