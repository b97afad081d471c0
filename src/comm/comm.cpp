#include "comm/comm.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "comm/store.h"
#include "comm/watch.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr const char *here = "here/", *key_of_meeting = "met";
/// For rank 0's word on its way.
constexpr milliseconds grace{2000};
/// Bytes of all ranks together that are summed at a time.
constexpr size_t most_gathered = size_t{8} << 20;

}  // namespace

Communicator::Communicator(const Place& place, const Patience& patience) : place_(place), patience_(patience) {
    if (rank() == 0) {
        server_ = std::make_unique<StoreServer>(place, patience);
        place_.port = server_->port();
    }
    store_ = std::make_unique<StoreClient>(place_, patience.silence);
    meet();
    watch_ = std::make_unique<Watch>(
        place_, patience.silence, [this](const std::string& loss) { return end_engine(loss); },
        std::min<milliseconds>(patience.silence, longest_leaving));
}

Communicator::~Communicator() {
    if (watch_) watch_->leave("it ended before the others");
}

void Communicator::connect(const EngineMaker& make) {
    together({"the meeting of the ranks", 0}, [&] {
        std::unique_ptr<Collectives> engine = make(*store_, place_, patience_.silence);
        const std::lock_guard<std::mutex> lock(engine_mutex_);
        engine_ = std::move(engine);
    });
    const PaceFor first(this, Pace::meeting);
    barrier();
}

std::string Communicator::end_engine(const std::string& loss) {
    const std::lock_guard<std::mutex> lock(engine_mutex_);
    std::string remedy;
    if (engine_ && loss.compare(0, std::strlen(nobody_moves), nobody_moves) == 0) remedy = engine_->hang_remedy();
    if (engine_) engine_->abort();
    return remedy.empty() ? after_a_loss : cat(remedy, "; ", after_a_loss);
}

void Communicator::abort_engine() {
    const std::lock_guard<std::mutex> lock(engine_mutex_);
    if (engine_) engine_->abort();
}

void Communicator::meet() {
    const milliseconds patience = patience_.silence;
    const auto end = Clock::now() + patience;
    store_->set(cat(here, rank()), "");
    std::string verdict, value;
    if (rank() != 0) {
        // Rank 0 looks for all; what it waits from when it came, which may have been later.
        if (!store_->wait(key_of_meeting, verdict, patience + grace))
            verdict = "rank 0 did not say whether all ranks came";
    } else {
        std::string missing;
        for (int other = 1; other < size(); ++other) {
            const auto left = std::chrono::duration_cast<milliseconds>(end - Clock::now());
            if (!store_->wait(cat(here, other), value, std::max(left, milliseconds(0))))
                missing += cat(missing.empty() ? "rank " : ", ", other);
        }
        if (!missing.empty()) {
            verdict = cat(missing, " of ", size(), " did not arrive within ",
                          std::chrono::duration<double>(patience).count(), " s at ", place_.address, ":", place_.port);
            if (store_->get(key_of_refusal, value)) verdict += cat("; not let in was ", value);
        }
        store_->set(key_of_meeting, verdict);
    }
    if (!verdict.empty())
        throw Error(Exit::peer_lost, verdict,
                    "see whether all ranks were started and what the missing ones say; a longer --peer-timeout gives "
                    "them more time");
}

std::string Communicator::consult(const std::string& mine, const Judge& judge) {
    const std::string key = cat("consult/", ++consultations_, "/"), answer_key = key + "answer";
    store_->set(cat(key, rank()), mine);
    if (rank() == 0) {
        std::vector<std::string> all;
        for (int other = 0; other < size(); ++other)
            all.push_back(wait_for(cat(key, other)));
        store_->set(answer_key, judge(all));
    }
    return wait_for(answer_key);
}

void Communicator::part() {
    watch_->leave("");
}

std::string Communicator::wait_for(const std::string& key) {
    std::string value;
    while (!store_->wait(key, value, milliseconds(200)))
        if (const std::string lost = watch_->loss(); !lost.empty()) throw_lost(lost);
    return value;
}

void Communicator::throw_lost(const std::string& loss) const {
    const std::string remedy = watch_->remedy();
    throw Error(Exit::peer_lost, loss, remedy.empty() ? after_a_loss : remedy);
}

template <class Work>
void Communicator::together(const CollectiveKind& kind, const Work& work) {
    const std::string lost = watch_->loss();
    if (!lost.empty()) throw_lost(lost);
    watch_->enter(kind);
    try {
        work();
    } catch (const std::exception& error) {
        watch_->exit();
        const auto* const told = dynamic_cast<const Error*>(&error);
        if (told != nullptr && told->code() != Exit::peer_lost) throw;  // this rank's own fault
        // A broken connection shows before the heartbeats tell whose end it was.
        const std::string loss = watch_->wait_for_loss(patience_.silence + std::chrono::seconds(5));
        if (!loss.empty()) throw_lost(loss);
        throw Error(Exit::peer_lost, cat("the ranks lost touch with each other: ", error.what()),
                    told == nullptr || told->remedy().empty() ? after_a_loss : told->remedy());
    }
    watch_->exit();
}

