// How arrays go between a checkpoint and the optimizer's memory: on a device, in another type, of any size, and from a
// source that fails.

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <gradus/checkpoint.hpp>

#include "support/checkpoint_model.hpp"
#include "support/folder.hpp"

namespace {
struct short_number {  // a type of element of somebody's own
  std::uint16_t bits;
};
}  // namespace
template <>
inline constexpr std::string_view gradus::safetensors::dtype_name<short_number> = "BF16";

using namespace support;
using gradus::optimizer;

namespace {

// An optimizer of one tensor "w", as far as checkpoints see it: Self has visit_all(self, visitor) for the state, and
// parameters_of(self).
template <class Self>
struct one_tensor {
  bool takes_part = true;

  std::string_view name() const { return "adam"; }
  std::size_t group_count() const { return 1; }
  double lr_scale(gradus::group_handle) const { return 1; }
  void set_lr_scale(double, gradus::group_handle) {}
  gradus::group_handle group_at(std::size_t) const { return {}; }
  std::vector<gradus::named_number> hyperparameters(gradus::group_handle) const { return {{"lr", 0.5}}; }
  void check_hyperparameters(std::span<const gradus::named_number>, gradus::group_handle) const {}
  void set_hyperparameters(std::span<const gradus::named_number>, gradus::group_handle) {}
  void recompute_second_moment_sum() {}
  template <class Visit>
  void visit_state(Visit&& visit)
  {
    Self::visit_all(static_cast<Self&>(*this), visit);
  }
  template <class Visit>
  void visit_state(Visit&& visit) const
  {
    Self::visit_all(static_cast<const Self&>(*this), visit);
  }
  template <class Visit>
  void visit_tensors(Visit&& visit)
  {
    visit(std::string_view("w"), Self::parameters_of(static_cast<Self&>(*this)), std::size_t{}, takes_part);
  }
  template <class Visit>
  void visit_tensors(Visit&& visit) const
  {
    visit(std::string_view("w"), Self::parameters_of(static_cast<const Self&>(*this)), std::size_t{}, takes_part);
  }
};

// What an optimizer of bfloat16 parameters with float master weights, moments of eight bits and stochastic rounding
// shows.
struct mixed : one_tensor<mixed> {
  using value_type = short_number;
  std::vector<short_number> parameters{{0x3f80}, {0xc000}};  // 1, −2
  std::vector<float> master{1.001f, -2.002f}, scale{0.5f};
  std::vector<std::uint8_t> codes{7, 9};
  std::uint64_t step = 5, seed = 0x123456789abcdef0;

  template <class Self, class Visit>
  static void visit_all(Self& self, Visit& visit)
  {
    const std::string_view w = "w";
    visit(w, std::string_view("exp_avg"), std::span(self.codes));
    visit(w, std::string_view("exp_avg_scale"), std::span(self.scale));
    visit(w, std::string_view("master"), std::span(self.master));
    visit(w, std::string_view("step"), std::span(&self.step, 1));
    visit(std::string_view(), std::string_view("seed"), std::span(&self.seed, 1));
  }
  template <class Self>
  static auto parameters_of(Self& self)
  {
    return std::span(self.parameters);
  }
};

// An optimizer in a device's memory, where every bit stands for its opposite: who touches it directly is found out.
struct elsewhere : one_tensor<elsewhere> {
  static constexpr bool on_device = true;
  using value_type = float;
  static constexpr std::size_t n = 300'000;  // more than is on its way at a time
  std::vector<float> memory = std::vector<float>(3 * n);
  std::uint64_t step = 5;

  bool is_mine(const void* p) const { return p >= memory.data() && p < memory.data() + memory.size(); }
  void copy_memory(void* to, const void* from, std::size_t bytes) const
  {
    CHECK(bytes <= std::size_t(1) << 20);
    const unsigned char flip = is_mine(to) != is_mine(from) ? 0xff : 0;
    for (std::size_t i = 0; i < bytes; ++i)
      static_cast<unsigned char*>(to)[i] = static_cast<const unsigned char*>(from)[i] ^ flip;
  }
  template <class Self, class Visit>
  static void visit_all(Self& self, Visit& visit)
  {
    static_assert(Visit::takes_device_memory);
    visit(std::string_view("w"), std::string_view("exp_avg"), std::span(self.memory).first(n));
    visit(std::string_view("w"), std::string_view("exp_avg_sq"), std::span(self.memory).subspan(n, n));
    visit(std::string_view("w"), std::string_view("step"), std::span(&self.step, 1));
  }
  template <class Self>
  static auto parameters_of(Self& self)
  {
    return std::span(self.memory).last(n);
  }
};

}  // namespace

