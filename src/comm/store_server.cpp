#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "comm/addresses.h"
#include "comm/store.h"
#include "comm/wire.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int poll_ms = 100;
constexpr std::chrono::seconds patience_at_end{5};
/// What a connection may take to greet. A port scanner's, or one that a firewall has cut off, would stay for ever.
constexpr std::chrono::seconds patience_for_greeting{10};
constexpr size_t most_keys = 1 << 20, most_bytes = size_t{64} << 20, most_connections = 1 << 14;
/// Of what a rank calls its collective.
constexpr size_t longest_words = 80;

struct Connection {
    int socket = -1;
    int rank = -1;  ///< once it has greeted
    bool beats = false;
    Clock::time_point since = Clock::now();
    std::string input, output;
};

struct Peer {
    std::string host, process;
    int connections = 0;                            ///< of that process, now
    bool alive = false, told = false, met = false;  ///< met: it has sent a heartbeat
    Clock::time_point heard;
};

Place place_of_server(const std::string& address, int port, int ranks, const std::string& token) {
    Place place;
    place.address = address;
    place.port = port;
    place.size = ranks;
    place.token = token;
    return place;
}

}  // namespace

struct StoreServer::State {
    int listener = -1;
    std::string token, run;
    Clock::time_point accepts_again{};  ///< after a failure
    Patience patience{std::chrono::milliseconds(0)};
    std::optional<Stragglers> stragglers;
    std::vector<Connection> connections;
    std::vector<Peer> peers;
    std::map<std::string, std::string> values;
    size_t bytes = 0;
    std::string loss;  ///< who was lost first and why
    std::atomic<bool> stop{false};
    std::thread thread;

    void lose(int rank, const std::string& why) {
        peers[static_cast<size_t>(rank)].alive = false;
        if (loss.empty()) loss = cat(name_of_rank(rank), " was lost: ", why);
    }

    std::string name_of_rank(int rank) const {
        return cat("rank ", rank, " on ", peers[static_cast<size_t>(rank)].host);
    }

    /// Whether somebody still has to hear of the loss, or to say farewell. Rank 0 is this process.
    bool awaited() const {
        for (size_t rank = 1; rank < peers.size(); ++rank)
            if (peers[rank].alive && !(peers[rank].told && !loss.empty())) return true;
        return false;
    }

    void serve() {
        Clock::time_point turn = Clock::now(), ending{};
        while (true) {
            if (stop) {
                if (ending == Clock::time_point{}) ending = Clock::now() + patience_at_end;
                if (!awaited() || Clock::now() > ending) break;
            }
            wait_and_read();
            const Clock::time_point now = Clock::now();
            // After a pause of this process itself the others' silence means nothing.
            if (now - turn > patience.silence / 2) {
                for (Peer& peer : peers)
                    peer.heard = now;
                stragglers->forgive(now);
            }
            turn = now;
            for (size_t rank = 0; rank < peers.size(); ++rank)
                if (peers[rank].alive && now - peers[rank].heard > patience.silence)
                    lose(static_cast<int>(rank),
                         cat("no sign of life for ", std::chrono::duration<double>(patience.silence).count(), " s"));
            if (loss.empty()) loss = stragglers->verdict(now, [this](int rank) { return name_of_rank(rank); });
            close_those_who_do_not_greet(now);
        }
        for (const Connection& connection : connections)
            close(connection.socket);
        close(listener);
    }

    void close_those_who_do_not_greet(Clock::time_point now) {
        const auto patient = std::min<Clock::duration>(patience_for_greeting, patience.silence);
        for (size_t i = connections.size(); i-- > 0;) {
            if (connections[i].rank >= 0 || now - connections[i].since <= patient) continue;
            close(connections[i].socket);
            connections.erase(connections.begin() + static_cast<ptrdiff_t>(i));
        }
    }

    void wait_and_read() {
        const bool accepts = Clock::now() >= accepts_again;
        std::vector<pollfd> waited{{accepts ? listener : -1, POLLIN, 0}};
        for (const Connection& c : connections)
            waited.push_back({c.socket, static_cast<short>(c.output.empty() ? POLLIN : POLLIN | POLLOUT), 0});
        if (poll(waited.data(), waited.size(), poll_ms) <= 0) return;
        for (size_t i = connections.size(); i-- > 0;) {
            if (waited[i + 1].revents == 0) continue;
            if (exchange(connections[i])) continue;
            close(connections[i].socket);
            if (connections[i].rank >= 0) --peers[static_cast<size_t>(connections[i].rank)].connections;
            if (connections[i].beats && peers[static_cast<size_t>(connections[i].rank)].alive)
                lose(connections[i].rank, "its connection was closed, so its process has ended");
            connections.erase(connections.begin() + static_cast<ptrdiff_t>(i));
        }
        if (waited[0].revents != 0) accept_all();
    }

