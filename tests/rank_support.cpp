#include "rank_support.h"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/store.h"

namespace rn50 {

int free_port() {
    return StoreServer("127.0.0.1", 0, 1, "", std::chrono::milliseconds(1000)).port();
}

std::string what_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

void in_ranks(int ranks, const Patience& patience, const std::function<void(Communicator&)>& work,
              const EngineMaker& engine) {
    const int port = free_port();
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank)
        threads.emplace_back([&, rank] {
            Place place;
            place.rank = place.local_rank = rank;
            place.size = place.local_size = ranks;
            place.port = port;
            place.token = "secret";
            try {
                Communicator comm(place, patience);
                comm.connect(engine);
                work(comm);
            } catch (const std::exception& error) {
                FAIL_CHECK("rank ", rank, ": ", error.what());
            }
        });
    for (std::thread& thread : threads)
        thread.join();
}

}  // namespace rn50
