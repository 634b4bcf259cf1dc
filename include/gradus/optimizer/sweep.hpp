#pragma once
/// \file
/// A range of one tensor's elements: decodes the state, runs the kernel, and encodes the state again. Knows number
/// types and no formulas.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <gradus/kernel/arrays.hpp>
#include <gradus/kernel/kernel.hpp>
#include <gradus/number/rounding.hpp>
#include <gradus/optimizer/decisions.hpp>
#include <gradus/state/slots.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The index of element i in the whole tensor, of which x may be a part. Random bits depend on it.
template <class Tensor>
GRADUS_HOST_DEVICE std::uint64_t index_in_whole(const Tensor& x, std::size_t i) noexcept
{
  if constexpr (requires { x.first_in_whole; })
    return x.first_in_whole + i;
  else
    return i;
}

/// A tensor's parameters and gradients from element i on, as arrays for the kernel. Parameters that are rounded
/// stochastically are used up to the end of a range of noise.
/// \tparam Slots   the number of slots; the parameters' random bits come after those of the slots
/// \tparam Tensor  a host's work item, or a device's record
/// \param key      selects the tensor's random bits in this step
template <class Precision, std::size_t Slots, class Tensor>
GRADUS_HOST_DEVICE auto parameters_of(const Tensor& x, [[maybe_unused]] std::uint64_t key, std::size_t i) noexcept
{
  using parameter = typename Precision::parameter_type;
  if constexpr (std::is_same_v<typename Precision::master_type, remainder16>)
    return completed{x.parameters, x.master.rest, x.master.above}.from(i);
  else if constexpr (Precision::has_master)
    return mirrored<parameter>{x.master + i, x.parameters + i};
  else if constexpr (short_float<parameter>)
    return stochastic<parameter>{x.parameters + i, {key, Slots, index_in_whole(x, i)}};
  else
    return x.parameters + i;
}
template <class Precision, class Tensor>
GRADUS_HOST_DEVICE auto gradients_of(const Tensor& x, std::size_t i) noexcept
{
  using gradient = typename Precision::gradient_type;
  if constexpr (short_float<gradient>)
    return readable<gradient>{x.gradients + i};
  else
    return x.gradients + i;
}

/// One pass over elements begin … end of a tensor; begin is a multiple of the page size.
/// \param key  selects the tensor's random bits in this step
template <pass Pass, class Model, class Backend>
void sweep(const Backend& backend, const typename Model::formula& prepared, const typename Model::work_item& x,
           std::uint64_t key, std::size_t begin, std::size_t end) noexcept
{
  constexpr std::size_t slots = Model::slots;
  if constexpr (std::is_same_v<typename Model::state_type, block8>) {
    static_assert(Pass == pass::whole,
                  "gradus: a pass over 8-bit state writes every slot, because it encodes them all.");
    for (std::size_t i = begin; i < end; i += stage) {
      const std::size_t n = end - i < stage ? end - i : stage;
      float next[slots + 1][stage];
      code_array<Backend> state[slots + 1] = {};
      for (std::size_t k = 0; k < slots; ++k)
        if (x.state[k])
          state[k] = x.state[k].from(i).template open<Backend>(next[k], n, Model::slot_list[k]);
      run<Pass>(backend, prepared, parameters_of<typename Model::precision_type, Model::slots>(x, key, i),
                gradients_of<typename Model::precision_type>(x, i), state, n);
      std::uint32_t words[stage];
      for (std::size_t k = 0; k < slots; ++k) {
        const noise random(key, k, x.first_in_whole + i);
        if (k % 2 == 0)
          random.words(words, n);
        // The kernel does not write the slots of an idle first moment.
        if (x.state[k] && prepared.keeps(k))
          x.state[k].from(i).close(backend, next[k], n, Model::slot_list[k], {words, random.shift});
      }
    }
  } else {
    const auto run_part = [&](std::size_t first, std::size_t last) noexcept {
      std::array<decltype(x.state[0].at(key, 0, 0)), slots + 1> state{};
      for (std::size_t k = 0; k < slots; ++k)
        if (x.state[k])
          state[k] = x.state[k].at(key, k, first, x.first_in_whole);
      run<Pass>(backend, prepared, parameters_of<typename Model::precision_type, Model::slots>(x, key, first),
                gradients_of<typename Model::precision_type>(x, first), state.data(), last - first);
    };
    if constexpr (Model::precision_type::stochastic)
      for_noise_ranges(x.first_in_whole + begin, x.first_in_whole + end, [&](std::uint64_t first, std::uint64_t last) {
        run_part(std::size_t(first - x.first_in_whole), std::size_t(last - x.first_in_whole));
      });
    else
      run_part(begin, end);
  }
}

