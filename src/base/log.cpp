#include "base/log.h"

#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <set>

namespace rn50::log {

namespace {

std::mutex mutex;
std::set<std::string> said;
bool progress_stands = false;
bool quiet_mode = false;
std::string line_prefix;

/// Writes one whole line at once, so that lines of several threads or ranks never mix. Needs `mutex`.
void write_line(const std::string& text) {
    std::string line = progress_stands ? "\r\033[K" : "";
    progress_stands = false;
    line += line_prefix;
    line += text;
    line += '\n';
    std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

bool on_terminal() {
    static const bool terminal = isatty(STDERR_FILENO) == 1;
    return terminal;
}

void set_quiet(bool quiet) {
    const std::lock_guard<std::mutex> lock(mutex);
    quiet_mode = quiet;
}

void info(const std::string& line) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!quiet_mode) write_line(line);
}

void warn(const std::string& line) {
    const std::lock_guard<std::mutex> lock(mutex);
    write_line("warning: " + line);
}

void warn_of_all(const std::string& line) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (line_prefix.empty()) write_line("warning: " + line);
}

void error(const std::string& line) {
    const std::lock_guard<std::mutex> lock(mutex);
    write_line("error: " + line);
}

void set_prefix(const std::string& prefix) {
    const std::lock_guard<std::mutex> lock(mutex);
    line_prefix = prefix;
}

void warn_once(const std::string& key, const std::string& line) {
    {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!said.insert(key).second) return;
    }
    warn(line);
}

void progress(const std::string& line) {
    if (!on_terminal()) return;
    const std::lock_guard<std::mutex> lock(mutex);
    if (quiet_mode) return;
    const std::string text = "\r\033[K" + line;
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
    progress_stands = true;
}

void progress_done() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (progress_stands) std::fputs("\r\033[K", stderr);
    progress_stands = false;
}

}  // namespace rn50::log
