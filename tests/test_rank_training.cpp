// Training in several ranks, here threads of one process: the same as one rank with all of the batch.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <mutex>
#include <thread>

#include "base/random.h"
#include "rank_support.h"
#include "train/averaging.h"
#include "train/trainer.h"

using namespace rn50;
using std::chrono::milliseconds;

namespace {

/// What one run of `ranks` trainers ends with: rank 0's parameters, and the mean loss of each step.
struct Trained {
    std::vector<float> parameters, losses;
};

struct Shards {
    int ranks = 1;
    bool sync = true;
    bool same = false;  ///< every rank takes the first part
    int64_t bucket_bytes = 0;
    DType wire = DType::f32;
    EngineMaker engine = make_gloo;
    int64_t accumulate = 1;
    bool copies = false;    ///< the second half of a step's pictures are those of the first, with labels of their own
    bool weighted = false;  ///< classes have weights
    bool mixed = false;     ///< pictures have second labels
};

constexpr int64_t steps = 3;

/// Some steps of SGD over the same eight pictures a step, however many ranks share them.
Trained trained(const Shards& how) {
    constexpr int64_t global = 8, side = 32, classes = 5;
    const int64_t batch = global / (how.ranks * how.accumulate);
    Trained result;
    result.losses.resize(steps);
    std::mutex mutex;
    const auto work = [&](Communicator* comm) {
        const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
        TrainerOptions options;
        options.net.model = "resnet18";
        options.net.classes = classes;
        options.net.image_size = side;
        options.net.batch = batch;
        options.net.dropout = 0.3f;
        options.optimizer.kind = OptimizerDesc::Kind::sgd;
        options.seed = 3;
        options.comm = comm;
        options.sync_norm = how.sync;
        options.bucket_bytes = how.bucket_bytes;
        options.wire = how.wire;
        options.net.accumulate = how.accumulate;
        options.mixed = how.mixed;
        if (how.weighted) options.class_weights = {0.25f, 1, 2, 0.5f, 4};
        Arena arena(backend->memory(), plan_memory(*backend, options).peak);
        Trainer trainer(*backend, arena, options);
        trainer.initialize();
        trainer.follow_rank_0();
        const int64_t rank = comm == nullptr || how.same ? 0 : comm->rank();
        for (int64_t step = 0; step < steps; ++step) {
            for (int64_t part = 0; part < how.accumulate; ++part) {
                std::vector<uint8_t> pictures;
                std::vector<int32_t> labels, partners;
                const int64_t first = (part * how.ranks + rank) * batch;
                for (int64_t i = first; i < first + batch; ++i) {
                    const auto random_of = [&](int64_t of) {
                        return Random(1, static_cast<uint32_t>(step), static_cast<uint64_t>(of), Purpose::demo);
                    };
                    labels.push_back(static_cast<int32_t>(random_of(1000 + i).below(classes)));
                    partners.push_back(static_cast<int32_t>(random_of(2000 + i).below(classes)));
                    Random random = random_of(how.copies ? i % (global / 2) : i);
                    for (int64_t p = 0; p < side * side * 3; ++p)
                        pictures.push_back(static_cast<uint8_t>(random.u32() >> 24));
                }
                HostBatch host{pictures.data(), labels.data(), nullptr, 1};
                if (how.mixed) host.partners = partners.data(), host.share = 0.7f;
                trainer.step(host, step, 1e-3, part);
            }
            const double loss = trainer.result().loss;
            const std::lock_guard<std::mutex> lock(mutex);
            result.losses[static_cast<size_t>(step)] += static_cast<float>(loss / how.ranks);
        }
        std::vector<float> parameters(static_cast<size_t>(trainer.net().state().parameters.count()));
        trainer.backend().copy_out(trainer.context(), trainer.net().state().parameters, parameters.data());
        if (comm != nullptr) {
            std::vector<float> all(parameters.size() * static_cast<size_t>(how.ranks));
            const Tensor& mine = trainer.net().state().parameters;
            comm->gather(mine, {all.data(), DType::f32, {how.ranks, mine.count()}});
            CHECK(std::equal(parameters.begin(), parameters.end(), all.begin()));  // the same bits on all ranks
            comm->leave();
        }
        if (comm == nullptr || comm->rank() == 0) result.parameters = parameters;
    };
    if (how.ranks == 1)
        work(nullptr);
    else
        in_ranks(
            how.ranks, milliseconds(30000), [&](Communicator& comm) { work(&comm); }, how.engine);
    return result;
}

/// Relative distance of what training has changed.
double distance(const Trained& a, const Trained& b, const Trained& start) {
    double difference = 0, change = 0;
    for (size_t i = 0; i < a.parameters.size(); ++i) {
        difference += std::pow(static_cast<double>(a.parameters[i] - b.parameters[i]), 2);
        change += std::pow(static_cast<double>(b.parameters[i] - start.parameters[i]), 2);
    }
    return std::sqrt(difference / change);
}

Trained untrained() {
    const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
    NetDesc desc;
    desc.model = "resnet18";
    desc.classes = 5;
    desc.image_size = 32;
    desc.batch = 2;
    return {make_net(*backend, desc)->table().initial_values(3), {}};
}

}  // namespace

