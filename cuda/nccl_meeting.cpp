#include "nccl_meeting.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "base/error.h"

namespace rn50::cuda {

namespace {

using std::chrono::milliseconds;

constexpr char granted = '+', refused = '-';
constexpr const char* key_of_id = "nccl/id";

std::string key_of(int rank) {
    return cat("nccl/gpu/", rank);
}

NcclGuest guest_from(const std::string& text) {
    std::istringstream in(text);
    NcclGuest guest;
    std::getline(in, guest.machine);
    std::getline(in, guest.bus);
    std::getline(in, guest.version);
    return guest;
}

/// Without the id of the boot.
std::string host_of(const NcclGuest& guest) {
    return guest.machine.substr(0, guest.machine.find(' '));
}

/// "" or what stands against a meeting, and the remedy on a line of its own.
class Host {
  public:
    explicit Host(const NcclGuest& me) : me_(me) { taken_[{me.machine, me.bus}] = 0; }

    std::string look_at(int rank, const NcclGuest& guest) {
        const auto [other, free] = taken_.insert({{guest.machine, guest.bus}, rank});
        if (!free)
            return cat("rank ", other->second, " and rank ", rank, " are on one GPU (", guest.bus, " of ",
                       host_of(guest), "), and NCCL takes one rank a GPU\n",
                       "start as many ranks on a machine as it has GPUs, each with a LOCAL_RANK of its own");
        if (guest.version != me_.version)
            return cat("rank ", rank, " on ", host_of(guest), " has NCCL ", guest.version, ", rank 0 on ", host_of(me_),
                       " has ", me_.version, "\ninstall the same version of NCCL on all machines");
        if (peer_.empty() && guest.machine == me_.machine) peer_ = guest.bus;
        return "";
    }
    const std::string& peer() const { return peer_; }

  private:
    NcclGuest me_;
    std::map<std::pair<std::string, std::string>, int> taken_;
    std::string peer_;
};

[[noreturn]] void refuse(const std::string& why) {
    const size_t end = why.find('\n');
    throw Error(Exit::device, why.substr(0, end), end == std::string::npos ? "" : why.substr(end + 1));
}

[[noreturn]] void nobody_came(int rank, milliseconds patience) {
    throw Error(Exit::peer_lost,
                cat("rank ", rank, " did not say which GPU it has within ",
                    std::chrono::duration<double>(patience).count(), " s"),
                "see what that rank says; a longer --peer-timeout gives it more time");
}

}  // namespace

std::string machine_name() {
    std::string boot;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
    return cat(host_name(), " ", boot);
}

NcclMeeting meet_for_nccl(StoreClient& store, const Place& place, const NcclGuest& me, const std::string& id,
                          milliseconds patience) {
    std::string text;
    if (place.rank != 0) {
        store.set(key_of(place.rank), cat(me.machine, "\n", me.bus, "\n", me.version));
        if (!store.wait(key_of_id, text, patience)) nobody_came(0, patience);
        if (text[0] == refused) refuse(text.substr(1));
        return {text.substr(1), ""};
    }
    Host host(me);
    std::string against;
    const auto end = std::chrono::steady_clock::now() + patience;
    for (int rank = 1; rank < place.size && against.empty(); ++rank) {
        const auto left = std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now());
        if (!store.wait(key_of(rank), text, std::max(left, milliseconds(0)))) nobody_came(rank, patience);
        against = host.look_at(rank, guest_from(text));
    }
    store.set(key_of_id, against.empty() ? granted + id : refused + against);
    if (!against.empty()) refuse(against);
    return {id, host.peer()};
}

}  // namespace rn50::cuda
