#pragma once
/// \file
/// Shows the state of a sharded optimizer as that of whole tensors: arrays of which this rank has some ranges. Knows the
/// list of the optimizer of this rank's parts: first an empty tensor for each whole one, then the parts.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gradus/checkpoint/transfer.hpp>
#include <gradus/distributed/layout.hpp>
#include <gradus/number/block8.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE
namespace detail {

/// The values of one part in an array of a whole tensor: elements first … first + n. They are in memory, or are read and
/// written piece by piece.
struct values_of_part {
  std::size_t first = 0, n = 0;
  void* data = nullptr;
  std::function<void(std::size_t begin, std::size_t n, void* to)> read = {};           // if not in memory
  std::function<void(std::size_t begin, std::size_t n, const void* from)> write = {};  // likewise
};

}  // namespace detail

/// An array of a whole tensor, of which this rank has some ranges. \tparam X  const if the values may not be written
template <class X>
class sharded_values {
 public:
  using element_type = X;  ///< the type of an element

  /// Used by the sharded optimizer.
  sharded_values(std::size_t size, std::span<const detail::values_of_part> parts) : size_(size), parts_(parts) {}
  /// The number of elements of the whole array.
  std::size_t size() const noexcept { return size_; }
  /// The parts that this rank has, in order.
  std::span<const detail::values_of_part> parts() const noexcept { return parts_; }

  /// Used by load: writes pieces as far as they are in this rank's ranges.
  friend detail::piece_writer piece_writer_of(const sharded_values& values)
  {
    return {&values,
            [](const void* self, std::size_t begin, std::size_t n, const void* from) {
              static_cast<const sharded_values*>(self)->write(begin, n, static_cast<const unsigned char*>(from));
            },
            [](const void* self, std::size_t begin, std::size_t n) {
              for (const detail::values_of_part& p : static_cast<const sharded_values*>(self)->parts_)
                if (begin < p.first + p.n && p.first < begin + n)
                  return true;
              return false;
            }};
  }

 private:
  void write(std::size_t begin, std::size_t n, const unsigned char* from) const
  {
    for (const detail::values_of_part& p : parts_) {
      const std::size_t p_end = p.first + p.n, first = begin > p.first ? begin : p.first,
                        last = begin + n < p_end ? begin + n : p_end;
      if (first >= last)
        continue;
      const unsigned char* const bytes = from + (first - begin) * sizeof(X);
      if (p.data)
        std::memcpy(static_cast<X*>(p.data) + (first - p.first), bytes, (last - first) * sizeof(X));
      else
        p.write(first - p.first, last - first, bytes);
    }
  }

  std::size_t size_;
  std::span<const detail::values_of_part> parts_;
};

namespace detail {

/// Finds the arrays of every part. Used as a visitor of state. \tparam Place  a memory_place, where they are
template <class Place>
class part_collector {
 public:
  part_collector(std::size_t tensors, const Place& place) : tensors_(tensors), place_(place) {}

  template <class Values>
  void operator()(std::string_view tensor, std::string_view slot, const Values& values) const
  {
    if (tensor.empty())
      return;
    if (slots_ == 0 || tensor.data() != last_.data()) {
      ++seen_;
      slots_ = 0;
      is_number_ = false;
      last_ = tensor;
      if (seen_ > tensors_)
        arrays_.emplace_back();
    }
    ++slots_;
    is_number_ = is_number_ || slot == "step";  // and what follows it
    if (seen_ <= tensors_ || is_number_)
      return;
    values_of_part part;
    part.n = values.size();
    using element = std::remove_const_t<typename Values::element_type>;
    if constexpr (requires { values.data(); } && !Place::on_device)
      part.data = const_cast<element*>(values.data());
    else if constexpr (requires { values.data(); }) {
      part.read = [values, &place = place_](std::size_t begin, std::size_t n, void* to) {
        place.copy(to, values.data() + begin, n * sizeof(element));
      };
      if constexpr (std::is_same_v<element, typename Values::element_type>)
        part.write = [values, &place = place_](std::size_t begin, std::size_t n, const void* from) {
          place.copy(values.data() + begin, from, n * sizeof(element));
        };
    } else {
      part.read = [values](std::size_t begin, std::size_t n, void* to) { values.read(begin, n, to); };
      if constexpr (requires { values.write(0, 0, nullptr); })
        part.write = [values](std::size_t begin, std::size_t n, const void* from) { values.write(begin, n, from); };
    }
    arrays_.back().push_back(std::move(part));
  }
  /// The number of arrays of a part.
  std::size_t arrays_of(std::size_t part) const { return arrays_[part].size(); }
  /// The array in slot s of a part.
  const values_of_part& array(std::size_t part, std::size_t s) const { return arrays_[part][s]; }