TEST_CASE("transfer: a device's memory is copied piece by piece")
{
  tensor w(elsewhere::n);
  optimizer<gradus::adam> here({.lr = 0.5});
  here.add("w", w.weights, w.gradients);
  for (int t = 0; t < 3; ++t)
    here.step();
  elsewhere there;
  load_bytes(there, checkpoint_of(here), {.settings = false});
  std::vector<float> brought(elsewhere::n);
  const auto is_there = [&](std::size_t slot, const float* expected) {
    for (std::size_t i = 0; i < elsewhere::n; ++i)
      brought[i] = std::bit_cast<float>(~std::bit_cast<std::uint32_t>(there.memory[slot * elsewhere::n + i]));
    return std::memcmp(brought.data(), expected, elsewhere::n * sizeof(float)) == 0;
  };
  CHECK(is_there(0, here.state("w", "exp_avg").data()));
  CHECK(is_there(1, here.state("w", "exp_avg_sq").data()));
  CHECK(is_there(2, w.weights.data()));
  CHECK(there.step == 3);
  // And back; and in another precision.
  tensor v(elsewhere::n);
  tensor<double> d(elsewhere::n);
  optimizer<gradus::adam> back({.lr = 0.5});
  optimizer<gradus::adam, double> in_double;
  back.add("w", v.weights, v.gradients);
  in_double.add("w", d.weights, d.gradients);
  load_bytes(back, checkpoint_of(there), {.settings = false});
  CHECK(checkpoint_of(back) == checkpoint_of(here));
  load_bytes(in_double, checkpoint_of(there), {.settings = false, .convert = true});
  CHECK(d.weights[elsewhere::n - 1] == double(w.weights.back()));
  there = {};
  load_bytes(there, checkpoint_of(in_double), {.settings = false, .convert = true});
  CHECK(is_there(0, here.state("w", "exp_avg").data()));
  CHECK(is_there(2, w.weights.data()));
}

TEST_CASE("transfer: slots of any type, and master weights that follow the parameters")
{
  const mixed saved;
  CHECK((entries_of(checkpoint_of(saved)) == std::map<std::string, std::string>{{"parameters/w", "BF16 2"},
                                                                                {"state//seed", "U64 1"},
                                                                                {"state/w/exp_avg", "U8 2"},
                                                                                {"state/w/exp_avg_scale", "F32 1"},
                                                                                {"state/w/master", "F32 2"},
                                                                                {"state/w/step", "U64 1"}}));
  const auto fresh = [] {
    mixed m;
    m.parameters = {{0}, {0}};
    m.master = {0, 0};
    m.scale = {0};
    m.codes = {0, 0};
    m.step = m.seed = 0;
    return m;
  };
  mixed m = fresh();
  load_bytes(m, checkpoint_of(saved));
  CHECK(checkpoint_of(m) == checkpoint_of(saved));

  // Parameters of a run in float are the master weights, rounded; and moments of floats are no codes.
  tensor w(2);
  w.weights = {1.001f, -2.002f};
  optimizer<gradus::adam> in_float({.lr = 0.5});
  in_float.add("w", w.weights, w.gradients);
  m = fresh();
  auto report = load_bytes(m, checkpoint_of(in_float), {.lenient = true, .convert = true});
  CHECK((m.master == w.weights));
  CHECK(m.parameters[0].bits == 0x3f80);
  CHECK(m.codes[0] == 0);
  CHECK(m.step == 0);
  CHECK((report.afresh == std::vector<std::string>{"w", "/seed"}));

  // Parameters of bfloat16 alone: the master weights are those.
  std::string bytes = checkpoint_of(saved);
  bytes.replace(bytes.find("w/master"), 8, "w/mister");
  m = fresh();
  report = load_bytes(m, bytes, {.lenient = true});
  CHECK((m.master == std::vector<float>{1, -2}));
  CHECK(m.codes[1] == 9);
  CHECK(m.step == 5);
  CHECK(report.afresh.empty());
  // Not where the caller's own parameters stay.
  m = fresh();
  report = load_bytes(m, bytes, {.parameters = false, .lenient = true});
  CHECK((m.master == std::vector<float>{0, 0}));
  CHECK((report.afresh == std::vector<std::string>{"w/master"}));
}

TEST_CASE("convert: loads a checkpoint of another precision")
{
  model<optimizer<gradus::adams, double>> in_double(5, scheduled), back(0, scheduled);
  model<optimizer<gradus::adams, float>> in_float(0, scheduled);
  const auto report = load_bytes(in_float.opt, checkpoint_of(in_double.opt), {.convert = true});
  CHECK(report.differences.empty());
  CHECK(report.afresh.empty());
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK(in_float.b.weights[i] == float(in_double.b.weights[i]));
    CHECK(in_float.opt.state("b", "exp_avg_sq")[i] == float(in_double.opt.state("b", "exp_avg_sq")[i]));
  }
  load_bytes(back.opt, checkpoint_of(in_float.opt), {.convert = true});
  CHECK(back.opt.state("c", "exp_avg")[3] == double(in_float.opt.state("c", "exp_avg")[3]));
}

