#pragma once
/// \file
/// All of gradus that needs no dependency, and the SIMD backend if xsimd is installed. checkpoint.hpp is separate.

#include <gradus/any_optimizer.hpp>
#include <gradus/average.hpp>
#include <gradus/kernel.hpp>
#include <gradus/optimizer.hpp>
#include <gradus/recipes.hpp>
#include <gradus/schedule.hpp>
