// The folder of one run: metrics.jsonl, bad_pictures.txt and whatever texts the run leaves there.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

namespace rn50 {

/// One line of metrics.jsonl. What is absent is left out of the line; infinities and NaN are written as null.
struct MetricsLine {
    std::string event;  ///< "start", "step", "eval" or "end"
    std::optional<int64_t> epoch, step;
    std::optional<double> loss, lr;
    std::optional<double> top1, top5, macro_f1;  ///< percent
    std::optional<double> images_per_s;
    std::optional<double> data_wait;  ///< fraction of the time spent waiting for pictures
    std::optional<double> loss_scale, grad_norm, memory_mb;

    /// One JSON object without a line end.
    std::string json() const;
};

/// Owner of the run's folder. Texts and checkpoints are worth an error; the two logs are not: a line that cannot be
/// written is said once as a warning, and the run of days goes on.
class RunDir {
  public:
    /// Throws Error(Exit::usage) when `path` holds a run already, Error(Exit::data) when it is no folder.
    static void require_free(const std::string& path);
    /// Makes the folder of a new run, parents included. An empty `path` takes runs/YYYYMMDD-HHMMSS (local time), with a
    /// number behind it when that exists. Throws Error(Exit::usage) when `path` holds a run already, Error(Exit::data)
    /// when it cannot be made or written.
    static RunDir create(const std::string& path);
    /// Opens the folder of a run that is continued after `step` optimizer steps: lines of metrics.jsonl that tell of
    /// later steps, or of the end of the run, are cut off, so that the file stays one history.
    static RunDir resume(const std::string& path, int64_t step);
    /// The folder of a run that another rank keeps: nothing is written there.
    static RunDir of_rank_0(const std::string& path);
    ~RunDir();
    RunDir(RunDir&& other) noexcept;
    RunDir& operator=(RunDir&&) = delete;

    const std::string& path() const { return path_; }
    /// path() + "/" + name.
    std::string file(const std::string& name) const { return path_ + "/" + name; }

    void log(const MetricsLine& line);
    /// Appends "name<TAB>reason" to bad_pictures.txt; each name once a run, however often it is met. One thread at a
    /// time.
    void log_bad_picture(const std::string& name, const std::string& reason);
    /// How many are listed there.
    int64_t bad_pictures() const { return static_cast<int64_t>(bad_names_.size()); }
    /// Writes a whole file atomically. Throws Error(Exit::data).
    void write_text(const std::string& name, const std::string& text) const;

  private:
    explicit RunDir(std::string path);
    void append(int descriptor, const std::string& name, const std::string& line);

    std::string path_;
    bool kept_elsewhere_ = false;  ///< by another rank
    int metrics_ = -1;
    int bad_pictures_ = -1;
    std::set<std::string> bad_names_;
};

}  // namespace rn50
