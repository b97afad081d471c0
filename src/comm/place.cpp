#include "comm/place.h"

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace rn50 {

namespace {

constexpr int default_master_port = 29500;                // torchrun's
constexpr int first_own_port = 10000, own_ports = 20000;  // below those that Linux gives to whoever connects
constexpr size_t longest_run = 256, longest_token = 256;  // a greeting is short

/// The names by which one kind of launcher tells a process its place. The inner launcher comes first: mpirun's
/// processes inherit the variables of the Slurm step in which its daemons run.
struct Names {
    const char *rank, *size, *local_rank, *local_size;
};

constexpr Names torchrun{"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    open_mpi{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
             "OMPI_COMM_WORLD_LOCAL_SIZE"},
    slurm{"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""};

bool is(const Place& place, const Names& names) {
    return place.source == names.rank;
}

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

/// "1234.0;tcp://192.168.0.7,10.0.0.7:40001" -> "192.168.0.7": where mpirun listens.
std::string host_in_uri(const std::string& uri) {
    const std::string before = "tcp://";
    const size_t at = uri.find(before);
    if (at == std::string::npos) return "";
    const size_t begin = at + before.size();
    return uri.substr(begin, uri.find_first_of(",:;", begin) - begin);
}

std::string run_of(const Place& place, const Environment& environment) {
    std::string run;
    if (is(place, torchrun)) {
        // Without the number of the attempt: the agents of several machines count their restarts apart.
        const std::string id = environment("TORCHELASTIC_RUN_ID");
        if (!id.empty()) run = "torchrun's run " + id;
    } else if (is(place, open_mpi)) {
        const std::string name = environment("PMIX_NAMESPACE");
        if (!name.empty()) run = "Open MPI's job " + name;
    } else {
        run = cat("Slurm step ", environment("SLURM_JOB_ID"), ".", environment("SLURM_STEP_ID"));
    }
    return run.substr(0, longest_run);
}

/// FNV-1a; it must be the same on all machines.
uint32_t hash_of(const std::string& text) {
    uint32_t hash = 2166136261u;
    for (const char c : text)
        hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    return hash;
}

int default_port(const Place& place) {
    if (is(place, torchrun) || place.run.empty()) return default_master_port;
    return first_own_port + static_cast<int>(hash_of(place.run) % own_ports);
}

std::string address_of(const Place& place, bool local_size_told, const Environment& environment) {
    std::string address = environment("MASTER_ADDR");
    // The daemons by which mpirun starts ranks are a Slurm step of their own, without the host where mpirun runs.
    if (address.empty() && !is(place, open_mpi)) address = first_host(environment("SLURM_STEP_NODELIST"));
    if (address.empty()) address = first_host(environment("SLURM_JOB_NODELIST"));
    if (!address.empty()) return address;
    if (!local_size_told || place.local_size == place.size) return "127.0.0.1";
    address = host_in_uri(environment("OMPI_MCA_orte_hnp_uri"));
    if (address.empty())
        throw Error(Exit::usage, "several machines take part, and none of them is said to hold rank 0",
                    "set MASTER_ADDR to its address");
    return address;
}

bool tells(const Names& names, const Environment& environment) {
    if (environment(names.rank).empty() || environment(names.size).empty()) return false;
    // The script of a batch job is no task, though it has a number and the job has tasks.
    return std::string(names.rank) != slurm.rank || !environment("SLURM_STEP_ID").empty();
}

}  // namespace

Environment process_environment() {
    return [](const std::string& name) {
        const char* const value = std::getenv(name.c_str());
        return std::string(value == nullptr ? "" : value);
    };
}

std::string fresh_token() {
    unsigned char bytes[16];
    // Not by getrandom(), which CentOS 7's C library lacks.
    std::ifstream source("/dev/urandom", std::ios::binary);
    source.read(reinterpret_cast<char*>(bytes), sizeof bytes);
    if (!source) throw Error(Exit::device, with_errno("the system gives no random bytes"), "");
    std::string token;
    for (const unsigned char byte : bytes)
        for (const int digit : {byte >> 4, byte & 15})
            token += "0123456789abcdef"[digit];
    return token;
}

std::string first_host(const std::string& list) {
    std::string host;
    for (size_t i = 0; i < list.size() && list[i] != ','; ++i) {
        if (list[i] != '[') {
            host += list[i];
            continue;
        }
        const size_t end = list.find_first_of(",-]", i), close = list.find(']', i);
        if (close == std::string::npos) return "";
        host += list.substr(i + 1, end - i - 1);
        i = close;
    }
    return host;
}

int tasks_on_node(const std::string& list, int node) {
    std::istringstream parts(list);
    for (std::string part; std::getline(parts, part, ',');) {
        int tasks = 0, nodes = 1;
        const char* const stop = part.data() + part.size();
        auto [end, error] = std::from_chars(part.data(), stop, tasks);
        if (error != std::errc()) return 0;
        if (end != stop) {
            if (stop - end < 4 || std::string(end, end + 2) != "(x") return 0;
            const auto [close, wrong] = std::from_chars(end + 2, stop, nodes);
            if (wrong != std::errc() || close + 1 != stop || *close != ')') return 0;
        }
        if (node < nodes) return tasks;
        node -= nodes;
    }
    return 0;
}

bool is_loopback(const std::string& address) {
    return address == "localhost" || address == "::1" || address.compare(0, 4, "127.") == 0;
}

std::optional<Place> place_from(const Environment& environment) {
    constexpr int most = 1 << 16;
    for (const Names& names : {torchrun, open_mpi, slurm}) {
        if (!tells(names, environment)) continue;
        Place place;
        place.source = names.rank;
        place.size = number(environment, names.size, 1, most, 1);
        if (place.size == 1) return std::nullopt;
        place.rank = number(environment, names.rank, 0, place.size - 1, 0);
        place.local_rank = number(environment, names.local_rank, 0, most, 0);
        place.local_size = number(environment, names.local_size, 1, place.size, 0);
        if (is(place, slurm))
            place.local_size = tasks_on_node(environment("SLURM_STEP_TASKS_PER_NODE"),
                                             number(environment, "SLURM_NODEID", 0, most, 0));
        const bool told = place.local_size > 0 && place.local_size <= place.size;
        if (!told) place.local_size = 1;
        place.run = run_of(place, environment);
        place.address = address_of(place, told, environment);
        place.port = number(environment, "MASTER_PORT", 1, 65534, default_port(place)) + 1;
        place.token = environment("RN50_TOKEN");
        if (place.token.size() > longest_token)
            throw Error(Exit::usage, cat("RN50_TOKEN has ", place.token.size(), " characters"),
                        cat("take ", longest_token, " at most"));
        return place;
    }
    return std::nullopt;
}

}  // namespace rn50
