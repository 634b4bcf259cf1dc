#pragma once
// The state of an optimizer, saved and restored through visit_state.

#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>

#include <doctest/doctest.h>

namespace support {

// All that visit_state shows, as bytes under "name/key".
using checkpoint = std::map<std::string, std::string>;

template <class Optimizer>
checkpoint save(const Optimizer& opt)
{
  checkpoint c;
  opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
    static_assert(std::is_const_v<typename decltype(values)::element_type>);
    std::string& bytes = c[std::string(name) + '/' + std::string(key)];
    CHECK(bytes.empty());  // no key twice
    if (!values.empty())
      bytes.assign(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  });
  return c;
}

template <class Optimizer>
void restore(Optimizer& opt, const checkpoint& c)
{
  std::size_t used = 0;
  opt.visit_state([&](std::string_view name, std::string_view key, auto values) {
    const std::string& bytes = c.at(std::string(name) + '/' + std::string(key));
    REQUIRE(bytes.size() == values.size_bytes());
    if (!values.empty())
      std::memcpy(values.data(), bytes.data(), bytes.size());
    ++used;
  });
  CHECK(used == c.size());
}

}  // namespace support
