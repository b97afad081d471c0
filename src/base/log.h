// Diagnostics: lines to stderr, a progress line that rewrites itself on a terminal. Results go to stdout elsewhere.
#pragma once

#include <string>

namespace rn50::log {

/// One line to stderr; clears a progress line that stands there.
void info(const std::string& line);
/// The same behind "warning: ".
void warn(const std::string& line);
/// A warning said at most once a process for one `key`: nothing falls back silently, and nothing is said a thousand times.
void warn_once(const std::string& key, const std::string& line);
/// A warning that all ranks of a run give alike: said where no prefix stands before the lines.
void warn_of_all(const std::string& line);
/// The same behind "error: ".
void error(const std::string& line);
/// Stands before every line from now on: "rank 2: ".
void set_prefix(const std::string& prefix);
/// On a terminal: replaces the previous progress line. Elsewhere: nothing (callers print plain lines with info()).
void progress(const std::string& line);
/// Clears the progress line, if one stands.
void progress_done();
/// Whether stderr is a terminal.
bool on_terminal();
/// Quiet mode drops info() lines, never warnings.
void set_quiet(bool quiet);

}  // namespace rn50::log
