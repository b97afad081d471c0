// Where the time of a step goes: seconds by op and phase, gathered at the entries of the backend page.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

namespace rn50 {

class Profile {
  public:
    struct Row {
        double seconds = 0;
        int64_t calls = 0;
    };
    /// `wait` waits for what the device was given to do: where calls return before their work is done, each op is timed
    /// from an idle device to an idle device.
    explicit Profile(std::function<void()> wait) : wait_(std::move(wait)) {}

    void wait() const { wait_(); }
    void add(const std::string& name, double seconds) {
        Row& row = rows_[name];
        row.seconds += seconds;
        ++row.calls;
    }
    const std::map<std::string, Row>& rows() const { return rows_; }
    void clear() { rows_.clear(); }

  private:
    std::function<void()> wait_;
    std::map<std::string, Row> rows_;
};

/// Adds the time from here to the end of the scope, when there is a profile.
class Timed {
  public:
    Timed(Profile* profile, const std::string& op, const char* phase) : profile_(profile), op_(op), phase_(phase) {
        if (profile_) profile_->wait();
        start_ = std::chrono::steady_clock::now();
    }
    ~Timed() {
        if (!profile_) return;
        try {
            profile_->wait();
        } catch (...) {
            return;  // a destructor may not throw; the next op will
        }
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
        profile_->add(op_ + " " + phase_, spent.count());
    }
    Timed(const Timed&) = delete;
    Timed& operator=(const Timed&) = delete;

  private:
    Profile* profile_;
    const std::string& op_;
    const char* phase_;
    std::chrono::steady_clock::time_point start_;
};

}  // namespace rn50
