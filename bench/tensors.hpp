#pragma once
// The tensors that are measured: so many of one size, a named model's, or those of a file.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <gradus/checkpoint/random_access_file.hpp>
#include <gradus/checkpoint/safetensors/parser.hpp>
#include <gradus/error.hpp>

namespace bench {

/// A tensor's name and dimensions.
struct tensor {
  std::string name;
  std::vector<std::size_t> dimensions;

  std::size_t size() const noexcept
  {
    std::size_t n = 1;
    for (const std::size_t d : dimensions)
      n *= d;
    return n;
  }
};

/// A model, or a row of equal tensors, under the name that the benchmarks give it.
struct shape {
  std::string name;
  std::vector<std::size_t> sizes;  ///< elements in each tensor

  shape(std::size_t tensors, std::size_t size)
      : name((tensors > 1 ? std::to_string(tensors) + "x" : "") + std::to_string(size)), sizes(tensors, size)
  {}
  shape(std::string of, const std::vector<tensor>& tensors) : name(std::move(of))
  {
    for (const tensor& t : tensors)
      sizes.push_back(t.size());
  }
  std::size_t tensors() const noexcept { return sizes.size(); }
  std::size_t elements() const noexcept
  {
    std::size_t n = 0;
    for (const std::size_t size : sizes)
      n += size;
    return n;
  }
};

// ── named models ─────────────────────────────────────────────────────────────────────────────────────────────────

namespace detail {

/// Composes a model's list of tensors.
struct architecture {
  std::vector<tensor> tensors;

  void put(const std::string& name, std::vector<std::size_t> dimensions)
  {
    tensors.push_back({name, std::move(dimensions)});
  }
  void weight_and_bias(const std::string& name, std::vector<std::size_t> weight, std::size_t bias)
  {
    put(name + ".weight", std::move(weight));
    put(name + ".bias", {bias});
  }
  void norm(const std::string& name, std::size_t n) { weight_and_bias(name, {n}, n); }
  void linear(const std::string& name, std::size_t in, std::size_t out) { weight_and_bias(name, {out, in}, out); }
};

}  // namespace detail

/// The smallest GPT-2 (Radford et al. 2019): 12 layers of width 768. Its output layer uses the weights of the embedding,
/// so these are listed once.
inline std::vector<tensor> gpt2()
{
  detail::architecture a;
  a.put("wte.weight", {50257, 768});
  a.put("wpe.weight", {1024, 768});
  for (int i = 0; i < 12; ++i) {
    const std::string h = "h." + std::to_string(i);
    a.norm(h + ".ln_1", 768);
    a.linear(h + ".attn.c_attn", 768, 3 * 768);
    a.linear(h + ".attn.c_proj", 768, 768);
    a.norm(h + ".ln_2", 768);
    a.linear(h + ".mlp.c_fc", 768, 4 * 768);
    a.linear(h + ".mlp.c_proj", 4 * 768, 768);
  }
  a.norm("ln_f", 768);
  return a.tensors;
}

/// ResNet-18 for ImageNet (He et al. 2015).
inline std::vector<tensor> resnet18()
{
  detail::architecture a;
  const auto convolution = [&](const std::string& name, std::size_t in, std::size_t out, std::size_t window) {
    a.put(name + ".weight", {out, in, window, window});
  };
  convolution("conv1", 3, 64, 7);
  a.norm("bn1", 64);
  std::size_t in = 64;
  for (std::size_t layer = 1; layer <= 4; ++layer)
    for (std::size_t block = 0; block < 2; ++block) {
      const std::size_t out = std::size_t(32) << layer;
      const std::string name = "layer" + std::to_string(layer) + "." + std::to_string(block);
      convolution(name + ".conv1", in, out, 3);
      a.norm(name + ".bn1", out);
      convolution(name + ".conv2", out, out, 3);
      a.norm(name + ".bn2", out);
      if (in != out) {
        convolution(name + ".downsample.0", in, out, 1);
        a.norm(name + ".downsample.1", out);
      }
      in = out;
    }
  a.linear("fc", 512, 1000);
  return a.tensors;
}

/// The Vision Transformer ViT-B/16 for images of 224 x 224 and 1000 classes (Dosovitskiy et al. 2020).
inline std::vector<tensor> vit()
{
  detail::architecture a;
  a.put("cls_token", {768});
  a.put("pos_embed", {197, 768});
  a.weight_and_bias("patch_embed.proj", {768, 3, 16, 16}, 768);
  for (int i = 0; i < 12; ++i) {
    const std::string b = "blocks." + std::to_string(i);
    a.norm(b + ".norm1", 768);
    a.linear(b + ".attn.qkv", 768, 3 * 768);
    a.linear(b + ".attn.proj", 768, 768);
    a.norm(b + ".norm2", 768);
    a.linear(b + ".mlp.fc1", 768, 4 * 768);
    a.linear(b + ".mlp.fc2", 4 * 768, 768);
  }
  a.norm("norm", 768);
  a.linear("head", 768, 1000);
  return a.tensors;
}

/// The medium language model of Zaremba et al. 2014: two LSTM layers of 650 units, and 10 000 words.
inline std::vector<tensor> lstm()
{
  detail::architecture a;
  a.put("encoder.weight", {10000, 650});
  for (const char* const layer : {"0", "1"})
    for (const char* const from : {"ih", "hh"}) {
      a.put("rnn.weight_" + std::string(from) + "_l" + layer, {4 * 650, 650});
      a.put("rnn.bias_" + std::string(from) + "_l" + layer, {4 * 650});
    }
  a.linear("decoder", 650, 10000);
  return a.tensors;
}

/// A thousand small tensors, of 1, 2, … 1000 elements.
inline std::vector<tensor> small()
{
  detail::architecture a;
  for (std::size_t n = 1; n <= 1000; ++n)
    a.put("tensor" + std::to_string(n), {n});
  return a.tensors;
}

struct named_model {
  const char* name;
  std::vector<tensor> (*tensors)();
};
inline constexpr named_model models[] = {
    {"gpt2", gpt2}, {"resnet18", resnet18}, {"vit", vit}, {"lstm", lstm}, {"small", small}};

// ── a model of one's own ─────────────────────────────────────────────────────────────────────────────────────────

namespace detail {

/// The tensors of floating-point numbers in a safetensors file, in the order of their bytes. Reads only the header.
inline std::vector<tensor> read_safetensors(gradus::random_access_file& file, const std::string& where)
{
  const auto read = [&](std::uint64_t offset, void* bytes, std::size_t count) {
    if (!file.read(offset, bytes, count))
      gradus::refuse(where + ": cannot be read");
  };
  const gradus::safetensors::header h = gradus::safetensors::read_header(where, file.size(), read);
  std::vector<std::pair<std::uint64_t, tensor>> at;
  for (std::size_t i = 0; i < h.tensors.size(); ++i)
    if (const auto& e = h.tensors[i]; e.is_float() && e.elements > 0)
      at.push_back({e.begin, {std::string(h.tensors.key(i)), {std::size_t(e.elements)}}});
  std::sort(at.begin(), at.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<tensor> tensors;
  for (auto& x : at)
    tensors.push_back(std::move(x.second));
  return tensors;
}

/// The tensors of a text, one a line: a name and its dimensions. Empty lines and lines that begin with # do not count.
inline std::vector<tensor> read_lines(const std::string& text, const std::string& where)
{
  std::vector<tensor> tensors;
  std::istringstream lines(text);
  std::size_t number = 0, elements = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::istringstream words(line);
    tensor t;
    if (!(words >> t.name) || t.name.starts_with('#'))
      continue;
    const auto refuse = [&](const std::string& found) {
      gradus::refuse(where + ", line " + std::to_string(number) + ": " + found +
                     "; expected a name and whole numbers of at least 1, such as: layer1.weight 768 3072");
    };
    // Far below the type's limit, so that no number of bytes overflows.
    const std::size_t most = std::numeric_limits<std::size_t>::max() / 1024;
    std::size_t size = 1;
    for (std::string word; words >> word;) {
      std::size_t d = 0;
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), d);
      if (error == std::errc::result_out_of_range || d > most / size)
        refuse("the tensor is too large");
      if (end != word.data() + word.size() || d == 0)
        refuse("a dimension is " + gradus::detail::quote(word));
      t.dimensions.push_back(d);
      size *= d;
    }
    if (t.dimensions.empty())
      refuse("the tensor has no dimensions");
    if (size > most - elements)
      refuse("the tensors are too large");
    elements += size;
    tensors.push_back(std::move(t));
  }
  return tensors;
}

}  // namespace detail