 private:
  std::size_t tensors_;
  const Place& place_;
  mutable std::size_t seen_ = 0, slots_ = 0;
  mutable bool is_number_ = false;
  mutable std::string_view last_;
  mutable std::vector<std::vector<values_of_part>> arrays_;  // of each part, by slot
};

/// Passes whole tensors on to a visitor, and copies the counts and sums that it writes to the parts.
template <class Visitor, class Found>
class whole_visitor {
 public:
  /// \param is_masked  of each tensor, whether it has a mask; an empty tensor does not show that of its parts
  whole_visitor(Visitor& visit, const Found& found, const std::vector<std::size_t>& sizes,
                const std::vector<tensor_part>& parts, const std::vector<unsigned char>& is_masked)
      : visit_(visit), found_(found), sizes_(sizes), parts_(parts), is_masked_(is_masked), numbers_(sizes.size())
  {}

  template <class Values>
  void operator()(std::string_view tensor, std::string_view slot, const Values& values) const
  {
    if (tensor.empty())
      return visit_(tensor, slot, values);
    if (is_first_ || tensor.data() != last_.data()) {
      index_ += is_first_ ? 0 : 1;
      is_first_ = false;
      last_ = tensor;
      slot_ = 0;
      is_number_ = is_mask_shown_ = false;
    }
    is_number_ = is_number_ || slot == "step";
    if (index_ < sizes_.size() && is_masked_[index_] && !is_mask_shown_ && (slot == "master" || is_number_)) {
      using element = typename Values::element_type;
      show_parts<std::conditional_t<std::is_const_v<element>, const std::uint8_t, std::uint8_t>>(tensor, "trained");
      is_mask_shown_ = true;
      ++slot_;
    }
    if (index_ < sizes_.size())
      show(tensor, slot, values);
    else if constexpr (requires { values.data(); })
      if (is_number_)
        copy_number(values);
    ++slot_;
  }

 private:
  /// Shows an array or a number of a whole tensor.
  template <class Values>
  void show(std::string_view tensor, std::string_view slot, const Values& values) const
  {
    using element = typename Values::element_type;
    if constexpr (requires { values.data(); })
      if (is_number_) {
        visit_(tensor, slot, values);
        std::uint64_t bits = 0;
        std::memcpy(&bits, values.data(), sizeof(element));
        return numbers_[index_].push_back(bits);
      }
    show_parts<element>(tensor, slot);
  }
  /// Shows an array, of which the parts have pieces.
  template <class element>
  void show_parts(std::string_view tensor, std::string_view slot) const
  {
    const bool is_scale = std::is_same_v<std::remove_const_t<element>, float> && slot.ends_with("_scale");
    const std::size_t unit = is_scale ? block8::block : 1, n = sizes_[index_];
    std::vector<values_of_part> all;
    // The parts of a tensor follow one another, and those of the next tensor follow them.
    while (part_ < parts_.size() && parts_[part_].tensor < index_)
      ++part_;
    for (std::size_t k = part_; k < parts_.size() && parts_[k].tensor == index_; ++k) {
      all.push_back(found_.array(k, slot_));
      all.back().first = parts_[k].first / unit;
    }
    visit_(tensor, slot, sharded_values<element>(n / unit + (n % unit != 0), all));
  }
  template <class Values>
  void copy_number(const Values& values) const
  {
    using element = typename Values::element_type;
    if constexpr (!std::is_const_v<element>) {
      const auto& of_whole = numbers_[parts_[index_ - sizes_.size()].tensor];
      const std::size_t first_number = found_.arrays_of(index_ - sizes_.size());
      std::memcpy(values.data(), &of_whole[slot_ - first_number], sizeof(element));
    }
  }

  Visitor& visit_;
  const Found& found_;
  const std::vector<std::size_t>& sizes_;
  const std::vector<tensor_part>& parts_;
  const std::vector<unsigned char>& is_masked_;
  mutable std::vector<std::vector<std::uint64_t>> numbers_;  // of each whole tensor, from "step" on
  mutable std::string_view last_;
  mutable std::size_t index_ = 0, slot_ = 0, part_ = 0;
  mutable bool is_first_ = true, is_number_ = false, is_mask_shown_ = false;
};

}  // namespace detail
GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
