#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "base/error.h"
#include "cli/config_file.h"
#include "cli/option_table.h"
#include "cli/suggest.h"
#include "cli/version.h"

namespace rn50 {

namespace {

constexpr const char* data_file_name = "rn50.toml";

/// Positional arguments and options of the command line as text, before anything is checked.
struct RawArguments {
    std::vector<std::string> positional;
    std::vector<std::pair<const OptionRow*, std::string>> options;
};

const CommandRow* find_command(const std::string& name) {
    for (const CommandRow& command : command_table())
        if (name == command.name) return &command;
    return nullptr;
}

std::vector<std::string> command_names() {
    std::vector<std::string> names;
    for (const CommandRow& command : command_table())
        names.push_back(command.name);
    return names;
}

std::vector<std::string> option_names(unsigned commands) {
    std::vector<std::string> names;
    for (const OptionRow& row : option_table())
        if (row.commands & commands) names.push_back(row.name);
    return names;
}

std::string commands_of(const OptionRow& row) {
    std::string names;
    for (const CommandRow& command : command_table())
        if (row.commands & command.bit) names += cat(names.empty() ? "" : ", ", command.name);
    return names;
}

bool is_flag(const OptionRow& row) {
    return std::holds_alternative<bool Options::*>(row.member);
}

std::string usage_of(const CommandRow& command) {
    return cat("rn50 ", command.name, *command.arguments ? " " : "", command.arguments, " [options]");
}

std::string general_help() {
    std::ostringstream out;
    out << "rn50 trains residual networks on folders of pictures and uses them.\n\nUsage: rn50 COMMAND [options]\n\n";
    for (const CommandRow& command : command_table()) {
        const std::string call = cat("  ", command.name, " ", command.arguments);
        out << call << std::string(call.size() < 34 ? 34 - call.size() : 1, ' ') << command.help << '\n';
    }
    out << "\nrn50 COMMAND --help lists a command's options with their defaults; rn50 --version tells the version.\n"
           "Exit codes: 0 done, 2 usage, 3 data, 4 device or memory, 5 diverged, 6 a peer was lost, 130/143 stopped by "
           "a\n"
           "signal after saving.\n";
    return out.str();
}

/// CLI11's layout under a usage line of our own, and a heading that does not repeat the options' group.
class HelpFormatter : public CLI::Formatter {
  public:
    explicit HelpFormatter(std::string usage) : usage_(std::move(usage)) { column_width(44); }
    std::string make_usage(const CLI::App*, std::string) const override { return cat("Usage: ", usage_, "\n"); }