/// The same for a tensor with a mask of trained elements. Those of a stage are gathered, and run as a tensor of their
/// own; an element's result does not depend on its place. If something is stored rounded by random bits, which do
/// depend on it, they run one by one.
template <pass Pass, class Model, class Backend>
void sweep_trained(const Backend& backend, const typename Model::formula& prepared, const typename Model::work_item& x,
                   std::uint64_t key, std::size_t begin, std::size_t end) noexcept
{
  using T = typename Model::value_type;
  constexpr std::size_t slots = Model::slots;
  constexpr bool is_plain = Model::keeps_exactly && std::is_same_v<typename Model::parameter_type, T> &&
                            std::is_same_v<typename Model::gradient_type, T> && !Model::precision_type::has_master;
  for (std::size_t i = begin; i < end; i += stage) {
    const std::size_t n = end - i < stage ? end - i : stage;
    std::uint16_t index[stage];
    std::size_t m = 0;
    for (std::size_t j = 0; j < n; ++j) {
      index[m] = std::uint16_t(j);
      m += x.trained[i + j];
    }
    if (m == n)
      sweep<Pass, Model>(backend, prepared, x, key, i, i + n);
    else if constexpr (is_plain) {
      T theta[stage], g[stage], state[slots + 1][stage];
      typename Model::work_item gathered = x;
      gathered.parameters = theta;
      gathered.gradients = g;
      for (std::size_t k = 0; k < slots; ++k)
        if (x.state[k]) {
          gathered.state[k].values = state[k];
          for (std::size_t j = 0; j < m; ++j)
            state[k][j] = x.state[k].values[i + index[j]];
        }
      for (std::size_t j = 0; j < m; ++j) {
        theta[j] = x.parameters[i + index[j]];
        g[j] = x.gradients[i + index[j]];
      }
      sweep<Pass, Model>(backend, prepared, gathered, key, 0, m);
      for (std::size_t k = 0; k < slots; ++k)
        for (std::size_t j = 0; j < m && x.state[k]; ++j)
          x.state[k].values[i + index[j]] = state[k][j];
      for (std::size_t j = 0; j < m; ++j)
        x.parameters[i + index[j]] = theta[j];
    } else if constexpr (!std::is_same_v<typename Model::state_type, block8>) {
      std::array<decltype(x.state[0].at(key, 0, 0)), slots + 1> state{};
      for (std::size_t k = 0; k < slots; ++k)
        if (x.state[k])
          state[k] = x.state[k].at(key, k, i, x.first_in_whole);
      const auto parameters = parameters_of<typename Model::precision_type, Model::slots>(x, key, i);
      const auto gradients = gradients_of<typename Model::precision_type>(x, i);
      with_kernel<Pass>(prepared, [&](const auto& kernel, std::size_t skipped) noexcept {
        for (std::size_t j = 0; j < m; ++j)
          apply_at<T>(kernel, parameters, gradients, state.data() + skipped, index[j]);
      });
    }
  }
}

/// Calls f(values) with n elements of a tensor, of which those that are not trained are shown as zeros.
/// \param trained  from the first of them on; null if all are
template <class X, class F>
double of_trained(const X* values, const std::uint8_t* trained, std::size_t n, const F& f) noexcept
{
  X copy[page_size];
  for (std::size_t i = 0; i < n; ++i)
    copy[i] = trained[i] ? values[i] : X{};
  return f(static_cast<const X*>(copy));
}

/// The sum of the next second moments over a page, which are computed but not stored. For moments that are stored
/// rounded, because weights are divided by the unrounded values.
template <class Model, class Backend>
double page_sum_of_next_moments(const Backend& backend, const typename Model::formula& prepared,
                                const typename Model::work_item& x, std::size_t begin, std::size_t n) noexcept
{
  constexpr std::size_t slots = Model::slots;
  return decoded_page_sum<plain_term>(backend, n, [&](std::size_t i, float* to, std::size_t m) {
    float next[slots + 1][stage];
    const auto open = [&](std::size_t k) {
      float* const values = k == Model::formula::value_slot ? to : next[k];
      return x.state[k].from(begin + i).template open<Backend>(values, m, Model::slot_list[k]);
    };
    decltype(open(0)) state[slots + 1] = {};
    for (std::size_t k = 0; k < slots; ++k)
      if (x.state[k])
        state[k] = open(k);
    run<pass::moments>(backend, prepared, parameters_of<typename Model::precision_type, Model::slots>(x, 0, begin + i),
                       gradients_of<typename Model::precision_type>(x, begin + i), state, m);
    for (std::size_t j = 0; x.trained && j < m; ++j)
      to[j] = x.trained[begin + i + j] ? to[j] : 0;
  });
}

