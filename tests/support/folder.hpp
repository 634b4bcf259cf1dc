#pragma once
// A folder for the files of one test.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace support {

// A new folder, which is deleted at the end of the test.
struct folder {
  std::filesystem::path path;
  explicit folder(const std::string& name) : path(std::filesystem::current_path() / ("checkpoint_files_" + name))
  {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~folder() { std::filesystem::remove_all(path); }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
  std::size_t files() const { return std::size_t(std::distance(std::filesystem::directory_iterator(path), {})); }
};

inline std::string content(const std::filesystem::path& file)
{
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace support
