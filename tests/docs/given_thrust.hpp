#pragma once
// As given.hpp and given_opt.hpp, for docs/gpu.md: the vectors are its own.

#include <cstddef>

#include <gradus/backend/thrust.hpp>
#include <gradus/gradus.hpp>

inline constexpr std::size_t n = 1000;
inline int steps = 3;
inline double loss_scale = 1024;
inline gradus::optimizer<gradus::adamw, float, gradus::backend::thrust> opt;
inline constexpr gradus::schedule::cosine schedule{.t_max = 3};

template <class W, class G>
void compute(const W&, G&)
{}

#if defined(__CUDACC__)
inline cudaStream_t stream;
inline cudaGraph_t graph;
inline cudaGraphExec_t replay;
#endif
