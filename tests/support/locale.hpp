#pragma once
// A locale in which a number has a comma, made where the system has none.

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#if defined(__unix__)
#include <unistd.h>
#endif

namespace support {

// German for as long as it lives, where it can be had.
class german {
 public:
  german() : before_(std::setlocale(LC_ALL, nullptr))
  {
    is_there_ = set();
#if defined(__unix__)
    if (!is_there_) {
      // A folder of this process's own: other tests run at the same time.
      const std::filesystem::path folder = std::filesystem::current_path() / ("locales_" + std::to_string(getpid()));
      std::filesystem::create_directories(folder);
      const std::string command = "localedef --no-archive -i de_DE -f UTF-8 '" + (folder / "de_DE.UTF-8").string() +
                                  "' >/dev/null 2>&1";
      if (std::system(command.c_str()) == 0) {
        setenv("LOCPATH", folder.c_str(), 1);
        is_there_ = set();
        unsetenv("LOCPATH");
      }
      std::filesystem::remove_all(folder);
    }
#endif
    if (!is_there_)
      std::printf("no locale de_DE.UTF-8 is to be had here: numbers are not tried in one\n");
  }
  german(const german&) = delete;
  german& operator=(const german&) = delete;
  ~german() { std::setlocale(LC_ALL, before_.c_str()); }

  bool is_there() const { return is_there_; }

 private:
  static bool set()
  {
    for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "de_DE"})
      if (std::setlocale(LC_ALL, name) && std::localeconv()->decimal_point[0] == ',')
        return true;
    return false;
  }
  std::string before_;
  bool is_there_ = false;
};

}  // namespace support
