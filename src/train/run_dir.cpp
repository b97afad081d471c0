#include "train/run_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

constexpr char metrics_name[] = "metrics.jsonl";
constexpr char bad_pictures_name[] = "bad_pictures.txt";

std::string date_time() {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    char text[32];
    std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &local);
    return text;
}

/// Makes a folder that did not exist, for an automatic name; two runs that start in one second get two folders.
std::string make_fresh_folder() {
    const std::string base = "runs/" + date_time();
    for (int number = 1; number < 1000; ++number) {
        const std::string path = number == 1 ? base : cat(base, "-", number);
        if (mkdir(path.c_str(), 0777) == 0) return path;
        if (errno != EEXIST) break;
    }
    throw Error(Exit::data, with_errno("making the folder " + base), "name a folder that can be written with --out");
}

int open_log(const std::string& path) {
    return open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

int open_metrics(const std::string& path) {
    const int descriptor = open_log(path);
    if (descriptor < 0)
        throw Error(Exit::data, with_errno("opening " + path), "name a folder that can be written with --out");
    return descriptor;
}

/// How many bytes of a metrics file tell of the time up to `step`: up to the first line that tells of a later step or
/// of the end, or that is not whole (a killed run leaves such a one).
size_t bytes_up_to(const std::string& text, int64_t step) {
    size_t begin = 0;
    for (size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
        const Json line = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                      text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
        if (!line.is_object() || !line.contains("event") || line["event"] == "end") break;
        const auto at = line.find("step");
        if (at != line.end() && at->is_number_integer() && at->get<int64_t>() > step) break;
    }
    return begin;
}

/// Line ends and tabs would break the list's lines; file names may hold them.
std::string one_line(const std::string& text) {
    std::string line;
    for (const char c : text)
        line += c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : std::string(1, c);
    return line;
}

}  // namespace

std::string MetricsLine::json() const {
    Json line;
    const auto put = [&](const char* key, const auto& value) {
        if (value) line[key] = *value;  // nlohmann writes infinities and NaN as null
    };
    line["event"] = event;
    put("epoch", epoch);
    put("step", step);
    put("loss", loss);
    put("lr", lr);
    put("top1", top1);
    put("top5", top5);
    put("macro_f1", macro_f1);
    put("images_per_s", images_per_s);
    put("data_wait", data_wait);
    put("loss_scale", loss_scale);
    put("grad_norm", grad_norm);
    put("memory_mb", memory_mb);
    return line.dump();
}

RunDir::RunDir(std::string path) : path_(std::move(path)) {}

RunDir::RunDir(RunDir&& other) noexcept
    : path_(std::move(other.path_)),
      kept_elsewhere_(other.kept_elsewhere_),
      metrics_(std::exchange(other.metrics_, -1)),
      bad_pictures_(std::exchange(other.bad_pictures_, -1)),
      bad_names_(std::move(other.bad_names_)) {}

RunDir::~RunDir() {
    if (metrics_ >= 0) close(metrics_);
    if (bad_pictures_ >= 0) close(bad_pictures_);
}

void RunDir::require_free(const std::string& path) {
    std::error_code unknown;
    if (fs::exists(path, unknown) && !fs::is_directory(path, unknown))
        throw Error(Exit::data, cat(path, " is not a folder"), "name another folder with --out");
    for (const char* name : {"run.toml", metrics_name, "last.safetensors", "best.safetensors", "state.safetensors"}) {
        const auto bytes = fs::file_size(fs::path(path) / name, unknown);
        // An empty metrics.jsonl is what a full disk leaves of a run that could not start.
        if (!unknown && bytes > 0)
            throw Error(Exit::usage, cat(path, " holds a run already: ", name),
                        cat("choose another --out, or go on with that run: rn50 train --resume auto --out ", path));
    }
}

RunDir RunDir::create(const std::string& path) {
    if (path.empty()) {
        make_folders("runs");
        RunDir run(make_fresh_folder());
        run.metrics_ = open_metrics(run.file(metrics_name));
        return run;
    }
    require_free(path);
    make_folders(path);
    RunDir run(path);
    run.metrics_ = open_metrics(run.file(metrics_name));
    return run;
}

RunDir RunDir::of_rank_0(const std::string& path) {
    RunDir run(path);
    run.kept_elsewhere_ = true;
    return run;
}

RunDir RunDir::resume(const std::string& path, int64_t step) {
    if (!fs::is_directory(path))
        throw Error(Exit::data, cat(path, " is not the folder of a run"), "name a folder that train has written");
    RunDir run(path);
    run.metrics_ = open_metrics(run.file(metrics_name));
    const size_t keep = bytes_up_to(read_file(run.file(metrics_name)), step);
    if (ftruncate(run.metrics_, static_cast<off_t>(keep)) != 0)
        throw Error(Exit::data, with_errno("shortening " + run.file(metrics_name)), "check who may write there");
    if (fs::exists(run.file(bad_pictures_name))) {
        std::istringstream lines(read_file(run.file(bad_pictures_name)));
        for (std::string line; std::getline(lines, line);)
            run.bad_names_.insert(line.substr(0, line.find('\t')));
    }
    return run;
}

void RunDir::append(int descriptor, const std::string& name, const std::string& line) {
    struct stat before {};
    if (descriptor >= 0 && fstat(descriptor, &before) == 0) {
        const ssize_t written = ::write(descriptor, line.data(), line.size());
        if (written == static_cast<ssize_t>(line.size())) return;
        if (written >= 0) errno = ENOSPC;  // only a full disk cuts a write short
        // Half a line would spoil the next one. When this fails too, resume() still cuts the line off.
        const int error = errno;
        static_cast<void>(ftruncate(descriptor, before.st_size) != 0);
        errno = error;
    }
    log::warn_once(file(name),
                   with_errno("writing " + file(name)) + "; the run goes on, but lines of that file are lost");
}

void RunDir::log(const MetricsLine& line) {
    if (!kept_elsewhere_) append(metrics_, metrics_name, line.json() + "\n");
}

void RunDir::log_bad_picture(const std::string& name, const std::string& reason) {
    if (kept_elsewhere_) return;
    const std::string shown = one_line(name);
    if (!bad_names_.insert(shown).second) return;
    if (bad_pictures_ < 0) bad_pictures_ = open_log(file(bad_pictures_name));
    append(bad_pictures_, bad_pictures_name, shown + "\t" + one_line(reason) + "\n");
}

void RunDir::write_text(const std::string& name, const std::string& text) const {
    write_file_atomic(file(name), text);
}

}  // namespace rn50
