#pragma once
/// \file
/// The options of `save` and `load`, and the report of `load`. The parts below checkpoint.hpp need them, so they are
/// here.

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gradus/config.hpp>

#include <gradus/macros_off.hpp>

GRADUS_OPEN_NAMESPACE

/// What `save` writes besides the optimizer's state.
struct save_options {
  bool parameters = false;  ///< also save the parameters; one file then resumes a run
  std::vector<std::pair<std::string, std::string>> metadata = {};  ///< your own strings (epoch, seeds, …), in UTF-8
};

/// What `load` reads, and how strict it is.
struct load_options {
  std::optional<bool> parameters = {};  ///< true requires them, false ignores them; unset: loaded if the file has them
  bool settings = true;                 ///< load the groups' hyperparameters, and which tensors are frozen
  bool lenient = false;                 ///< load what fits and report the rest, instead of refusing
  bool convert = false;                 ///< accept floating-point values of another precision, rounded to nearest
};

/// One difference between a file and an optimizer.
struct load_difference {
  /// The kinds of difference.
  enum kind {
    missing,    ///< the file does not have what the optimizer needs
    surplus,    ///< the file has what the optimizer does not need
    misshapen,  ///< the numbers of elements differ
    mistyped,   ///< the element types differ
    recipe,     ///< the recipes differ
    groups      ///< the numbers of groups differ, a tensor's group, or whether a group has momentum or is centered
  };
  kind what;             ///< the kind of this difference
  std::string key;       ///< the key in the file
  std::string sentence;  ///< what was found, and what was expected
};

/// What `load` did.
struct load_report {
  std::vector<load_difference> differences = {};  ///< all differences; none after a strict load
  std::vector<std::string> afresh = {};  ///< tensors ("name") and slots ("name/slot") whose state was not loaded
  bool parameters = false;               ///< whether parameters were loaded
  bool settings = false;                 ///< whether hyperparameters and frozen tensors were loaded
  std::map<std::string, std::string> metadata = {};  ///< your own strings, as given to `save`
};

GRADUS_CLOSE_NAMESPACE

#include <gradus/macros_on.hpp>
