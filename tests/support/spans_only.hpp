#pragma once
// An optimizer as far as `add` and `rebind` see it: it keeps the spans that it is given.

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <gradus/optimizer/views.hpp>

template <class Parameter, class Gradient = Parameter, class Backend = void>
class spans_only : public gradus::range_front<spans_only<Parameter, Gradient, Backend>, Parameter, Gradient, Backend> {
 public:
  std::string name;
  std::span<Parameter> parameters;
  std::optional<std::span<const Gradient>> gradients;
  std::optional<gradus::group_handle> group;
  int calls = 0;

  gradus::tensor_handle add_spans(std::string_view n, std::span<Parameter> w,
                                  std::optional<std::span<const Gradient>> g, std::optional<gradus::group_handle> in,
                                  const gradus::trained_mask* = nullptr, const gradus::padding_mask* = nullptr)
  {
    name = n;
    group = in;
    rebind_spans({}, w, g);
    return {};
  }
  void rebind_spans(const gradus::tensor_handle&, std::span<Parameter> w, std::optional<std::span<const Gradient>> g)
  {
    parameters = w;
    gradients = g;
    ++calls;
  }
  void rebind_gradients_spans(const gradus::tensor_handle&, std::span<const Gradient> g)
  {
    gradients = g;
    ++calls;
  }
  void unbind_gradients(const gradus::tensor_handle&)
  {
    gradients.reset();
    ++calls;
  }
};
