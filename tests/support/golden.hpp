#pragma once
// Reads a file of tests/golden and makes the problem that it records (see golden/README.md).

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace golden {

struct problem {
  std::uint64_t seed = 0;
  std::vector<std::size_t> sizes;
  int steps = 0;
  std::vector<int> drops;
  std::vector<double> scales = {};  // of each tensor's gradients; empty for 1
  std::size_t undecayed = 1;        // the number of last tensors that are in a group with weight_decay 0
};

struct recording {
  std::string name;
  std::map<std::string, double> hyperparameters;
  std::map<int, std::vector<double>> at;
};

struct file {
  golden::problem problem;
  std::vector<recording> cases;
};

template <class T>
std::vector<T> split(const std::string& text)
{
  std::vector<T> parts;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, ',');)
    parts.push_back(static_cast<T>(std::stod(part)));
  return parts;
}

inline file read(const std::string& path)
{
  std::ifstream in(path);
  file f;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word, value;
    words >> word;
    if (word == "problem") {
      while (words >> word >> value) {
        if (word == "seed")
          f.problem.seed = std::stoull(value);
        if (word == "sizes")
          f.problem.sizes = split<std::size_t>(value);
        if (word == "steps")
          f.problem.steps = std::stoi(value);
        if (word == "drops")
          f.problem.drops = split<int>(value);
        if (word == "scales")
          f.problem.scales = split<double>(value);
        if (word == "undecayed")
          f.problem.undecayed = std::size_t(std::stoull(value));
      }
    } else if (word == "case") {
      f.cases.emplace_back();
      words >> f.cases.back().name;
      while (words >> word)
        if (const auto equals = word.find('='); equals != std::string::npos)
          f.cases.back().hyperparameters[word.substr(0, equals)] = std::stod(word.substr(equals + 1));
    } else if (word == "at") {
      int t = 0;
      words >> t;
      while (words >> word)
        f.cases.back().at[t].push_back(std::strtod(word.c_str(), nullptr));
    }
  }
  return f;
}

// The tensors of a problem: parameters and gradients of T, the gradient's coefficients in double.
template <class T, class Vector = std::vector<T>>
struct model {
  struct tensor {
    Vector weights, gradients;
    std::vector<double> a, b;
    double scale = 1;
  };
  std::vector<tensor> tensors;

  explicit model(const problem& p)
  {
    std::uint64_t s = p.seed;
    const auto draw = [&s] {
      s = s * 6364136223846793005u + 1442695040888963407u;
      return double(s >> 11) / 9007199254740992.0;
    };
    for (const std::size_t n : p.sizes) {
      tensor x;
      x.gradients.resize(n);
      if (!p.scales.empty())
        x.scale = p.scales[tensors.size()];
      for (std::size_t i = 0; i < n; ++i) {
        x.weights.push_back(T(-1 + 2 * draw()));
        x.a.push_back(0.1 + 1.9 * draw());
        x.b.push_back(-0.5 + draw());
      }
      tensors.push_back(std::move(x));
    }
  }

  void compute_gradients(int t)
  {
    for (tensor& x : tensors)
      for (std::size_t i = 0; i < x.weights.size(); ++i) {
        const double theta = double(x.weights[i]);
        x.gradients[i] = T(x.scale * (x.a[i] * theta + x.b[i] * std::sin(3 * theta + 0.1 * t)));
      }
  }
};

}  // namespace golden
