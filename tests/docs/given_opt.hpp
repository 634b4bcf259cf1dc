#pragma once
// The optimizer that a page has made in an earlier fragment.

#include <gradus/gradus.hpp>

#include "given.hpp"

inline gradus::optimizer<gradus::adams> opt = [] {
  gradus::optimizer<gradus::adams> made;
  made.add("layer0.weight", weights, gradients);
  return made;
}();