/// The tensors of a named model or of a file, which is a safetensors file or a text (read_lines).
/// \throws std::invalid_argument for what is neither, and for a file without tensors
inline std::vector<tensor> read_model(const std::string& name)
{
  for (const named_model& m : models)
    if (name == m.name)
      return m.tensors();
  if (std::error_code ignored; !std::filesystem::exists(name, ignored)) {
    std::string known;
    for (const named_model& m : models)
      known += std::string(m.name) + ", ";
    gradus::refuse("model is " + gradus::detail::quote(name) + ", and no file has that name; expected " + known +
                   "or a file");
  }
  gradus::random_access_file file(name);
  const std::string where = "model " + gradus::detail::quote(name);
  char start[9] = {};
  const bool is_binary = std::filesystem::path(name).extension() == ".safetensors" ||
                         (file.size() >= sizeof start && file.read(0, start, sizeof start) && start[8] == '{');
  std::vector<tensor> tensors;
  if (is_binary)
    tensors = detail::read_safetensors(file, where);
  else {
    if (file.size() > gradus::safetensors::longest_header)
      gradus::refuse(where + ": size is " + std::to_string(file.size()) +
                     "; expected a safetensors file, or a text of at most " +
                     std::to_string(gradus::safetensors::longest_header) + " bytes");
    std::string text(std::size_t(file.size()), '\0');
    if (!file.read(0, text.data(), text.size()))
      gradus::refuse(where + ": cannot be read");
    tensors = detail::read_lines(text, where);
  }
  if (tensors.empty())
    gradus::refuse(where + ": has no tensors of floating-point numbers; expected at least one");
  return tensors;
}

/// The same as a shape, under the model's name or the file's without its folder and extension.
inline shape model_shape(const std::string& name)
{
  return {std::filesystem::path(name).stem().string(), read_model(name)};
}

}  // namespace bench
