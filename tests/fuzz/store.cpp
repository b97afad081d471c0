// The store of the ranks: whatever comes to its port, also from a rank that knows the token, it neither breaks nor
// stops to serve another rank. Not a file's parser, but the one of the network.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "comm/store.h"

namespace {

using rn50::StoreClient;
using rn50::StoreServer;

constexpr std::chrono::milliseconds patience{5000};
constexpr const char* loopback = "127.0.0.1";

[[noreturn]] void broken(const char* what) {
    std::perror(what);
    std::abort();
}

/// From an address of its own: a pair of addresses has no more than some ten thousand ports, and each rests for a
/// minute.
int connected(int port, uint32_t number) {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in here{}, there{};
    here.sin_family = there.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(0x7f000002u + number % 0xfffff0u);
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    there.sin_port = htons(static_cast<uint16_t>(port));
    const timeval limit{5, 0};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (bind(socket, reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0 ||
        connect(socket, reinterpret_cast<const sockaddr*>(&there), sizeof there) != 0)
        broken("no connection to the store");
    return socket;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    // What ranks leave in a server stays until its end, so each serves for a while only.
    constexpr uint32_t served_at_most = 500;
    static std::unique_ptr<StoreServer> server;
    static std::unique_ptr<StoreClient> witness;
    static uint32_t number = 0;
    if (number++ % served_at_most == 0) {
        witness.reset();
        server.reset();
        server = std::make_unique<StoreServer>(loopback, 0, 4, "", patience);
        witness = std::make_unique<StoreClient>(loopback, server->port(), 0, "", patience);
    }
    const int socket = connected(server->port(), number);
    for (size_t sent = 0; sent < size;) {
        const ssize_t more = send(socket, data + sent, size - sent, MSG_NOSIGNAL);
        if (more <= 0) break;  // it hangs up as soon as it has seen enough
        sent += static_cast<size_t>(more);
    }
    shutdown(socket, SHUT_WR);
    char answers[4096];
    ssize_t got = 0;
    while ((got = recv(socket, answers, sizeof answers, 0)) > 0) {
    }
    if (got < 0 && errno != ECONNRESET) broken("the store does not hang up");
    close(socket);

    std::string value;
    const std::string key = "of the witness", mine = std::to_string(number);
    witness->set(key, mine);
    if (!witness->get(key, value) || value != mine) broken("the store has forgotten");
    return 0;
}