TEST_CASE_TEMPLATE("convert: from float to short parameters with master weights and back, nothing is lost", Master,
                   float, gradus::remainder16)
{
  using gradus::bfloat16;
  using short_precision = gradus::precision<bfloat16, bfloat16, float, Master>;
  model<optimizer<gradus::adamw>> in_float(5), back(0);
  std::vector<bfloat16> w[3], g[3];
  optimizer<gradus::adamw, short_precision> mixed;
  const char* const names[] = {"a", "b", "c"};
  const std::vector<float>* const weights[] = {&in_float.a.weights, &in_float.b.weights, &in_float.c.weights};
  for (std::size_t k = 0; k < 3; ++k) {
    w[k].resize(weights[k]->size());
    g[k].resize(weights[k]->size());
    mixed.add(names[k], w[k], g[k]);
  }
  const auto report = load_bytes(mixed, checkpoint_of(in_float.opt), {.convert = true});
  CHECK((report.differences.empty() && report.parameters && report.settings));
  mixed.visit_state([&]<class X>(std::string_view name, std::string_view slot, std::span<X> values) {
    if constexpr (std::is_same_v<X, float>)
      if (slot == "master")
        CHECK(std::equal(values.begin(), values.end(), weights[name[0] - 'a']->begin()));
  });
  for (std::size_t i = 0; i < w[1].size(); ++i)
    CHECK(w[1][i].bits == bfloat16(in_float.b.weights[i]).bits);
  load_bytes(back.opt, checkpoint_of(mixed), {.convert = true});
  CHECK(checkpoint_of(back.opt) == checkpoint_of(in_float.opt));
}

TEST_CASE("save_to, load_from: a stream that fails is an error, and nothing has changed if the header or counts cannot "
          "be read")
{
  model<optimizer<gradus::adam>> m(3), n(1);
  int calls = 0;
  const std::string sentence = refusal([&] {
    gradus::save_to(m.opt, [&](const void*, std::size_t) { return ++calls < 3; });
  });
  CHECK(contains(sentence, "gradus: write returned false for "));
  CHECK(calls == 3);

  const std::string bytes = checkpoint_of(m.opt), before = checkpoint_of(n.opt);
  int reads = 0;
  for (int good = 0;; ++good) {
    calls = 0;
    const auto read = [&](std::uint64_t at, void* to, std::size_t count) {
      std::memcpy(to, bytes.data() + at, count);
      return ++calls <= good;
    };
    const std::string said = refusal([&] { gradus::load_from(n.opt, bytes.size(), read); });
    if (said.empty())
      break;
    ++reads;
    if (good < 5) {
      CHECK(said == "gradus: checkpoint: could not be read");
      CHECK(checkpoint_of(n.opt) == before);
    } else
      CHECK(contains(said, "became unreadable during the load; the optimizer is loaded in part"));
  }
  CHECK(reads == 2 + 3 + 3 + 6);  // length, header; step counts, before anything else; parameters; slots
  CHECK(checkpoint_of(n.opt) == bytes);
}

TEST_CASE("load, load_from: an empty header and an empty tensor read no bytes, so that no reader meets a null pointer")
{
  std::vector<float> none;
  optimizer<gradus::adam> opt;
  opt.add("none", std::span(none), std::span(none));
  const std::string bytes = checkpoint_of(opt);
  for (const std::string& all : {bytes, file_of("")}) {
    const auto read = [&](std::uint64_t at, void* to, std::size_t count) {
      CHECK(count > 0);
      CHECK(to != nullptr);
      std::memcpy(to, all.data() + at, count);
      return true;
    };
    CHECK(refusal([&] { gradus::load_from(opt, all.size(), read); }).empty() == (all == bytes));
    const folder here("empty");
    std::ofstream(here / "run", std::ios::binary) << all;
    CHECK(refusal([&] { gradus::load(opt, here / "run"); }).empty() == (all == bytes));
  }
}

TEST_CASE("io_error: thrown where a file or stream fails, and not where its content is wrong")
{
  model<optimizer<gradus::adam>> m(1);
  const std::string bytes = checkpoint_of(m.opt);
  const folder here("io");
  CHECK_THROWS_AS(gradus::save(m.opt, here / "no/folder"), gradus::io_error);
  CHECK_THROWS_AS(gradus::load(m.opt, here / "nothing"), gradus::io_error);
  CHECK_THROWS_AS(gradus::save_to(m.opt, [](auto...) { return false; }), gradus::io_error);
  for (int good : {0, 4}) {
    const auto read = [&](std::uint64_t at, void* to, std::size_t count) {
      std::memcpy(to, bytes.data() + at, count);
      return good-- > 0;
    };
    CHECK_THROWS_AS(gradus::load_from(m.opt, bytes.size(), read), gradus::io_error);
  }
  std::ofstream(here / "damaged", std::ios::binary) << bytes.substr(0, bytes.size() - 1);
  try {
    gradus::load(m.opt, here / "damaged");
    FAIL("a damaged file is accepted");
  } catch (const gradus::io_error&) {
    FAIL("a damaged file is an io_error");
  } catch (const std::invalid_argument&) {
  }
}

