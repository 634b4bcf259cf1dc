// Says what recorded trajectories follow: conformance FILE... prints the verdict on each case of files in the format of
// tests/golden/README.md in gradus's repository. For implementations that cannot call C++, C or Python.
//
//   g++ -std=c++17 -O2 main.cpp -o conformance

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>

#include "conformance.hpp"

namespace {

std::vector<double> numbers(const std::string& text)
{
  std::vector<double> all;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');)
    all.push_back(std::strtod(part.c_str(), nullptr));
  return all;
}

// A case of a file.
struct recording {
  std::string name;
  std::map<std::string, double> numbers;
  conformance::observations seen;
};

// The value of the first of these names that the case has.
double first_of(const recording& r, std::initializer_list<const char*> names, double otherwise)
{
  for (const char* const name : names)
    if (const auto found = r.numbers.find(name); found != r.numbers.end())
      return found->second;
  return otherwise;
}

conformance::settings settings_of(const recording& r)
{
  conformance::settings s;
  const double alpha = first_of(r, {"alpha"}, s.lr);  // RMSprop's beta2, or ggml's learning rate
  s.lr = first_of(r, {"lr", "learning_rate", "step_size"}, alpha);
  s.beta1 = first_of(r, {"beta1", "b1", "beta_1", "momentum1"}, s.beta1);
  s.beta2 = first_of(r, {"beta2", "b2", "beta_2", "momentum2", "rho", "decay"}, s.lr == alpha ? s.beta2 : alpha);
  s.eps = std::fmax(first_of(r, {"eps", "epsilon"}, s.eps), first_of(r, {"eps_root"}, 0));
  s.weight_decay = first_of(r, {"weight_decay", "wd"}, 0);
  s.momentum = first_of(r, {"momentum"}, 0);
  s.dampening = first_of(r, {"dampening"}, 0);
  s.nesterov = first_of(r, {"nesterov"}, 0) != 0;
  s.initial_accumulator = first_of(r, {"initial_accumulator", "initial_accumulator_value"}, 0);
  return s;
}

// A count of a file: a whole number of at most a million, otherwise 0.
std::size_t count_of(double x) { return x >= 0 && x <= 1e6 ? std::size_t(x) : 0; }
std::vector<std::size_t> counts(const std::vector<double>& list)
{
  std::vector<std::size_t> all;
  for (const double x : list)
    all.push_back(count_of(x));
  return all;
}

bool read(const char* path, std::vector<recording>& cases)
{
  std::ifstream in(path);
  conformance::problem p;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word, value;
    words >> word;
    if (word == "problem") {
      p = {};
      p.undecayed = 1;
      while (words >> word >> value) {
        const std::vector<double> list = numbers(value);
        if (word == "seed")
          p.seed = std::strtoull(value.c_str(), nullptr, 10);
        if (word == "sizes")
          p.sizes = counts(list);
        if (word == "steps")
          p.steps = int(counts(list)[0]);
        if (word == "drops") {
          const std::vector<std::size_t> steps = counts(list);
          p.drops.assign(steps.begin(), steps.end());
        }
        if (word == "scales")
          p.scales = list;
        if (word == "undecayed")
          p.undecayed = counts(list)[0];
      }
    } else if (word == "case") {
      recording r;
      words >> r.name;
      while (words >> word)
        if (const auto equals = word.find('='); equals != std::string::npos)
          r.numbers[word.substr(0, equals)] = std::strtod(word.c_str() + equals + 1, nullptr);
      r.seen.of = p;
      r.seen.single = r.numbers.count("float") > 0;
      cases.push_back(r);
    } else if (word == "at" && !cases.empty()) {
      int t = 0;
      words >> t;
      while (words >> word)
        cases.back().seen.at[t].push_back(std::strtod(word.c_str(), nullptr));
    }
  }
  return !cases.empty();
}

}  // namespace

int main(int count, char** files)
{
  if (count < 2) {
    std::cerr << "usage: conformance FILE...\n";
    return 2;
  }
  for (int i = 1; i < count; ++i) {
    std::vector<recording> cases;
    if (!read(files[i], cases)) {
      std::cerr << "conformance: " << files[i] << " has no case, or cannot be read\n";
      return 2;
    }
    for (const recording& r : cases)
      std::cout << "== " << r.name << '\n' << conformance::judge(settings_of(r), r.seen).text;
  }
}