TEST_CASE("ranks that share a batch train as one rank with all of it; two that should differ do") {
    if (gloo_version().empty()) return;
    const Trained start = untrained(), one = trained({1});
    REQUIRE(start.parameters.size() == one.parameters.size());
    for (const int ranks : {2, 4}) {
        const Trained shared = trained({ranks, true});
        for (size_t step = 0; step < steps; ++step)
            CHECK(shared.losses[step] == doctest::Approx(one.losses[step]).epsilon(1e-4));
        const double far = distance(shared, one, start);
        CAPTURE(far);
        CHECK(far < 1e-3);
    }
    CHECK(distance(trained({2, false}), one, start) > 0.05);
    CHECK(distance(trained({2, true, true}), one, start) > 0.05);
}

TEST_CASE("ranks that share a batch train as one where classes have weights and pictures a second label") {
    if (gloo_version().empty()) return;
    const Trained start = untrained(), plain = trained({1});
    for (const bool mixed : {false, true}) {
        Shards how;
        how.weighted = true;
        how.mixed = mixed;
        const Trained one = trained(how);
        how.ranks = 2;
        const Trained shared = trained(how);
        for (size_t step = 0; step < steps; ++step)
            CHECK(shared.losses[step] == doctest::Approx(one.losses[step]).epsilon(1e-4));
        CHECK(distance(shared, one, start) < 1e-3);
        CHECK(distance(plain, one, start) > 0.05);
    }
}

// Batch norm couples the pictures of a batch, so batches that are added up are not one large batch; but where the
// second half of the large one are the same pictures, with other labels and other dropout, both see the same
// statistics, and all gradients are the same.
TEST_CASE("gradients added up over batches are those of one batch of all, where batch norm sees the same") {
    const Trained start = untrained();
    for (const bool weighted : {false, true}) {
        Shards how;
        how.copies = true;
        how.weighted = weighted;
        const Trained large = trained(how);
        how.accumulate = 2;
        for (const int ranks : {1, 2}) {
            if (ranks > 1 && gloo_version().empty()) continue;
            CAPTURE(ranks);
            how.ranks = ranks;
            const Trained added = trained(how);
            for (size_t step = 0; step < steps; ++step)
                CHECK(added.losses[step] == doctest::Approx(large.losses[step]).epsilon(1e-4));
            const double far = distance(added, large, start);
            CAPTURE(far);
            CHECK(far < 1e-3);
        }
        how.ranks = 1;
        how.weighted = !weighted;
        CHECK(distance(trained(how), large, start) > 0.05);
    }
}

TEST_CASE("running statistics move once for each batch of a step, in order, and not at all when it is skipped") {
    const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
    for (const bool skipped : {false, true}) {
        TrainerOptions options;
        options.net.model = "resnet18";
        options.net.classes = 5;
        options.net.image_size = 32;
        options.net.batch = 2;
        options.net.accumulate = 3;
        options.net.precision = Precision::fp32;
        if (skipped) options.loss_scale = 3e38f;
        Arena arena(backend->memory(), plan_memory(*backend, options).peak);
        Trainer trainer(*backend, arena, options);
        trainer.initialize();
        const NetState& state = trainer.net().state();
        const auto values = [&](const Tensor& tensor) {
            return std::vector<float>(tensor.as<float>(), tensor.as<float>() + tensor.count());
        };
        const std::vector<float> parameters = values(state.parameters);
        std::vector<float> expected = values(state.running);
        for (int64_t part = 0; part < 3; ++part) {
            std::vector<uint8_t> pictures(2 * 32 * 32 * 3);
            for (size_t i = 0; i < pictures.size(); ++i)
                pictures[i] = static_cast<uint8_t>((i * static_cast<size_t>(37 + part)) % 251);
            const int32_t labels[] = {1, 3};
            trainer.step({pictures.data(), labels, nullptr, 1}, 0, 1e-3, part);
        }
        CHECK(trainer.result().state.skip == static_cast<int32_t>(skipped));
        CHECK((values(state.parameters) == parameters) == skipped);
        const std::vector<float> observed = values(state.observed);
        REQUIRE(observed.size() == 3 * expected.size());
        for (size_t part = 0; part < 3 && !skipped; ++part)
            for (size_t i = 0; i < expected.size(); ++i)
                expected[i] += 0.1f * (observed[part * expected.size() + i] - expected[i]);
        double worst = 0;
        const std::vector<float> got = values(state.running);
        for (size_t i = 0; i < got.size(); ++i)
            worst = std::max(worst, static_cast<double>(std::abs(got[i] - expected[i])));
        CHECK(worst < 1e-5);
    }
}

