#include "cli/launcher.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "comm/comm.h"
#include "comm/place.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;

/// For what a rank does once its watch has ended it.
constexpr std::chrono::seconds grace{5};
constexpr int lost = static_cast<int>(Exit::peer_lost);

volatile sig_atomic_t caught = 0;

void on_signal(int signal) {
    caught = signal;
}

/// Two adjoining ports, of which the upper is free now; the lower.
int free_master_port() {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof here;
    const bool found = listener >= 0 && bind(listener, reinterpret_cast<const sockaddr*>(&here), sizeof here) == 0 &&
                       getsockname(listener, reinterpret_cast<sockaddr*>(&here), &size) == 0;
    const std::string problem = found ? "" : with_errno("no free port for the ranks");
    close(listener);
    if (!found) throw Error(Exit::device, problem, "see ss -tan: too many connections are open");
    return ntohs(here.sin_port) - 1;
}

std::vector<std::string> split_at_zeros(const std::string& text) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, '\0');)
        parts.push_back(part);
    return parts;
}

std::vector<std::string> own(const std::string& file) {
    return split_at_zeros(read_file("/proc/self/" + file));
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> found;
    for (std::string& text : texts)
        found.push_back(text.data());
    found.push_back(nullptr);
    return found;
}

pid_t start(std::vector<std::string> arguments, std::vector<std::string> environment, pid_t parent) {
    const std::vector<char*> argument_list = pointers(arguments), environment_list = pointers(environment);
    const pid_t child = fork();
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // a launcher that is killed takes its ranks along: they save and stop
    if (getppid() != parent) _exit(lost);
    execve("/proc/self/exe", argument_list.data(), environment_list.data());
    _exit(static_cast<int>(Exit::device));
}

class Launcher {
  public:
    Launcher(int64_t ranks, const std::vector<std::string>& more, std::chrono::milliseconds patience)
        : patience_(patience) {
        const std::vector<std::string> arguments = own("cmdline");
        std::vector<std::string> inherited = own("environ");
        const std::string port = std::to_string(free_master_port()), token = fresh_token();
        for (int64_t rank = 0; rank < ranks; ++rank) {
            std::vector<std::string> environment = {cat("RANK=", rank),        cat("LOCAL_RANK=", rank),
                                                    cat("WORLD_SIZE=", ranks), cat("LOCAL_WORLD_SIZE=", ranks),
                                                    "MASTER_ADDR=127.0.0.1",   "MASTER_PORT=" + port,
                                                    "RN50_TOKEN=" + token};
            environment.insert(environment.end(), more.begin(), more.end());
            environment.insert(environment.end(), inherited.begin(), inherited.end());
            const pid_t child = start(arguments, std::move(environment), getpid());
            if (child < 0) {
                const std::string problem = with_errno(cat("starting rank ", rank));
                pass_on(SIGKILL);
                throw Error(Exit::device, problem, "see ulimit -u");
            }
            children_.push_back(child);
        }
    }

    int wait() {
        Clock::time_point failed{};
        bool killed = false;
        size_t left = children_.size();
        while (left > 0) {
            if (caught != 0) {
                pass_on(caught);
                caught = 0;
            }
            int status = 0;
            const pid_t child = waitpid(-1, &status, WNOHANG);
            if (child <= 0) {
                usleep(20000);
                if (code_ != 0 && !killed && Clock::now() - failed > patience_) {
                    killed = true;
                    pass_on(SIGKILL);
                }
                continue;
            }
            const int rank = forget(child);
            if (rank < 0) continue;
            --left;
            const int code = told(rank, status);
            if (code != 0 && code_ == 0) failed = Clock::now();
            // Which of them ends first is chance, and 6 only tells that another rank has a reason.
            if (code_ == 0 || (code_ == lost && code != 0)) code_ = code;
        }
        return code_;
    }

  private:
    void pass_on(int signal) const {
        for (const pid_t child : children_)
            if (child > 0) kill(child, signal);
    }

    int forget(pid_t child) {
        for (size_t rank = 0; rank < children_.size(); ++rank)
            if (children_[rank] == child) {
                children_[rank] = 0;
                return static_cast<int>(rank);
            }
        return -1;
    }

    /// The exit code that a rank's end means for the run.
    static int told(int rank, int status) {
        if (WIFEXITED(status)) return WEXITSTATUS(status);
        log::warn(cat("rank ", rank, " was ended by signal ", WTERMSIG(status),
                      WTERMSIG(status) == SIGKILL ? " (kill -9, or the system was out of memory: see dmesg)" : ""));
        return lost;
    }

    const std::chrono::milliseconds patience_;
    std::vector<pid_t> children_;  ///< 0: has ended
    int code_ = 0;
};

}  // namespace

int launch_ranks(int64_t ranks, const std::vector<std::string>& environment, double peer_timeout) {
    struct sigaction action {};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        struct sigaction before {};
        sigaction(signal, nullptr, &before);
        if (before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
    }
    const std::chrono::milliseconds silence(std::llround(peer_timeout * 1000));
    return Launcher(ranks, environment, std::min<std::chrono::milliseconds>(silence, longest_leaving) + grace).wait();
}

}  // namespace rn50
