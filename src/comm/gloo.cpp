// Gloo: the collectives of ranks on CPUs. The one file that knows whether the library is there.
#include "base/error.h"
#include "base/half.h"
#include "base/machine.h"
#include "comm/comm.h"
#include "comm/store.h"

#ifdef RN50_GLOO
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/broadcast.h>
#include <gloo/config.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>
#endif

namespace rn50 {

#ifdef RN50_GLOO

namespace {

using std::chrono::milliseconds;

/// A step may be slow: the heartbeats decide who is lost, not a collective's age.
constexpr milliseconds no_limit = std::chrono::hours(24 * 365);

/// Where Gloo's ranks leave their addresses.
class Rendezvous : public gloo::rendezvous::Store {
  public:
    Rendezvous(StoreClient& store, milliseconds patience) : store_(store), patience_(patience) {}

    void set(const std::string& key, const std::vector<char>& data) override {
        store_.set("gloo/" + key, std::string(data.begin(), data.end()));
    }
    std::vector<char> get(const std::string& key) override {
        std::string value;
        if (!store_.wait("gloo/" + key, value, patience_))
            throw Error(Exit::peer_lost, cat("a rank did not leave its address (", key, ")"),
                        "see what the other ranks say");
        return {value.begin(), value.end()};
    }
    void wait(const std::vector<std::string>& keys) override {
        for (const std::string& key : keys)
            get(key);
    }
    void wait(const std::vector<std::string>& keys, const milliseconds&) override { wait(keys); }

  private:
    StoreClient& store_;
    milliseconds patience_;
};

using ContextPtr = std::shared_ptr<gloo::rendezvous::Context>;

struct F32 {
    using Bits = float;
    static float widen(float value) { return value; }
    static float narrow(float value) { return value; }
};
struct F16 {
    using Bits = uint16_t;
    static float widen(uint16_t bits) { return f16_to_f32(bits); }
    static uint16_t narrow(float value) { return f32_to_f16(value); }
};
struct Bf16 {
    using Bits = uint16_t;
    static float widen(uint16_t bits) { return bf16_to_f32(bits); }
    static uint16_t narrow(float value) { return f32_to_bf16(value); }
};

template <class T>
void add(void* dst, const void* a, const void* b, size_t count) {
    auto* const to = static_cast<typename T::Bits*>(dst);
    const auto *const one = static_cast<const typename T::Bits*>(a), *const other = static_cast<decltype(one)>(b);
    for (size_t i = 0; i < count; ++i)
        to[i] = T::narrow(T::widen(one[i]) + T::widen(other[i]));
}

template <class T>
void average_of(const ContextPtr& context, const Tensor& values, uint32_t tag) {
    auto* const data = static_cast<typename T::Bits*>(values.data);
    const auto count = static_cast<size_t>(values.count());
    // Before the sum: in 16 bits it would be beyond the range where the mean is not.
    const float share = 1.0f / static_cast<float>(context->size);
    for (size_t i = 0; i < count; ++i)
        data[i] = T::narrow(T::widen(data[i]) * share);
    gloo::AllreduceOptions options(context);
    // A ring adds each part at one rank and hands the sum round, so all ranks have the same bits.
    options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
    options.setOutput(data, count);
    options.setReduceFunction(&add<T>);
    options.setTag(tag);
    gloo::allreduce(options);
}

/// In place: the mean over the ranks.
void average(const ContextPtr& context, const Tensor& values, uint32_t tag) {
    switch (values.dtype) {
        case DType::f32:
            return average_of<F32>(context, values, tag);
        case DType::f16:
            return average_of<F16>(context, values, tag);
        case DType::bf16:
            return average_of<Bf16>(context, values, tag);
        default:
            RN50_REQUIRE(false, "an average of ", name_of(values.dtype));
    }
}

/// A thread that averages one tensor after the other, beside the thread that trains: so the order is the same on all
/// ranks, and whatever the other thread does with them meanwhile is told apart by the kind of collective.
class Averages {
  public:
    explicit Averages(const ContextPtr& context) : state_(std::make_shared<State>()) {
        state_->context = context;
        thread_ = std::thread([state = state_] { state->run(); });
    }

    /// After abort(), or at the end of the run. A collective whose other ranks are gone may never return: then the
    /// thread is left in it, with what it needs.
    ~Averages() {
        std::unique_lock<std::mutex> lock(state_->mutex);
        state_->ending = true;
        state_->queue.clear();
        state_->changed.notify_all();
        const bool idle = state_->changed.wait_for(lock, grace, [this] { return !state_->working; });
        lock.unlock();
        if (idle)
            thread_.join();
        else
            thread_.detach();
    }
    Averages(const Averages&) = delete;
    Averages& operator=(const Averages&) = delete;

    void begin(const Tensor& values) {
        const std::lock_guard<std::mutex> lock(state_->mutex);
        state_->queue.push_back(values);
        state_->changed.notify_all();
    }

    bool idle() const {
        const std::lock_guard<std::mutex> lock(state_->mutex);
        return state_->queue.empty() && !state_->working;
    }