    void accept_all() {
        while (true) {
            const int socket = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (socket >= 0) {
                take_in(socket);
            } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
                return;
            } else if (errno != EINTR && errno != ECONNABORTED) {
                // Whoever waits at the door keeps poll() awake: without a pause this thread would spin.
                accepts_again = Clock::now() + std::chrono::milliseconds(poll_ms);
                log::warn_once("accept", cat(with_errno("rank 0 cannot let another rank in"),
                                             "; it tries again (two open files a rank are needed: ulimit -n)"));
                return;
            }
        }
    }

    void take_in(int socket) {
        if (connections.size() >= most_connections) {
            close(socket);
            return;
        }
        connections.emplace_back();
        connections.back().socket = socket;
        const std::string here = own_address(socket);
        if (!here.empty() && !is_loopback(here)) values.emplace(key_of_address, here);
    }

    /// Reads, answers and writes what can be without waiting. False: the connection has ended.
    bool exchange(Connection& connection) {
        char buffer[4096];
        while (true) {
            const ssize_t got = recv(connection.socket, buffer, sizeof buffer, 0);
            if (got > 0) {
                connection.input.append(buffer, static_cast<size_t>(got));
                if (!answer_all(connection)) return false;
                continue;
            }
            if (got == 0) return false;
            if (errno == EINTR) continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
            break;
        }
        return write_out(connection);
    }

    static bool write_out(Connection& connection) {
        while (!connection.output.empty()) {
            const ssize_t sent =
                send(connection.socket, connection.output.data(), connection.output.size(), MSG_NOSIGNAL);
            if (sent < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
            connection.output.erase(0, static_cast<size_t>(sent));
        }
        return true;
    }

    /// Answers each whole message that has come. False: what came is none of ours.
    bool answer_all(Connection& connection) {
        while (connection.input.size() >= 4) {
            const uint32_t length = wire::number_at(connection.input.data());
            const uint32_t allowed = connection.rank < 0 ? wire::longest_greeting : wire::longest_message;
            if (length < 1 || length > allowed || connection.output.size() > 2 * wire::longest_message) return false;
            if (connection.input.size() < 4 + length) return true;
            const char letter = connection.input[4];
            const std::string body = connection.input.substr(5, length - 1);
            connection.input.erase(0, 4 + length);
            std::string first, second;
            size_t place = 0;
            if (!wire::take_text(body, place, first) || !wire::take_text(body, place, second) || place != body.size())
                return false;
            if (connection.rank < 0 ? !greet(connection, letter, first, second)
                                    : !answer(connection, letter, first, second))
                return false;
        }
        return true;
    }

    /// first: a wire::Guest, second: the token.
    bool greet(Connection& connection, char letter, const std::string& first, const std::string& second) {
        if (letter != wire::greet) return false;
        wire::Guest guest;
        const bool understood = wire::guest_from(first, guest);
        const std::string against = understood ? what_is_against(guest, second) : "it is another version of rn50";
        if (!against.empty()) {
            if (understood)
                values[key_of_refusal] = cat("a process on ", guest.host, " as rank ", guest.rank, ": ", against);
            connection.output += wire::message(wire::refused, against);
            write_out(connection);
            return false;
        }
        connection.rank = guest.rank;
        Peer& peer = peers[static_cast<size_t>(guest.rank)];
        peer.host = guest.host;
        peer.process = guest.process;
        ++peer.connections;
        connection.output += wire::message(wire::done, "");
        return true;
    }

    /// Why this process is not let in; "": it is.
    std::string what_is_against(const wire::Guest& guest, const std::string& its_token) const {
        const auto size = static_cast<int>(peers.size());
        if (its_token != token) return "it has another RN50_TOKEN";
        if (guest.run != run) return cat("it belongs to ", in_words(guest.run), ", rank 0 to ", in_words(run));
        if (guest.size != 0 && guest.size != size)
            return cat("it is one of ", guest.size, " ranks, rank 0 one of ", size);
        if (guest.rank < 0 || guest.rank >= size) return cat("there are ", size, " ranks");
        const Peer& peer = peers[static_cast<size_t>(guest.rank)];
        if (peer.process != guest.process && (peer.connections > 0 || peer.met))
            return cat("rank ", guest.rank, " is there already, on ", peer.host);
        return "";
    }

    static std::string in_words(const std::string& run) { return run.empty() ? "a run without a name" : run; }

    bool answer(Connection& connection, char letter, const std::string& first, const std::string& second) {
        Peer& peer = peers[static_cast<size_t>(connection.rank)];
        if (letter == wire::set) {
            if (values.size() >= most_keys || bytes + first.size() + second.size() > most_bytes) return false;
            bytes += first.size() + second.size();
            values[first] = second;
            connection.output += wire::message(wire::done, "");
        } else if (letter == wire::get) {
            const auto found = values.find(first);
            connection.output +=
                found == values.end() ? wire::message(wire::absent, "") : wire::message(wire::done, found->second);
        } else if (letter == wire::beat) {
            Standing standing;
            if (!numbers_from(first, standing)) return false;
            standing.collective = second.substr(0, longest_words);
            if (!connection.beats) peer.alive = peer.met = connection.beats = true;
            peer.heard = Clock::now();
            stragglers->heard(connection.rank, standing, peer.heard);
            peer.told = !loss.empty();
            connection.output += wire::message(wire::done, loss);
        } else if (letter == wire::farewell) {
            if (!first.empty()) lose(connection.rank, first);
            peer.alive = false;
            stragglers->gone(connection.rank);
            connection.output += wire::message(wire::done, "");
        } else {
            return false;
        }
        return true;
    }
};

StoreServer::StoreServer(const Place& place, const Patience& patience) : state_(std::make_unique<State>()) {
    state_->token = place.token;
    state_->run = place.run;
    state_->patience = patience;
    state_->peers.resize(static_cast<size_t>(place.size));
    state_->stragglers.emplace(place.size, patience);
    state_->listener = listen_on(place.address, place.port);
    state_->thread = std::thread([this] { state_->serve(); });
}

StoreServer::StoreServer(const std::string& address, int port, int ranks, const std::string& token,
                         const Patience& patience)
    : StoreServer(place_of_server(address, port, ranks, token), patience) {}

StoreServer::~StoreServer() {
    state_->stop = true;
    state_->thread.join();
}

int StoreServer::port() const {
    return port_of(state_->listener);
}

}  // namespace rn50
