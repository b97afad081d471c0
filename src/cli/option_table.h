// The table of options: one row each, from which the command line, the files, --help and run.toml are made.
#pragma once

#include <variant>

#include "cli/options.h"

namespace rn50 {

/// Commands as bits, to say which option belongs to which.
enum CommandBit : unsigned {
    in_train = 1,
    in_eval = 2,
    in_predict = 4,
    in_bench = 8,
    in_doctor = 16,
    in_pack = 32,
    in_unpack = 64,
    in_inspect = 128,
    in_preview = 256
};

using OptionMember = std::variant<std::string Options::*, int64_t Options::*, double Options::*, bool Options::*,
                                  std::array<double, 2> Options::*>;

struct OptionRow {
    const char* name;  ///< without dashes
    OptionMember member;
    unsigned commands;   ///< CommandBits
    const char* group;   ///< its heading in --help
    const char* values;  ///< what --help shows behind the name: a list "a|b|c" is also what is allowed
    double low, high;    ///< the range of a number, both included
    const char* help;
    bool in_files = true;     ///< whether a TOML file may hold it
    bool may_change = false;  ///< whether a resumed run may be given another value
};

struct CommandRow {
    const char* name;
    CommandBit bit;
    const char* arguments;
    const char* help;
};

const std::vector<OptionRow>& option_table();
const std::vector<CommandRow>& command_table();

/// The row of this long name, or nullptr.
const OptionRow* find_option(const std::string& name);

/// Whether `values` is a list of words, and whether `value` is one of them.
bool is_choice(const OptionRow& row);
bool allows(const OptionRow& row, const std::string& value);

/// A value as text: for --help and messages (`adamw`), and in TOML (`"adamw"`).
std::string show_value(const OptionRow& row, const Options& options);
std::string toml_value(const OptionRow& row, const Options& options);

/// Sets one option from text: one part, or two for a pair. Throws std::invalid_argument with the reason ("must be
/// ...").
void set_value(const OptionRow& row, Options& options, const std::vector<std::string>& parts);

}  // namespace rn50