#if __has_include(<sys/mman.h>)
TEST_CASE("load: a file of more than 4 GiB, most of it a hole")
{
  const folder here("large");
  const std::string path = here / "run";
  std::vector<float> w(4), g(4);
  optimizer<gradus::adam> opt;
  opt.add("w", w, g);
  const std::uint64_t hole = (std::uint64_t(5) << 30) + 8;
  const auto entry = [&](const char* key, const char* type, std::uint64_t elements, std::uint64_t begin,
                         std::uint64_t end) {
    return std::string(",\"") + key + "\":{\"dtype\":\"" + type + "\",\"shape\":[" + std::to_string(elements) +
           "],\"data_offsets\":[" + std::to_string(begin) + ',' + std::to_string(end) + "]}";
  };
  const std::string header = file_of("{\"__metadata__\":{\"gradus/format\":\"1\"}" +
                                     entry("other", "U8", hole, 0, hole) +
                                     entry("state/w/step", "U64", 1, hole, hole + 8) +
                                     entry("state/w/exp_avg", "F32", 4, hole + 8, hole + 24) +
                                     entry("state/w/exp_avg_sq", "F32", 4, hole + 24, hole + 40) + "}");
  const float moments[] = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::uint64_t steps = 77;
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  REQUIRE(std::fwrite(header.data(), 1, header.size(), file) == header.size());
  REQUIRE(fseeko(file, off_t(hole), SEEK_CUR) == 0);
  REQUIRE(std::fwrite(&steps, 8, 1, file) == 1);
  REQUIRE(std::fwrite(moments, 4, 8, file) == 8);
  std::fclose(file);
  const auto report = gradus::load(opt, path, {.lenient = true});
  CHECK(report.afresh.empty());
  CHECK(opt.state("w", "exp_avg")[3] == 4);
  CHECK(opt.state("w", "exp_avg_sq")[0] == 5);
  CHECK(contains(checkpoint_of(opt), std::string(reinterpret_cast<const char*>(&steps), 8)));
  CHECK(contains(refusal([&] { gradus::load(opt, path); }),
                 "\"other\" is in the file; expected nothing under this key"));
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  CHECK(contains(refusal([&] { gradus::load(opt, path, {.lenient = true}); }), "in order and within the"));
}

TEST_CASE("save, load: a tensor of more than 2^31 elements")
{
  // Memory that is never touched costs nothing: the parameters go through a stream that looks at their ends alone.
  const std::size_t n = (std::size_t(1) << 31) + 5;
  void* const memory = mmap(nullptr, 2 * n * sizeof(float), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::printf("no address space for 2^31 elements: not tried\n");
    return;
  }
  auto* const w = static_cast<float*>(memory);
  {
    optimizer<gradus::sgd, float, gradus::backend::scalar> opt;  // whose arrays are read and written at once
    opt.add("w", std::span(w, n), std::span<const float>(w + n, n));
    w[n - 1] = 7;
    std::uint64_t written = 0;
    float last = 0;
    std::string header;
    gradus::save_to(opt,
                    [&](const void* bytes, std::size_t count) {
                      if (header.empty())
                        header.assign(static_cast<const char*>(bytes), count);
                      std::memcpy(&last, static_cast<const char*>(bytes) + count - 4, 4);
                      written += count;
                      return true;
                    },
                    {.parameters = true});
    CHECK(written == header.size() + 8 + 4 * n);
    CHECK(last == 7);
    CHECK(contains(header,
                   "\"parameters/w\":{\"dtype\":\"F32\",\"shape\":[2147483653],\"data_offsets\":[8,8589934620]}"));
    gradus::load_from(opt, written, [&](std::uint64_t offset, void* to, std::size_t count) {
      if (offset + count <= header.size())
        std::memcpy(to, header.data() + offset, count);
      else if (count == 8)
        std::memset(to, 0, count);
      else {
        CHECK(offset == header.size() + 8);
        CHECK(count == 4 * n);
        const float put = 8;
        std::memcpy(static_cast<char*>(to) + count - 4, &put, 4);
      }
      return true;
    });
    CHECK(w[n - 1] == 8);
  }
  munmap(memory, 2 * n * sizeof(float));
}
#endif