namespace {

/// Gloo, with pauses before its averages begin and after they do; at_once: each is finished before the next.
class Paced : public Collectives {
  public:
    Paced(std::unique_ptr<Collectives> engine, int rank, bool at_once)
        : engine_(std::move(engine)), rank_(rank), at_once_(at_once) {}
    std::string name() const override { return engine_->name(); }
    void begin_average(const Tensor& values) override {
        ++averages;
        if (at_once_) {
            engine_->begin_average(values);
            engine_->finish_averages();
            return;
        }
        const auto pause = [&] {
            Random random(7, static_cast<uint32_t>(rank_), calls_++, Purpose::demo);
            std::this_thread::sleep_for(milliseconds(random.below(8)));
        };
        pause();
        engine_->begin_average(values);
        pause();
    }
    void finish_averages() override { engine_->finish_averages(); }
    void broadcast(const Tensor& values) override { engine_->broadcast(values); }
    void gather(const Tensor& mine, const Tensor& all) override { engine_->gather(mine, all); }
    void gather_host(const void* mine, int64_t bytes, void* all) override {
        ++waits_of_hosts;
        engine_->gather_host(mine, bytes, all);
    }
    void sum_host(double* numbers, int64_t count) override {
        ++waits_of_hosts;
        engine_->sum_host(numbers, count);
    }
    void abort() override { engine_->abort(); }

    static std::atomic<int> averages, waits_of_hosts;

  private:
    std::unique_ptr<Collectives> engine_;
    int rank_;
    bool at_once_;
    uint64_t calls_ = 0;
};
std::atomic<int> Paced::averages{0}, Paced::waits_of_hosts{0};

EngineMaker paced(bool at_once) {
    return [at_once](StoreClient& store, const Place& place, milliseconds patience) -> std::unique_ptr<Collectives> {
        return std::make_unique<Paced>(make_gloo(store, place, patience), place.rank, at_once);
    };
}

}  // namespace

TEST_CASE("averages beside the backward pass give the same bits whatever the timing") {
    if (gloo_version().empty()) return;
    const int64_t bucket = int64_t{4} << 20;
    const Trained beside = trained({3, true, false, bucket, DType::f32, paced(false)});
    Paced::averages = 0;
    const Trained at_once = trained({3, true, false, bucket, DType::f32, paced(true)});
    CHECK(Paced::averages > 3 * steps * 5);  // ranks, steps, buckets
    CHECK(beside.parameters == at_once.parameters);
}

TEST_CASE("no host waits for another within a step, with class weights neither") {
    if (gloo_version().empty()) return;
    Shards how{2, false, false, 0, DType::f32, paced(true)};
    int waits[2];
    for (const bool weighted : {false, true}) {
        how.weighted = weighted;
        Paced::waits_of_hosts = 0;
        trained(how);
        waits[weighted] = Paced::waits_of_hosts;
    }
    CHECK(waits[0] > 0);  // at the run's beginning and end
    CHECK(waits[1] == waits[0]);
}

TEST_CASE("gradients that travel in 16 bits train as those in 32, but for their rounding") {
    if (gloo_version().empty()) return;
    const int64_t bucket = int64_t{4} << 20;
    const Trained start = untrained(), in_32 = trained({2, true, false, bucket});
    double far[2];
    for (const DType wire : {DType::f16, DType::bf16}) {
        const Trained in_16 = trained({2, true, false, bucket, wire});
        far[wire == DType::bf16] = distance(in_16, in_32, start);
        CHECK(in_16.losses[steps - 1] == doctest::Approx(in_32.losses[steps - 1]).epsilon(0.01));
    }
    CAPTURE(far[0]);
    CAPTURE(far[1]);
    CHECK(far[0] > 0);
    CHECK(far[0] < far[1] / 2);
    CHECK(far[1] < 0.02);
}

