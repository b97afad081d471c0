#include "comm/place.h"

#include <charconv>
#include <cstdlib>

#include "base/error.h"

namespace rn50 {

namespace {

constexpr int default_master_port = 29500;  // torchrun's

/// The names by which one kind of launcher tells a process its place.
struct Names {
    const char *rank, *size, *local_rank, *local_size;
};

constexpr Names all_names[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"}};

int number(const Environment& environment, const std::string& name, int low, int high, int otherwise) {
    const std::string text = name.empty() ? "" : environment(name);
    if (text.empty()) return otherwise;
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high)
        throw Error(Exit::usage,
                    cat("the environment variable ", name, "=", text, " is not a number from ", low, " to ", high),
                    "it is set by what started this process");
    return value;
}

}  // namespace

Environment process_environment() {
    return [](const std::string& name) {
        const char* const value = std::getenv(name.c_str());
        return std::string(value == nullptr ? "" : value);
    };
}

std::string first_host(const std::string& list) {
    const size_t bracket = list.find('['), comma = list.find(',');
    if (bracket == std::string::npos || comma < bracket) return list.substr(0, comma);
    const size_t end = list.find_first_of(",-]", bracket + 1), close = list.find(']', bracket);
    if (end == std::string::npos || close == std::string::npos) return "";
    const std::string rest = list.substr(close + 1);
    return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1) + rest.substr(0, rest.find(','));
}

std::optional<Place> place_from(const Environment& environment) {
    constexpr int most = 1 << 16;
    for (const Names& names : all_names) {
        if (environment(names.rank).empty() || environment(names.size).empty()) continue;
        Place place;
        place.source = names.rank;
        place.size = number(environment, names.size, 1, most, 1);
        if (place.size == 1) return std::nullopt;
        place.rank = number(environment, names.rank, 0, place.size - 1, 0);
        place.local_rank = number(environment, names.local_rank, 0, most, 0);
        place.local_size = number(environment, names.local_size, 1, place.size, 1);
        place.address = environment("MASTER_ADDR");
        if (place.address.empty()) {
            std::string hosts = environment("SLURM_STEP_NODELIST");
            if (hosts.empty()) hosts = environment("SLURM_JOB_NODELIST");
            place.address = first_host(hosts);
        }
        if (place.address.empty()) {
            if (place.local_size > 1 && place.local_size < place.size)
                throw Error(Exit::usage, "several machines take part, and none of them is said to hold rank 0",
                            "set MASTER_ADDR to its address");
            place.address = "127.0.0.1";
        }
        place.port = number(environment, "MASTER_PORT", 1, 65534, default_master_port) + 1;
        place.token = environment("RN50_TOKEN");
        return place;
    }
    return std::nullopt;
}

}  // namespace rn50
