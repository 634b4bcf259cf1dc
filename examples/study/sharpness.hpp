#pragma once
// The norm of a model's numbers, and the curvature of its loss.

#include <algorithm>
#include <cstddef>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include "../fashion_mnist.hpp"
#include "task.hpp"

namespace study {

inline Eigen::Map<const Eigen::VectorXf> vector_of(const numbers& x) { return {x.data(), Eigen::Index(x.size())}; }

inline double norm(const numbers& x) { return vector_of(x).cast<double>().norm(); }

/// The largest eigenvalue of the Hessian of the probe's loss, by the method of Lanczos with full orthogonalisation, on
/// products (∇L(θ + hv) − ∇L(θ − hv))/2h. A dozen steps give the largest to a percent.
inline double sharpness(task& model)
{
  constexpr Eigen::Index steps = 12;
  const numbers start = model.parameters;
  const auto n = Eigen::Index(start.size());
  const double h = 1e-3 * std::max(1.0, norm(start));
  const auto gradients_at = [&](const Eigen::VectorXd& v, double distance) {
    for (std::size_t i = 0; i < start.size(); ++i)
      model.parameters[i] = float(double(start[i]) + distance * v[Eigen::Index(i)]);
    model.probe_gradients();
    return Eigen::VectorXd(vector_of(model.gradients).cast<double>());
  };

  fashion_mnist::random_numbers random(1);
  Eigen::MatrixXd basis(n, steps + 1);
  for (Eigen::Index i = 0; i < n; ++i)
    basis(i, 0) = random.uniform() - 0.5;
  basis.col(0).normalize();
  Eigen::MatrixXd projected = Eigen::MatrixXd::Zero(steps + 1, steps + 1);
  Eigen::Index done = 0;
  while (done < steps) {
    Eigen::VectorXd next = (gradients_at(basis.col(done), h) - gradients_at(basis.col(done), -h)) / (2 * h);
    projected(done, done) = next.dot(basis.col(done));
    for (int twice = 0; twice < 2; ++twice)
      next -= basis.leftCols(done + 1) * (basis.leftCols(done + 1).transpose() * next).eval();
    ++done;
    const double length = next.norm();
    if (!(length > 1e-12))
      break;
    projected(done, done - 1) = projected(done - 1, done) = length;
    basis.col(done) = next / length;
  }
  model.parameters = start;
  return Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(projected.topLeftCorner(done, done)).eigenvalues().maxCoeff();
}

}  // namespace study