TEST_CASE("the memory plan names what the wire takes") {
    const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
    if (gloo_version().empty()) return;
    in_ranks(2, milliseconds(20000), [&](Communicator& comm) {
        TrainerOptions options;
        options.net.model = "resnet18";
        options.net.classes = 5;
        options.net.image_size = 32;
        options.net.batch = 2;
        options.comm = &comm;
        CHECK(!contains(plan_memory(*backend, options).table(), "on the wire"));
        options.wire = DType::bf16;
        const MemoryPlan plan = plan_memory(*backend, options);
        CHECK(contains(plan.table(), "gradients on the wire"));
        CHECK(plan.by_use[static_cast<size_t>(Use::wire)] * 2 == plan.by_use[static_cast<size_t>(Use::gradients)]);
        comm.leave();
    });
}

TEST_CASE("buckets cover the gradients, are cut between parameters, and are small at both ends") {
    const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
    NetDesc desc;
    desc.classes = 200;
    desc.batch = 2;
    desc.image_size = 32;
    const std::unique_ptr<Net> net = make_net(*backend, desc);
    const ParameterTable& table = net->table();
    const int64_t all = table.parameter_elements();
    CHECK(bucket_bounds(table, 0) == std::vector<int64_t>{all, 0});
    CHECK(bucket_bounds(table, 32 * all) == std::vector<int64_t>{all, 0});
    for (const int64_t elements : {int64_t{1} << 18, int64_t{1} << 20, int64_t{1} << 22}) {
        const std::vector<int64_t> bounds = bucket_bounds(table, elements);
        REQUIRE(bounds.size() >= 4);
        CHECK(bounds.front() == all);
        CHECK(bounds.back() == 0);
        for (size_t i = 1; i < bounds.size(); ++i) {
            CHECK(bounds[i] < bounds[i - 1]);
            CHECK(std::any_of(table.parameters().begin(), table.parameters().end(),
                              [&](const Parameter& parameter) { return parameter.offset == bounds[i]; }));
            const int64_t size = bounds[i - 1] - bounds[i], most = (i == 1 ? elements / 16 : elements) + 512 * 512 * 9;
            CHECK(size < most);
            if (i > 1 && i + 2 < bounds.size()) CHECK(size >= elements);
        }
        CHECK(bounds[bounds.size() - 2] <= elements / 16);
    }
}

TEST_CASE("a backward pass tells of gradients only once they are final") {
    const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
    NetDesc desc;
    desc.classes = 5;
    desc.batch = 2;
    desc.image_size = 32;
    desc.dropout = 0;
    desc.zero_init_residual = false;
    const std::unique_ptr<Net> net = make_net(*backend, desc);
    Arena arena(backend->memory(), int64_t{600} << 20);
    Context ctx{arena, false, nullptr};
    net->allocate(ctx);
    backend->copy_in(ctx, net->table().initial_values(1).data(), net->state().parameters);
    const Scratch pictures(arena, DType::u8, {2, 32, 32, 3}), diff(arena, DType::f32, {2, 5});
    for (int64_t i = 0; i < pictures.tensor().count(); ++i)
        pictures.tensor().as<uint8_t>()[i] = static_cast<uint8_t>(i * 37 % 251);
    for (int64_t i = 0; i < 10; ++i)
        diff.tensor().as<float>()[i] = static_cast<float>(i - 4);
    net->forward(ctx, pictures.tensor(), {});

    const Tensor& gradients = net->state().gradients;
    std::vector<float> told(static_cast<size_t>(gradients.count()));
    std::vector<int64_t> offsets{gradients.count()};
    net->backward(ctx, diff.tensor(), Write::overwrite, [&](int64_t from) {
        REQUIRE(from < offsets.back());
        std::copy(gradients.as<float>() + from, gradients.as<float>() + offsets.back(), told.begin() + from);
        offsets.push_back(from);
    });
    CHECK(offsets.size() == 1 + 18);  // classifier, 16 blocks, stem
    CHECK(offsets.back() == 0);
    CHECK(std::equal(told.begin(), told.end(), gradients.as<float>()));
    CHECK(std::count(told.begin(), told.end(), 0.0f) < static_cast<int64_t>(told.size() / 2));
}
