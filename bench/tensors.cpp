// Prints the tensors of a model, a name and its dimensions a line: `tensors NAME|FILE`.

#include <cstdio>
#include <exception>

#include "tensors.hpp"

int main(int argc, char** argv)
try {
  if (argc != 2)
    gradus::refuse("arguments are " + std::to_string(argc - 1) + "; expected one, a model's name or a file");
  for (const bench::tensor& t : bench::read_model(argv[1])) {
    std::string line = t.name.empty() ? "_" : t.name;
    for (char& c : line)  // a name may contain anything, but here it is one word
      c = c == '#' || c == ' ' || (c >= '\t' && c <= '\r') ? '_' : c;
    for (const std::size_t d : t.dimensions)
      line += ' ' + std::to_string(d);
    std::puts(line.c_str());
  }
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 2;
}