  private:
    std::string usage_;
};

/// CLI11 splits the command line and lays out --help; values are checked in one place with those of files.
void describe(CLI::App& app, const CommandRow& command, std::vector<std::string>& positional) {
    const Options built_in;
    app.set_help_flag("--help,-h", "show this and end");
    app.allow_extras();
    app.formatter(std::make_shared<HelpFormatter>(usage_of(command)));
    app.add_option("ARGUMENTS", positional)->group("");
    for (const OptionRow& row : option_table()) {
        if (!(row.commands & command.bit)) continue;
        const std::string name = cat("--", row.name);
        const std::string help = cat(row.help, " (default: ", show_value(row, built_in), ")");
        CLI::Option* option = is_flag(row) ? app.add_flag(name, help) : app.add_option(name, help);
        if (!is_flag(row)) option->option_text(row.values)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        option->group(row.group);
    }
}

[[noreturn]] void reject_unknown_option(const std::string& argument, const CommandRow& command) {
    const std::string word = argument.substr(0, argument.find('='));
    const std::string name = word.substr(std::min(word.find_first_not_of('-'), word.size()));
    const OptionRow* elsewhere = find_option(name);
    if (elsewhere != nullptr && (elsewhere->commands & command.bit) == 0)
        throw Error(Exit::usage,
                    cat("--", name, " is an option of ", commands_of(*elsewhere), ", not of ", command.name),
                    cat("rn50 ", command.name, " --help lists what there is"));
    const std::string meant = elsewhere != nullptr ? name : nearest(name, option_names(command.bit));
    throw Error(
        Exit::usage, cat("unknown option ", word),
        meant.empty() ? cat("rn50 ", command.name, " --help lists the options") : cat("did you mean --", meant, "?"));
}

RawArguments split_arguments(CLI::App& app, const CommandRow& command, std::vector<std::string> arguments,
                             std::vector<std::string>& positional) {
    std::reverse(arguments.begin(), arguments.end());
    app.parse(std::move(arguments));
    for (const std::string& rest : app.remaining())
        if (rest.size() > 1 && rest[0] == '-' && rest != "--") reject_unknown_option(rest, command);
    RawArguments raw;
    raw.positional = positional;
    for (const OptionRow& row : option_table()) {
        if (!(row.commands & command.bit)) continue;
        const CLI::Option* option = app.get_option(cat("--", row.name));
        if (option->count() > 0) raw.options.emplace_back(&row, option->results().back());
    }
    return raw;
}

void set_from_command_line(Options& options, const OptionRow& row, const std::string& text) {
    try {
        set_value(row, options, {text});
    } catch (const std::invalid_argument& reason) {
        const std::string value = is_flag(row) && text == "true" ? "" : text.empty() ? " \"\"" : " " + text;
        throw Error(Exit::usage, cat("--", row.name, value, " ", reason.what()),
                    cat("--", row.name, is_flag(row) ? "" : " ", row.values, ": ", row.help,
                        " (default: ", show_value(row, Options{}), ")"));
    }
    options.origins[row.name] = Origin::command_line;
}

void set_positional(Options& options, const CommandRow& command, const std::vector<std::string>& given) {
    std::vector<std::string*> places;
    if (command.bit == in_eval || command.bit == in_predict) places.push_back(&options.checkpoint);
    if (command.bit == in_bench) places.push_back(&options.bench);
    constexpr unsigned with_data = in_train | in_eval | in_bench | in_preview | in_pack | in_unpack | in_inspect;
    if (command.bit & with_data) places.push_back(&options.data);
    if (command.bit & (in_pack | in_unpack)) places.push_back(&options.output);
    for (size_t i = 0; i < given.size(); ++i) {
        if (i < places.size()) {
            *places[i] = given[i];
        } else if (command.bit == in_predict) {
            options.paths.push_back(given[i]);
        } else {
            throw Error(Exit::usage, cat("what is \"", given[i], "\" for?"), cat("usage: ", usage_of(command)));
        }
    }
}

void require_positional(const Options& options, const CommandRow& command) {
    const char* missing = nullptr;
    if ((command.bit == in_eval || command.bit == in_predict) && options.checkpoint.empty())
        missing = "CHECKPOINT";
    else if (command.bit == in_train && options.data.empty() && options.resume.empty())
        missing = "DATA";  // a resumed run knows its own
    else if ((command.bit & (in_eval | in_preview | in_pack | in_unpack | in_inspect)) && options.data.empty())
        missing = "DATA";
    else if ((command.bit & (in_pack | in_unpack)) && options.output.empty())
        missing = "OUT";
    else if (command.bit == in_preview && options.out.empty())
        missing = "--out FILE.png";
    else if (command.bit == in_predict && options.paths.empty())
        missing = "PATH";
    if (missing != nullptr) throw Error(Exit::usage, cat(missing, " is missing"), cat("usage: ", usage_of(command)));
    static const std::vector<std::string> kinds{"step", "loader", "infer", "kernels", "comm", "buckets"};
    if (command.bit == in_bench && std::find(kinds.begin(), kinds.end(), options.bench) == kinds.end())
        throw Error(Exit::usage, cat("rn50 bench does not know \"", options.bench, "\""),
                    cat("usage: ", usage_of(command)));
}

/// An option on the command line that another one makes idle was meant to do something.
void reject_idle_options(const Options& options) {
    const auto asked = [&](const char* name) { return options.origin(name) == Origin::command_line; };
    const auto idle = [](const std::string& option, const std::string& beside) {
        throw Error(Exit::usage, cat("--", option, " does nothing beside ", beside), "leave one of them out");
    };
    if (options.augment == "none")
        for (const char* name : {"flip", "jitter", "crop-scale", "decode", "rotate90", "randaugment", "blur", "noise",
                                 "erasing", "erasing-fill"})
            if (asked(name)) idle(name, "--augment none");
    if (options.augment == "flip" && asked("crop-scale")) idle("crop-scale", "--augment flip");
    if (options.decode == "gpu" && asked("decode")) {
        if (options.cache_mb > 0) idle("decode gpu", "--cache-mb");
        if (options.augment == "flip") idle("decode gpu", "--augment flip");
        if (options.resize == "letterbox") idle("decode gpu", "--resize letterbox");
        if (options.command == "preview") idle("decode gpu", "preview");
    }
    if (options.augment != "randaugment" && asked("randaugment"))
        idle("randaugment", cat("--augment ", options.augment));
    if (options.erasing == 0 && asked("erasing-fill")) idle("erasing-fill", "--erasing 0");
    if (options.optimizer == "adamw" && asked("momentum")) idle("momentum", "--optimizer adamw");
    if (options.resume == "auto" && options.out.empty() && options.command == "train")
        throw Error(Exit::usage, "--resume auto needs the run's folder",
                    "add --out DIR, or name a state file: --resume FILE");
    // A run of --resume auto may yet have to begin.
    if (!options.resume.empty() && options.resume != "auto" && asked("init")) idle("init", "--resume");
    if (options.encode == "png")
        for (const char* name : {"quality", "restart-markers"})
            if (asked(name)) idle(name, "--encode png");
    if (options.longest > 0 && options.shortest > 0)
        throw Error(Exit::usage, "--longest and --shortest exclude each other", "choose one");
    if (asked("quality") && options.encode == "keep" && options.longest == 0 && options.shortest == 0)
        idle("quality", "pictures that are copied");
    if (options.json && options.csv) throw Error(Exit::usage, "--json and --csv exclude each other", "choose one");
}

void set_from_file(Options& options, const ConfigEntry& entry, const std::string& where, Origin origin) {
    const OptionRow* row = find_option(entry.key);
    if (row == nullptr || !row->in_files) {
        std::vector<std::string> names;
        for (const OptionRow& known : option_table())
            if (known.in_files) names.push_back(known.name);
        const std::string meant = nearest(entry.key, names);
        throw Error(Exit::usage,
                    row == nullptr ? cat(where, ": unknown option ", entry.key)
                                   : cat(where, ": ", entry.key, " belongs on the command line"),
                    row != nullptr  ? "remove the line"
                    : meant.empty() ? "keys are the long options without their dashes: rn50 train --help"
                                    : cat("did you mean ", meant, "?"));
    }
    const bool wants_text = std::holds_alternative<std::string Options::*>(row->member);
    if (wants_text && entry.kind == ConfigEntry::Kind::bare)
        throw Error(Exit::usage, cat(where, ": ", entry.key, " = ", entry.parts[0], " lacks quotes"),
                    cat("write ", entry.key, " = \"", entry.parts[0], "\""));
    if (!wants_text && entry.kind == ConfigEntry::Kind::text)
        throw Error(Exit::usage, cat(where, ": ", entry.key, " takes no quotes"),
                    cat("write ", entry.key, " = ", entry.parts[0]));
    Options checked = options;
    try {
        set_value(*row, checked, entry.parts);
    } catch (const std::invalid_argument& reason) {
        std::string shown;
        for (const std::string& part : entry.parts)
            shown += cat(shown.empty() ? "" : ",", part);
        throw Error(Exit::usage, cat(where, ": ", entry.key, " = ", shown, " ", reason.what()),
                    cat(entry.key, ": ", row->help, " (default: ", show_value(*row, Options{}), ")"));
    }
    if (options.origin(row->name) > origin) return;
    options = std::move(checked);
    options.origins[row->name] = origin;
}

}  // namespace

Origin Options::origin(const std::string& name) const {
    RN50_REQUIRE(find_option(name) != nullptr, "no option ", name);
    const auto found = origins.find(name);
    return found == origins.end() ? Origin::built_in : found->second;
}

void apply_file(Options& options, const std::string& file, Origin origin) {
    std::string names;
    for (const ConfigEntry& entry : read_config(file)) {
        const std::string where = cat(file, ":", entry.line);
        if (entry.key == "data") {
            if (origin != Origin::config_file || entry.kind != ConfigEntry::Kind::text)
                throw Error(Exit::usage, cat(where, ": data is a path in quotes, in a file given by --config"),
                            "remove the line");
            if (options.data.empty()) options.data = entry.parts[0];
        } else {
            set_from_file(options, entry, where, origin);
        }
        names += cat(names.empty() ? "" : ", ", entry.key);
    }
    options.files_read.push_back(cat(file, names.empty() ? " (empty)" : cat(" (", names, ")")));
}

CommandLine parse_command_line(const std::vector<std::string>& arguments) {
    CommandLine result;
    if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
        result.text = general_help();
        return result;
    }
    if (arguments[0] == "--version") {
        result.text = cat("rn50 ", version, "\n");
        return result;
    }
    const CommandRow* command = find_command(arguments[0]);
    if (command == nullptr) {
        const bool dashed = arguments[0][0] == '-';
        const std::string meant = dashed ? "" : nearest(arguments[0], command_names());
        throw Error(Exit::usage,
                    dashed ? cat("the command comes before ", arguments[0]) : cat("unknown command ", arguments[0]),
                    meant.empty() ? "rn50 --help lists the commands" : cat("did you mean rn50 ", meant, "?"));
    }

