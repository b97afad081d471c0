#include "cli/bench_comm.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/log.h"
#include "cli/ranks.h"
#include "cli/training_setup.h"
#include "report/table.h"
#include "tensor/arena.h"
#include "train/fit.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t smallest = 4096, parameters = 25'557'032;  // of ResNet-50
/// Beyond it, of all ranks together, nothing is gathered: training gathers little.
constexpr int64_t most_gathered = int64_t{512} << 20;
constexpr int least_calls = 5, most_calls = 200;
constexpr double seconds_of_calls = 1;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

// --- one TCP stream
// ------------------------------------------------------------------------------------------------------

constexpr int64_t stream_bytes = int64_t{512} << 20, stream_warm_up = int64_t{64} << 20, piece = int64_t{1} << 20;
constexpr int patience_ms = 5000;

class Socket {
  public:
    explicit Socket(int descriptor) : descriptor_(descriptor) {
        const timeval limit{patience_ms / 1000, 0};
        setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    }
    ~Socket() {
        if (descriptor_ >= 0) close(descriptor_);
    }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    int get() const { return descriptor_; }

  private:
    int descriptor_;
};

/// Where rank 0 waits for rank 1, on any port; 0 where it cannot.
int listen_at_any_port(const Socket& listener) {
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_ANY);
    socklen_t size = sizeof here;
    if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&here), size) != 0 || listen(listener.get(), 1) != 0 ||
        getsockname(listener.get(), reinterpret_cast<sockaddr*>(&here), &size) != 0)
        return 0;
    return ntohs(here.sin_port);
}

/// Bytes a second of what arrives after the warm-up; 0: it did not all come.
double receive(const Socket& listener) {
    pollfd waited{listener.get(), POLLIN, 0};
    if (poll(&waited, 1, patience_ms) <= 0) return 0;
    const Socket stream(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::vector<char> buffer(piece);
    Clock::time_point start{};
    int64_t got = 0, before = 0;
    while (got < stream_warm_up + stream_bytes) {
        const ssize_t more = recv(stream.get(), buffer.data(), buffer.size(), 0);
        if (more <= 0) return 0;
        got += more;
        if (before > 0 || got < stream_warm_up) continue;
        before = got;
        start = Clock::now();
    }
    return static_cast<double>(got - before) / seconds_since(start);
}

void send_to(const std::string& address, const std::string& port) {
    addrinfo wanted{}, *found = nullptr;
    wanted.ai_family = AF_INET;
    wanted.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(address.c_str(), port.c_str(), &wanted, &found) != 0) return;
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> target(found, &freeaddrinfo);
    const Socket stream(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(stream.get(), found->ai_addr, found->ai_addrlen) != 0) return;
    const std::vector<char> buffer(piece);
    for (int64_t left = stream_warm_up + stream_bytes; left > 0;) {
        const auto most = static_cast<size_t>(std::min(left, piece));
        const ssize_t sent = send(stream.get(), buffer.data(), most, MSG_NOSIGNAL);
        if (sent <= 0) return;
        left -= sent;
    }
}

/// Bytes a second that one plain TCP stream carries from rank 1 to rank 0, by the way on which the ranks met; 0 where
/// nothing comes through.
double stream_rate(const Place& place, Communicator& comm) {
    double rate = 0;
    if (comm.rank() == 0) {
        const Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        comm.gather(std::to_string(listen_at_any_port(listener)));
        rate = receive(listener);
    } else {
        const std::string port = comm.gather("")[0];
        if (comm.rank() == 1 && port != "0") send_to(place.address, port);
    }
    comm.barrier();
    return rate;
}

// --- collectives
// ---------------------------------------------------------------------------------------------------------

struct Row {
    int64_t bytes;
    double average, average_16, broadcast, gather;  ///< seconds; gather 0: not measured
};

class CommBench {
  public:
    CommBench(const Options& options, Backend& backend, Communicator& comm)
        : backend_(backend),
          comm_(comm),
          arena_(backend.memory(), 4 * parameters + most_gathered + 2 * Arena::alignment),
          ctx_{arena_, false, nullptr},
          calls_(options.max_steps),
          mine_(arena_.alloc(Use::gradients, DType::f32, {parameters})),
          all_(arena_.alloc(Use::workspace, DType::f32, {most_gathered / 4})) {
        const std::vector<float> ones(parameters, 1.0f);
        backend_.copy_in(ctx_, ones.data(), mine_);
        backend_.synchronize(ctx_);
    }