/// Writes the average that a first moment stands for; of elements that never took a step, the parameters.
/// \param x  a tensor on the host  \param steps  that it has taken
template <class Model, class Rule>
void average_weights(const Rule& rule, const typename Model::tensor& x, std::uint64_t steps,
                     std::span<typename Model::parameter_type> to) noexcept
{
  using T = typename Model::value_type;
  struct {
    typename Model::parameter_type* parameters;
    decltype(x.master.get()) master;
  } const weights{x.parameters, x.master.get()};
  for (std::size_t i = 0; i < x.size; i += stage) {
    const std::size_t n = x.size - i < stage ? x.size - i : stage;
    T decoded[Model::slots + 1][stage];
    for (std::size_t k = 0; k < Model::first_slots; ++k) {
      const auto slot = x.state[k].view().from(i);
      if constexpr (Model::keeps_exactly)
        for (std::size_t j = 0; j < n; ++j)
          decoded[k][j] = slot.values[j];
      else
        slot.read(decoded[k], n, Model::slot_list[k]);
    }
    const auto parameters = parameters_of<typename Model::precision_type, Model::slots>(weights, 0, i);
    for (std::size_t j = 0; j < n; ++j) {
      T slots[Model::slots + 1] = {};
      for (std::size_t k = 0; k < Model::first_slots; ++k)
        slots[k] = decoded[k][j];
      const T theta = load<T>(parameters, j);
      const bool took_steps = steps > 0 && (x.trained.empty() || x.trained[i + j] != 0);
      to[i + j] = typename Model::parameter_type(took_steps ? rule.average(slots, theta) : theta);
    }
  }
}

/// The sum of each term of a step size with sums over a page. Stores the new moments, unless they are stored rounded,
/// because weights are divided by the unrounded values.
/// \param terms  memory for the terms
template <class Model, class Backend>
void sum_page_of_terms(const Backend& backend, const typename Model::formula& prepared,
                       const typename Model::work_item& x, std::size_t begin, std::size_t length,
                       page_of_terms<typename Model::formula>& terms, double* sums) noexcept
{
  using T = typename Model::value_type;
  using formula = typename Model::formula;
  constexpr std::size_t slots = Model::slots;
  // Runs n elements from the i-th of the page on, whose state is in these arrays.
  const auto run_part = [&](T* const* state, std::size_t i, std::size_t n) {
    T* of_part[formula::terms];
    for (std::size_t j = 0; j < formula::terms; ++j)
      of_part[j] = terms[j] + i;
    run_terms(backend, prepared, parameters_of<typename Model::precision_type, slots>(x, 0, begin + i),
              gradients_of<typename Model::precision_type>(x, begin + i), state, of_part, n);
  };
  T* state[slots + 1] = {};
  if (Model::keeps_exactly && !x.trained) {
    if constexpr (Model::keeps_exactly)
      for (std::size_t k = 0; k < slots; ++k)
        state[k] = x.state[k] ? x.state[k].values + begin : nullptr;
    run_part(state, 0, length);
  } else
    for (std::size_t i = 0; i < length; i += stage) {
      const std::size_t n = length - i < stage ? length - i : stage;
      const std::uint8_t* const trained = x.trained ? x.trained + begin + i : nullptr;
      T next[slots + 1][stage];
      for (std::size_t k = 0; k < slots; ++k) {
        state[k] = x.state[k] ? next[k] : nullptr;
        if constexpr (Model::keeps_exactly)
          for (std::size_t e = 0; e < n && x.state[k]; ++e)
            next[k][e] = x.state[k].values[begin + i + e];
        else if (x.state[k])
          x.state[k].from(begin + i).read(next[k], n, Model::slot_list[k]);
      }
      run_part(state, i, n);
      for (std::size_t e = 0; trained && e < n; ++e)
        for (std::size_t j = 0; j < formula::terms; ++j)
          terms[j][i + e] = trained[e] ? terms[j][i + e] : T(0);
      if constexpr (Model::keeps_exactly)  // with a mask
        for (std::size_t k = 0; k < slots; ++k)
          for (std::size_t e = 0; e < n && x.state[k]; ++e)
            if (trained[e] && prepared.keeps(k))
              x.state[k].values[begin + i + e] = next[k][e];
    }
  sum_terms<formula>(backend, terms, length, sums);
}

/// Whether a step would make a finite weight or moment of a page infinite or NaN.
template <class Model>
bool page_overflows(const typename Model::formula& prepared, const typename Model::work_item& x, std::size_t begin,
                    std::size_t length) noexcept
{
  using T = typename Model::value_type;
  constexpr std::size_t slots = Model::slots;
  for (std::size_t i = begin; i < begin + length; i += stage) {
    const std::size_t n = begin + length - i < stage ? begin + length - i : stage;
    T decoded[slots + 1][stage];
    for (std::size_t k = 0; k < slots; ++k) {
      if (!x.state[k])
        continue;
      if constexpr (Model::keeps_exactly)
        for (std::size_t j = 0; j < n; ++j)
          decoded[k][j] = x.state[k].values[i + j];
      else
        x.state[k].from(i).read(decoded[k], n, Model::slot_list[k]);
    }
    const auto parameters = parameters_of<typename Model::precision_type, Model::slots>(x, 0, i);
    const auto gradients = gradients_of<typename Model::precision_type>(x, i);
    for (std::size_t j = 0; j < n; ++j) {
      if (x.trained && !x.trained[i + j])
        continue;
      T slot[slots + 1] = {};
      for (std::size_t k = 0; k < slots; ++k)
        if (x.state[k])
          slot[k] = decoded[k][j];
      if (element_overflows(prepared, load<T>(parameters, j), load<T>(gradients, j), slot))
        return true;
    }
  }
  return false;
}

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
