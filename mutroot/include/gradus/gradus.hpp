#pragma once
/// \file
/// All of gradus that needs no optional dependency, and the SIMD backend where xsimd is installed.

#include <gradus/any_optimizer.hpp>
#include <gradus/kernel.hpp>
#include <gradus/optimizer.hpp>
#include <gradus/recipes.hpp>
#include <gradus/schedule.hpp>
