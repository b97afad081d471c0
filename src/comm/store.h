// A small store of keys and values over TCP, which rank 0 serves: by it the ranks of a run find each other and notice
// who is lost.
//
// A message is its length (u32, network order), one letter, and for requests two texts (u32 length and bytes each). A
// connection's first request is the greeting, with the token.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/place.h"
#include "comm/straggler.h"

namespace rn50 {

/// What rank 0 runs. All of it happens in one thread.
class StoreServer {
  public:
    /// Listens on all interfaces, or on the loopback alone when `address` is one of it. port 0: any that is free. A
    /// rank that has sent heartbeats and is silent for `patience.silence`, or whose heartbeats' connection closes
    /// without farewell, is lost; and so are ranks that do not come further, as Stragglers has it. A connection that
    /// does not greet is closed after a while. Throws Error(Exit::device) when the port is taken.
    /// Let in is who knows the token, belongs to the same run and says the same number of ranks; and of each rank one
    /// process.
    StoreServer(const Place& place, const Patience& patience);
    /// The same for a run without a name.
    StoreServer(const std::string& address, int port, int ranks, const std::string& token, const Patience& patience);
    /// Before it goes it waits a few seconds for the other ranks' farewells; after a loss, until all have heard of it.
    ~StoreServer();
    StoreServer(const StoreServer&) = delete;
    StoreServer& operator=(const StoreServer&) = delete;

    int port() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// One connection to the store; one thread at a time. After an error it is of no more use.
class StoreClient {
  public:
    /// Tries until `patience` is over. Throws Error(Exit::peer_lost) naming the address when nobody answers, and
    /// Error(Exit::usage) with the reason when this process is not let in.
    StoreClient(const Place& place, std::chrono::milliseconds patience);
    /// The same for a run without a name, whose number of ranks is not compared.
    StoreClient(const std::string& address, int port, int rank, const std::string& token,
                std::chrono::milliseconds patience);
    ~StoreClient();
    StoreClient(const StoreClient&) = delete;
    StoreClient& operator=(const StoreClient&) = delete;

    /// Each throws Error(Exit::peer_lost) when the server does not answer within the patience.
    void set(const std::string& key, const std::string& value);
    /// Whether the key is there, and its value.
    bool get(const std::string& key, std::string& value);
    /// Waits for the key; false when `patience` is over.
    bool wait(const std::string& key, std::string& value, std::chrono::milliseconds patience);
    /// A sign of life, with where the rank is. Returns "" while all is well, else who was lost and why, in words.
    std::string beat(const Standing& standing = {});
    /// The last message of a rank; a `reason` other than "" makes it lost for that reason.
    void farewell(const std::string& reason);

    /// The address of this machine by which the others reach it: that by which it reached rank 0's; on rank 0's own
    /// machine, which it may have reached by the loopback, that by which the first rank from elsewhere came.
    std::string local_address();

  private:
    void connect_to(const std::string& address, int port, std::chrono::milliseconds patience);
    bool try_to_connect_to(const std::string& address, int port, std::string& reason);
    char request(char letter, const std::string& first, const std::string& second, std::string& answer);

    [[noreturn]] void throw_broken() const;

    int socket_ = -1;
    int rank_, size_;
    std::string where_;
};

/// What to do after a loss, in words.
constexpr const char* after_a_loss =
    "mend the cause; the same command with --resume auto --out DIR goes on from what was saved last, or begins where "
    "nothing was";

/// Kept by the server itself: the address on which the first rank from another machine reached it, and who was not let
/// in last and why.
constexpr const char *key_of_address = "server/address", *key_of_refusal = "server/refused";

/// This machine's name.
std::string host_name();

}  // namespace rn50
