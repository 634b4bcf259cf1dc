// gradus in ensmallen: an update policy, with which ens::SGD takes the steps of any recipe. Its optimizers and its test
// functions are the oracle. Compiled with ensmallen 3.11.1 and Armadillo 11.4:
//
//     g++ -std=c++20 -O2 -march=native -Igradus/include -Igradus/backends/simd/include -isystem ensmallen/include
//     ensmallen.cpp -larmadillo

#include <cmath>
#include <cstdio>
#include <optional>

#include <ensmallen.hpp>

#include <gradus/gradus.hpp>

namespace {

// ── the glue ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// An update policy of ensmallen's. An optimizer makes one `Policy` for a run, and hands it the step size of each step.
/// The gradient matrix is another one in each run, so the policy binds anew.
template <class Recipe>
class gradus_update {
 public:
  explicit gradus_update(const Recipe& recipe) : recipe_(recipe) {}

  template <class Mat, class Grad>
  class Policy {
   public:
    Policy(const gradus_update& parent, std::size_t, std::size_t) : optimizer_(parent.recipe_) {}

    void Update(Mat& iterate, double step_size, const Grad& gradient)
    {
      if (!tensor_)
        tensor_ = optimizer_.add(iterate, gradient);
      else
        optimizer_.rebind(*tensor_, iterate, gradient);
      optimizer_.step({.lr = step_size});
    }

   private:
    gradus::optimizer<Recipe, typename Mat::elem_type> optimizer_;
    std::optional<gradus::tensor_handle> tensor_;
  };

 private:
  Recipe recipe_;
};

// ── the comparison ───────────────────────────────────────────────────────────────────────────────────────────────────

bool good = true;

/// Runs both policies on a function for so many steps, and prints the largest difference of the points where they end.
template <class Mat = arma::mat, class Function, class Theirs, class Recipe>
void compare(const char* what, Function f, double step_size, std::size_t steps, const Theirs& theirs,
             const Recipe& recipe, double limit)
{
  const auto run = [&]<class Update>(const Update& update) {
    Function mine = f;
    Mat x = mine.template GetInitialPoint<Mat>();
    ens::SGD<Update> optimizer(step_size, 1, steps, -1, false, update);
    optimizer.Optimize(mine, x);
    return x;
  };
  const Mat a = run(theirs), b = run(gradus_update(recipe));
  const double difference = double(arma::abs(a - b).max() / arma::abs(a).max());
  std::printf("%-44s %.2g\n", what, difference);
  good &= difference <= limit;
}

}  // namespace

int main()
{
  using namespace gradus;
  using ens::test::RosenbrockFunction, ens::test::SphereFunction, ens::test::StyblinskiTangFunction;

  // ensmallen's Adam and AMSGrad add eps to the uncorrected root of v.
  const step_size::partially_adaptive root{.eps = 1e-8, .partial = 0.5};
  const auto adam = compose(1, first_moment::ema{0.9}, second_moment::ema{0.999}, root, decay::none{});
  const auto amsgrad = compose(1, first_moment::ema{0.9}, second_moment::ema_max{0.999}, root, decay::none{});

  std::printf("largest difference from ensmallen %u.%u.%u:\n", ens::version::major, ens::version::minor,
              ens::version::patch);
  compare("Adam, Rosenbrock, 5000 steps:", RosenbrockFunction(), 0.01, 5000, ens::AdamUpdate(1e-8), adam, 1e-12);
  compare("AMSGrad, Rosenbrock, 5000 steps:", RosenbrockFunction(), 0.01, 5000, ens::AMSGradUpdate(1e-8), amsgrad,
          1e-12);
  compare("Adam, sphere of 20 terms, 2000 steps:", SphereFunction(20), 0.01, 2000, ens::AdamUpdate(1e-8), adam, 1e-12);
  compare("AdaGrad, Styblinski-Tang, 2000 steps:", StyblinskiTangFunction(10), 0.3, 2000, ens::AdaGradUpdate(1e-8),
          adagrad{.eps = 1e-8}, 1e-12);
  compare("RMSProp, Styblinski-Tang, 2000 steps:", StyblinskiTangFunction(10), 0.003, 2000,
          ens::RMSPropUpdate(1e-8, 0.99), rmsprop{.alpha = 0.99, .eps = 1e-8}, 1e-12);
  compare("momentum, sphere of 20 terms, 2000 steps:", SphereFunction(20), 0.01, 2000, ens::MomentumUpdate(0.5),
          sgd{.momentum = 0.5}, 1e-12);
  compare<arma::fmat>("Adam in float, Rosenbrock, 500 steps:", RosenbrockFunction(), 0.01, 500, ens::AdamUpdate(1e-8),
                      adam, 1e-4);

  // A recipe that ensmallen does not have, to the minimum. Without resetPolicy its state outlives a run.
  RosenbrockFunction f;
  arma::mat x = f.GetInitialPoint<arma::mat>();
  ens::SGD<gradus_update<adan>> optimizer(0.02, 1, 4000, -1, false, gradus_update(adan{.weight_decay = 0}),
                                          ens::NoDecay(), false);
  for (int run = 0; run < 4; ++run, optimizer.StepSize() /= 10)
    optimizer.Optimize(f, x);
  std::printf("%-44s %.2g\n", "adan, Rosenbrock, the objective in the end:", f.Evaluate(x));
  return good && f.Evaluate(x) < 1e-8 ? 0 : 1;
}