void Communicator::begin_average(const Tensor& values) {
    together({"an average", values.bytes()}, [&] { engine_->begin_average(values); });
}

void Communicator::finish_averages() {
    together({"the averages", 0}, [&] { engine_->finish_averages(); });
}

void Communicator::broadcast(const Tensor& values) {
    together({"a broadcast", values.bytes()}, [&] { engine_->broadcast(values); });
}

void Communicator::gather(const Tensor& mine, const Tensor& all) {
    RN50_REQUIRE(all.dtype == mine.dtype && all.count() == size() * mine.count(), "the gathered are no ", size(),
                 " times what is gathered");
    together({"a gathering", mine.bytes()}, [&] { engine_->gather(mine, all); });
}

void Communicator::run_recorded(const std::function<void()>& run) {
    together({"a recorded step", 0}, [&] { engine_->run_recorded(run); });
}

void Communicator::gather_host(const void* mine, int64_t bytes, void* all) {
    together({"a gathering by the hosts", bytes}, [&] { engine_->gather_host(mine, bytes, all); });
}

std::string Communicator::ways() {
    std::vector<NcclLink> links;
    for (const std::string& of_rank : gather(text_of(engine_->links())))
        for (const NcclLink& link : links_from(of_rank))
            links.push_back(link);
    return ways_of(links);
}

std::vector<std::string> Communicator::gather(const std::string& mine) {
    const std::vector<double> lengths = gather(std::vector<double>{static_cast<double>(mine.size())});
    const auto longest = static_cast<size_t>(*std::max_element(lengths.begin(), lengths.end()));
    std::vector<std::string> texts(static_cast<size_t>(size()));
    if (longest == 0) return texts;
    std::string padded = mine, all(longest * static_cast<size_t>(size()), '\0');
    padded.resize(longest);
    gather_host(padded.data(), static_cast<int64_t>(longest), all.data());
    for (size_t i = 0; i < texts.size(); ++i)
        texts[i] = all.substr(i * longest, static_cast<size_t>(lengths[i]));
    return texts;
}

std::vector<double> Communicator::gather(const std::vector<double>& mine) {
    std::vector<double> all(mine.size() * static_cast<size_t>(size()));
    gather_host(mine.data(), static_cast<int64_t>(mine.size() * sizeof(double)), all.data());
    return all;
}

std::vector<double> Communicator::sum(std::vector<double> mine) {
    // In pieces: Gloo gathers what it sums, and a confusion matrix of a thousand classes, of all ranks at once, would
    // fill the memory.
    const size_t piece = std::max<size_t>(1, most_gathered / sizeof(double) / static_cast<size_t>(size()));
    for (size_t begin = 0; begin < mine.size(); begin += piece) {
        const auto count = static_cast<int64_t>(std::min(piece, mine.size() - begin));
        together({"a sum by the hosts", count * int64_t{sizeof(double)}},
                 [&] { engine_->sum_host(mine.data() + begin, count); });
    }
    return mine;
}

void Communicator::begin_sum(const std::vector<double>& mine) {
    RN50_REQUIRE(numbers_begun_ == 0, "a second sum is begun before the first one is finished");
    RN50_REQUIRE(!mine.empty() && static_cast<int64_t>(mine.size()) <= Collectives::most_begun, mine.size(),
                 " numbers to sum");
    together({"a sum that is begun", static_cast<int64_t>(mine.size() * sizeof(double))},
             [&] { engine_->begin_sum(mine.data(), static_cast<int64_t>(mine.size())); });
    numbers_begun_ = mine.size();
}

std::vector<double> Communicator::finish_sum() {
    RN50_REQUIRE(numbers_begun_ > 0, "no sum was begun");
    std::vector<double> all(std::exchange(numbers_begun_, 0));
    together({"the sum that was begun", 0}, [&] { engine_->finish_sum(all.data()); });
    return all;
}

void Communicator::barrier() {
    gather(std::vector<double>{0.0});
}

Pace Communicator::pace(Pace pace) {
    return watch_->pace(pace);
}

void Communicator::progress() {
    watch_->progress();
}

void Communicator::step_took(double seconds) {
    watch_->step_took(seconds);
}

void Communicator::leave() {
    barrier();
    watch_->leave("");
}

void Communicator::fail(const std::string& reason) {
    watch_->leave(reason.empty() ? "it failed" : reason);
    abort_engine();  // nobody will come to what this rank has begun
}

}  // namespace rn50
