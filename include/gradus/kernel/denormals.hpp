#pragma once
/// \file
/// A guard under which the processor treats denormal numbers as zeros.

#include <cstdint>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// Sets flush-to-zero (and on x86 denormals-are-zero) for this thread, and restores the previous mode in its
/// destructor. Works on x86 with SSE and on 64-bit Arm; does nothing elsewhere.
class denormal_guard {
 public:
  /// \param wanted  false: does nothing
  explicit denormal_guard(bool wanted) noexcept : wanted_(wanted)
  {
    if (wanted_) {
      saved_ = mode();
      set_mode(saved_ | flush);
    }
  }
  denormal_guard(const denormal_guard&) = delete;
  ~denormal_guard()
  {
    if (wanted_)
      set_mode(saved_);
  }

 private:
#if defined(__GNUC__) && defined(__SSE__)
  using word = unsigned;
  static constexpr word flush = 0x8040;  // MXCSR: FTZ and DAZ
  static word mode() noexcept { return __builtin_ia32_stmxcsr(); }
  static void set_mode(word w) noexcept { __builtin_ia32_ldmxcsr(w); }
#elif defined(__GNUC__) && defined(__aarch64__)
  using word = std::uint64_t;
  static constexpr word flush = 1u << 24;  // FPCR: FZ
  static word mode() noexcept
  {
    word w;
    __asm__ volatile("mrs %0, fpcr" : "=r"(w));
    return w;
  }
  static void set_mode(word w) noexcept { __asm__ volatile("msr fpcr, %0" : : "r"(w) : "memory"); }
#else
  using word = unsigned;
  static constexpr word flush = 0;
  static word mode() noexcept { return 0; }
  static void set_mode(word) noexcept {}
#endif

  bool wanted_;
  word saved_ = 0;
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