    /// Throws what one of them has thrown; those after it were not begun.
    void finish() {
        std::unique_lock<std::mutex> lock(state_->mutex);
        state_->changed.wait(lock, [this] { return state_->failure || (state_->queue.empty() && !state_->working); });
        if (state_->failure) std::rethrow_exception(state_->failure);
    }

  private:
    static constexpr std::chrono::seconds grace{1};

    struct State {
        ContextPtr context;
        std::mutex mutex;
        std::condition_variable changed;
        std::deque<Tensor> queue;
        bool working = false, ending = false;
        std::exception_ptr failure;

        void run() {
            pthread_setname_np(pthread_self(), "rn50-averages");
            sigset_t all;  // Ctrl-C is for the main thread
            sigfillset(&all);
            pthread_sigmask(SIG_BLOCK, &all, nullptr);
            std::unique_lock<std::mutex> lock(mutex);
            for (uint32_t tag = 0;; ++tag) {
                changed.wait(lock, [this] { return ending || (!queue.empty() && !failure); });
                if (ending) return;
                const Tensor values = queue.front();
                queue.pop_front();
                working = true;
                lock.unlock();
                std::exception_ptr thrown;
                try {
                    average(context, values, tag);
                } catch (...) {
                    thrown = std::current_exception();
                }
                lock.lock();
                failure = thrown;
                working = false;
                changed.notify_all();
            }
        }
    };

    std::shared_ptr<State> state_;
    std::thread thread_;
};

class GlooCollectives : public Collectives {
  public:
    GlooCollectives(StoreClient& store, const Place& place, milliseconds patience)
        : context_(std::make_shared<gloo::rendezvous::Context>(place.rank, place.size)) {
        gloo::transport::tcp::attr here;
        here.hostname = store.local_address();  // the interface that reaches rank 0
        std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(here);
        Rendezvous rendezvous(store, patience);
        context_->setTimeout(patience);
        context_->connectFullMesh(rendezvous, device);
        context_->setTimeout(no_limit);
        averages_ = std::make_unique<Averages>(context_);
    }

    ~GlooCollectives() override {
        // Only now, and not at the orderly end, is anything still under way.
        if (!averages_->idle()) abort();
    }

    std::string name() const override { return gloo_version(); }

    void begin_average(const Tensor& values) override {
        if (values.count() > 0) averages_->begin(values);
    }

    void finish_averages() override { averages_->finish(); }

    void broadcast(const Tensor& values) override {
        if (values.count() == 0) return;
        gloo::BroadcastOptions options(context_);
        options.setOutput(static_cast<char*>(values.data), static_cast<size_t>(values.bytes()));
        options.setRoot(0);
        options.setTag(++tag_);
        gloo::broadcast(options);
    }

    void gather(const Tensor& mine, const Tensor& all) override { gather_host(mine.data, mine.bytes(), all.data); }

    void gather_host(const void* mine, int64_t bytes, void* all) override {
        if (bytes == 0) return;
        gloo::AllgatherOptions options(context_);
        options.setInput(static_cast<char*>(const_cast<void*>(mine)), static_cast<size_t>(bytes));
        options.setOutput(static_cast<char*>(all), static_cast<size_t>(bytes * context_->size));
        options.setTag(++tag_);
        gloo::allgather(options);
    }

    /// Added in the order of the ranks.
    void sum_host(double* numbers, int64_t count) override {
        std::vector<double> all(static_cast<size_t>(count * context_->size));
        gather_host(numbers, count * int64_t{sizeof(double)}, all.data());
        std::fill_n(numbers, count, 0.0);
        for (size_t i = 0; i < all.size(); ++i)
            numbers[i % static_cast<size_t>(count)] += all[i];
    }

    void abort() override { context_->closeConnections(); }

  private:
    ContextPtr context_;
    uint32_t tag_ = 0;  ///< of the collectives of the thread that trains
    std::unique_ptr<Averages> averages_;
};

}  // namespace

std::string gloo_version() {
    return cat("Gloo ", GLOO_VERSION_MAJOR, ".", GLOO_VERSION_MINOR, ".", GLOO_VERSION_PATCH);
}

std::unique_ptr<Collectives> make_gloo(StoreClient& store, const Place& place, milliseconds patience) {
    try {
        return std::make_unique<GlooCollectives>(store, place, patience);
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw Error(Exit::peer_lost, cat("the ranks do not reach each other: ", error.what()),
                    "see whether a firewall is between their hosts");
    }
}

#else

std::string gloo_version() {
    return "";
}

std::unique_ptr<Collectives> make_gloo(StoreClient&, const Place&, std::chrono::milliseconds) {
    require_gloo();
    return nullptr;
}

#endif

void require_gloo() {
    if (gloo_version().empty())
        throw Error(Exit::device, "several ranks on CPUs need Gloo, which this build lacks",
                    cat("install it and build anew: ", install_command("libgloo-dev", "gloo-devel"), " && make"));
}

}  // namespace rn50
