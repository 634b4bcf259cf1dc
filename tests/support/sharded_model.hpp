#pragma once
// A model that several ranks train together, and the plain optimizer of the same model.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gradus/distributed.hpp>
#include <gradus/gradus.hpp>

#include "support/thread_ranks.hpp"

namespace support {

template <class N>
N as_number(double x)
{
  if constexpr (gradus::real<N>)
    return N(x);
  else
    return N(float(x));
}

// Tensors of uneven size: empty, smaller than a page, of whole pages, larger than a shard.
inline const std::vector<std::size_t> sharded_sizes{5, 9001, 0, 4096, 64, 30000, 1, 700, 8191, 0, 4097, 33};
inline std::string sharded_name(std::size_t k) { return "layer/" + std::to_string(k); }
inline double sharded_start(std::size_t k, std::size_t i) { return std::cos(double(k) + 0.1 * double(i)); }
// The sum of the ranks' gradients, a small multiple of 1/64.
inline double sharded_gradient(std::size_t k, std::size_t i, int t)
{
  return (double(gradus::detail::mix(k * 1000003 + i * 17 + std::uint64_t(t) * 0x9e3779b97f4a7c15u) % 201) - 100) / 64;
}
// One rank's part of it: each rank adds a number that the next one subtracts, so that the sum is exact.
inline double sharded_gradient(std::size_t k, std::size_t i, int t, std::size_t rank, std::size_t ranks)
{
  const auto other = [&](std::size_t r) { return double((k + 3 * i + 7 * r + std::size_t(t)) % 41) - 20; };
  return (rank == 0 ? sharded_gradient(k, i, t) : 0) + (ranks == 1 ? 0 : other(rank) - other((rank + 1) % ranks)) / 64;
}

// Of a model with masks, which tensors have one, and which elements are trained: none of some pages, some of others.
inline bool sharded_masked(std::size_t k) { return k % 3 == 2 || k == 1; }
inline bool sharded_trained(std::size_t k, std::size_t i)
{
  return i / gradus::page_size % 3 != 1 && (i * 7 + k) % 5 != 0;
}

// Sets an array of a sharded optimizer, which may be in device memory, to the numbers at(i).
template <class Opt, class X, class At>
void set_values(Opt& opt, std::span<X> values, const At& at)
{
  std::vector<X> host(values.size());
  for (std::size_t i = 0; i < host.size(); ++i)
    host[i] = as_number<X>(at(i));
  opt.copy_memory(values.data(), host.data(), values.size_bytes());
}

template <class Opt, class X>
std::string bytes_of(const Opt& opt, std::span<X> values)
{
  std::string bytes(values.size_bytes(), '\0');
  opt.copy_memory(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Adds the model's tensors to a sharded optimizer, every third one in a group of its own, and sets its weights.
template <class Opt>
void add_sharded_model(Opt& opt, const typename Opt::recipe_type& second, bool has_masks = false)
{
  const auto g = opt.add_group(second);
  for (std::size_t k = 0; k < sharded_sizes.size(); ++k) {
    const auto in = k % 3 == 1 ? std::optional(g) : std::nullopt;
    const auto is_trained = [k](std::size_t i) { return sharded_trained(k, i); };
    if (has_masks && sharded_masked(k))
      opt.add(sharded_name(k), sharded_sizes[k], gradus::trained_mask(is_trained), in);
    else
      opt.add(sharded_name(k), sharded_sizes[k], in);
  }
  opt.commit();
  for (std::size_t k = 0; k < sharded_sizes.size(); ++k)
    set_values(opt, opt.parameters(sharded_name(k)), [k](std::size_t i) { return sharded_start(k, i); });
}
// \param world  a communicator
template <class Opt, class World>
void compute_sharded(Opt& opt, const World& world, int t)
{
  for (std::size_t k = 0; k < sharded_sizes.size(); ++k)
    set_values(opt, opt.gradients(sharded_name(k)),
               [&](std::size_t i) { return sharded_gradient(k, i, t, world.rank(), world.size()); });
}
template <class Opt>
std::string bytes_of_weights(Opt& opt)
{
  std::string all;
  for (std::size_t k = 0; k < sharded_sizes.size(); ++k)
    all += bytes_of(opt, opt.parameters(sharded_name(k)));
  return all;
}

// The plain optimizer of the whole model.
template <class Recipe, class T>
struct whole_model {
  using P = typename gradus::precision_of<T>::parameter_type;
  using G = typename gradus::precision_of<T>::gradient_type;
  std::vector<std::vector<P>> weights;
  std::vector<std::vector<G>> gradients;
  gradus::optimizer<Recipe, T> opt;
  std::vector<gradus::tensor_handle> handles;

  whole_model(const Recipe& first, const Recipe& second, bool has_masks = false) : opt(first)
  {
    const auto g = opt.add_group(second);
    for (std::size_t k = 0; k < sharded_sizes.size(); ++k) {
      weights.emplace_back();
      for (std::size_t i = 0; i < sharded_sizes[k]; ++i)
        weights.back().push_back(as_number<P>(sharded_start(k, i)));
      gradients.emplace_back(sharded_sizes[k]);
    }
    for (std::size_t k = 0; k < sharded_sizes.size(); ++k) {
      const auto is_trained = [k](std::size_t i) { return sharded_trained(k, i); };
      const gradus::trained_mask mask(is_trained);
      handles.push_back(opt.add_spans(sharded_name(k), std::span(weights[k]), std::span<const G>(gradients[k]),
                                      k % 3 == 1 ? std::optional(g) : std::nullopt,
                                      has_masks && sharded_masked(k) ? &mask : nullptr));
    }
  }
  void compute(int t)
  {
    for (std::size_t k = 0; k < sharded_sizes.size(); ++k)
      for (std::size_t i = 0; i < sharded_sizes[k]; ++i)
        gradients[k][i] = as_number<G>(sharded_gradient(k, i, t));
  }
  std::string bytes() const
  {
    std::string all;
    for (const auto& w : weights)
      all.append(reinterpret_cast<const char*>(w.data()), w.size() * sizeof(P));
    return all;
  }
};

// A run of the plain optimizer, step by step, which runs of sharded ones are held against.
template <class Recipe, class T>
struct plain_run {
  gradus::step_options options;
  std::vector<std::string> weights;
  std::vector<gradus::step_report> reports;

  // \param change(plain, t)  before step t
  template <class Change>
  plain_run(const Recipe& first, const Recipe& second, const gradus::step_options& o, int steps, const Change& change,
            bool has_masks = false)
      : options(o)
  {
    whole_model<Recipe, T> plain(first, second, has_masks);
    for (int t = 0; t < steps; ++t) {
      change(plain, t);
      plain.compute(t);
      reports.push_back(plain.opt.step(o));
      weights.push_back(plain.bytes());
    }
  }
  // Takes the same steps; gives how many have the same weights and report. \param change(opt, t)  before step t
  template <class Opt, class World, class Change>
  int steps_as_plain(Opt& opt, const World& world, const Change& change) const
  {
    int good = 0;
    for (std::size_t t = 0; t < reports.size(); ++t) {
      change(opt, int(t));
      compute_sharded(opt, world, int(t));
      // In an order of each rank's own, and not all.
      for (std::size_t k = world.rank(); k < sharded_sizes.size(); k += 1 + world.rank())
        opt.ready(sharded_name(k));
      const gradus::step_report r = opt.step(options);
      good += same(r, reports[t]) && same(opt.report(), r) && bytes_of_weights(opt) == weights[t];
    }
    return good;
  }

 private:
  static bool same(const gradus::step_report& a, const gradus::step_report& b)
  {
    return a.applied == b.applied && a.grad_norm == b.grad_norm && a.mean_square == b.mean_square &&
           a.decay_factor == b.decay_factor && a.decay_clamped == b.decay_clamped;
  }
};

}  // namespace support
