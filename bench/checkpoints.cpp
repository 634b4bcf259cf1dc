// Compares save and load with a plain write and read of the same bytes: `checkpoints [FOLDER]`. Each write is flushed
// to the disk and renamed, as in a save; the reads come from the page cache.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <gradus/checkpoint.hpp>

#include "model.hpp"

namespace {

constexpr int rounds = 7;

void require(bool good, const char* what)
{
  if (good)
    return;
  std::perror(what);
  std::exit(1);
}

template <class F>
double seconds(const F& f)
{
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::array<double, rounds> x)
{
  std::sort(x.begin(), x.end());
  return x[rounds / 2];
}

void plain_write(const std::string& path, const std::vector<char>& bytes)
{
  const std::string partial = path + ".plain";
  const int file = open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  require(file >= 0, "open");
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = write(file, bytes.data() + done, bytes.size() - done);
    require(n > 0, "write");
    done += std::size_t(n);
  }
  require(fsync(file) == 0 && close(file) == 0 && std::rename(partial.c_str(), path.c_str()) == 0, "fsync");
}

void plain_read(const std::string& path, std::vector<char>& bytes)
{
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(file >= 0, "open");
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = read(file, bytes.data() + done, bytes.size() - done);
    require(n > 0, "read");
    done += std::size_t(n);
  }
  close(file);
}

void measure(const std::string& folder, const bench::shape& s)
{
  const bench::model<float> x(s);
  gradus::optimizer<gradus::adamw> opt;
  x.add_to(opt);
  opt.step();
  const std::string path = folder + "/gradus_bench.safetensors", plain = folder + "/gradus_bench.plain";
  const gradus::save_options o{.parameters = true};
  gradus::save(opt, path, o);
  std::vector<char> bytes(std::filesystem::file_size(path));
  plain_read(path, bytes);
  plain_write(plain, bytes);
  std::array<double, rounds> saved, written, loaded, read;
  for (std::size_t r = 0; r < rounds; ++r) {
    written[r] = seconds([&] { plain_write(plain, bytes); });
    saved[r] = seconds([&] { gradus::save(opt, path, o); });
    read[r] = seconds([&] { plain_read(plain, bytes); });
    loaded[r] = seconds([&] { gradus::load(opt, path); });
  }
  const double gb = double(bytes.size()) * 1e-9;
  std::printf("%-12s %9.1f  %9.2f %9.2f  %9.2f %9.2f\n", s.name.c_str(), gb * 1e3, gb / median(saved),
              gb / median(written), gb / median(loaded), gb / median(read));
  std::remove(path.c_str());
  std::remove(plain.c_str());
}

}  // namespace

int main(int argc, char** argv)
{
  const std::string folder = argc > 1 ? argv[1] : ".";
  std::printf("AdamW with its parameters, float, in %s; GB/s, medians of %d\n", folder.c_str(), rounds);
  std::printf("%-12s %9s  %9s %9s  %9s %9s\n", "parameters", "MB", "save", "write", "load", "read");
  for (const bench::shape& s : {bench::shape{1, 1 << 24}, {1000, 1000}, {10000, 64}})
    measure(folder, s);
}
