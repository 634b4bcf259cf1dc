// The loops of gradus::dispatch, compiled once for each instruction set (CMakeLists.txt here).
//
// A linker merges inline functions with the same name, and the program must not run the ones from this file. So no name
// here can occur in the rest of a program: all of gradus is in a namespace of this file's own (GRADUS_DISPATCH_UNIT in
// config.hpp), and functions of the standard library are inlined. Nothing here runs before main.

#include <array>
#include <string_view>

#include <gradus/backend/default.hpp>
#include <gradus/backend/dispatch.hpp>

#define GRADUS_TEXT_(x) #x
#define GRADUS_TEXT(x) GRADUS_TEXT_(x)

GRADUS_OPEN_NAMESPACE
namespace {

static_assert(std::string_view(GRADUS_TEXT(GRADUS_ISA_NAME)) == GRADUS_TEXT(GRADUS_DISPATCH_UNIT),
              "gradus: the compiler's flags select another instruction set than this file is for; expected none in "
              "CMAKE_CXX_FLAGS that -march does not override (such as -mavx2).");

// The caller's kernel is read as a kernel of this file, which -fno-strict-aliasing allows. After inlining, the copy
// loads its numbers into registers one by one, and stores to the weights cannot change them. (A copy of bytes would
// load in other widths than the caller has just stored, and the processor would wait 15 ns, as measured.)
template <class Kernel>
[[gnu::flatten]] void sweep(const void* kernel, void* theta, const void* g, const void* slots, std::size_t n) noexcept
{
  using T = typename Kernel::value_type;
  const Kernel own = *static_cast<const Kernel*>(kernel);
  default_backend{}.sweep(own, static_cast<T*>(theta), static_cast<const T*>(g), static_cast<T* const*>(slots), n);
}

template <class Term, class T>
[[gnu::flatten]] void sums(const void* x, std::size_t n, double* to) noexcept
{
  page_sums<Term>(default_backend{}, static_cast<const T*>(x), n, to);
}

constexpr auto sweeps = [] {
  std::array<dispatch_table::sweep_function, detail::dispatched_kernels> all{};
  std::size_t k = 0;
  detail::for_each_dispatched_kernel([&]<class Kernel>(std::type_identity<Kernel>) { all[k++] = &sweep<Kernel>; });
  return all;
}();

constexpr dispatch_table::sum_function sum_functions[] = {&sums<square_term, float>, &sums<square_term, double>,
                                                          &sums<plain_term, float>, &sums<plain_term, double>};

}  // namespace
GRADUS_CLOSE_NAMESPACE

#define GRADUS_DISPATCH_TABLE GRADUS_JOIN(gradus_dispatch_, GRADUS_ISA_NAME)
extern "C" {
extern const gradus::dispatch_table GRADUS_DISPATCH_TABLE;
constinit const gradus::dispatch_table GRADUS_DISPATCH_TABLE{GRADUS_TEXT(GRADUS_ISA_NAME),
                                                             gradus::detail::dispatch_layout(), gradus::sweeps.data(),
                                                             gradus::sum_functions};
}
