#include "cli/gpus.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "backend/cuda_module.h"
#include "base/error.h"

namespace rn50 {

namespace {

constexpr int64_t most = 1024;

std::vector<std::string> parts_of(const std::string& text) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, ',');)
        parts.push_back(part);
    return parts;
}

int64_t number_from(const std::string& text) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > most)
        throw std::invalid_argument("must be a number of GPUs, all, or a list of their numbers (0,2)");
    return value;
}

void require_gpus(const Options& options) {
    if (options.device == "cpu")
        throw Error(Exit::usage, cat("--gpus ", options.gpus, " and --device cpu exclude each other"),
                    "leave one of them out; several ranks on CPUs: --ranks N");
}

}  // namespace

GpuChoice gpus_from(const std::string& text) {
    GpuChoice choice;
    if (text == "all") {
        choice.all = true;
        return choice;
    }
    const std::vector<std::string> parts = parts_of(text);
    if (parts.size() < 2) {
        choice.count = number_from(text);
        if (choice.count == 0) throw std::invalid_argument("must be at least 1");
        return choice;
    }
    for (const std::string& part : parts) {
        const int64_t gpu = number_from(part);
        if (std::count(choice.list.begin(), choice.list.end(), gpu) > 0)
            throw std::invalid_argument("must name each GPU once: NCCL takes one rank a GPU");
        choice.list.push_back(gpu);
    }
    choice.count = static_cast<int64_t>(choice.list.size());
    return choice;
}

std::string visible_gpus(const std::string& now, const std::vector<int64_t>& list) {
    const std::vector<std::string> shown = parts_of(now);
    std::string visible;
    for (const int64_t gpu : list) {
        if (!shown.empty() && gpu >= static_cast<int64_t>(shown.size()))
            throw Error(Exit::usage,
                        cat("--gpus names GPU ", gpu, ", and CUDA_VISIBLE_DEVICES=", now, " shows ", shown.size(),
                            ", counted from 0"),
                        "choose among those, or unset CUDA_VISIBLE_DEVICES");
        visible +=
            cat(visible.empty() ? "" : ",", shown.empty() ? std::to_string(gpu) : shown[static_cast<size_t>(gpu)]);
    }
    return visible;
}

GpuLaunch gpu_launch(const Options& options) {
    GpuLaunch launch;
    const GpuChoice choice = gpus_from(options.gpus);
    if (!choice.all && choice.count == 1) {
        launch.ranks = options.ranks;
        return launch;
    }
    require_gpus(options);
    const CudaModule& module = require_cuda_module();
    const int64_t present = module.count();
    launch.ranks = choice.all ? present : choice.count;
    const int64_t needed =
        choice.list.empty() ? launch.ranks : 1 + *std::max_element(choice.list.begin(), choice.list.end());
    if (needed > present)
        throw Error(Exit::device,
                    cat("--gpus ", options.gpus, ": this machine shows ", present, present == 1 ? " GPU" : " GPUs",
                        choice.list.empty() ? "" : ", counted from 0"),
                    "see nvidia-smi and CUDA_VISIBLE_DEVICES; --gpus all takes those that there are");
    if (options.ranks != 1 && options.ranks != launch.ranks && options.origin("gpus") <= options.origin("ranks"))
        throw Error(Exit::usage,
                    cat("--gpus ", options.gpus, " makes ", launch.ranks, " ranks, --ranks asks for ", options.ranks),
                    "leave --ranks out: on GPUs there is one rank each");
    if (launch.ranks > 1) module.require_collectives();
    if (!choice.list.empty()) {
        const char* const now = std::getenv("CUDA_VISIBLE_DEVICES");
        launch.environment.push_back("CUDA_VISIBLE_DEVICES=" + visible_gpus(now == nullptr ? "" : now, choice.list));
    }
    return launch;
}

std::string other_gpus(const Options& options) {
    if (options.is_set("gpus")) return "";
    const int64_t present = require_cuda_module().count();
    return present < 2 ? "" : cat("one of ", present, " GPUs trains; --gpus all takes them all");
}

void require_fit(const Options& options, int64_t local_ranks) {
    const GpuChoice choice = gpus_from(options.gpus);
    if (!choice.all && choice.count == 1) return;
    require_gpus(options);
    if (!choice.all && local_ranks > 1 && choice.count != local_ranks)
        throw Error(
            Exit::usage,
            cat("--gpus ", options.gpus, " does not fit the ", local_ranks, " ranks that were started on this machine"),
            "leave --gpus out, or set it to 1: who starts the ranks decides");
}

}  // namespace rn50