    CLI::App app(command->help, cat("rn50 ", command->name));
    std::vector<std::string> positional;
    describe(app, *command, positional);
    RawArguments raw;
    try {
        raw = split_arguments(app, *command, {arguments.begin() + 1, arguments.end()}, positional);
    } catch (const CLI::CallForHelp&) {
        result.text = app.help();
        return result;
    } catch (const CLI::ParseError& error) {
        throw Error(Exit::usage, error.what(), cat("rn50 ", command->name, " --help lists the options"));
    }

    Options& options = result.options;
    options.command = command->name;
    set_positional(options, *command, raw.positional);
    for (const auto& [row, text] : raw.options)
        set_from_command_line(options, *row, text);
    std::vector<std::string> files;
    if (!options.config.empty()) {
        apply_file(options, options.config, Origin::config_file);
        files.swap(options.files_read);
    }
    // The data set's own file is read last because --config may name the data; it fills only what is not yet set.
    const auto data_file = std::filesystem::path(options.data) / data_file_name;
    std::error_code absent;
    if (!options.data.empty() && std::filesystem::exists(data_file, absent))
        apply_file(options, data_file.string(), Origin::data_file);
    options.files_read.insert(options.files_read.end(), files.begin(), files.end());
    require_positional(options, *command);
    reject_idle_options(options);
    return result;
}

std::string to_toml(const Options& options) {
    std::ostringstream out;
    out << "# rn50 " << version << ": every option of this run; rn50 train --config THIS --out NEW repeats it.\n";
    if (!options.data.empty()) out << "data = " << toml_quote(options.data) << '\n';
    const char* group = "";
    for (const OptionRow& row : option_table()) {
        const bool of_one_run = std::strcmp(row.name, "out") == 0 || std::strcmp(row.name, "resume") == 0;
        if (!(row.commands & in_train) || !row.in_files || of_one_run) continue;
        if (std::strcmp(group, row.group) != 0) out << "\n# " << row.group << '\n';
        group = row.group;
        out << row.name << " = " << toml_value(row, options) << '\n';
    }
    return out.str();
}

std::string option_value(const Options& options, const std::string& name) {
    const OptionRow* row = find_option(name);
    RN50_REQUIRE(row != nullptr, "no option ", name);
    return toml_value(*row, options);
}

}  // namespace rn50
