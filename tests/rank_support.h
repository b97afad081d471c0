// Ranks as threads of one process.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "comm/comm.h"

namespace rn50 {

int free_port();

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// What the Error says that `action` throws; "": it throws none.
std::string what_of(const std::function<void()>& action);

/// Runs `work` in one thread a rank, each with a communicator of its own; what a rank throws fails the test.
void in_ranks(int ranks, const Patience& patience, const std::function<void(Communicator&)>& work,
              const EngineMaker& engine = make_gloo);

}  // namespace rn50