    std::vector<Row> run() {
        std::vector<Row> rows;
        for (int64_t bytes = smallest; agreed_signal(&comm_) == 0; bytes *= 4) {
            bytes = std::min(bytes, 4 * parameters);
            log::progress(cat(show_bytes(bytes), " ..."));
            const int64_t count = bytes / 4;
            const Tensor mine{mine_.data, DType::f32, {count}}, mine_16{mine_.data, DType::f16, {count}};
            Row row{bytes, 0, 0, 0, 0};
            row.average = seconds_of([&] { comm_.average(mine); });
            row.average_16 = seconds_of([&] { comm_.average(mine_16); });
            row.broadcast = seconds_of([&] { comm_.broadcast(mine); });
            if (comm_.size() * bytes <= most_gathered)
                row.gather = seconds_of([&] { comm_.gather(mine, {all_.data, DType::f32, {comm_.size(), count}}); });
            rows.push_back(row);
            if (bytes == 4 * parameters) break;
        }
        log::progress_done();
        return rows;
    }

  private:
    /// The median of as many calls as rank 0 wants, each with the wait for the device.
    template <class Call>
    double seconds_of(const Call& call) {
        const auto one = [&] {
            const Clock::time_point start = Clock::now();
            call();
            backend_.synchronize(ctx_);
            return seconds_since(start);
        };
        one();
        const double guess = one();
        const int wanted = calls_ > 0 ? static_cast<int>(calls_)
                                      : std::clamp(static_cast<int>(seconds_of_calls / std::max(guess, 1e-6)),
                                                   least_calls, most_calls);
        const int calls = static_cast<int>(comm_.gather(std::vector<double>{static_cast<double>(wanted)})[0]);
        std::vector<double> seconds;
        for (int i = 0; i < calls; ++i)
            seconds.push_back(one());
        return median(seconds);
    }

    Backend& backend_;
    Communicator& comm_;
    Arena arena_;
    Context ctx_;
    const int64_t calls_;
    const Tensor mine_, all_;
};

/// Bytes a second that leave each rank in an average: in a ring of R ranks each sends 2 (R - 1) / R of the values.
double sent_rate(int64_t bytes, int ranks, double seconds) {
    return 2.0 * (ranks - 1) / ranks * static_cast<double>(bytes) / seconds;
}

void print_table(const std::vector<Row>& rows, int ranks, const std::string& engine, double stream) {
    report::Table table({">KB", ">average ms", ">GB/s sent", ">in 16 bits ms", ">broadcast ms", ">gather ms"});
    const auto ms = [](double seconds) { return report::fixed(1e3 * seconds, seconds < 0.01 ? 3 : 1); };
    for (const Row& row : rows)
        table.row({report::fixed(static_cast<double>(row.bytes) / 1e3, row.bytes < 100'000 ? 1 : 0), ms(row.average),
                   report::fixed(sent_rate(row.bytes, ranks, row.average) / 1e9, 2), ms(row.average_16),
                   ms(row.broadcast), row.gather > 0 ? ms(row.gather) : "-"});
    std::printf("comm: %d ranks by %s; one TCP stream: %s\n%s", ranks, engine.c_str(),
                stream > 0 ? (report::fixed(stream / 1e9, 2) + " GB/s").c_str() : "nothing came through",
                table.str().c_str());
}

void print_json(const std::vector<Row>& rows, int ranks, const std::string& engine, double stream) {
    using Json = nlohmann::ordered_json;
    Json list = Json::array();
    for (const Row& row : rows)
        list.push_back({{"bytes", row.bytes},
                        {"average_us", 1e6 * row.average},
                        {"sent_gb_s", sent_rate(row.bytes, ranks, row.average) / 1e9},
                        {"average_16_us", 1e6 * row.average_16},
                        {"broadcast_us", 1e6 * row.broadcast},
                        {"gather_us", row.gather > 0 ? Json(1e6 * row.gather) : Json()}});
    std::puts(
        Json{{"ranks", ranks}, {"engine", engine}, {"stream_gb_s", stream / 1e9}, {"sizes", list}}.dump().c_str());
}

}  // namespace

void bench_comm(const Options& options, const Place& place, Communicator& comm) {
    const std::unique_ptr<Backend> backend =
        open_backend(options_here(options, ranks_on_these_cores(comm)), place.local_rank);
    comm.connect(engine_for(*backend));
    const double stream = stream_rate(place, comm);
    const std::vector<Row> rows = CommBench(options, *backend, comm).run();
    tell_ways(comm);
    if (comm.rank() != 0) return;
    if (options.json)
        print_json(rows, comm.size(), comm.engine(), stream);
    else
        print_table(rows, comm.size(), comm.engine(), stream);
}

}  // namespace rn50
