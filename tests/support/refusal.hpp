#pragma once
// The sentence of a refusal.

#include <stdexcept>
#include <string>

namespace support {

// The sentence with which f refuses; empty if it does not.
template <class F>
std::string refusal(const F& f)
{
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return {};
}

}  // namespace support
