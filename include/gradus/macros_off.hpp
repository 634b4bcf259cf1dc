// No include guard: every header includes this after its other includes, and macros_on.hpp at its end.
//
// Saves and undefines macros of other libraries whose names are identifiers in our headers; macros_on.hpp restores
// them. Also turns off warnings that are wrong about our headers:
// - -Wshadow: g++ warns that names in a template's lambda shadow globals that the user declares after the header.
// - -Wmaybe-uninitialized: g++ warns that the number in an empty std::optional is read.
// - -Wuninitialized: g++ 12 warns about an undefined register in its own AVX-512 headers, inlined into our functions.
// - -Wuseless-cast: casts to std::size_t are needed where it is not the same type as std::uint64_t.
// - -Wswitch-default: contradicts -Wcovered-switch-default.
// - -Wctad-maybe-unsupported: warns about std::lock_guard.
// Also turns a warning of nvcc into an error, because device code would silently omit the call of a rule's function
// that lacks GRADUS_HOST_DEVICE.
#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014, 20015
#endif
#if defined(__clang__)
#pragma clang diagnostic push
#if __has_warning("-Wswitch-default")
#pragma clang diagnostic ignored "-Wswitch-default"
#endif
#pragma clang diagnostic ignored "-Wctad-maybe-unsupported"
#elif defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wuseless-cast"
#endif

// Qt
#pragma push_macro("slots")
#undef slots
#pragma push_macro("signals")
#undef signals
#pragma push_macro("emit")
#undef emit
#pragma push_macro("foreach")
#undef foreach
#pragma push_macro("slot")
#undef slot
// Apple's AssertMacros.h, Unreal
#pragma push_macro("check")
#undef check
#pragma push_macro("verify")
#undef verify
#pragma push_macro("require")
#undef require
#pragma push_macro("ensure")
#undef ensure
// windows.h, Arduino, f2c
#pragma push_macro("min")
#undef min
#pragma push_macro("max")
#undef max
#pragma push_macro("abs")
#undef abs
#pragma push_macro("round")
#undef round
#pragma push_macro("near")
#undef near
#pragma push_macro("far")
#undef far
#pragma push_macro("small")
#undef small
#pragma push_macro("hyper")
#undef hyper
#pragma push_macro("interface")
#undef interface
#pragma push_macro("byte")
#undef byte
#pragma push_macro("bit")
#undef bit
#pragma push_macro("sq")
#undef sq
// sockets and old C libraries
#pragma push_macro("select")
#undef select
#pragma push_macro("index")
#undef index
// curses
#pragma push_macro("move")
#undef move
#pragma push_macro("clear")
#undef clear
#pragma push_macro("erase")
#undef erase
// R, Perl, Torch 7
#pragma push_macro("length")
#undef length
#pragma push_macro("error")
#undef error
#pragma push_macro("seed")
#undef seed
#pragma push_macro("real")
#undef real
// numerical code, shaders, test libraries
#pragma push_macro("sign")
#undef sign
#pragma push_macro("range")
#undef range
#pragma push_macro("square")
#undef square
#pragma push_macro("norm")
#undef norm
#pragma push_macro("product")
#undef product
#pragma push_macro("step")
#undef step
#pragma push_macro("group")
#undef group
#pragma push_macro("sum")
#undef sum
#pragma push_macro("fail")
#undef fail
#pragma push_macro("show")
#undef show
#pragma push_macro("quote")
#undef quote
// complex.h, and types and registers in game engines and old C code
#pragma push_macro("A")
#undef A
#pragma push_macro("B")
#undef B
#pragma push_macro("C")
#undef C
#pragma push_macro("D")
#undef D
#pragma push_macro("E")
#undef E
#pragma push_macro("F")
#undef F
#pragma push_macro("G")
#undef G
#pragma push_macro("H")
#undef H
#pragma push_macro("I")
#undef I
#pragma push_macro("J")
#undef J
#pragma push_macro("K")
#undef K
#pragma push_macro("L")
#undef L
#pragma push_macro("M")
#undef M
#pragma push_macro("N")
#undef N
#pragma push_macro("O")
#undef O
#pragma push_macro("P")
#undef P
#pragma push_macro("Q")
#undef Q
#pragma push_macro("R")
#undef R
#pragma push_macro("S")
#undef S
#pragma push_macro("T")
#undef T
#pragma push_macro("U")
#undef U
#pragma push_macro("V")
#undef V
#pragma push_macro("W")
#undef W
#pragma push_macro("X")
#undef X
#pragma push_macro("Y")
#undef Y
#pragma push_macro("Z")
#undef Z
#pragma push_macro("EI")
#undef EI
#pragma push_macro("PI")
#undef PI
