#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/error.h"
#include "comm/addresses.h"
#include "comm/store.h"
#include "comm/wire.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

[[noreturn]] void throw_unreachable(const std::string& where, const std::string& reason) {
    throw Error(Exit::peer_lost, cat("rank 0 does not answer at ", where, ": ", reason),
                "see whether rank 0 was started, whether MASTER_ADDR and MASTER_PORT + 1 are its own, and whether a "
                "firewall is between");
}

/// Connects within a second. Returns the socket, or -1 with errno.
int try_to_connect(const addrinfo& target) {
    const int socket = ::socket(target.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket < 0) return -1;
    int error = 0;
    if (connect(socket, target.ai_addr, target.ai_addrlen) != 0) error = errno;
    if (error == EINPROGRESS) {
        pollfd waited{socket, POLLOUT, 0};
        socklen_t size = sizeof error;
        if (poll(&waited, 1, 1000) <= 0)
            error = ETIMEDOUT;
        else
            getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == 0) return socket;
    close(socket);
    errno = error;
    return -1;
}

void set_patience(int socket, milliseconds patience) {
    const timeval limit{static_cast<time_t>(patience.count() / 1000),
                        static_cast<suseconds_t>(patience.count() % 1000 * 1000)};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const int yes = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK);
}

bool send_all(int socket, const std::string& text) {
    for (size_t done = 0; done < text.size();) {
        const ssize_t sent = send(socket, text.data() + done, text.size() - done, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        done += static_cast<size_t>(sent);
    }
    return true;
}

bool receive_all(int socket, char* to, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t got = recv(socket, to + done, bytes - done, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = ECONNRESET;
        if (got <= 0) return false;
        done += static_cast<size_t>(got);
    }
    return true;
}

Place place_at(const std::string& address, int port, int rank, const std::string& token) {
    Place place;
    place.address = address;
    place.port = port;
    place.rank = rank;
    place.size = 0;
    place.token = token;
    return place;
}

}  // namespace

std::string host_name() {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return name[0] == '\0' ? "unknown" : name;
}

StoreClient::StoreClient(const Place& place, milliseconds patience)
    : rank_(place.rank), size_(place.size), where_(cat(place.address, ":", place.port)) {
    static const std::string process = fresh_token();
    connect_to(place.address, place.port, patience);
    std::string answer;
    const wire::Guest guest{place.rank, place.size, process, host_name(), place.run};
    if (request(wire::greet, wire::text_of(guest), place.token, answer) != wire::done)
        throw Error(Exit::usage, cat("rank 0 at ", where_, " refuses this process as rank ", rank_, ": ", answer),
                    "give all ranks of a run the same program, number of ranks and RN50_TOKEN, and each run a "
                    "MASTER_PORT of its own");
}

StoreClient::StoreClient(const std::string& address, int port, int rank, const std::string& token,
                         milliseconds patience)
    : StoreClient(place_at(address, port, rank, token), patience) {}

StoreClient::~StoreClient() {
    if (socket_ >= 0) close(socket_);
}

bool StoreClient::try_to_connect_to(const std::string& address, int port, std::string& reason) {
    addrinfo wanted{}, *found = nullptr;
    wanted.ai_family = AF_UNSPEC;
    wanted.ai_socktype = SOCK_STREAM;
    const int failed = getaddrinfo(address.c_str(), std::to_string(port).c_str(), &wanted, &found);
    if (failed != 0) {
        reason = gai_strerror(failed);
        return false;
    }
    for (const addrinfo* target = found; target != nullptr && socket_ < 0; target = target->ai_next) {
        socket_ = try_to_connect(*target);
        if (socket_ < 0) reason = with_errno("connecting");
    }
    freeaddrinfo(found);
    return socket_ >= 0;
}

void StoreClient::connect_to(const std::string& address, int port, milliseconds patience) {
    const Clock::time_point end = Clock::now() + patience;
    std::string reason;
    while (!try_to_connect_to(address, port, reason)) {
        if (Clock::now() > end) throw_unreachable(where_, reason);
        std::this_thread::sleep_for(milliseconds(50));
    }
    set_patience(socket_, patience);
}

void StoreClient::throw_broken() const {
    throw Error(Exit::peer_lost, with_errno(cat("no answer from ", where_)), after_a_loss);
}

char StoreClient::request(char letter, const std::string& first, const std::string& second, std::string& answer) {
    std::string body;
    wire::put_text(body, first);
    wire::put_text(body, second);
    RN50_REQUIRE(body.size() < wire::longest_message, "a message of ", body.size(), " bytes for the store");
    char head[4];
    if (!send_all(socket_, wire::message(letter, body)) || !receive_all(socket_, head, sizeof head)) throw_broken();
    const uint32_t length = wire::number_at(head);
    if (length < 1 || length > wire::longest_message) throw_unreachable(where_, "what answers there is not rn50");
    std::string text(length, '\0');
    if (!receive_all(socket_, text.data(), length)) throw_broken();
    answer = text.substr(1);
    return text[0];
}

void StoreClient::set(const std::string& key, const std::string& value) {
    std::string answer;
    request(wire::set, key, value, answer);
}

bool StoreClient::get(const std::string& key, std::string& value) {
    return request(wire::get, key, "", value) == wire::done;
}

bool StoreClient::wait(const std::string& key, std::string& value, milliseconds patience) {
    const Clock::time_point end = Clock::now() + patience;
    // Thousands of ranks that ask together must not ask too often.
    const milliseconds longest(50 + size_ / 16);
    milliseconds pause(1);
    while (!get(key, value)) {
        if (Clock::now() > end) return false;
        std::this_thread::sleep_for(pause);
        pause = std::min(2 * pause, longest);
    }
    return true;
}

std::string StoreClient::beat(const Standing& standing) {
    std::string loss;
    request(wire::beat, numbers_of(standing), standing.collective, loss);
    return loss;
}

void StoreClient::farewell(const std::string& reason) {
    std::string answer;
    request(wire::farewell, reason, "", answer);
}

std::string StoreClient::local_address() {
    std::string here = own_address(socket_);
    if (here.empty()) here = "127.0.0.1";
    // Debian lets a host's own name lead to its loopback, by which no other machine comes back.
    std::string seen_from_elsewhere;
    return is_loopback(here) && get(key_of_address, seen_from_elsewhere) ? seen_from_elsewhere : here;
}

}  // namespace rn50
