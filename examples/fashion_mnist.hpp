#pragma once
// The images and the random numbers of the demo and the study.

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <zlib.h>

#include <Eigen/Core>

namespace fashion_mnist {

using Eigen::Index;
using bytes = std::vector<unsigned char>;
namespace fs = std::filesystem;

constexpr Index side = 28, pixels = side * side, classes = 10;
constexpr float pixel_mean = 0.286f, pixel_deviation = 0.353f;  // of the 60 000 images, with black 0 and white 1
constexpr Index train_count = 60'000, test_count = 10'000;
constexpr const char* usual_folder = "/usr/share/datasets/fashion-mnist";

struct data_set {
  bytes images, labels;
};

[[noreturn]] inline void refuse(const fs::path& file, const std::string& found, const std::string& expected)
{
  throw std::runtime_error(file.string() + ": found " + found + "; expected " + expected +
                           " (Debian's package dataset-fashion-mnist brings this file)");
}

/// The elements of a gzipped IDX file of unsigned bytes: magic number, dimensions, elements; numbers are big-endian.
inline bytes read_idx(const fs::path& file, const std::vector<Index>& dimensions)
{
  std::vector<Index> header = {0x800 + Index(dimensions.size())};
  header.insert(header.end(), dimensions.begin(), dimensions.end());
  const std::size_t start = 4 * header.size();
  const auto elements = std::accumulate(dimensions.begin(), dimensions.end(), Index(1), std::multiplies<>());
  const std::size_t size = start + std::size_t(elements);

  const std::unique_ptr<gzFile_s, int (*)(gzFile)> gz(gzopen(file.c_str(), "rb"), gzclose);
  if (!gz)
    refuse(file, std::strerror(errno), "a readable file");
  bytes content(size + 1);  // one byte more than expected, so that zlib reaches the end and compares the checksum
  const int count = gzread(gz.get(), content.data(), unsigned(content.size()));
  int error = Z_OK;
  const std::string message = gzerror(gz.get(), &error);
  if (error != Z_OK)
    refuse(file, "an unreadable file:" + message.substr(message.rfind(':') + 1), "a whole gzip file");
  content.resize(std::size_t(count));

  for (std::size_t k = 0; k < header.size() && 4 * k + 4 <= content.size(); ++k) {
    const unsigned char* b = &content[4 * k];
    const Index found = Index(b[0]) << 24 | Index(b[1]) << 16 | Index(b[2]) << 8 | Index(b[3]);
    const std::string what = k == 0 ? "magic number " : "dimension " + std::to_string(k) + " = ";
    if (found != header[k])
      refuse(file, what + std::to_string(found), std::to_string(header[k]));
  }
  if (content.size() > size)
    refuse(file, "more than " + std::to_string(size) + " bytes", "no more");
  if (content.size() < size)
    refuse(file, std::to_string(content.size()) + " bytes", std::to_string(size));
  content.erase(content.begin(), content.begin() + std::ptrdiff_t(start));
  return content;
}

inline data_set read_data(const fs::path& folder, const std::string& part, Index count)
{
  const fs::path labels = folder / (part + "-labels-idx1-ubyte.gz");
  data_set read{read_idx(folder / (part + "-images-idx3-ubyte.gz"), {count, side, side}), read_idx(labels, {count})};
  const auto largest = *std::max_element(read.labels.begin(), read.labels.end());
  if (largest >= classes)
    refuse(labels, "label " + std::to_string(largest), "0 to " + std::to_string(classes - 1));
  return read;
}

/// Random numbers that are the same everywhere. (The standard's distributions and shuffle differ between libraries.)
class random_numbers {
 public:
  explicit random_numbers(std::uint64_t seed) : engine_(seed) {}
  double uniform() { return double(engine_() >> 11) * 0x1p-53; }  // in [0, 1)
  void shuffle(std::vector<Index>& order)
  {
    for (std::size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1], order[std::size_t(uniform() * double(i))]);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace fashion_mnist
